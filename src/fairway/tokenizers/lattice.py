"""All ways to cut a text into tokens of a vocabulary, and draws from them of known probability.

Nodes are byte positions, an edge is a token that stands for the bytes between two of them. A
proposal weighs a tokenization by ``exp(-penalty * tokens + bonus * canonical tokens)``; the sum of
all weights comes from one pass over the lattice, so that every draw's probability is known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokenization = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lattice:
    """The tokenizations of one text.

    Attributes:
        size: bytes of the text, as tokens spell it.
        starts: positions where a tokenization may begin.
        ends: for each position, where the tokens that begin there end.
        ids: likewise their ids.
        usual: likewise whether they are the canonical tokenization's.
        canonical: the tokenizer's own tokenization.
    """

    size: int
    starts: tuple[int, ...]
    ends: tuple[NDArray[np.int64], ...]
    ids: tuple[NDArray[np.int64], ...]
    usual: tuple[NDArray[np.bool_], ...]
    canonical: Tokenization

    def count(self) -> int:
        """Count the tokenizations."""
        ways = [0] * self.size + [1]
        for place in range(self.size - 1, -1, -1):
            ways[place] = sum(ways[end] for end in self.ends[place].tolist())
        return sum(ways[start] for start in self.starts)

    def all(self) -> Iterator[Tokenization]:
        """Give every tokenization, one after another."""
        reaches = [False] * self.size + [True]
        for place in range(self.size - 1, -1, -1):
            reaches[place] = any(reaches[end] for end in self.ends[place].tolist())
        for start in self.starts:
            stack: list[tuple[int, Tokenization]] = [(start, ())]
            while stack:
                place, ids = stack.pop()
                if place == self.size:
                    yield ids
                    continue
                for end, index in zip(
                    self.ends[place].tolist(), self.ids[place].tolist(), strict=True
                ):
                    if reaches[end]:
                        stack.append((end, (*ids, index)))


def build(
    spelled: bytes, pieces: Sequence[bytes], canonical: Sequence[int], starts: Sequence[int] = (0,)
) -> Lattice:
    """Find every token of a vocabulary at every place of a text.

    Args:
        spelled: the text's bytes as the canonical tokens spell them.
        pieces: raw bytes of each id; ids without any are left out.
        canonical: the tokenizer's own tokenization, which begins at position 0.
        starts: positions where a tokenization may begin.
    """
    longest = 0
    known: dict[bytes, list[int]] = {}
    for index, piece in enumerate(pieces):
        if piece and piece in spelled:
            known.setdefault(piece, []).append(index)
            longest = max(longest, len(piece))
    path = set()
    place = 0
    for index in canonical:
        path.add((place, index))
        place += len(pieces[index])
    ends, ids, usual = [], [], []
    for begin in range(len(spelled)):
        found = [
            (end, index)
            for end in range(begin + 1, min(len(spelled), begin + longest) + 1)
            for index in known.get(spelled[begin:end], ())
        ]
        ends.append(np.array([end for end, _ in found], dtype=np.int64))
        ids.append(np.array([index for _, index in found], dtype=np.int64))
        usual.append(np.array([(begin, index) in path for _, index in found], dtype=bool))
    return Lattice(
        len(spelled), tuple(starts), tuple(ends), tuple(ids), tuple(usual), tuple(canonical)
    )


@dataclass(frozen=True, slots=True)
class Proposal:
    """A distribution over the tokenizations of a lattice.

    Attributes:
        lattice: of the text.
        penalty: of each token, nats.
        bonus: of each token of the canonical tokenization, nats.
        rest: ``(size + 1,)`` ln of the weights of all ways from a position to the end.
        total: ln of the weights of all tokenizations.
    """

    lattice: Lattice
    penalty: float
    bonus: float
    rest: NDArray[np.float64]
    total: float

    def logprob(self, ids: Tokenization) -> float:
        """Give ln of the probability that a draw is this tokenization."""
        usual = 0
        place = self._start(ids)
        for index in ids:
            at = np.flatnonzero(self.lattice.ids[place] == index)[0]
            usual += bool(self.lattice.usual[place][at])
            place = int(self.lattice.ends[place][at])
        return self.bonus * usual - self.penalty * len(ids) - self.total

    def _start(self, ids: Tokenization) -> int:
        """Find where a tokenization begins: the only place from which its bytes reach the end."""
        for start in self.lattice.starts:
            place = start
            for index in ids:
                if place >= self.lattice.size:
                    place = -1
                    break
                at = np.flatnonzero(self.lattice.ids[place] == index)
                if not len(at):
                    place = -1
                    break
                place = int(self.lattice.ends[place][at[0]])
            if place == self.lattice.size:
                return start
        raise ValueError("no tokenization of this lattice")

    def draw(self, generator: np.random.Generator) -> Tokenization:
        """Draw a tokenization: each token by the weights of all ways on from there."""
        lattice = self.lattice
        begins = self.rest[list(lattice.starts)]
        place = lattice.starts[_choose(begins - self.total, generator)]
        out = []
        while place < lattice.size:
            ends = lattice.ends[place]
            logs = self.bonus * lattice.usual[place] - self.penalty + self.rest[ends]
            at = _choose(logs - self.rest[place], generator)
            out.append(int(lattice.ids[place][at]))
            place = int(ends[at])
        return tuple(out)


def propose(lattice: Lattice, penalty: float, bonus: float) -> Proposal:
    """Weigh a lattice: one pass from its end to its beginning."""
    rest = np.full(lattice.size + 1, -math.inf)
    rest[lattice.size] = 0.0
    for place in range(lattice.size - 1, -1, -1):
        if len(lattice.ends[place]):
            logs = bonus * lattice.usual[place] - penalty + rest[lattice.ends[place]]
            rest[place] = np.logaddexp.reduce(logs)
    total = float(np.logaddexp.reduce(rest[list(lattice.starts)]))
    return Proposal(lattice, penalty, bonus, rest, total)


def fit(lattice: Lattice, penalty: float, share: float) -> Proposal:
    """Choose the bonus with which the canonical tokenization has a share of all draws.

    The share grows with the bonus (its derivative is the canonical count less the expected one),
    so that halving an interval finds it.
    """
    low, high = -64.0, 64.0
    proposal = propose(lattice, penalty, 0.0)
    for _ in range(40):
        middle = (low + high) / 2
        proposal = propose(lattice, penalty, middle)
        if proposal.logprob(lattice.canonical) < math.log(share):
            low = middle
        else:
            high = middle
    return proposal


def _choose(logs: NDArray[np.float64], generator: np.random.Generator) -> int:
    sums = np.cumsum(np.exp(logs))
    return min(int(np.searchsorted(sums, generator.random() * sums[-1], "right")), len(logs) - 1)
