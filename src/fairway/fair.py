"""The same context for models of different tokenizers: windows of the same bytes of a text.

A window of tokens gives a model with long tokens more text to read than one with short ones. Here
each document is cut where every model's window still holds it, and all models read the same
characters before the same characters are scored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Cut = tuple[int, int, int]
"""A window in characters: first one read, first one scored, one past the last."""


def windows(
    length: int, spans: Sequence[NDArray[np.int64]], rooms: Sequence[int]
) -> tuple[Cut, ...]:
    """Cut a text into overlapping windows that hold at most so many tokens of each model.

    A token belongs to the window that scores the character it begins with. Windows begin and end
    where a token of every model begins, as far as there are such places, and about half of each is
    context.

    Args:
        length: characters of the text.
        spans: per model ``(n, 2)`` character spans of its tokens.
        rooms: per model the tokens that a window may hold, the prefix not counted; at least 2.

    Returns:
        Windows that score every character once, in order.
    """
    starts = [np.maximum.accumulate(one[:, 0]) for one in spans]
    common = starts[0]
    for one in starts[1:]:
        common = np.intersect1d(common, one)
    common = np.unique(common)
    found: list[Cut] = []
    begin = done = 0
    while done < length:
        end = _reach(begin, length, starts, rooms)
        if end <= done:
            # Too dense for so much context: read less of it.
            begin = begin + max(1, (done - begin + 1) // 2)
            if begin > done:
                begin, end = done, _forced(done, length, starts, rooms)
            else:
                continue
        elif end < length:
            place = int(np.searchsorted(common, end, side="right")) - 1
            end = int(common[place]) if place >= 0 and common[place] > done else end
        found.append((begin, done, end))
        if end < length:
            middle = (begin + end) // 2
            place = int(np.searchsorted(common, middle))
            begin = int(common[place]) if place < len(common) and common[place] <= end else middle
        done = end
    return tuple(found)


def _reach(
    begin: int, length: int, starts: Sequence[NDArray[np.int64]], rooms: Sequence[int]
) -> int:
    """The furthest character before which no model has more tokens than fit."""
    ends = [length]
    for one, room in zip(starts, rooms, strict=True):
        last = int(np.searchsorted(one, begin)) + room
        if last < len(one):
            ends.append(int(one[last]))
    return min(ends)


def _forced(
    begin: int, length: int, starts: Sequence[NDArray[np.int64]], rooms: Sequence[int]
) -> int:
    """Go on by one character at least, though its tokens overflow a window."""
    return max(begin + 1, _reach(begin, length, starts, rooms))
