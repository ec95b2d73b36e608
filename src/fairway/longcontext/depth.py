"""Bits by position: sums over tokens at like distances from their document's beginning."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fairway.longcontext.spans import owned, positions
from fairway.scores import Score, Totals, number
from fairway.statistics import Interval, Moments, absence, intervals

FIRST = {"bytes": 64, "tokens": 16}
"""Width of the first bucket; every later one reaches twice as far as the one before it."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens at like distances from the beginning.

    Attributes:
        low: first position.
        high: one past the last position.
        totals: sums of nll (nats), tokens, bytes, and documents that reach so far; words and
            characters are not counted.
        interval: of bits per byte, documents as clusters; None where there is none.
        reason: why there is none.
    """

    low: int
    high: int
    totals: Totals
    interval: Interval | None
    reason: str | None = None

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of the source."""
        return self.totals.per("bytes") / math.log(2)

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        return {
            "low": self.low,
            "high": self.high,
            "bits_per_byte": number(self.bits_per_byte),
            "interval": None if self.interval is None else [self.interval.low, self.interval.high],
            "reason": self.reason,
            "nll": number(self.totals.nll),
            "tokens": self.totals.tokens,
            "bytes": self.totals.bytes,
            "documents": self.totals.documents,
        }


def split(score: Score, unit: str = "bytes") -> dict[int, Totals]:
    """Cut one document's sums by position.

    Args:
        score: the document's.
        unit: what positions count: ``bytes`` of the source before the token, or ``tokens``.

    Returns:
        By number of the bucket its sums; tokens, bytes and nll add up to the document's totals.
    """
    done = np.flatnonzero(~np.isnan(score.logprobs))
    if not len(done):
        return {}
    where = positions(score) if unit == "bytes" else np.arange(len(score))
    # The exponent of p // width: 0 below the width, then 1, 2, ... at each doubling.
    buckets = np.frexp((where // FIRST[unit]).astype(np.float64))[1][done]
    sizes, values = owned(score)[done], score.logprobs[done]
    out = {}
    for number_ in np.unique(buckets).tolist():
        inside = buckets == number_
        out[int(number_)] = Totals(
            -math.fsum(values[inside].tolist()) + 0.0,
            int(inside.sum()),
            bytes=int(sizes[inside].sum()),
            documents=1,
        )
    return out


@dataclass(slots=True)
class Depths:
    """Sums by position of the documents so far; a document adds at most one pair to a bucket."""

    unit: str = "bytes"
    sums: dict[int, tuple[Totals, Moments]] = field(default_factory=dict)

    def add(self, score: Score) -> None:
        """Add one document."""
        for place, totals in split(score, self.unit).items():
            before, moments = self.sums.get(place, (Totals(), Moments()))
            self.sums[place] = before + totals, moments + Moments.of(totals, 0.0)

    def buckets(self) -> tuple[Bucket, ...]:
        """Give the buckets in order, with intervals."""
        width = FIRST[self.unit]
        out = []
        for place, (totals, moments) in sorted(self.sums.items()):
            found = intervals(moments).get("bits_per_byte")
            low = width << (place - 1) if place else 0
            reason = None if found else absence(moments.documents)
            out.append(Bucket(low, width << place, totals, found, reason))
        return tuple(out)
