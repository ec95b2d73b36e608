"""Which tokens are read and which are masked, to predict each token once: integers only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairway.text import word_starts


class Rows(NamedTuple):
    """A row for each token of a text that is predicted; all arrays are ``(n,)``.

    Row i reads the tokens ``[begin, end)`` and masks ``[at, stop)`` of them.
    """

    at: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    stop: NDArray[np.int64]


def lay(at: NDArray[np.int64], words: NDArray[np.int64] | None, tokens: int, room: int) -> Rows:
    """Give every token a window of its own, which has it as near to the middle as can be.

    A masked token takes a pass of its own however windows lie, so the best of them costs nothing.
    Of ``room`` tokens ``room // 2`` stand before it, unless the text begins or ends within reach.

    Args:
        at: ``(n,)`` tokens to predict.
        words: ``(tokens,)`` number of each token's word, rising; None = each token is masked alone.
        tokens: tokens in the text.
        room: tokens that a window holds.
    """
    begin = np.clip(at - room // 2, 0, max(0, tokens - room))
    end = np.minimum(begin + room, tokens)
    if words is None:
        return Rows(at, begin, end, at + 1)
    # One past the last token of each token's word.
    last = np.searchsorted(words, words, side="right")
    return Rows(at, begin, end, np.minimum(last[at], end))


def blank_words(text: str, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number tokens by the word between white space that they belong to.

    A token of white space belongs to the word that follows, one that reaches into several words to
    the last of them.

    Args:
        text: the source.
        offsets: ``(n, 2)`` character spans of the tokens.
    """
    starts = word_starts(text)
    found = np.searchsorted(starts, offsets[:, 1], side="left")
    space = np.fromiter((char.isspace() for char in text), bool, len(text))
    inked = np.concatenate(([0], np.cumsum(~space)))
    spans = np.clip(offsets, 0, len(text))
    blank = (spans[:, 1] > spans[:, 0]) & (inked[spans[:, 1]] == inked[spans[:, 0]])
    return np.maximum.accumulate(found + blank) if len(found) else found
