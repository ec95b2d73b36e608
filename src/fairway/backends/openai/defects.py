"""What is wrong with a server's answer for a prompt, told from that answer alone.

Each check looks for one thing that engines are known to do and gives its figures. What makes a
number wrong is refused; the rest is said. What only several requests show is in
`fairway.backends.openai.pairs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from fairway.backends.openai import alternatives, covering
from fairway.backends.openai.answer import Answer, Asked
from fairway.backends.openai.defect import Defect

__all__ = ["CHECKS", "Defect", "find", "refusal"]

ZERO = 1e-9
"""Nats below which a surprisal counts as none."""
MANY, SHARE = 32, 0.95
"""Tokens from which on zeros are counted by their share, and the share that is suspect."""
OPENING = 8
"""Tokens with which a text begins."""
ROUNDING = 1e-5
"""Nats by which rounding may bring a logprob above 0."""
SENTINEL = -1000.0
"""Nats below which a number is no logprob but a mark: no softmax of a model's logits gives it."""


def find(asked: Asked, answer: Answer) -> tuple[Defect, ...]:
    """Find what is wrong with an answer; nothing, for a right one.

    Args:
        asked: the prompt.
        answer: the server's, what was generated cut off.
    """
    if not answer.entries:
        return _none(asked, answer)
    return tuple(found for check in CHECKS if (found := check(asked, answer)) is not None)


def refusal(found: Sequence[Defect], where: str) -> str | None:
    """Give the sentence with which an answer is refused; None where nothing forbids its use.

    Args:
        found: in the answer.
        where: the text that was asked for.
    """
    wrong = [one for one in found if one.refuse]
    if not wrong:
        return None
    return f"The server's log-probabilities of {where} are wrong: {wrong[0]}"


def _none(asked: Asked, answer: Answer) -> tuple[Defect, ...]:
    if not asked.text and not asked.ids:
        return ()
    if answer.generated:
        return (_generated(f"all {answer.generated} tokens of the answer are generated ones"),)
    return (
        Defect(
            "no log-probabilities", "the answer has none of the prompt's tokens",
            fix="Ask by a route that gives prompt log-probabilities, or use fairway serve.",
            reference="llama.cpp#11346",
        ),
    )  # fmt: skip


def _generated(evidence: str) -> Defect:
    return Defect(
        "generated tokens only", evidence,
        fix="This server takes echo and ignores it; use one that returns prompt log-probabilities "
        "(vLLM, SGLang, llama-cpp-python with logits_all, fairway serve).",
        reference="llama.cpp#27174",
    )  # fmt: skip


def odd(_: Asked, answer: Answer) -> Defect | None:
    """Are there numbers that JSON has not?"""
    strange = [
        repr(one.logprob)
        for one in answer.entries
        if one.logprob is not None and not math.isfinite(one.logprob)
    ]
    seen = (*answer.odd, *strange)
    if not seen:
        return None
    return Defect(
        "infinite numbers", f"{len(seen)} that JSON has not, the first {seen[0]}",
        fix="Sampling filters set tokens to minus infinity; ask without top_p, top_k, min_p and "
        "penalties, or use another route.",
        reference="vLLM#10234, SGLang#5984",
    )  # fmt: skip


def missing(_: Asked, answer: Answer) -> Defect | None:
    """Do tokens lack the key of their logprob?"""
    at = [place for place, one in enumerate(answer.entries) if not one.given and place]
    if not at:
        return None
    return Defect(
        "missing log-probabilities", f"{len(at)} of {len(answer.entries)} tokens have none, the "
        f"first is token {at[0]}; they are not -9999, as some clients read them",
        reference="vLLM, entries without a logprob",
    )  # fmt: skip


def nulls(asked: Asked, answer: Answer) -> Defect | None:
    """Is a logprob null where something stands before the token?"""
    entries = answer.entries
    lead = covering.leading(entries, asked.text)
    at = [place for place, one in enumerate(entries) if one.logprob is None and one.given]
    inside = [place for place in at if place > lead]
    if not inside:
        return None
    if len(at) == len(entries):
        return Defect(
            "no log-probabilities", f"all {len(entries)} are null",
            fix="Ask by a route that gives prompt log-probabilities, or use fairway serve.",
            reference="llama.cpp#11346",
        )  # fmt: skip
    if inside == [len(entries) - 1] and entries[0].logprob is not None:
        return _shifted("the first token has a number and the last has none")
    return Defect(
        "null inside", f"{len(inside)} of {len(entries)} tokens have no number although text "
        f"stands before them, the first is token {inside[0]}",
        fix="Ask for the prompt from its start (SGLang: logprob_start_len 0), or use another "
        "route.",
    )  # fmt: skip


def _shifted(evidence: str) -> Defect:
    return Defect(
        "shifted by one",
        f"{evidence}: each token carries the number of a neighbour",
        reference="llama-cpp-python: echo of models without BOS",
    )


def first(asked: Asked, answer: Answer) -> Defect | None:
    """Has the first token a number that nothing can give it?"""
    entries = answer.entries
    lead = covering.leading(entries, asked.text)
    value = entries[0].logprob
    if value is None or not math.isfinite(value):
        return None
    if lead and entries[lead : lead + 1] and entries[lead].logprob is None:
        return Defect(
            "BOS scored", f"the token {entries[0].token!r} in front of the text has the number "
            f"{value:.6g}, and the text's first has none: numbers and tokens are not of one place",
        )  # fmt: skip
    if lead:
        return Defect(
            "BOS scored", f"the token {entries[0].token!r} in front of the text has the number "
            f"{value:.6g}, although nothing stands before it; it is left out", refuse=False,
            fix="Nothing to do: no number of a text uses it.",
        )  # fmt: skip
    name = "wrong first token"
    if abs(value) < ZERO and len(entries) > 1:
        return Defect(
            name, "the first token has the number 0, which no model gives it",
            fix="Use a server that gives null there, or the number behind a BOS.",
        )  # fmt: skip
    if answer.prompt_tokens is not None and answer.prompt_tokens <= len(entries):
        return Defect(
            name, f"the first token has the number {value:.6g}, and the server counts "
            f"{answer.prompt_tokens} tokens in the prompt, so that nothing stands before it",
            fix="Use a server that gives null there, or the number behind a BOS.",
        )  # fmt: skip
    return None


def sentinels(_: Asked, answer: Answer) -> Defect | None:
    """Do marks stand among the numbers: -9999, the lowest float, other round ones?"""
    marks = [
        one.logprob
        for one in answer.entries
        if one.logprob is not None
        and math.isfinite(one.logprob)
        and (one.logprob < SENTINEL or (one.logprob <= -50 and one.logprob.is_integer()))
    ]
    if not marks:
        return None
    return Defect(
        "clamped log-probabilities", f"{len(marks)} of {len(answer.entries)} tokens have a mark in "
        f"their number's place ({marks[0]:.6g})",
        fix="What such a token costs is not known, and so no sum is; ask without sampling filters, "
        "or use a server that gives the number itself.",
        reference="OpenAI's -9999.0, vLLM#11073, sglang#5761",
    )  # fmt: skip


def positive(_: Asked, answer: Answer) -> Defect | None:
    """Is a probability given as its logarithm?"""
    values = [one.logprob or 0.0 for one in answer.entries]
    high = [value for value in values if value > ROUNDING and math.isfinite(value)]
    if not high:
        return None
    kind = "probabilities" if max(high) <= 1 else "numbers"
    return Defect(
        "positive log-probabilities", f"{len(high)} of {len(answer.entries)} are above 0, up to "
        f"{max(high):.6g}: {kind} in their logarithms' place",
        reference="Ollama's conversion of zeros",
    )  # fmt: skip


def zeros(asked: Asked, answer: Answer) -> Defect | None:
    """Is every number 0?

    From 32 tokens on, more than 95% of surprisals below 1e-9 are suspect; fewer tokens are where
    all are. A model that is sure of a repeated text was not sure of it at first: where the first
    numbers, or those of tokens that come up for the first time, are mostly not 0, it is sure.
    """
    lead = covering.leading(answer.entries, asked.text)
    scored = [
        one
        for one in answer.entries[lead:]
        if one.logprob is not None and math.isfinite(one.logprob)
    ]
    if len(scored) < 2:
        return None
    none = [abs(one.logprob or 0.0) < ZERO for one in scored]
    if sum(none) < (len(none) if len(none) < MANY else SHARE * len(none)):
        return None
    known: set[object] = set()
    fresh = []
    for one, zero in zip(scored, none, strict=True):
        key = one.id if one.id is not None else one.token
        if key not in known:
            fresh.append(zero)
        known.add(key)
    varied = len(fresh) >= MANY and 2 * sum(fresh) >= len(fresh)
    if not all(none) and not all(none[:OPENING]) and not varied:
        return None
    return Defect(
        "all zeros", f"{sum(none)} of {len(none)} numbers are 0: certainty that no model has",
        fix="Turn speculative decoding off, ask with temperature 1, or use another route.",
        reference="llama.cpp#27972, sglang#5761",
    )  # fmt: skip


def counts(asked: Asked, answer: Answer) -> Defect | None:
    """Are there as many numbers as tokens?"""
    entries, told = len(answer.entries), answer.prompt_tokens
    if asked.ids is not None:
        known = [one.id for one in answer.entries]
        if None not in known and not _same(known, asked.ids):
            return _listing(known, asked.ids)
        least = len(asked.ids)
    elif told is not None:
        hidden = asked.hidden
        if hidden is None:
            # A BOS may be counted and not listed.
            hidden = int(not covering.leading(answer.entries, asked.text))
        least = told - hidden
    else:
        return None
    if entries >= least:
        return None
    return Defect(
        "lost tokens", f"the prompt has {least if asked.ids else told} tokens and the answer "
        f"numbers of {entries}",
        fix="Characters of several tokens, or the prompt's start, are left out; use a server that "
        "returns every token of the prompt.",
        reference="llama.cpp PR#18454: tokens that end inside a character",
    )  # fmt: skip


def _same(known: Sequence[int | None], ids: Sequence[int]) -> bool:
    return any(tuple(known[skip:]) == tuple(ids) for skip in (0, 1, 2))


def _listing(known: Sequence[int | None], ids: Sequence[int]) -> Defect:
    sent, got = tuple(ids), tuple(known)
    evidence = f"{len(sent)} token ids were sent, and the {len(got)} that came back are not those"
    if got == sent + sent:
        return _twice(evidence)
    if got and len(got) < len(sent):
        return _truncated(evidence, "part of it")
    return _other(evidence)


def text(asked: Asked, answer: Answer) -> Defect | None:
    """Do the answer's tokens make up the prompt?"""
    if not asked.text:
        return None
    starts = [one.start for one in answer.entries if one.start is not None]
    verdict = covering.covers(answer.entries, asked.text)
    echoed = answer.echoed
    said = f"{len(answer.entries)} tokens came back for a prompt of {len(asked.text)} characters"
    if verdict in (covering.WHOLE, covering.UNKNOWN):
        if starts and min(starts) > 0 and verdict == covering.UNKNOWN:
            return _truncated(f"the first token begins at character {min(starts)}", "its end")
        return None
    if verdict == covering.TWICE:
        return _twice(f"{said}, some of them repeated")
    if verdict in (covering.HEAD, covering.TAIL):
        part = "its end" if verdict == covering.HEAD else "its beginning"
        return _truncated(said, part)
    if verdict in (covering.BYTES, covering.MIDDLE):
        return Defect(
            "lost bytes", f"{said}, and characters of it are in none of them",
            fix="Use a server that returns every token of the prompt.",
            reference="llama.cpp: tokens that end inside a character",
        )  # fmt: skip
    if verdict == covering.SURPLUS:
        return Defect("more than the prompt", f"{said}, more than the prompt holds")
    if echoed is not None and not echoed.lstrip().startswith(asked.text.strip()[:64]):
        return _generated(f"{said}, and its text is not in what the server gave back")
    return _other(f"{said}, and they spell another text")


def _truncated(evidence: str, part: str) -> Defect:
    return Defect(
        "truncated prompt", f"{evidence}: the server read only {part}",
        fix="Give --max-length below the server's context length (llama-server: -c, Ollama: "
        "num_ctx, both per slot).",
        reference="llama-server and Ollama cut long prompts",
    )  # fmt: skip


def _twice(evidence: str) -> Defect:
    return Defect("repeated tokens", evidence, reference="OpenAI Responses: delta and done")


def _other(evidence: str) -> Defect:
    return Defect(
        "another prompt's answer", evidence,
        fix="Send one prompt in a request, or use another server.",
    )  # fmt: skip


def spelling(asked: Asked, answer: Answer) -> Defect | None:
    """Are tokens spelled with replacement characters?"""
    count = covering.replaced(answer.entries, asked.text or "")
    if not count:
        return None
    return Defect(
        "replacement characters", f"{count} of {len(answer.entries)} tokens are spelled with "
        "U+FFFD, so that their bytes are not told", refuse=False,
        fix="Where such tokens cannot be placed in the text, the text is refused.",
        reference="vLLM#19177, vLLM#27300",
    )  # fmt: skip


CHECKS: tuple[Callable[[Asked, Answer], Defect | None], ...] = (
    odd, missing, text, counts, nulls, sentinels, positive, zeros, first, alternatives.sums,
    alternatives.chosen, spelling,
)  # fmt: skip
"""Every check, those that explain others first."""
