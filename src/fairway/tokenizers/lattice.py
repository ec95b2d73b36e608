"""All ways to cut a text into tokens of a vocabulary, and draws from them of known probability.

Nodes are byte positions; an edge is a token that stands for the bytes between two of them. Given a
weight for every edge, one pass from the end adds up the weights of all tokenizations, so that
drawing forward is exact and every draw's probability is known (forward filtering, backward
sampling, in mirror image).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokenization = tuple[int, ...]
Weights = tuple[NDArray[np.float64], ...]
"""For each position, ln of the weights of the tokens that begin there."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """The tokenizations of one text.

    Attributes:
        size: bytes of the text, as tokens spell it.
        starts: positions where a tokenization may begin.
        ends: for each position, where the tokens that begin there end; only tokens that some
            tokenization holds.
        ids: likewise their ids.
        sizes: bytes of each id that occurs.
        canonical: the tokenizer's own tokenization, which begins at the first start.
    """

    size: int
    starts: tuple[int, ...]
    ends: tuple[NDArray[np.int64], ...]
    ids: tuple[NDArray[np.int64], ...]
    sizes: dict[int, int]
    canonical: Tokenization

    def count(self) -> int:
        """Count the tokenizations."""
        ways = [0] * self.size + [1]
        for place in range(self.size - 1, -1, -1):
            ways[place] = sum(ways[end] for end in self.ends[place].tolist())
        return sum(ways[start] for start in self.starts)

    def all(self) -> Iterator[Tokenization]:
        """Give every tokenization, one after another."""
        stack: list[tuple[int, Tokenization]] = [(start, ()) for start in self.starts]
        while stack:
            place, ids = stack.pop()
            if place == self.size:
                yield ids
                continue
            edges = zip(self.ends[place].tolist(), self.ids[place].tolist(), strict=True)
            stack.extend((end, (*ids, index)) for end, index in edges)

    def path(self, ids: Tokenization) -> list[tuple[int, int]]:
        """Give the position of each token, and its place among those that begin there."""
        place = self.size - sum(self.sizes[index] for index in ids)
        out = []
        for index in ids:
            at = int(np.flatnonzero(self.ids[place] == index)[0])
            out.append((place, at))
            place = int(self.ends[place][at])
        return out


def build(
    spelled: bytes, pieces: Sequence[bytes], canonical: Sequence[int], starts: Sequence[int] = (0,)
) -> Lattice:
    """Find every token of a vocabulary at every place of a text.

    Args:
        spelled: the text's bytes as the canonical tokens spell them.
        pieces: raw bytes of each id; ids without any are left out.
        canonical: the tokenizer's own tokenization, which begins at position 0.
        starts: positions where a tokenization may begin; 0 is the first.
    """
    size = len(spelled)
    known: dict[bytes, list[int]] = {}
    for index, piece in enumerate(pieces):
        if piece and piece in spelled:
            known.setdefault(piece, []).append(index)
    longest = max(map(len, known), default=0)
    edges: list[list[tuple[int, int]]] = [[] for _ in range(size)]
    closes = [False] * size + [True]
    for begin in range(size - 1, -1, -1):
        for end in range(begin + 1, min(size, begin + longest) + 1):
            if closes[end]:
                edges[begin] += [(end, index) for index in known.get(spelled[begin:end], ())]
        closes[begin] = bool(edges[begin])
    open_ = [place in starts for place in range(size + 1)]
    for begin in range(size):
        if open_[begin]:
            for end, _ in edges[begin]:
                open_[end] = True
        else:
            edges[begin] = []
    return Lattice(
        size,
        tuple(start for start in starts if closes[start]),
        tuple(np.array([end for end, _ in some], dtype=np.int64) for some in edges),
        tuple(np.array([index for _, index in some], dtype=np.int64) for some in edges),
        {index: len(piece) for piece, same in known.items() for index in same},
        tuple(canonical),
    )


@dataclass(frozen=True, slots=True)
class Proposal:
    """A distribution over the tokenizations of a lattice other than the canonical one.

    Attributes:
        lattice: of the text.
        chances: for each position, ln of the probability of each token that begins there.
        begins: ln of the probability of each start.
        leaves: for the choice of a start and for each canonical token, ln of the probability that
            a tokenization departs from the canonical one there and nowhere before.
    """

    lattice: Lattice
    chances: Weights
    begins: NDArray[np.float64]
    leaves: NDArray[np.float64]

    def logprob(self, ids: Tokenization) -> float:
        """Give ln of the probability that a draw is this tokenization."""
        return self._free(ids) - float(np.logaddexp.reduce(self.leaves))

    def _free(self, ids: Tokenization) -> float:
        """Give ln of its probability where the canonical one could be drawn, too."""
        path = self.lattice.path(ids)
        begin = self.begins[self.lattice.starts.index(path[0][0])]
        return float(begin) + math.fsum(float(self.chances[place][at]) for place, at in path)

    def draw(self, generator: np.random.Generator) -> Tokenization:
        """Draw a tokenization: where it leaves the canonical one, then freely to the end."""
        lattice = self.lattice
        step = _choose(self.leaves, generator)
        out: list[int] = []
        if step == 0:
            others = self.begins.copy()
            others[0] = -math.inf
            place = lattice.starts[_choose(others, generator)]
        else:
            path = lattice.path(lattice.canonical)
            out += lattice.canonical[: step - 1]
            place, at = path[step - 1]
            others = self.chances[place].copy()
            others[at] = -math.inf
            at = _choose(others, generator)
            out.append(int(lattice.ids[place][at]))
            place = int(lattice.ends[place][at])
        while place < lattice.size:
            at = _choose(self.chances[place], generator)
            out.append(int(lattice.ids[place][at]))
            place = int(lattice.ends[place][at])
        return tuple(out)


def propose(lattice: Lattice, weights: Weights) -> Proposal:
    """Turn weights of tokens into a distribution over tokenizations.

    A tokenization's probability is proportional to the product of its tokens' weights. The lattice
    must hold more than one.

    Args:
        lattice: the tokenizations.
        weights: of its tokens; all finite.
    """
    rest = np.full(lattice.size + 1, -math.inf)
    rest[lattice.size] = 0.0
    chances: list[NDArray[np.float64]] = [np.zeros(0)] * lattice.size
    for place in range(lattice.size - 1, -1, -1):
        if len(lattice.ends[place]):
            logs = weights[place] + rest[lattice.ends[place]]
            rest[place] = np.logaddexp.reduce(logs)
            chances[place] = logs - rest[place]
    begins = rest[list(lattice.starts)]
    begins = begins - np.logaddexp.reduce(begins)
    # Summed over the ways out, since 1 minus the canonical chance would cancel to nothing.
    leaves = [_rest(begins, 0)]
    stayed = float(begins[0])
    for place, at in lattice.path(lattice.canonical):
        leaves.append(stayed + _rest(chances[place], at))
        stayed += float(chances[place][at])
    return Proposal(lattice, tuple(chances), begins, np.array(leaves))


def flat(lattice: Lattice, penalty: float) -> Weights:
    """Weigh every token alike: a tokenization of one token more is ``penalty`` nats less likely."""
    return tuple(np.full(len(ids), -penalty) for ids in lattice.ids)


def _rest(logs: NDArray[np.float64], at: int) -> float:
    """Add up all but one."""
    others = np.delete(logs, at)
    return float(np.logaddexp.reduce(others)) if len(others) else -math.inf


def _choose(logs: NDArray[np.float64], generator: np.random.Generator) -> int:
    sums = np.cumsum(np.exp(logs - logs.max()))
    return min(int(np.searchsorted(sums, generator.random() * sums[-1], "right")), len(logs) - 1)
