"""The seam for whole next-token distributions: blocks of rows, a stretch of the vocabulary a time.

A scorer that has whole distributions offers ``distributions(documents)``: an iterator of
`Distributions` in the order of ``score``: documents in theirs, tokens in theirs, only those to
which ``score`` gives a log-probability. Every block holds exactly `ROWS` rows, across documents,
but the last one, so that two scorers of one tokenizer and protocol give the same blocks and can be
walked in lockstep. A ``(tokens, vocabulary)`` array of a whole document never exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 512
"""Rows in a block."""


@dataclass(frozen=True, slots=True)
class Distributions:
    """What a model expects at some scored tokens.

    Attributes:
        document: ``(rows,)`` index of the document among those given.
        place: ``(rows,)`` index of the token among those of the document's `Score`.
        ids: ``(rows,)`` the tokens that stand there.
        logprobs: ``(rows,)`` their log-probabilities as ``score`` gives them, nats, float64.
        vocabulary: ids that have a probability, padding of the vocabulary included.
        tile: ``tile(start, stop)`` gives ``(rows, stop - start)`` log-probabilities of these ids,
            nats, normalised over the vocabulary; float64 unless the model is coarser by itself. It
            may be called in any order, and until the next block is asked for.
        held: numbers that a tile should have at most.
        library: the module whose arrays the tiles are: numpy, or one with its functions.
    """

    document: NDArray[np.int64]
    place: NDArray[np.int64]
    ids: NDArray[np.int64]
    logprobs: NDArray[np.float64]
    vocabulary: int
    tile: Callable[[int, int], Any]
    held: int = 1 << 15
    library: Any = np

    def __len__(self) -> int:
        return len(self.ids)
