"""The sentences of a text, and each one's sums, which add up to the text's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.scores import Score, Totals
from fairway.statistics import Few, Interval, Moments, intervals
from fairway.text import byte_lengths, close_gaps, mark, word_starts

PLAIN = "a plain rule: behind . ! ? … and their like before a blank, and at every line's end"
ICU = "ICU's sentence breaks"
"""How sentences are found."""

_END = re.compile(
    r"(?:[.!?…‽؟۔।]+[\"'”’»)\]]*(?=\s)|[。！？｡]+[」』”’）]*)\s*|[^\S\r\n]*(?:\r\n|[\n\r\u0085\u2028\u2029])\s*"
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """Successive tokens of a text, and the characters from the first to the next sentence's.

    Attributes:
        start: first character.
        end: one past the last.
        first: first token.
        last: one past the last.
        totals: the sums of its tokens, and the units that these cover.
    """

    start: int
    end: int
    first: int
    last: int
    totals: Totals


@dataclass(frozen=True, slots=True)
class Sentences:
    """A text by sentence.

    Attributes:
        sentences: in their order; every token is in one of them.
        intervals: of the text's ratios, sentences being the clusters, named as for a causal model.
        reason: why there is none; empty where there are.
        rule: by which sentences were found.
    """

    sentences: tuple[Sentence, ...]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    reason: str = ""
    rule: str = PLAIN


def rule() -> str:
    """Say how `bounds` finds sentences here: by ICU where it is installed (extra ``words``)."""
    return ICU if find_spec("icu4py") is not None else PLAIN


def bounds(text: str, by: str | None = None) -> NDArray[np.int64]:
    """Find where sentences begin.

    White space belongs to the sentence before it; what holds nothing else is no sentence.

    Args:
        text: the text.
        by: `ICU` or `PLAIN`; None = `rule`.

    Returns:
        ``(m,)`` rising character positions, the first of them 0; empty for an empty text.
    """
    found = [0] if text else []
    at = 0
    for piece in _icu(text) if (by or rule()) == ICU else _plain(text):
        if at and piece.strip() and text[found[-1] : at].strip():
            found.append(at)
        at += len(piece)
    return np.array(found, dtype=np.int64)


def _icu(text: str) -> list[str]:
    from icu4py.breakers import SentenceBreaker

    return list(SentenceBreaker(text, "und"))


def _plain(text: str) -> list[str]:
    ends = [0, *(match.end() for match in _END.finditer(text)), len(text)]
    return [text[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def by_sentence(score: Score, starts: Sequence[int] | NDArray[np.int64] | None = None) -> Sentences:
    """Part a score's sums by sentence.

    A token belongs to the sentence in which the first of its characters stands that is no white
    space, since most tokenizers put a blank in front of a word; and never to one before that of an
    earlier token. A sentence's characters reach from its first token to the next sentence's, so
    that each character, and each token, is in one sentence: the sentences' counts add up to
    ``score.totals`` exactly, their nats but for rounding.

    Args:
        score: of a text.
        starts: where its sentences begin; None = as `bounds` finds them.

    Returns:
        The sentences, and intervals that take them as clusters. They say how far the number rests
        on single sentences of this text, and nothing of other texts.
    """
    if score.token_bytes is not None:
        return Sentences((), reason="there is no source text, and so there are no sentences")
    if not len(score):
        return Sentences((), reason="no interval: the text has no tokens")
    length = len(score.text)
    closed = close_gaps(score.offsets, length)
    begins = bounds(score.text) if starts is None else np.asarray(starts, dtype=np.int64)
    which = np.searchsorted(begins, _homes(score.text, closed), "right") - 1
    first = np.flatnonzero(np.append(True, which[1:] != which[:-1]))
    last = np.append(first[1:], len(score))
    start = np.append(0, np.minimum.accumulate(closed[::-1, 0])[::-1][first[1:]])
    end = np.append(start[1:], length)
    sums = _sums(score, closed, start, end, first, last)
    rows = [
        Sentence(int(a), int(b), int(i), int(j), one)
        for a, b, i, j, one in zip(start, end, first, last, sums, strict=True)
    ]
    moments, few = Moments(), Few()
    for row in rows:
        part = score.logprobs[row.first : row.last].tolist()
        moments += Moments.of(row.totals, math.fsum(one * one for one in part if one == one))
        few.add(row.totals)
    found = {
        key: one._replace(method=one.method.replace("documents", "sentences"))
        for key, one in intervals(moments, few=few).items()
    }
    n = moments.documents
    reason = "" if found else (
        f"no interval: {n} scored sentence{'s' * (n != 1)}, and the sentence is the unit here; "
        "two are needed"
    )  # fmt: skip
    return Sentences(tuple(rows), found, reason, rule() if starts is None else "as given")


def _homes(text: str, closed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give each token's first character that is no white space, or else its first; never falling.

    Of a token with nothing but white space the first one counts, which ends a sentence.
    """
    blank = np.fromiter((char.isspace() for char in text), dtype=bool, count=len(text))
    places = np.append(np.where(blank, len(text), np.arange(len(text))), len(text))
    following = np.minimum.accumulate(places[::-1])[::-1]
    begin = np.clip(closed[:, 0], 0, len(text))
    inner = following[begin]
    return np.maximum.accumulate(np.where(inner < closed[:, 1], inner, begin))


def _sums(
    score: Score,
    closed: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
) -> list[Totals]:
    """Sum what `Score.totals` sums, between tokens and between characters."""
    done = ~np.isnan(score.logprobs)
    covered = mark(closed[done], len(score.text))
    if score.scored is not None:
        covered &= mark(score.scored, len(score.text))
    opens = np.zeros(len(score.text), dtype=np.int64)
    opens[word_starts(score.text)] = 1

    counts = zip(
        _between(done, first, last),
        _between(score.wanted & ~done, first, last),
        _between(opens * covered, start, end),
        _between(covered, start, end),
        _between(byte_lengths(score.text) * covered, start, end),
        strict=True,
    )
    nlls = [
        -math.fsum(one for one in score.logprobs[a:b].tolist() if one == one)
        for a, b in zip(first, last, strict=True)
    ]
    return [Totals(nll + 0.0, *each, 1) for nll, each in zip(nlls, counts, strict=True)]


def _between(values: NDArray[Any], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> list[int]:
    """Sum counts between places."""
    sums = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    return [int(one) for one in sums[ends] - sums[starts]]
