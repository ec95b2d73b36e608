"""Whether an answer's numbers may be used: what they are, and of which tokens."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fairway.backends.openai import align
from fairway.backends.openai.alternatives import COPIED
from fairway.backends.openai.answer import Answer, Asked, Entry
from fairway.backends.openai.defects import find, refusal
from fairway.backends.openai.server import Server
from fairway.backends.openai.tokens import Coded
from fairway.errors import ModelError

LOWEST = -9998.0
"""At and below it stands a server's word for "not told" (vLLM and OpenAI write -9999)."""
PLACED = (
    "lost bytes", "lost tokens", "truncated prompt", "more than the prompt", "repeated tokens",
    "another prompt's answer", "generated tokens only",
)  # fmt: skip
"""Defects that are ruled out where each token has its place in the text, and none is missing."""


def refuse(asked: Asked, answer: Answer, name: str, known: Collection[str] = ()) -> None:
    """Refuse an answer with a known defect.

    Args:
        asked: the prompt.
        answer: the server's.
        name: of the document.
        known: defects that are ruled out.

    Raises:
        ModelError: naming it, with what was seen.
    """
    wrong = refusal([one for one in find(asked, answer) if one.name not in known], name)
    if wrong is not None:
        raise ModelError(wrong)


def lists(asked: Asked, answer: Answer) -> None:
    """Refuse lists of alternatives that are another token's, where they are asked for.

    Raises:
        ModelError: naming what was seen.
    """
    for one in find(asked, answer):
        if one.name == COPIED:
            raise ModelError(f"The server's alternatives are wrong: {one}")


def sound(answer: Answer, server: Server, since: int = 1) -> None:
    """Refuse an answer whose numbers can be no log-probabilities.

    Args:
        answer: it.
        server: whose it is.
        since: the first token that must have one.

    Raises:
        ModelError: naming the first that is wrong.
    """
    for place, entry in enumerate(answer.entries):
        value = entry.logprob
        if not entry.given or (value is None and place >= since):
            what = "none" if entry.given else "no number"
        elif value is None:
            continue
        elif math.isnan(value) or math.isinf(value):
            what = str(value)
        elif value > 1e-4:
            what = f"{value:.4g}, more than 0"
        elif value <= LOWEST:
            what = f"{value:.6g}, a word for less than is told"
        else:
            continue
        raise ModelError(
            f"{server.shown} gives token {place + 1} of {len(answer.entries)} "
            f"({ascii((entry.token or '')[:30])}) the log-probability {what}; nothing is made up "
            "in its place."
        )


def recounted(answer: Answer, apart: int | None) -> Answer:
    """Give back to the prompt what was cut off too much, by the server's own count.

    llama-cpp-python counts a BOS that it wrote, and has no entry for it.

    Args:
        answer: the server's.
        apart: how many tokens the server counted and did not tell of in the probe.
    """
    told = answer.prompt_tokens
    lost = 0 if told is None or apart is None else told - apart - len(answer.entries)
    if not 0 < lost <= len(answer.rest):
        return answer
    entries = (*answer.entries, *answer.rest[:lost])
    return replace(answer, entries=entries, generated=answer.generated - lost, rest=())


def counted(name: str, asked: Asked, answer: Answer, apart: int | None) -> None:
    """Hold the number of tokens against the server's own count.

    Args:
        name: of the document.
        asked: the prompt.
        answer: the server's.
        apart: how many tokens the server counted and did not tell of in the probe.

    Raises:
        ModelError: when it is another number now; by a known defect's name, where it is one.
    """
    told = answer.prompt_tokens
    if told is not None and apart is not None and told - len(answer.entries) != apart:
        refuse(asked, answer, name)
        raise ModelError(
            f"{name}: the server counts {told:,} tokens in the prompt and tells of "
            f"{len(answer.entries):,}; in the probe it told of {apart} fewer than it counts. The "
            "prompt was cut, or tokens are lost."
        )


def match(sent: Sequence[int], found: Sequence[Entry], name: str) -> None:
    """Hold an answer's ids against those that were sent.

    Raises:
        ModelError: when they differ.
    """
    told = [one.id for one in found]
    if len(told) != len(sent) or any(
        got is not None and got != want for got, want in zip(told, sent, strict=True)
    ):
        raise ModelError(
            f"{name}: {len(sent)} token ids were sent and the answer is of {len(told)} "
            "tokens, or of others; is this the model's own tokenizer?"
        )


def same(coded: Coded, entries: Sequence[Entry], text: str) -> NDArray[np.int64]:
    """Hold an answer against the tokenizer here, and take that one's ``(n, 2)`` spans.

    Raises:
        Lossy: when its tokens are others.
    """
    assert coded.offsets is not None
    place = next(
        (
            n
            for n, (one, own, span) in enumerate(
                zip(entries, coded.ids, coded.offsets.tolist(), strict=False)
            )
            if not _fits(one, own, text[span[0] : span[1]])
        ),
        min(len(entries), len(coded.ids)) if len(entries) != len(coded.ids) else None,
    )
    if place is not None:
        raise align.Lossy(
            f"the server's tokens ({len(entries)}) are not those of the tokenizer that was given "
            f"({len(coded.ids)}), from token {place + 1} on; give the model's own."
        )
    return coded.offsets


def _fits(entry: Entry, own: int, piece: str) -> bool:
    if entry.id is not None:
        return entry.id == own
    token = entry.token or ""
    if not token or any(mark in token for mark in ("\ufffd", "\u2581", "\u0120", "<0x", "bytes:")):
        return True
    return token.strip() in piece or piece.strip() in token
