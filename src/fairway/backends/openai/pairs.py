"""What only several requests show: numbers that depend on what they must not depend on.

A token's number depends on the tokens before it and on nothing else: not on those behind it, not on
requests that came before, not on the temperature, not on prompts in the same request. And what a
server gives the next token when it writes, it must give the same token when it reads it.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairway.backends.openai.answer import Answer, Asked, Entry
from fairway.backends.openai.covering import LOST
from fairway.backends.openai.defect import Defect
from fairway.backends.openai.defects import find, refusal
from fairway.backends.openai.routes import Route, Wish
from fairway.backends.openai.transport import Link, Refused, Reply
from fairway.errors import ModelError

START = "The captain opened the old map and looked for the"
PROMPTS = (f"{START} island in the north.", f"{START}, , 7 7 % of them.")
"""Two prompts that begin alike."""
REPEATED = ", ".join(["one two three"] * 4)
"""A prompt that a model becomes sure of, and that is unlike the others."""
TOPS = (20, 5, 1)
"""Alternatives that are asked for, fewer where the server gives no more."""
NOISE, MEAN = 0.5, 0.1
"""Nats by which one token's number, and the mean of all, may move: half precision moves so much."""
DRAWS = 128
"""Tokens that are drawn to hold the server's probabilities against."""
SURE = 4.5
"""Standard errors from which on drawn tokens contradict their probabilities."""


@dataclass(slots=True)
class Case:
    """A route of a server, under examination.

    Attributes:
        link: to the server.
        route: by which prompts are asked for.
        model: its name there.
        write: tokens that a request must let the server write.
        room: characters of a prompt, at most; a token has at least one.
        top: alternatives that it gives at most.
        hidden: special tokens that it counts and does not list; None = not known.
        answers: kept by prompt, the first of each.
    """

    link: Link
    route: Route
    model: str = ""
    write: int = 1
    room: int = 1 << 16
    top: int = TOPS[0]
    hidden: int | None = None
    answers: dict[str, Answer] = field(default_factory=dict)

    def asked(self, text: str) -> Asked:
        """Give a prompt as it is sent."""
        return Asked(text, None, self.route.name, self.hidden)

    def ask(
        self, text: str, temperature: float = 1.0, again: bool = False, retries: int | None = None
    ) -> Answer:
        """Ask for a prompt's numbers, once for all checks unless it is to be asked again.

        Args:
            text: the prompt.
            temperature: that is asked for.
            again: ask although the answer is there.
            retries: repetitions where no whole answer came; None = the link's own number.

        Raises:
            ModelError: when the server does not give them.
        """
        text = text[: self.room]
        if not again and temperature == 1.0 and text in self.answers:
            return self.answers[text]
        asked = self.asked(text)
        body = self.route.body(asked, Wish(self.model, self.top, self.write))
        reply = self.link.post(self.route.path, heated(body, temperature), retries)
        answer = self.route.read(reply, asked)
        self.answers.setdefault(text, answer)
        return answer

    def written(self, text: str, draws: int = 0) -> list[Mapping[str, Any]] | None:
        """Let the server write a token behind a text, several times; None where it cannot."""
        if not self.route.path.endswith("/completions"):
            return None
        body: dict[str, Any] = {
            "prompt": text, "max_tokens": 1, "temperature": 1, "logprobs": self.top, "stream": False
        }  # fmt: skip
        if self.model:
            body["model"] = self.model
        if draws:
            body["n"] = draws
        try:
            data = self.link.post("/v1/completions", body).data
        except Refused:
            return None
        choices = data.get("choices") if isinstance(data, Mapping) else None
        found = [
            one["logprobs"]
            for one in choices or ()
            if isinstance(one, Mapping) and isinstance(one.get("logprobs"), Mapping)
        ]
        return found if found and all(one.get("tokens") for one in found) else None

    def together(self, texts: Sequence[str]) -> list[Answer] | None:
        """Ask for several prompts in one request; None where the server takes one alone."""
        if self.route.name not in ("echo", "prompt_logprobs"):
            return None
        texts = [text[: self.room] for text in texts]
        body = dict(self.route.body(Asked(texts[0]), Wish(self.model, self.top, self.write)))
        body["prompt"] = list(texts)
        try:
            data = self.link.post(self.route.path, heated(body, 1.0), 1).data
        except ModelError:
            return None
        choices = data.get("choices") if isinstance(data, Mapping) else None
        if not isinstance(choices, list) or len(choices) != len(texts):
            return None
        ordered = sorted(choices, key=lambda one: one.get("index", 0))
        return [
            self.route.read(Reply({"choices": [one]}), self.asked(text))
            for one, text in zip(ordered, texts, strict=True)
        ]


def heated(body: Mapping[str, Any], temperature: float) -> dict[str, Any]:
    """Give a request another temperature, wherever its route writes it."""
    out = copy.deepcopy(dict(body))
    out.get("sampling_params", out)["temperature"] = temperature
    return out


def settle(case: Case) -> None:
    """Find out how many alternatives a server gives.

    Raises:
        ModelError: when it gives no numbers, whatever is asked for.
    """
    for top in TOPS:
        case.top = top
        try:
            # A server may answer 500 where too many are asked for, which is no reason to go on.
            answer = case.ask(PROMPTS[0], again=True, retries=2 if top > TOPS[-1] else None)
            more = (answer.prompt_tokens or 0) - len(answer.entries)
            case.hidden = more if answer.prompt_tokens and more in (0, 1) else None
            return
        except ModelError:
            if top == TOPS[-1]:
                raise


def placed(case: Case) -> Defect | None:
    """Does a token's number depend on what stands behind it, or not on itself?"""
    one, other = (case.ask(text).entries for text in PROMPTS)
    alike = common(one, other)
    if not alike or alike >= min(len(one), len(other)):
        return None
    moved = differences(one[:alike], other[:alike])
    last = abs((one[alike - 1].logprob or 0.0) - (other[alike - 1].logprob or 0.0))
    first, second = one[alike].logprob, other[alike].logprob
    name, known = "shifted by one", "llama-cpp-python: echo of models without BOS"
    if last > NOISE:
        return Defect(
            name, f"token {alike} of two prompts is the same behind the same text, and its number "
            f"differs by {last:.3g} nats: it is that of the token behind it", reference=known,
        )  # fmt: skip
    if first is not None and second is not None and abs(first - second) < 1e-6:
        return Defect(
            name, f"token {alike + 1} of two prompts differs behind the same text, and its number "
            f"is {first:.6g} in both: it is that of the token before it", reference=known,
        )  # fmt: skip
    told = _alternatives(one[alike], other[alike])
    if told is not None and told > NOISE:
        return Defect(
            name, f"behind the same text two prompts' alternatives at token {alike + 1} are up to "
            f"{told:.3g} nats apart: they depend on the token itself", reference=known,
        )  # fmt: skip
    if moved and max(moved) > NOISE:
        return Defect(
            "dependent on what follows", f"of {len(moved)} tokens that two prompts have in common "
            f"one's number differs by {max(moved):.3g} nats",
            fix="The model looks ahead, or answers are mixed up; use another server.",
        )  # fmt: skip
    return None


def _alternatives(one: Entry, other: Entry) -> float | None:
    """Nats between the alternatives of two tokens, their own left out; None where none is shared.

    Lists that share nothing at all are infinitely far apart.
    """
    own = {one.token, other.token, str(one.id), str(other.id), ""}
    first, second = (
        {k: v for k, v in entry.top.items() if k not in own and LOST not in k}
        for entry in (one, other)
    )
    shared = first.keys() & second.keys()
    if not shared:
        return math.inf if min(len(first), len(second)) > 4 else None
    return max(abs(first[key] - second[key]) for key in shared)


def steady(case: Case) -> Defect | None:
    """Are numbers the same when a prompt is asked for again, after another one?"""
    one = case.ask(PROMPTS[0]).entries
    case.ask(REPEATED, again=True)
    other = case.ask(PROMPTS[0], again=True).entries
    # Of a server that is off by one the last number is that of a drawn token: see `placed`.
    moved = differences(one[:-1], other[:-1])
    if len(one) == len(other) and not _apart(moved):
        return None
    most = max(moved, default=math.nan)
    return Defect(
        "dependent on earlier requests", f"the same prompt before and after another: "
        f"{len(one)} and {len(other)} tokens, numbers up to {most:.3g} nats apart",
        fix="Turn prefix caching off (vLLM: --no-enable-prefix-caching).",
        reference="vLLM#42019",
    )  # fmt: skip


def echoed(case: Case) -> Defect | None:
    """Has the next token the same number when it is written and when it is read?"""
    told = case.written(START)
    if not told:
        return None
    top = told[0].get("top_logprobs")
    best = top[0] if isinstance(top, list) and top and isinstance(top[0], Mapping) else {}
    words = {
        token: value
        for token, value in best.items()
        if re.fullmatch(r" [A-Za-z]{2,}", token) and isinstance(value, int | float)
    }
    before = case.ask(START).entries
    for token, value in sorted(words.items(), key=lambda one: -one[1])[:3]:
        entries = case.ask(START + token).entries
        whole = len(entries) == len(before) + 1 and common(entries, before) == len(before)
        if not whole or entries[-1].logprob is None:
            continue
        found = entries[-1].logprob
        if abs(found - value) > NOISE + 0.02 * abs(value):
            return Defect(
                "reading contradicts writing", f"behind {START[-12:]!r} the server writes "
                f"{token!r} with {value:.4g} nats, and reads it with {found:.4g}",
                fix="Its prompt log-probabilities are of another place or scale; use another "
                "server.", reference="llama-cpp-python: echo of models without BOS",
            )  # fmt: skip
        return None
    return None


def tempered(case: Case) -> Defect | None:
    """Do a prompt's numbers change with the temperature?"""
    one = case.ask(PROMPTS[0]).entries
    other = case.ask(PROMPTS[0], temperature=0.5).entries
    moved = differences(one, other)
    if not moved or not _apart(moved):
        return None
    return Defect(
        "scaled by the temperature", f"the same prompt at temperatures 1 and 0.5: numbers up to "
        f"{max(moved):.3g} nats apart", refuse=False,
        fix="Ask with temperature 1, as fairway does (vLLM: --logprobs-mode raw_logprobs).",
        reference="SGLang (vime#64), vLLM#9453",
    )  # fmt: skip


def batched(case: Case) -> Defect | None:
    """Are answers to several prompts of one request those to each by itself?"""
    texts = (PROMPTS[1], REPEATED, PROMPTS[0])
    found = case.together(texts)
    if found is None:
        return None
    for text, answer in zip(texts, found, strict=True):
        mine = [one for one in find(Asked(text), answer) if one.refuse]
        moved = differences(case.ask(text).entries, answer.entries)
        if mine or _apart(moved):
            said = mine[0].evidence if mine else f"numbers up to {max(moved):.3g} nats apart"
            return Defect(
                "mixed up in a request", f"{len(texts)} prompts in one request: {said}",
                refuse=False, fix="Send one prompt in a request, as fairway does.",
            )  # fmt: skip
    return None


def drawn(case: Case) -> Defect | None:
    """Does the server write tokens as often as it says that it does?

    The most likely token, and all of those that are told, are counted among tokens that are drawn
    at temperature 1.
    """
    told = case.written("one two three, one two", DRAWS)
    if not told or len(told) < DRAWS:
        return None
    tops = told[0].get("top_logprobs")
    best = tops[0] if isinstance(tops, list) and tops else None
    if not isinstance(best, Mapping) or not best:
        return None
    # Tokens that are no text may share a spelling, and so a place in the list.
    named = {name: value for name, value in best.items() if name.strip() and LOST not in name}
    ordered = sorted(named.items(), key=lambda one: -one[1])[: case.top]
    if not ordered:
        return None
    tokens = [one["tokens"][0] for one in told]
    for size in {1, len(ordered)}:
        names = {name for name, _ in ordered[:size]}
        expected = min(1.0, math.fsum(math.exp(value) for _, value in ordered[:size]))
        seen = sum(one in names for one in tokens) / len(tokens)
        error = math.sqrt(max(expected * (1 - expected), 1 / len(tokens)) / len(tokens))
        if abs(seen - expected) > SURE * error:
            return Defect(
                "wrong units", f"{len(tokens)} tokens were drawn: the likeliest {size} came up in "
                f"{seen:.0%} of them, and their numbers say {expected:.0%}",
            )  # fmt: skip
    return None


def common(one: Sequence[Entry], other: Sequence[Entry]) -> int:
    """Count the tokens with which two prompts begin alike."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a.token != b.token or a.id != b.id:
            break
        count += 1
    return count


def differences(one: Iterable[Entry], other: Iterable[Entry]) -> list[float]:
    """Nats between two answers' numbers, where both have one."""
    return [
        abs(a.logprob - b.logprob)
        for a, b in zip(one, other, strict=False)
        if a.logprob is not None and b.logprob is not None
    ]


def _apart(moved: Sequence[float]) -> bool:
    return bool(moved) and (max(moved) > NOISE or math.fsum(moved) / len(moved) > MEAN)


PAIRS: Mapping[str, Callable[[Case], Defect | None]] = {
    "the same before and after": steady,
    "each token's own number": placed,
    "reading as writing": echoed,
}
"""Checks that are run before anything is scored."""
FURTHER: Mapping[str, Callable[[Case], Defect | None]] = {
    "no effect of temperature": tempered,
    "several prompts at once": batched,
    "drawn as often as said": drawn,
}
"""Checks that are run besides by the doctor: what they find, scoring does not meet."""


def room(positions: int | None) -> int:
    """Give the characters of a prompt that surely fits into a model, with what is put around it."""
    return max(16, positions - 4) if positions else 1 << 16


def trust(
    link: Link, route: Route, model: str = "", write: int = 1, positions: int | None = None
) -> tuple[Defect, ...]:
    """Examine a route with few requests before its numbers are used.

    Args:
        link: to the server.
        route: by which prompts are asked for.
        model: its name there.
        write: tokens that a request must let the server write.
        positions: tokens that it reads; None = not known.

    Returns:
        What is worth saying.

    Raises:
        ModelError: when its numbers are wrong, naming the defect.
    """
    case = Case(link, route, model, write, room(positions))
    settle(case)
    said: list[Defect] = []
    for check in PAIRS.values():
        found = check(case)
        for text, answer in case.answers.items():
            said += find(case.asked(text), answer)
        said += [found] if found is not None else []
        wrong = refusal(said, "a prompt sent to try it")
        if wrong is not None:
            raise ModelError(wrong)
    return tuple({one.name: one for one in said}.values())
