"""Characters, bytes and words inside character spans of a source text.

A denominator is always counted here, in the source text, never from decoded token strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Spans = Sequence[tuple[int, int]]


class Extent(NamedTuple):
    """How much text a set of characters is.

    Attributes:
        chars: Unicode code points.
        bytes: bytes of their UTF-8 encoding.
        words: whitespace-separated words whose first character is in the set.
    """

    chars: int
    bytes: int
    words: int


def close_gaps(offsets: NDArray[np.integer], length: int) -> NDArray[np.int64]:
    """Stretch token spans over the characters that no token claims.

    Tokenizers trim spaces, so spans have gaps. The characters of a gap belong to the token that
    follows it; those after the last token belong to the last.

    Args:
        offsets: ``(n, 2)`` character spans, in reading order; they may overlap or be empty.
        length: characters in the text.

    Returns:
        ``(n, 2)`` spans whose union is ``[0, length)`` whenever n > 0.
    """
    closed = np.asarray(offsets, dtype=np.int64).reshape(-1, 2).copy()
    if len(closed) == 0:
        return closed
    ends = np.maximum.accumulate(closed[:, 1])
    reached = np.concatenate(([0], ends[:-1]))
    closed[:, 0] = np.minimum(closed[:, 0], reached)
    closed[-1, 1] = max(int(closed[-1, 1]), length)
    if len(closed) > 1 and closed[-1, 0] == closed[-1, 1]:
        closed[-1, 0] = min(int(closed[-1, 0]), int(reached[-1]))
    return closed


def mark(spans: NDArray[np.integer] | Spans, length: int) -> NDArray[np.bool_]:
    """Say which characters lie in at least one span.

    Args:
        spans: ``(n, 2)`` character spans; they may overlap or be empty.
        length: characters in the text.

    Returns:
        ``(length,)`` booleans.
    """
    edges = np.zeros(length + 1, dtype=np.int64)
    array = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    if len(array):
        array = np.clip(array, 0, length)
        array = array[array[:, 1] > array[:, 0]]
        np.add.at(edges, array[:, 0], 1)
        np.add.at(edges, array[:, 1], -1)
    return np.cumsum(edges[:-1]) > 0


def byte_lengths(text: str) -> NDArray[np.int64]:
    """Give the UTF-8 length of each character: ``(len(text),)`` integers from 1 to 4."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return (
        np.ones(len(points), dtype=np.int64)
        + (points >= 0x80)
        + (points >= 0x800)
        + (points >= 0x10000)
    )


def word_starts(text: str) -> NDArray[np.int64]:
    """Give the position of the first character of each whitespace-separated word."""
    space = np.fromiter((c.isspace() for c in text), dtype=bool, count=len(text))
    before = np.concatenate(([True], space[:-1])) if len(text) else space
    return np.flatnonzero(before & ~space)


def measure(text: str, covered: NDArray[np.bool_] | None = None) -> Extent:
    """Count characters, bytes and words of a text, or of a part of it.

    Args:
        text: the source text.
        covered: ``(len(text),)`` booleans; None means all of it.
    """
    if covered is None or bool(covered.all()):
        return Extent(len(text), len(text.encode("utf-8", "surrogatepass")), len(text.split()))
    return Extent(
        int(covered.sum()),
        int(byte_lengths(text)[covered].sum()),
        int(covered[word_starts(text)].sum()),
    )
