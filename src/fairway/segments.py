"""Where two models' nats sit in one text: pieces that both tokenizations have whole tokens in.

A piece ends where a token of either model ends and none of the other's goes across. Every token
lies in one piece, so the pieces' nats add up to the text's, and no token is divided by a rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairway.text import byte_lengths, close_gaps


@dataclass(frozen=True, slots=True)
class Tokens:
    """One model's tokens of a text.

    Attributes:
        offsets: ``(n, 2)`` character spans in the text.
        logprobs: ``(n,)`` nats; NaN = not scored.
    """

    offsets: NDArray[np.int64]
    logprobs: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Segments:
    """A text in the smallest pieces that no token of either model goes across.

    Attributes:
        text: the text.
        starts: ``(m,)`` first character of each piece.
        ends: ``(m,)`` one past its last.
        bytes: ``(m,)`` UTF-8 bytes; 0 where a model has not scored the piece.
        places: ``(m,)`` bytes of the text before it.
        first: ``(m,)`` nll of the first model, nats.
        second: ``(m,)`` nll of the second.
    """

    text: str
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    bytes: NDArray[np.int64]
    places: NDArray[np.int64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.starts)

    def pieces(self) -> Iterator[str]:
        """Give the pieces' texts."""
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            yield self.text[start:end]


def _cuts(tokens: Tokens, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find where the tokenization may be cut.

    Returns:
        Places in the text, rising, and for each the number of tokens before it.
    """
    closed = close_gaps(tokens.offsets, length)
    ends = np.maximum.accumulate(closed[:, 1])
    # The least beginning of all later tokens.
    later = np.append(np.minimum.accumulate(closed[::-1, 0])[::-1][1:], length)
    clean = np.flatnonzero(ends <= later)
    places = ends[clean]
    # Of several cuts at one place the last: an empty token goes with what stands before it.
    last = np.append(places[1:] != places[:-1], True) if len(places) else np.zeros(0, bool)
    return places[last], clean[last] + 1


def _sums(
    tokens: Tokens, counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Sum nll between counts of tokens, and say which pieces are scored throughout."""
    done = ~np.isnan(tokens.logprobs)
    begins = np.concatenate(([0], counts[:-1])).astype(np.int64)
    nll = np.where(done, -tokens.logprobs, 0.0)
    sums = np.add.reduceat(nll, begins) if len(begins) else np.zeros(0)
    left = np.concatenate(([0], np.cumsum(~done)))
    return sums, left[counts] == left[begins]


def align(text: str, first: Tokens, second: Tokens) -> Segments:
    """Cut a text where both tokenizations can be cut.

    Args:
        text: the source text.
        first: one model's tokens.
        second: the other's.

    Returns:
        Pieces that cover the text; their nats sum to those of all scored tokens.
    """
    if not len(first.logprobs) or not len(second.logprobs):
        none = np.zeros(0, dtype=np.int64)
        return Segments(text, none, none, none, none, np.zeros(0), np.zeros(0))
    length = len(text)
    (a, count_a), (b, count_b) = _cuts(first, length), _cuts(second, length)
    ends, at_a, at_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    nats_a, whole_a = _sums(first, count_a[at_a])
    nats_b, whole_b = _sums(second, count_b[at_b])
    starts = np.concatenate(([0], ends[:-1])).astype(np.int64)
    before = np.concatenate(([0], np.cumsum(byte_lengths(text))))
    sizes = np.where(whole_a & whole_b, before[ends] - before[starts], 0)
    return Segments(text, starts, ends, sizes, before[starts], nats_a, nats_b)


def of_entry(entry: object) -> tuple[str, Tokens]:
    """Read a text and its tokens from what a run keeps of a document with ``--texts``."""
    assert isinstance(entry, dict)
    rows: Sequence[dict[str, object]] = entry["tokens"]
    offsets = np.array([(row["start"], row["end"]) for row in rows], dtype=np.int64)
    values = [np.nan if row["logprob"] is None else float(str(row["logprob"])) for row in rows]
    return str(entry["text"]), Tokens(offsets.reshape(-1, 2), np.array(values, dtype=np.float64))
