"""Probabilities of words by back-off, for whole texts at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from fairway.backends.ngram.arpa import Tables


class Backoff:
    """A model in arrays.

    Args:
        tables: as `fairway.backends.ngram.arpa.read` gives them.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.order = len(tables.levels)

    def score_lines(
        self, lines: Sequence[bytes], bos: bool, eos: bool, before: bytes | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Score sentences; see `fairway.backends.ngram.scoring.Model`."""
        words = self.tables.words
        ids: list[int] = []
        first: list[int] = []
        read: list[int] = []
        for number, line in enumerate(lines):
            first.append(len(ids))
            if bos:
                read.append(len(ids))
                ids.append(words[b"<s>"])
            if number == 0 and before:
                earlier = before.split()
                read += range(len(ids), len(ids) + len(earlier))
                ids += map(words.get, earlier, repeat(0))
            ids += map(words.get, line.split(), repeat(0))
            if eos:
                ids.append(words[b"</s>"])
        if not ids:
            return np.empty(0), np.empty(0, dtype=bool)
        array = np.array(ids, dtype=np.int64)
        begins = np.zeros(len(array) + 1, dtype=bool)
        begins[first] = True
        scored = np.ones(len(array), dtype=bool)
        scored[read] = False
        return self._logprobs(array, begins[:-1])[scored], array[scored] == 0

    def _logprobs(self, ids: NDArray[np.int64], begins: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Give each word's probability after those before it in its sentence.

        With h the n - 1 words before and h' all but the first of them, p(w | h) is that of the
        n-gram h w where it is listed, else the back-off weight of h (1 where h is not listed)
        times p(w | h'). Source: Katz 1987, as ARPA files hold it.

        Args:
            ids: ``(n,)`` numbers of words.
            begins: ``(n,)`` booleans, where sentences begin.
        """
        levels, size = self.tables.levels, len(self.tables.words) - 1
        out = levels[0].logprobs[ids]
        # Where the words that end at each place stand as an n-gram of the level; -1 = nowhere.
        places = ids
        for level, below in zip(levels[1:], levels, strict=False):
            context = np.concatenate(([-1], places[:-1]))
            context[begins] = -1
            listed = context >= 0
            places = np.full(len(ids), -1, dtype=np.int64)
            places[listed] = level.find(context[listed] * size + ids[listed])
            hit = places >= 0
            out[listed] += below.backoffs[context[listed]]
            out[hit] = level.logprobs[places[hit]]
        return out
