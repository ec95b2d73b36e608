"""Error bars of ratios of sums, with the document as the sampling unit.

`Moments` holds all that the standard error and the bootstrap need and is additive, so that
memory does not grow with the corpus and shards can be merged.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairway.scores import UNITS, Totals, exp

LEVEL = 0.95
REPLICATES = 1000
RESAMPLES = 1999
"""Of the studentised bootstrap."""
FEW = (8, 200)
"""Documents from and up to which intervals are the studentised bootstrap's.

With 40 documents of uneven length the t interval covers 85 to 92% on some real populations, the
bootstrap's 90 to 96% (`bench/coverage.py`); above 200 the two agree.
"""


class Interval(NamedTuple):
    """A confidence interval and how it was made."""

    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True, slots=True)
class Moments:
    """Additive second moments of documents.

    Attributes:
        documents: documents of which something was scored.
        nll: sum of the documents' nll, nats.
        nll2: sum of its squares.
        counts: sum of each unit of `UNITS`.
        counts2: sum of its squares.
        cross: sum of nll times the unit's count.
        token_nll2: sum of squared nll of single tokens, for the token-iid formula.
    """

    documents: int = 0
    nll: float = 0.0
    nll2: float = 0.0
    counts: tuple[int, ...] = (0,) * len(UNITS)
    counts2: tuple[int, ...] = (0,) * len(UNITS)
    cross: tuple[float, ...] = (0.0,) * len(UNITS)
    token_nll2: float = 0.0

    @classmethod
    def of(cls, totals: Totals, token_nll2: float) -> Moments:
        """Take the moments of one document."""
        if not totals.scored:
            return cls()
        counts = tuple(int(getattr(totals, unit)) for unit in UNITS)
        return cls(
            1,
            totals.nll,
            totals.nll**2,
            counts,
            tuple(c * c for c in counts),
            tuple(c * totals.nll for c in counts),
            token_nll2,
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.documents + other.documents,
            self.nll + other.nll,
            self.nll2 + other.nll2,
            tuple(map(sum, zip(self.counts, other.counts, strict=True))),
            tuple(map(sum, zip(self.counts2, other.counts2, strict=True))),
            tuple(map(sum, zip(self.cross, other.cross, strict=True))),
            self.token_nll2 + other.token_nll2,
        )

    def ratio(self, unit: str) -> float:
        """Give nats per unit, NaN where none was counted."""
        count = self.counts[UNITS.index(unit)]
        return self.nll / count if count else math.nan

    def standard_error(self, unit: str) -> float:
        """Give the standard error of nats per unit, documents being the clusters.

        ``SE(r) = sqrt(n / (n - 1) * sum_d (L_d - r N_d)^2) / sum_d N_d``: the ratio estimator's,
        equal to Miller (2024, arXiv 2411.00640) with documents as clusters. NaN below two
        documents.
        """
        if self.documents < 2:
            return math.nan
        at = UNITS.index(unit)
        r = self.ratio(unit)
        squares = self.nll2 - 2 * r * self.cross[at] + r * r * self.counts2[at]
        n = self.documents
        return math.sqrt(max(squares, 0.0) * n / (n - 1)) / self.counts[at] if r == r else math.nan

    def design_effect(self) -> float:
        """Give the ratio of the variance to that of the formula for independent tokens."""
        tokens = self.counts[UNITS.index("tokens")]
        if tokens < 2 or self.documents < 2:
            return math.nan
        mean = self.nll / tokens
        independent = (self.token_nll2 / tokens - mean * mean) / (tokens - 1)
        return self.standard_error("tokens") ** 2 / independent if independent > 0 else math.nan


def token_error(totals: Totals, token_nll2: float) -> float:
    """Give llama.cpp's standard error of nll per token, which takes tokens as independent."""
    if totals.tokens < 2:
        return math.nan
    mean = totals.nll / totals.tokens
    return math.sqrt(max(token_nll2 / totals.tokens - mean * mean, 0.0) / (totals.tokens - 1))


def quantile(documents: int, level: float = LEVEL) -> float:
    """Give the two-sided quantile of Student's t with documents - 1 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(documents - 1, 0.5 + level / 2))


@dataclass(slots=True)
class Few:
    """The documents' own sums, kept as long as there are few of them.

    Attributes:
        rows: nll and the count of each unit of `UNITS`, a row per scored document; None once
            there are more than `FEW` allows.
    """

    rows: list[tuple[float, ...]] | None = field(default_factory=list)

    def add(self, totals: Totals) -> None:
        """Add one document."""
        if self.rows is None or not totals.scored:
            return
        self.rows.append((totals.nll, *(getattr(totals, unit) for unit in UNITS)))
        if len(self.rows) > FEW[1]:
            self.rows = None

    def span(self, unit: str, level: float = LEVEL) -> tuple[float, float] | None:
        """Give the studentised bootstrap's interval of nats per unit; None where it is not used."""
        if self.rows is None or len(self.rows) < FEW[0]:
            return None
        table = np.array(self.rows)
        return studentised(table[:, 0], table[:, 1 + UNITS.index(unit)], level)


def studentised(
    values: NDArray[np.floating], counts: NDArray[Any], level: float = LEVEL, seed: int = 0
) -> tuple[float, float] | None:
    """Give the studentised (bootstrap-t) interval of ``sum(values) / sum(counts)``.

    Documents are resampled; each resample's ratio is set against its own standard error, so that
    the quantiles follow a skewed sampling distribution where Student's t does not (Efron and
    Tibshirani 1993, chapter 12). The order of the documents does not matter.

    Args:
        values: ``(n,)`` of each document.
        counts: ``(n,)`` likewise, what is divided by.
        level: of the interval.
        seed: of the resampling.

    Returns:
        Its ends; None outside `FEW`, or where the documents do not vary.
    """
    n = len(values)
    if not FEW[0] <= n <= FEW[1] or not counts.sum():
        return None
    order = np.lexsort((counts, values))
    x, c = np.asarray(values, np.float64)[order], np.asarray(counts, np.float64)[order]
    scale = float(np.abs(x).max()) or 1.0
    x = x / scale
    ratio = math.fsum(x) / math.fsum(c)
    apart = x - ratio * c
    error = math.sqrt(n / (n - 1) * float(apart @ apart)) / c.sum()
    # What does not vary but for rounding has no distribution to follow.
    if error <= 1e-12 * abs(ratio):
        return None
    places = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    places += np.arange(RESAMPLES)[:, None] * n
    times = np.bincount(places.ravel(), minlength=RESAMPLES * n).reshape(RESAMPLES, n).astype(float)
    sums = times @ c
    kept = sums > 0
    times, sums = times[kept], sums[kept]
    shifted = times @ apart / sums
    squares = times @ (apart * apart) - 2 * shifted * (times @ (apart * c))
    squares += shifted * shifted * (times @ (c * c))
    errors = np.sqrt(np.maximum(squares, 0.0) * n / (n - 1)) / sums
    alive = errors > 1e-9 * error
    if alive.sum() < RESAMPLES // 2:
        return None
    low, high = np.quantile(shifted[alive] / errors[alive], [0.5 - level / 2, 0.5 + level / 2])
    return float(ratio - high * error) * scale, float(ratio - low * error) * scale


def intervals(
    moments: Moments, level: float = LEVEL, few: Few | None = None
) -> dict[str, Interval]:
    """Compute the clustered interval of each metric; those of perplexities from the endpoints.

    Args:
        moments: of the documents.
        level: of the intervals.
        few: the documents themselves, where there are few.

    Returns:
        Intervals by metric name; empty below two documents (`absence` says why).
    """
    if moments.documents < 2:
        return {}
    out: dict[str, Interval] = {}
    t = quantile(moments.documents, level)
    student = f"documents as clusters, t with {moments.documents - 1} degrees of freedom"
    bits = 1 / math.log(2)
    for unit, linear, scale, exponential in (
        ("tokens", "nll_per_token", 1.0, "perplexity"),
        ("bytes", "bits_per_byte", bits, "byte_perplexity"),
        ("chars", "bits_per_char", bits, None),
        ("words", None, 1.0, "word_perplexity"),
    ):
        r, se = moments.ratio(unit), moments.standard_error(unit)
        if math.isnan(se):
            continue
        low, high, method = r - t * se, r + t * se, student
        span = few.span(unit, level) if few is not None else None
        if span is not None:
            low, high = span
            method = (
                f"documents as clusters, studentised bootstrap of {moments.documents} documents"
            )
        low = max(low, 0.0)
        if linear:
            out[linear] = Interval(low * scale, high * scale, level, method)
        if exponential:
            out[exponential] = Interval(exp(low), exp(high), level, method)
    return out


def absence(documents: int) -> str:
    """Say why there is no interval."""
    return (
        f"no interval: {documents} scored document{'s' * (documents != 1)}, "
        "and the document is the sampling unit; two are needed"
    )


def documents_needed(moments: Moments, precision: float, level: float = LEVEL) -> int | None:
    """Estimate how many documents give perplexity a relative half-width of precision."""
    se = moments.standard_error("tokens")
    if math.isnan(se) or precision <= 0:
        return None
    spread = se * math.sqrt(moments.documents)
    return max(2, math.ceil((1.96 * spread / math.log1p(precision)) ** 2))


def half_width(moments: Moments, level: float = LEVEL, few: Few | None = None) -> float:
    """Give the relative half-width of perplexity's interval, NaN below two documents."""
    if moments.documents < 2:
        return math.nan
    span = few.span("tokens", level) if few is not None else None
    if span is not None:
        return math.expm1((span[1] - span[0]) / 2)
    return math.expm1(quantile(moments.documents, level) * moments.standard_error("tokens"))


@dataclass(slots=True)
class MacroBootstrap:
    """A seeded Poisson bootstrap of documents for means over groups.

    Each document enters each replicate a Poisson(1) number of times, drawn from the seed and
    the document's id, so replicates are plain sums and any sharding gives the same ones
    (Chamandy et al. 2012, "Estimating uncertainty for massive data streams").

    Attributes:
        seed: the seed.
        sums: per group ``(1 + units, replicates)``: nll, then each unit of `UNITS`.
    """

    seed: int = 0
    replicates: int = REPLICATES
    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, group: str, document: str, totals: Totals) -> None:
        """Put one document into its group's replicates."""
        if not totals.scored:
            return
        key = hashlib.sha256(f"{self.seed}\0{document}".encode("utf-8", "surrogatepass")).digest()
        draws = np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little"))).poisson(
            1.0, self.replicates
        )
        column = np.array([totals.nll, *(getattr(totals, unit) for unit in UNITS)])
        if group not in self.sums:
            self.sums[group] = np.zeros((1 + len(UNITS), self.replicates))
        self.sums[group] += column[:, None] * draws

    def interval(self, unit: str, level: float = LEVEL) -> tuple[float, float]:
        """Give the percentile interval of the mean over groups of nats per unit."""
        at = 1 + UNITS.index(unit)
        rates = []
        for sums in self.sums.values():
            with np.errstate(invalid="ignore", divide="ignore"):
                rates.append(sums[0] / sums[at])
        if not rates:
            return math.nan, math.nan
        means = np.mean(rates, axis=0)
        means = means[np.isfinite(means)]
        if len(means) < self.replicates // 2:
            return math.nan, math.nan
        low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
        return float(low), float(high)


class Mean(NamedTuple):
    """A ratio of sums with its clustered error; NaN ends where there is no interval."""

    value: float
    error: float
    low: float
    high: float


def mean(sums: NDArray[np.float64], counts: NDArray[np.int64], level: float = LEVEL) -> Mean:
    """Give ``sum(sums) / sum(counts)`` with documents as clusters, as `Moments` has it.

    Args:
        sums: ``(n,)`` sum of each document.
        counts: ``(n,)`` what it is divided by.
        level: of the interval.
    """
    n, total = len(counts), int(counts.sum())
    if not total:
        return Mean(math.nan, math.nan, math.nan, math.nan)
    value = math.fsum(sums.tolist()) / total
    if n < 2 or not math.isfinite(value):
        return Mean(value, math.nan, math.nan, math.nan)
    residuals = sums - value * counts
    error = math.sqrt(n / (n - 1) * math.fsum((residuals * residuals).tolist())) / total
    reach = quantile(n, level) * error
    return Mean(value, error, value - reach, value + reach)
