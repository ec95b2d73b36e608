"""Which bytes of the source a token answers for, where they stand, and which tokens touch spans."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairway.scores import Score
from fairway.text import Spans, byte_lengths, close_gaps, mark


def owned(score: Score) -> NDArray[np.int64]:
    """Give the bytes of each token, so that every byte is counted once.

    A character that several tokens share, as the bytes of an emoji often are, belongs wholly to
    the first scored one; a gap between spans belongs to the token behind it. The sum over all
    tokens is ``score.totals.bytes``, exactly.

    Returns:
        ``(n,)`` bytes of the source; 0 for a token that is not scored.
    """
    length = len(score.text)
    closed = close_gaps(score.offsets, length)
    owner = np.full(length, -1, dtype=np.int64)
    for place in np.flatnonzero(~np.isnan(score.logprobs))[::-1].tolist():
        start, end = closed[place]
        owner[start:end] = place
    counted = owner >= 0
    if score.scored is not None:
        counted &= mark(score.scored, length)
    sizes = np.zeros(len(score), dtype=np.int64)
    np.add.at(sizes, owner[counted], byte_lengths(score.text)[counted])
    return sizes


def positions(score: Score) -> NDArray[np.int64]:
    """Give the byte of the source at which each token stands.

    Tokens that share characters stand together, at the first character that they have, so that
    the bits of a character and its bytes never part.

    Returns:
        ``(n,)`` bytes before the token, from 0, never falling.
    """
    closed = close_gaps(score.offsets, len(score.text))
    if not len(closed):
        return np.zeros(0, dtype=np.int64)
    reached = np.concatenate(([0], np.maximum.accumulate(closed[:, 1])[:-1]))
    # Behind a token that reaches no further than those before it, a character may go on.
    coming = np.minimum.accumulate(closed[::-1, 0])[::-1]
    alone = coming >= reached
    first = np.maximum.accumulate(np.where(alone, closed[:, 0], 0))
    before = np.concatenate(([0], np.cumsum(byte_lengths(score.text))))
    return np.asarray(before[first], dtype=np.int64)


def touching(
    offsets: NDArray[np.int64], spans: NDArray[np.int64] | Spans, length: int
) -> NDArray[np.bool_]:
    """Say which tokens have at least one character in common with the spans.

    Args:
        offsets: ``(n, 2)`` character spans of the tokens, as the tokenizer gave them.
        spans: ``(m, 2)`` character spans.
        length: characters in the text.

    Returns:
        ``(n,)`` booleans; a token without characters touches nothing.
    """
    inside = np.concatenate(([0], np.cumsum(mark(spans, length))))
    clipped = np.clip(offsets, 0, length)
    return np.asarray(inside[clipped[:, 1]] > inside[clipped[:, 0]])
