"""Paired statistics of two models on the same texts: the document is the sampling unit.

Everything works on per-document sums, so two tokenizers are no hindrance: both models' nats are
divided by the same bytes (or words) of the source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairway.statistics import LEVEL, studentised

EXACT = 16
"""Documents up to which every pattern of signs is tried."""
FLIPS = 20_000
"""Random patterns of signs tried above that."""
CHUNK = 1 << 22
"""Signs held at a time."""
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Paired:
    """Sums of two models over the same documents.

    Attributes:
        first: ``(n,)`` nll of each document under the first model, nats.
        second: ``(n,)`` nll under the second.
        counts: ``(n,)`` what both are divided by: the documents' bytes, words, ...
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, places: NDArray[np.bool_] | NDArray[np.int64]) -> Paired:
        """Give some of the documents."""
        return Paired(self.first[places], self.second[places], self.counts[places])


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the second model is from the first, in nats per unit; negative = better.

    Attributes:
        documents: how many there are.
        value: ``sum(second - first) / sum(counts)``.
        error: its standard error; NaN below two documents.
        low: lower end of the interval: the studentised bootstrap's for few documents, t's for many.
        high: upper end.
        level: of the interval.
        p_t: two-sided p of the paired t test on the documents' nats.
        p_flip: two-sided p of the sign-flip permutation test.
        exact: whether every pattern of signs was tried.
        wins: share of documents that the second model finds likelier; ties count half.
        relative: ``sum(second) / sum(first) - 1``.
        relative_low: lower end of its interval.
        relative_high: upper end.
        detectable: difference that a test at this level finds with probability `POWER`.
        needed: documents with which a difference as large as this one would be found with that
            probability; None where there is no difference.
    """

    documents: int
    value: float
    error: float
    low: float
    high: float
    level: float
    p_t: float
    p_flip: float
    exact: bool
    wins: float
    relative: float
    relative_low: float
    relative_high: float
    detectable: float
    needed: int | None

    @property
    def real(self) -> bool:
        """Whether both tests and the interval say that the models differ."""
        return max(self.p_t, self.p_flip) < 1 - self.level and self.excludes

    @property
    def excludes(self) -> bool:
        """Whether the interval leaves no difference out."""
        return self.low > 0 or self.high < 0


def difference(pairs: Paired, level: float = LEVEL, seed: int = 0) -> Difference:
    """Compare two models on the same documents.

    The difference is a ratio of sums; its error is the ratio estimator's, from the linearised
    residuals ``e_d = (second_d - first_d) - value * counts_d``:
    ``sqrt(n / (n - 1) * sum_d e_d^2) / sum_d counts_d`` (Miller 2024, arXiv 2411.00640, with
    documents as clusters). The t test is made where nothing is the difference: there the
    residuals are the documents' differences themselves, and it is the plain paired t with
    ``n - 1`` degrees of freedom. With the residuals of the estimate it would reject up to 8% of
    nulls at 5% where documents are of uneven length (`bench/coverage.py`).

    Raises:
        ValueError: when there is no document, or nothing to divide by.
    """
    n, total = len(pairs), int(pairs.counts.sum())
    if n == 0 or total == 0:
        raise ValueError("There is no scored document to compare.")
    apart = pairs.second - pairs.first
    value = math.fsum(apart.tolist()) / total
    ratio = math.fsum(pairs.second.tolist()) / math.fsum(pairs.first.tolist())
    error = _error(apart - value * pairs.counts, total)
    relative_error = _error(pairs.second - ratio * pairs.first, math.fsum(pairs.first.tolist()))
    wins = float((np.sum(apart < 0) + 0.5 * np.sum(apart == 0)) / n)
    p_flip, exact = sign_flips(apart, seed)
    if n < 2:
        nan = math.nan
        return Difference(
            n, value, nan, nan, nan, level, 1.0, p_flip, exact, wins, ratio - 1, nan, nan, nan, None
        )
    t = _quantile(0.5 + level / 2, n - 1)
    plain = _error(apart - np.mean(apart), n)
    if plain > 0:
        p_t = 2 * _tail(abs(float(np.mean(apart))) / plain, n - 1)
    else:
        p_t = 0.0 if value else 1.0
    low, high = studentised(apart, pairs.counts, level, seed) or (
        value - t * error, value + t * error
    )  # fmt: skip
    relative = studentised(pairs.second, pairs.first, level, seed) or (
        ratio - t * relative_error, ratio + t * relative_error
    )  # fmt: skip
    detectable = (t + _quantile(POWER, n - 1)) * error
    needed = max(2, math.ceil(n * (detectable / value) ** 2)) if value else None
    return Difference(
        n, value, error, low, high, level, p_t, p_flip, exact, wins,
        ratio - 1, relative[0] - 1, relative[1] - 1, detectable, needed,
    )  # fmt: skip


def _error(residuals: NDArray[np.float64], total: float) -> float:
    n = len(residuals)
    if n < 2:
        return math.nan
    return math.sqrt(n / (n - 1) * math.fsum((residuals * residuals).tolist())) / total


def _quantile(p: float, freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, p))


def _tail(t: float, freedom: int) -> float:
    from scipy.special import stdtr

    return float(stdtr(freedom, -t))


def sign_flips(apart: NDArray[np.float64], seed: int = 0) -> tuple[float, bool]:
    """Test whether differences are centred on nothing, by swapping the models per document.

    If the models are alike, each document's difference is as likely to have the other sign. The
    statistic is the absolute sum.

    Args:
        apart: ``(n,)`` differences.
        seed: of the patterns tried where there are too many for all.

    Returns:
        The two-sided p, the observed pattern counted, and whether every pattern was tried.
    """
    n = len(apart)
    scale = float(np.abs(apart).sum())
    if scale == 0:
        return 1.0, True
    # Sums that differ by rounding alone count as equal.
    observed = abs(float(apart.sum())) - 1e-12 * scale
    if n <= EXACT:
        patterns = 1 - 2 * ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1)
        return float(np.mean(np.abs(patterns @ apart) >= observed)), True
    draw = np.random.default_rng(seed)
    total = float(apart.sum())
    reached, left = 0, FLIPS
    while left:
        size = min(left, max(1, CHUNK // n))
        coins = np.frombuffer(draw.bytes((size * n + 7) // 8), np.uint8)
        heads = np.unpackbits(coins)[: size * n].reshape(size, n).astype(np.float64)
        reached += int(np.sum(np.abs(2 * (heads @ apart) - total) >= observed))
        left -= size
    return (reached + 1) / (FLIPS + 1), False


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p values so that one false rejection among all has at most the level's probability.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    out = [0.0] * len(values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        out[index] = highest
    return out


def benjamini_hochberg(values: Sequence[float]) -> list[float]:
    """Adjust p values so that the share of false ones among rejections stays below the level.

    Source: Benjamini and Hochberg 1995, "Controlling the false discovery rate".
    """
    out = [0.0] * len(values)
    lowest = 1.0
    order = sorted(range(len(values)), key=lambda i: values[i], reverse=True)
    for place, index in enumerate(order):
        lowest = min(lowest, len(values) / (len(values) - place) * values[index])
        out[index] = lowest
    return out
