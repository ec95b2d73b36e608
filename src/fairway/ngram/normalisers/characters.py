"""Text as an array of characters of which each knows its place in the source."""

from __future__ import annotations

import functools
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POINTS = 0x110000
SIGMA = 0x03A3
UNSEEN = np.iinfo(np.uint32).max
NEWLINE = 10
BLANK = 32
MARKS = 0x1000
"""No mark below it moves and stays; tests check it."""
SPACE = np.zeros(POINTS, dtype=bool)
SPACE[[point for point in range(0x3001) if chr(point).isspace()]] = True
"""By code point: what `str.strip` takes away."""


def points(text: str) -> NDArray[np.uint32]:
    """Give the code points of a text: ``(len(text),)``, read only."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@dataclass(frozen=True, slots=True)
class Mapped:
    """A changed text, and where in the source each of its characters comes from.

    Attributes:
        codes: ``(m,)`` code points.
        starts: ``(m,)`` first character of the source that it stands for.
        ends: ``(m,)`` one past the last such character; a blank that was put beside a character
            stands for none.
        length: characters of the source.
    """

    codes: NDArray[np.uint32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    length: int

    @classmethod
    def of(cls, text: str) -> Mapped:
        """Take a text as it is."""
        places = np.arange(len(text) + 1)
        return cls(points(text), places[:-1], places[1:], len(text))

    @property
    def text(self) -> str:
        """The changed text."""
        return self.codes.tobytes().decode("utf-32-le", "surrogatepass")

    def take(self, kept: NDArray[np.bool_] | slice) -> Mapped:
        """Keep some characters: a mask, or a slice."""
        return Mapped(self.codes[kept], self.starts[kept], self.ends[kept], self.length)

    def strip(self) -> Mapped:
        """Take away white space at both ends, as `str.strip` does."""
        if not len(self.codes) or not SPACE[self.codes[[0, -1]]].any():
            return self
        inner = np.flatnonzero(~SPACE[self.codes])
        return self.take(slice(inner[0], inner[-1] + 1) if len(inner) else slice(0))

    def strip_lines(self) -> Mapped:
        """Take away white space at both ends of each line, newlines staying."""
        newlines = np.flatnonzero(self.codes == NEWLINE)
        begins = np.concatenate(([0], newlines + 1))
        stops = np.append(newlines, len(self.codes))
        inner = np.flatnonzero(~SPACE[self.codes])
        first = np.append(inner, len(self.codes))[np.searchsorted(inner, begins)]
        last = np.concatenate(([-1], inner))[np.searchsorted(inner, stops)]
        first, last = np.minimum(first, stops), np.maximum(last + 1, begins)
        if np.array_equal(first, begins) and np.array_equal(last, stops):
            return self
        edges = np.zeros(len(self.codes) + 2, dtype=np.int64)
        np.add.at(edges, first, 1)
        np.add.at(edges, np.maximum(first, last), -1)
        kept = np.cumsum(edges[:-2]) > 0
        kept[newlines] = True
        return self.take(kept)

    def spans(self, begins: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the source spans of spans of the changed text.

        Args:
            begins: ``(n,)`` first characters.
            stops: ``(n,)`` one past the last; a span may be empty.

        Returns:
            ``(n, 2)`` character spans of the source, empty where the given ones are.
        """
        begins, stops = (np.clip(one, 0, len(self.codes)) for one in (begins, stops))
        starts = np.append(self.starts, self.length)[begins]
        ends = np.concatenate(([0], self.ends))[stops]
        return np.stack((starts, np.where(stops > begins, ends, starts)), axis=1)


class Table:
    """Replaces characters by strings, each without regard to its neighbours.

    A character is looked up in an array, which is filled as characters turn up; only where some
    are replaced by none or by several does anything move.

    Args:
        replace: gives the string for a character.
    """

    def __init__(self, replace: Callable[[str], str]) -> None:
        self._replace = replace
        self._known = np.full(POINTS, UNSEEN, dtype=np.uint32)
        self._others: list[NDArray[np.uint32]] = []
        self._lock = threading.Lock()

    def codes(self, source: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Look characters up: a code point, or `POINTS` and the number of another replacement."""
        found = self._known[source]
        if len(found) and int(found.max()) == UNSEEN:
            for point in np.unique(source[found == UNSEEN]).tolist():
                self._learn(point)
            found = self._known[source]
        return found

    def _learn(self, point: int) -> None:
        made = self._replace(chr(point))
        if len(made) == 1:
            self._known[point] = ord(made)
            return
        with self._lock:
            self._others.append(points(made))
            self._known[point] = POINTS + len(self._others) - 1

    def apply(self, given: Mapped) -> Mapped:
        """Replace all characters."""
        found = self.codes(given.codes)
        if not len(found) or int(found.max()) < POINTS:
            return Mapped(found, given.starts, given.ends, given.length)
        odd = np.flatnonzero(found >= POINTS)
        which = (found[odd] - POINTS).astype(np.int64)
        sizes = np.array([len(one) for one in self._others])[which]
        if not sizes.any():
            kept = found < POINTS
            return Mapped(found[kept], given.starts[kept], given.ends[kept], given.length)
        count = np.ones(len(found), dtype=np.int64)
        count[odd] = sizes
        codes = np.repeat(found, count)
        made = codes >= POINTS
        codes[made] = np.concatenate([self._others[one] for one in which.tolist()])
        starts, ends = np.repeat(given.starts, count), np.repeat(given.ends, count)
        blank = np.flatnonzero(made & (codes == BLANK))
        if len(blank):
            first = np.repeat(np.cumsum(count) - count, count)[blank] == blank
            ends[blank[first]] = starts[blank[first]]
            starts[blank[~first]] = ends[blank[~first]]
        return Mapped(codes, starts, ends, given.length)


def settle_sigmas(given: Mapped) -> Mapped:
    """Write each capital sigma in the small form that `str.lower` gives it here.

    It is the one letter whose small form hangs on its neighbours (Unicode, Final_Sigma).
    """
    where = np.flatnonzero(given.codes == SIGMA)
    if not len(where):
        return given
    # The only letter that lower() makes two of; an I has the same effect on a sigma.
    lowered = points(given.text.replace("\u0130", "I").lower())
    codes = given.codes.copy()
    codes[where] = lowered[where]
    return Mapped(codes, given.starts, given.ends, given.length)


@functools.cache
def _movable() -> Table:
    """Mark the characters that hold a mark that NFD may move and nobody takes away."""

    def judge(char: str) -> str:
        return "01"[any(
            unicodedata.combining(one) and unicodedata.category(one) != "Mn"
            for one in unicodedata.normalize("NFD", char)
        )]  # fmt: skip

    return Table(judge)


def settle_marks(given: Mapped) -> Mapped:
    """Put marks in the order that NFD puts them in, where removing accents would not hide it.

    Marks of category Mn are taken away later, so only two others in one text can tell.
    Source: Unicode Standard, section 3.11, canonical ordering.
    """
    if not len(given.codes) or int(given.codes.max()) < MARKS:
        return given
    if np.count_nonzero(_movable().codes(given.codes) == ord("1")) < 2:
        return given
    chars = [unicodedata.normalize("NFD", chr(point)) for point in given.codes.tolist()]
    count = np.array([len(one) for one in chars])
    text = "".join(chars)
    classes = np.array([unicodedata.combining(char) for char in text])
    run = np.cumsum(classes == 0)
    order = np.lexsort((classes, run))
    # A place never lies before the place of what was written earlier.
    starts = np.maximum.accumulate(np.repeat(given.starts, count)[order])
    ends = np.maximum.accumulate(np.repeat(given.ends, count)[order])
    return Mapped(points(text)[order], starts, ends, given.length)
