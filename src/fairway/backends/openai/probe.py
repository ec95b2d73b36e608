"""Examine a server: which routes give a prompt's log-probabilities, and whether these are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fairway.backends.openai import address, choose, pairs, server
from fairway.backends.openai.answer import Answer, Asked
from fairway.backends.openai.defect import Defect
from fairway.backends.openai.defects import find
from fairway.backends.openai.pairs import Case
from fairway.backends.openai.routes import ROUTES, Route, Wish
from fairway.backends.openai.server import Server
from fairway.backends.openai.transport import Link, Refused
from fairway.errors import FairwayError, InputError, ModelError
from fairway.finding import Finding

SENTENCE = "The ferry to the island leaves at nine, and it comes back in the afternoon."
TEXTS: Mapping[str, str] = {
    "plain English": SENTENCE,
    "emoji": "Good morning \U0001f600 and \U0001f469\u200d\U0001f467, see you \U0001f30d.",
    "Chinese and Japanese": "\u4eca\u65e5\u306f\u6674\u308c\u3002 \u4f60\u597d\uff0c\u4e16\u754c",
    "combining marks": "cafe\u0301 nai\u0308ve, \u0e19\u0e49\u0e33",
    "blank first": "  two blanks stand before this",
    "blank last": "a blank and a line break end this \n",
    "one word repeated": "ha " * 60,
    "long": " ".join(f"{SENTENCE} ({n})" for n in range(1, 9)),
}
"""Prompts whose answers are examined."""
SAID = 3
"""Requests that are repeated where no whole answer came, at most."""


def examine(
    name: str,
    *,
    server_name: str | None = None,
    key: str | None = None,
    only: str | None = None,
    timeout: float = 60.0,
    load: Callable[[], Any] | None = None,
) -> list[Finding]:
    """Ask a server a few dozen short prompts and say what is right, wrong, and to be used.

    Args:
        name: ``MODEL@URL``.
        server_name: what the server is; None = it is found out.
        key: name of the environment variable with its key.
        only: the one route to examine.
        timeout: seconds without a byte after which a request is given up.
        load: loads the scorer, to say at the end whether it can be used; None = that is not said.

    Raises:
        InputError: for an address that is none.
        ModelError: when nobody answers there.
    """
    if only is not None and only not in ROUTES:
        raise InputError(f"route={only} cannot be examined; use one of {', '.join(ROUTES)}.")
    place = address.parse(name, server_name, key)
    link = Link(place, timeout=timeout, retries=SAID)
    try:
        found = server.find(link, place)
        out = [_introduced(found)]
        tried = {route: _try(link, ROUTES[route], found) for route in _order(found, only)}
        out += [_told(route, answer) for route, answer in tried.items()]
        works = [route for route, answer in tried.items() if isinstance(answer, Answer)]
        if works:
            out += _examined(link, ROUTES[works[0]], found)
        why = [f"{name}: {one}" for name, one in tried.items() if isinstance(one, str)]
        out.append(_use(link, found, works, [one for one in why if "HTTP 40" not in one], load))
        return out
    finally:
        link.close()


STILL = (pairs.echoed, pairs.drawn)
"""Checks that mean something where the same prompt gives other numbers the next time."""


def _introduced(found: Server) -> Finding:
    length = f"reads {found.positions:,} tokens" if found.positions else "does not tell its length"
    return Finding(
        "server", "ok", f"{found.shown}; model {found.model or '(unnamed)'}, which {length}"
    )


def _order(found: Server, only: str | None) -> list[str]:
    if only is not None:
        return [only]
    first = choose.TRIED.get(found.name, ("echo",))
    return [*first, *(name for name in ROUTES if name not in first and name != "chat")]


def _try(link: Link, route: Route, found: Server) -> Answer | str:
    """Ask by a route; gives the answer, or why there is none of the prompt."""
    asked = Asked(choose.PROBES[0], None, route.name)
    body = pairs.heated(route.body(asked, Wish(found.model, 1, 1)), 1.0)
    try:
        answer = route.read(link.post(route.path, body, 1), asked)
    except Refused as problem:
        return f"HTTP {problem.status}" if problem.status in (404, 405) else str(problem)
    except ModelError as problem:
        return str(problem)
    if any(one.refuse for one in find(asked, answer) if one.name in NONE):
        return "it answers, with nothing of the prompt"
    return answer


NONE = ("no log-probabilities", "generated tokens only")
"""Defects by which a route is none."""


def _told(route: str, answer: Answer | str) -> Finding:
    if isinstance(answer, str):
        return Finding(f"route {route}", "skipped", answer)
    numbers = sum(one.logprob is not None for one in answer.entries)
    return Finding(
        f"route {route}", "ok", f"{len(answer.entries)} tokens of the prompt, {numbers} with a "
        "number",
    )  # fmt: skip


def _examined(link: Link, route: Route, found: Server) -> list[Finding]:
    """Run every check by one route."""
    case = Case(link, route, found.model, 1, pairs.room(found.positions))
    try:
        pairs.settle(case)
    except ModelError as problem:
        return [Finding("prompts", "defect", str(problem), "Use another route or server.")]
    out = [_prefix(case)]
    for kind, text in TEXTS.items():
        out.append(_guarded(f"text: {kind}", partial(_text, case, text[: case.room])))
    out.append(_guarded("text: empty", partial(_empty, case)))
    restless = False
    for name, check in {**pairs.PAIRS, **pairs.FURTHER}.items():
        if restless and check not in STILL:
            out.append(Finding(name, "skipped", "numbers change from request to request anyhow"))
            continue
        out.append(_guarded(name, partial(_checked, case, name, check)))
        restless |= check is pairs.steady and out[-1].outcome == "defect"
    return out


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        finding = check()
    except ModelError as problem:
        return Finding(name, "note", f"no answer: {problem}", "What has no answer is not scored.")
    return Finding(name, finding.outcome, finding.evidence, finding.fix)


def _checked(case: Case, name: str, check: Callable[[Case], Defect | None]) -> Finding:
    return _of(name, check(case))


def _of(name: str, defect: Defect | None, fine: str = "nothing found") -> Finding:
    if defect is None:
        return Finding(name, "ok", fine)
    known = f" ({defect.reference})" if defect.reference else ""
    outcome = "defect" if defect.refuse else "note"
    return Finding(name, outcome, f"{defect.name}: {defect.evidence}{known}", defect.fix)


def _text(case: Case, text: str) -> Finding:
    """Examine one prompt's answer by itself."""
    answer = case.ask(text)
    defects = sorted(find(case.asked(text), answer), key=lambda one: not one.refuse)
    if defects:
        worst = _of("", defects[0])
        more = "".join(f"; {one.name}: {one.evidence}" for one in defects[1:])
        return Finding("", worst.outcome, worst.evidence + more, worst.fix)
    size = len(answer.entries)
    if choose.find_lead(answer.entries, text) is None:
        return Finding(
            "", "note", f"{size} tokens, and how they are spelled does not say where in the text "
            "they lie", "Give --model-arg tokenizer=FILE, the model's own tokenizer.json.",
        )  # fmt: skip
    return Finding("", "ok", f"{size} tokens, all of them placed in the text")


def _prefix(case: Case) -> Finding:
    """Say what stands before a text."""
    answer = case.ask(SENTENCE)
    lead = choose.find_lead(answer.entries, SENTENCE) or 0
    name = "before a text"
    if lead:
        return Finding(name, "ok", f"{answer.entries[0].token!r}: the server puts it there")
    if answer.prompt_tokens is not None and answer.prompt_tokens > len(answer.entries):
        scored = "has" if answer.entries[0].logprob is not None else "has no"
        return Finding(
            name, "ok", f"a token that the answer leaves out; the text's first {scored} number"
        )
    if answer.entries[0].logprob is None:
        return Finding(name, "ok", "nothing: the first token has no number")
    return Finding(
        name, "note", "the first token has a number, and what stands before it is not told",
        "Compare only with runs of the same server.",
    )  # fmt: skip


def _empty(case: Case) -> Finding:
    """Ask for nothing: an error is right, an answer without tokens too."""
    try:
        answer = case.ask("")
    except ModelError as problem:
        if isinstance(problem, Refused) and problem.status >= 500:
            return Finding("", "note", str(problem), "No empty text is sent by fairway.")
        return Finding("", "ok", "it is refused")
    return Finding("", "ok", f"{len(answer.entries)} tokens")


def _use(
    link: Link, found: Server, works: list[str], why: list[str], load: Callable[[], Any] | None
) -> Finding:
    """Say what to use."""
    name = "to use"
    if not works:
        way = choose.USE.get(found.name, "Use a server that gives them (fairway serve, vLLM)")
        return Finding(
            name, "defect", "this server returns no prompt log-probabilities by any route"
            + "".join(f"; {one}" for one in why),
            f"{way}; {choose.GENERATED}.",
        )  # fmt: skip
    told = f"--model openai:{found.model}@{link.address.root}"
    if load is None:
        return Finding(name, "ok", f"{told} (route {works[0]})")
    try:
        signature = load().signature
    except InputError:
        raise
    except FairwayError as problem:
        return Finding(name, "defect", str(problem), "Until that is mended, use another server.")
    fields = " ".join(
        f"{key}:{signature.get(key)}"
        for key in ("route", "prefix", "length", "stride")
        if signature.get(key)
    )
    return Finding(name, "ok", f"{told} ({fields})")
