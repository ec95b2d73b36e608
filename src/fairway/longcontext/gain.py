"""The context-gain curve: what the same tokens cost with k tokens of context and with all of it.

Bits by position mix two things, how much context there is and what stands where in a document.
Here the tokens are the same at every k, so that only the context differs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.corpus import Document
from fairway.longcontext.spans import owned
from fairway.pairs import Difference, Paired, difference
from fairway.scorer import Scorer
from fairway.scores import Score, number
from fairway.statistics import LEVEL, absence

LN2 = math.log(2)


@dataclass(frozen=True, slots=True)
class Gain:
    """What the context beyond k tokens brings.

    Attributes:
        k: tokens of context, the prefix not counted.
        found: nats per byte with k tokens minus those with the full context; positive = the
            context beyond k helps.
        adjusted: the larger p of its two tests, and of those of any smaller k: a fixed sequence
            of tests, which stops at the first failure, needs no other correction for their number
            (Westfall and Krishen 2001).
    """

    k: int
    found: Difference
    adjusted: float

    @property
    def bits_per_byte(self) -> float:
        """The gain in bits per byte."""
        return self.found.value / LN2

    @property
    def real(self) -> bool:
        """Whether the tests up to this k say that the context beyond it helps."""
        return self.found.value > 0 and self.adjusted < 1 - self.found.level

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        one = self.found
        return {
            "context": self.k,
            "gain_bits_per_byte": number(self.bits_per_byte),
            "interval": None if one.low != one.low else [one.low / LN2, one.high / LN2],
            "reason": absence(one.documents) if one.low != one.low else None,
            "relative": number(one.relative),
            "p_t": one.p_t,
            "p_sign_flip": one.p_flip,
            "every_flip": one.exact,
            "p_in_sequence": self.adjusted,
            "real": self.real,
        }


@dataclass(frozen=True, slots=True)
class Curve:
    """Gains on the same tokens.

    Attributes:
        gains: by rising k; empty where there is a reason.
        tokens: tokens that were scored with every k.
        bytes: bytes of the source that they answer for.
        documents: documents that they are of.
        eligible: tokens that have the context for it, from which they were drawn.
        full: their mean number of tokens of context under the full one.
        full_bits_per_byte: their bits per byte with the full context.
        reason: why there is no curve.
    """

    gains: tuple[Gain, ...]
    tokens: int
    bytes: int
    documents: int
    eligible: int
    full: float
    full_bits_per_byte: float
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        return {
            "points": [one.to_json() for one in self.gains],
            "reason": self.reason,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "documents": self.documents,
            "eligible_tokens": self.eligible,
            "full_context_mean": number(self.full),
            "full_bits_per_byte": number(self.full_bits_per_byte),
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """The tokens of one document that are scored with every k.

    Attributes:
        places: ``(m,)`` their numbers in the document.
        context: ``(m,)`` tokens of context that each has under the full one.
        eligible: tokens from which they were drawn.
    """

    places: NDArray[np.int64]
    context: NDArray[np.int64]
    eligible: int


def draw(
    score: Score, context: NDArray[np.int64], longest: int, most: int | None, seed: int
) -> Sample:
    """Draw tokens of a document that have at least so much context.

    Args:
        score: the document's.
        context: ``(n,)`` tokens of context of each token under the full one.
        longest: the largest k.
        most: tokens to draw, without replacement; None = all of them.
        seed: with the text, it decides which; order and sharding of the corpus do not.
    """
    able = np.flatnonzero(~np.isnan(score.logprobs) & (context >= longest))
    chosen = able
    if most is not None and len(able) > most:
        name = f"{seed}\0{score.text}".encode("utf-8", "surrogatepass")
        start = int.from_bytes(hashlib.sha256(name).digest()[:16], "little")
        generator = np.random.Generator(np.random.PCG64(start))
        chosen = np.sort(generator.choice(able, most, replace=False))
    return Sample(chosen, context[chosen], len(able))


def limited(
    scorer: Scorer, jobs: Iterable[tuple[Score, Sample]], lengths: Sequence[int]
) -> Iterator[NDArray[np.float64]]:
    """Score tokens with exactly so many tokens of context, behind the scorer's prefix.

    A text that begins at the token boundary might be tokenized otherwise, so the tokens' ids are
    what is read. Where k is all the context that a token has, its log-probability is taken over.

    Args:
        scorer: of the scores.
        jobs: scores and the tokens drawn from them.
        lengths: the numbers of tokens, k.

    Yields:
        For each job ``(m, len(lengths))`` log-probabilities, nats.
    """
    kept = list(jobs)

    def windows() -> Iterator[Document]:
        for score, sample in kept:
            for place, reach in zip(sample.places.tolist(), sample.context.tolist(), strict=True):
                for k in lengths:
                    if k < reach:
                        ids = score.ids[place - k : place + 1]
                        yield Document(score.id, "", ids=ids, context_ids=k)

    found = iter(scorer.score(windows()))
    for score, sample in kept:
        values = np.repeat(score.logprobs[sample.places][:, None], len(lengths), axis=1)
        for row, reach in enumerate(sample.context.tolist()):
            for column, k in enumerate(lengths):
                if k < reach:
                    values[row, column] = next(found).logprobs[-1]
        yield values


@dataclass(slots=True)
class Gains:
    """Sums of the documents so far: for each one pair of nll (full, limited) per k."""

    lengths: tuple[int, ...]
    full: list[float] = field(default_factory=list)
    short: list[list[float]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    tokens: int = 0
    eligible: int = 0
    reach: int = 0

    def add(self, score: Score, sample: Sample, values: NDArray[np.float64]) -> None:
        """Add one document's tokens."""
        if not len(sample.places):
            return
        self.full.append(-math.fsum(score.logprobs[sample.places].tolist()))
        self.short.append([-math.fsum(column.tolist()) for column in values.T])
        self.sizes.append(int(owned(score)[sample.places].sum()))
        self.tokens += len(sample.places)
        self.eligible += sample.eligible
        self.reach += int(sample.context.sum())

    def curve(self, seed: int = 0, level: float = LEVEL) -> Curve:
        """Give the gains with intervals, documents being paired with themselves."""
        full, sizes = np.array(self.full), np.array(self.sizes, dtype=np.int64)
        short = np.array(self.short).reshape(len(full), len(self.lengths))
        total, nll = int(sizes.sum()), math.fsum(self.full)
        reason = None
        if not self.tokens:
            reason = (
                f"no document has a scored token with {max(self.lengths)} tokens before it; give "
                "smaller --lengths, or longer documents"
            )
        elif not np.isfinite(full).all() or not np.isfinite(short).all():
            reason = "a token has probability zero, and the difference no value"
        elif not total or not nll:
            reason = "the tokens drawn have no bytes, or are all certain; draw more of them"
        found = (
            []
            if reason
            else [
                difference(Paired(full, short[:, column], sizes), level, seed)
                for column in range(len(self.lengths))
            ]
        )
        adjusted = list(accumulate((max(one.p_t, one.p_flip) for one in found), max))
        return Curve(
            tuple(map(Gain, self.lengths, found, adjusted)) if found else (),
            self.tokens,
            total,
            len(full),
            self.eligible,
            self.reach / self.tokens if self.tokens else math.nan,
            nll / total / LN2 if total else math.nan,
            reason,
        )
