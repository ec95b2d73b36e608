"""Which route a server has: a short probe with two small prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairway.backends.openai import align, stepwise
from fairway.backends.openai.answer import Answer, Asked, Entry
from fairway.backends.openai.defects import find, refusal
from fairway.backends.openai.routes import ROUTES, Route, Strange, Wish
from fairway.backends.openai.server import Server
from fairway.backends.openai.transport import Link, Refused
from fairway.errors import InputError, ModelError

PROBES = ("One and one is two.", "One and one is four.")
"""The prompts. They begin alike, so that what is told of their common part must be alike."""
TOP = 5
CHAT = "chat"
LEAD = 3
"""Special tokens in front of a prompt, at most."""
WRITE = {"fairway": 0, "openai": 0, "together": 0}
"""Tokens that a request must let a server write; 1 for others: llama-cpp-python takes 0 as all that
there is room for."""
TRIED: Mapping[str, tuple[str, ...]] = {
    "vllm": ("prompt_logprobs", "echo"),
    "sglang": ("sglang", "echo"),
    "tgi": ("tgi",),
    "unknown": ("echo", "prompt_logprobs"),
}
"""Routes in the order in which they are tried; others have echo alone."""
USE: Mapping[str, str] = {
    "llama-server": (
        "llama-server gives log-probabilities of what it writes and none of a prompt. Give the "
        "GGUF file itself (gguf:FILE), serve it with llama-cpp-python (python -m llama_cpp.server "
        "--logits_all true), or ask for --model-arg route=stepwise: a request for each token"
    ),
    "ollama": (
        "Ollama gives log-probabilities of what it writes and none of a prompt. Its models are "
        "GGUF files (ollama show --modelfile NAME names the file): score that with gguf:FILE"
    ),
    "lmstudio": (
        "LM Studio gives none of a prompt. Its models are GGUF files in its models folder: score "
        "those with gguf:FILE"
    ),
    "llama-cpp-python": ("llama-cpp-python gives them where it was started with --logits_all true"),
    "tgi": (
        "TGI gives them by decoder_input_details where its version and model allow it; load the "
        "model with hf:, or serve it with fairway serve"
    ),
    "sglang": "SGLang gives them on /generate with return_logprob; is that path open to you",
    "vllm": "vLLM gives them by prompt_logprobs; is --max-logprobs of the server 0",
}
"""What to use where a server gives no log-probabilities of prompts."""
GENERATED = "or score what the server itself writes: --generated"


class NoPrompt(ModelError):
    """The server gives no log-probabilities of prompts."""


class Wrong(ModelError):
    """The server gives wrong ones."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A route, and what the probe learnt on it.

    Attributes:
        route: how prompts are asked for.
        write: tokens that a request must let the server write.
        lead: special tokens that stand in front of a prompt in its answer.
        hidden: special tokens in front of a prompt that the answer leaves out.
        first: whether a prompt's first token has a log-probability.
        top: whether alternatives are told.
        uncounted: tokens that the server counts in a prompt and its answer leaves out; None = it
            counts none.
        trail: tokens of a chat template behind a text.
    """

    route: Route
    write: int
    lead: tuple[Entry, ...]
    hidden: int
    first: bool
    top: bool
    uncounted: int | None = None
    trail: tuple[Entry, ...] = ()

    @property
    def prefix(self) -> str:
        """What stands before a text: bos, chat, none, or as-server, where that is not told."""
        if self.route.name == CHAT:
            return CHAT
        if self.lead or self.hidden:
            return "bos"
        return "as-server" if self.first else "none"


def ask(link: Link, route: Route, asked: Asked, wish: Wish) -> Answer:
    """Send a prompt and read the answer.

    Raises:
        ModelError: when there is none, or it has no log-probabilities.
    """
    if route.name == stepwise.ROUTE.name:
        return stepwise.ask(link, asked, wish.since)
    answer = route.read(link.post(route.path, route.body(asked, wish)), asked)
    if answer.prompt_tokens is None:
        link.note(len(answer.entries), answer.generated or wish.write)
    return answer


def choose(link: Link, server: Server, only: str | None = None) -> Chosen:
    """Find the route by which a server tells log-probabilities of prompts.

    Args:
        link: to the server.
        server: what it is.
        only: the one route to try.

    Raises:
        InputError: for a route that there is none of.
        NoPrompt: when there is no such route; the sentence says what to use.
        ModelError: when the answers contradict themselves.
    """
    if only == stepwise.ROUTE.name:
        return Chosen(stepwise.ROUTE, 1, (), 0, False, False)
    if only is not None and only not in ROUTES:
        raise InputError(f"route={only} is not known; use {', '.join(ROUTES)} or stepwise.")
    names = (only,) if only is not None else TRIED.get(server.name, ("echo",))
    said = []
    broken: Wrong | None = None
    for name in names:
        route = ROUTES[name]
        try:
            return _try(link, route, server)
        except Wrong as problem:
            broken = broken or problem
        except (Refused, Strange, NoPrompt) as problem:
            if isinstance(problem, Refused) and problem.status in (401, 403):
                raise
            said.append(f"{name}: {problem}")
    if broken is not None:
        raise broken
    way = USE.get(server.name, "Use a server that gives them (fairway serve, vLLM, SGLang)")
    raise NoPrompt(
        f"{link.address.host} ({server.shown}) returns no prompt log-probs. {way}; {GENERATED}. "
        f"[{' | '.join(said)}]"
    )


def _try(link: Link, route: Route, server: Server) -> Chosen:
    """Probe a route; where a server will not write nothing, let it write a token."""
    write = WRITE.get(server.name, 1)
    try:
        return _probe(link, route, server, write)
    except Refused as problem:
        if write or problem.status not in (400, 422):
            raise
    return _probe(link, route, server, 1)


def _probe(link: Link, route: Route, server: Server, write: int) -> Chosen:
    answers = []
    wish = Wish(server.model, TOP, write)
    for text in PROBES:
        asked = Asked(text, None, route.name)
        answer = ask(link, route, asked, wish)
        if not answer.entries:
            raise NoPrompt("the answer holds what was written, and nothing of the prompt")
        answers.append(answer)
    _check_places(answers[0].entries, answers[1].entries, server)
    for text, answer in zip(PROBES, answers, strict=True):
        if route.name == CHAT:
            break  # a template's tokens are more than the prompt
        wrong = refusal(find(Asked(text, None, route.name), answer), "a prompt sent to try it")
        if wrong is not None:
            raise Wrong(wrong)
    lead, trail = 0, 0
    if route.name == CHAT:
        lead, trail = _inside(answers[0].entries, PROBES[0])
    else:
        found = find_lead(answers[0].entries, PROBES[0])
        if found is None:
            align.spans(answers[0].entries, PROBES[0])
        lead = found or 0
    end = len(answers[0].entries) - trail
    one = answers[0].entries[lead:end]
    counted = answers[0].prompt_tokens
    uncounted = None if counted is None else counted - len(answers[0].entries)
    hidden = max(0, uncounted or 0) if not lead else 0
    return Chosen(
        route,
        wish.write,
        tuple(answers[0].entries[:lead]),
        hidden,
        one[0].logprob is not None,
        all(entry.top for entry in one[1:]),
        uncounted,
        tuple(answers[0].entries[end:]),
    )


def find_lead(entries: Sequence[Entry], text: str) -> int | None:
    """Say how many special tokens stand in front of a text's; None where its tokens do not fit."""
    for lead in range(min(LEAD, len(entries) - 1) + 1):
        try:
            align.spans(entries[lead:], text)
        except align.Lossy:
            continue
        return lead
    return None


def _inside(entries: Sequence[Entry], text: str) -> tuple[int, int]:
    """Say how many tokens of a chat template stand before and behind a text.

    Raises:
        NoPrompt: when the text is not among them, or in several places.
    """
    found = []
    spelled = [one.token is not None or one.raw is not None for one in entries]
    for lead in (place for place, known in enumerate(spelled) if known):
        for end in range(lead + 1, len(entries) + 1):
            try:
                align.spans(entries[lead:end], text)
            except align.Lossy:
                continue
            found.append((lead, len(entries) - end))
    if len(found) != 1:
        raise NoPrompt(f"the probe's text is in {len(found)} places of the chat's tokens, not in 1")
    return found[0]


def _check_places(one: Sequence[Entry], other: Sequence[Entry], server: Server) -> None:
    """Hold the alternatives behind the prompts' common beginning against each other.

    The distribution at the first token in which the prompts differ is told by what both have in
    common. Where it differs, the server gives each token the distribution behind it: llama-cpp-
    python does so with models that have no BOS.

    Raises:
        ModelError: when they differ.
    """
    pairs = zip(one, other, strict=False)
    place = next((n for n, (a, b) in enumerate(pairs) if a.token != b.token or a.id != b.id), None)
    if place is None or place == 0 or not (one[place].top and other[place].top):
        return
    own = {one[place].token, other[place].token, str(one[place].id), str(other[place].id)}
    first = {k: v for k, v in one[place].top.items() if k not in own and k}
    second = {k: v for k, v in other[place].top.items() if k not in own and k}
    shared = first.keys() & second.keys()
    apart = max((abs(first[key] - second[key]) for key in shared), default=None)
    if (first and second and not shared) or (apart is not None and apart > 0.1):
        raise ModelError(
            f"{server.shown} gives wrong log-probabilities: behind the same words the "
            f"alternatives at token {place + 1} depend on that token itself, so each token has the "
            "probability of the place behind it. llama-cpp-python does so with models without BOS; "
            "score the file itself with gguf:FILE, or use another server."
        )
