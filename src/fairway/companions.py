"""What stands beside a perplexity: accuracy, entropy, calibration, and the tail of surprisal.

Everything comes from sums that add up over documents. The distribution of surprisal is kept as
counts of levels of fixed relative width, as HdrHistogram and DDSketch (Masson et al. 2019,
arXiv 1908.10693) do: merging is `+`, and what is read from it is right to within `ERROR`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fairway.statistics import LEVEL, Interval, quantile

if TYPE_CHECKING:
    from fairway.scores import Score, Totals

WANT = ("entropy", "rank")
"""Columns of a score that these figures are made from."""
STEPS = 80
"""Levels to a doubling of surprisal."""
LOWEST, HIGHEST = -24, 16
"""Powers of two, bits, between which surprisal has levels. What is less counts as nothing (it is
below the rounding of float32); what is more has the highest level, infinity one of its own."""
LEVELS = (HIGHEST - LOWEST) * STEPS + 2
ERROR = math.tanh(math.log(2) / (2 * STEPS))
"""Largest relative error of a surprisal that is read from its level: 0.43%."""

METRICS = (
    "top1_accuracy", "top5_accuracy", "entropy", "nll_minus_entropy", "surprisal_p50",
    "surprisal_p90", "surprisal_p99", "bits_in_top_1_percent", "tokens_for_half_the_bits",
)  # fmt: skip
RATIOS = {
    "top1_accuracy": ((0, 0, 1, 0, 0), 0.0, 1.0),
    "top5_accuracy": ((0, 0, 0, 1, 0), 0.0, 1.0),
    "entropy": ((0, 0, 0, 0, 1), 0.0, math.inf),
    "nll_minus_entropy": ((0, 1, 0, 0, -1), -math.inf, math.inf),
}
"""Metrics that are ratios of sums: weights of tokens, nll, top1, top5, entropy in what is divided
by the tokens, and the values that are possible."""


@cache
def _values() -> NDArray[np.float64]:
    """Give the bits that stand for each level: no surprisal of it is further off than `ERROR`."""
    low = 2.0 ** (np.arange(LEVELS - 2) / STEPS + LOWEST)
    high = low * 2 ** (1 / STEPS)
    found = np.concatenate(([0.0], 2 * low * high / (low + high), [math.inf]))
    found.setflags(write=False)
    return found


def levels(logprobs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give the level of each log-probability (nats, none of them NaN)."""
    bits = np.maximum(-logprobs / math.log(2), 0.0)
    with np.errstate(divide="ignore"):
        steps = np.floor(STEPS * (np.log2(bits) - LOWEST))
    return np.where(np.isinf(bits), LEVELS - 1, np.clip(steps, -1, LEVELS - 3).astype(np.int64) + 1)


def pack(counts: Mapping[int, int]) -> bytes:
    """Write counts of levels in about a byte for each level that occurs.

    Each is its distance from the one before, doubled, plus one where a count above 1 follows;
    numbers are written seven bits a byte, the lowest first.
    """
    out = bytearray()
    for before, level in pairwise([-1, *sorted(counts)]):
        count = counts[level]
        for number in (2 * (level - before) + (count > 1), count)[: 1 + (count > 1)]:
            while number > 127:
                out.append(number & 127 | 128)
                number >>= 7
            out.append(number)
    return bytes(out)


def unpack(sketch: bytes) -> dict[int, int]:
    """Read back what `pack` wrote."""
    numbers, number, shift = [], 0, 0
    for byte in sketch:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(number)
            number = shift = 0
    out: dict[int, int] = {}
    level = -1
    waiting = iter(numbers)
    for number in waiting:
        level += number >> 1
        out[level] = next(waiting) if number & 1 else 1
    return out


@dataclass(frozen=True, slots=True)
class Companions:
    """Sums over the scored tokens of a text, or of several: additive.

    Attributes:
        tokens: tokens scored.
        nll: minus the sum of their log-probabilities, nats.
        top1: tokens than which none was more likely.
        top5: tokens than which fewer than five were more likely.
        entropy: sum of the entropies of the predicted distributions, nats.
        sketch: how many tokens have which level of surprisal, as `pack` writes it.
    """

    tokens: int = 0
    nll: float = 0.0
    top1: int = 0
    top5: int = 0
    entropy: float = 0.0
    sketch: bytes = b""

    def __add__(self, other: Companions) -> Companions:
        counts = unpack(self.sketch)
        for level, count in unpack(other.sketch).items():
            counts[level] = counts.get(level, 0) + count
        return Companions(
            self.tokens + other.tokens,
            self.nll + other.nll,
            self.top1 + other.top1,
            self.top5 + other.top5,
            self.entropy + other.entropy,
            pack(counts),
        )


def of(score: Score, totals: Totals) -> Companions | None:
    """Take the sums of one text; None where a scored token lacks entropy or rank."""
    if any(name not in score.extras for name in WANT):
        return None
    done = ~np.isnan(score.logprobs)
    entropy, rank = (score.extras[name][done] for name in WANT)
    if np.isnan(entropy).any() or np.isnan(rank).any():
        return None
    found, counts = np.unique(levels(score.logprobs[done]), return_counts=True)
    return Companions(
        totals.tokens,
        totals.nll,
        int((rank < 1).sum()),
        int((rank < 5).sum()),
        math.fsum(entropy.tolist()),
        pack(dict(zip(found.tolist(), counts.tolist(), strict=True))),
    )


@dataclass(slots=True)
class Pool:
    """Companions of documents, summed up with what their intervals need.

    Attributes:
        documents: documents with at least one scored token.
        missing: documents of which there are no companions.
        sums: ``(5,)``: tokens, nll, top1, top5, entropy.
        products: ``(5, 5)``: over documents, the sum of each of them times each.
        counts: ``(LEVELS,)``: tokens by level of surprisal.
    """

    documents: int = 0
    missing: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(5))
    products: NDArray[np.float64] = field(default_factory=lambda: np.zeros((5, 5)))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(LEVELS, np.int64))

    def add(self, one: Companions | None) -> None:
        """Add a document."""
        if one is None:
            self.missing += 1
            return
        if not one.tokens:
            return
        row = np.array([one.tokens, one.nll, one.top1, one.top5, one.entropy])
        counts = unpack(one.sketch)
        self.documents += 1
        self.sums += row
        with np.errstate(invalid="ignore"):
            self.products += row[:, None] * row
        self.counts[list(counts)] += list(counts.values())


@dataclass(frozen=True, slots=True)
class Figures:
    """What a report says beside perplexity.

    Attributes:
        tokens: scored tokens that they rest on.
        metrics: values by name (`METRICS`): accuracies and shares as fractions, entropy and its
            gap in nats per token, percentiles of surprisal in bits. NaN where there is none.
        intervals: confidence intervals of the ratios of sums (`RATIOS`).
    """

    tokens: int
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)


def figures(pool: Pool, level: float = LEVEL) -> Figures | None:
    """Compute every figure; None where a document has no companions, or no token was scored."""
    if pool.missing or not pool.documents:
        return None
    tokens, nll = int(pool.sums[0]), float(pool.sums[1])
    metrics, intervals = {}, {}
    for name, (weights, least, most) in RATIOS.items():
        chosen = [at for at, weight in enumerate(weights) if weight]
        value = math.fsum(weights[at] * pool.sums[at] for at in chosen) / tokens
        metrics[name] = value
        error = _error(pool, np.array(weights, float), value)
        if math.isnan(error):
            continue
        half = quantile(pool.documents, level) * error
        intervals[name] = Interval(
            max(value - half, least),
            min(value + half, most),
            level,
            f"documents as clusters, t with {pool.documents - 1} degrees of freedom",
        )
    for percent in (50, 90, 99):
        metrics[f"surprisal_p{percent}"] = percentile(pool.counts, percent)
    metrics["bits_in_top_1_percent"] = costliest(pool.counts, nll / math.log(2))
    metrics["tokens_for_half_the_bits"] = half_the_bits(pool.counts)
    return Figures(tokens, metrics, intervals)


def _error(pool: Pool, weights: NDArray[np.float64], value: float) -> float:
    """Give the standard error of a ratio of sums to the tokens, documents being the clusters.

    ``sqrt(n / (n - 1) * sum_d e_d^2) / tokens`` with ``e_d = numerator_d - ratio * tokens_d``, as
    `fairway.statistics.Moments.standard_error` has it. NaN below two documents.
    """
    n = pool.documents
    if n < 2 or not math.isfinite(value):
        return math.nan
    weights[0] -= value
    # An infinite nll has no part in the sums that leave it out.
    at = np.flatnonzero(weights)
    squares = float(weights[at] @ pool.products[np.ix_(at, at)] @ weights[at])
    return math.sqrt(max(squares, 0.0) * n / (n - 1)) / float(pool.sums[0])


def percentile(counts: NDArray[np.int64], percent: int) -> float:
    """Give the surprisal, bits, that so many percent of the tokens do not exceed.

    It is the least one of which that is true (numpy's ``inverted_cdf``), to within `ERROR`.
    """
    tokens = int(counts.sum())
    if not tokens:
        return math.nan
    need = -(-percent * tokens // 100)
    return float(_values()[np.searchsorted(np.cumsum(counts), max(need, 1))])


def costliest(counts: NDArray[np.int64], bits: float, percent: float = 1.0) -> float:
    """Give the share of all bits in the costliest tokens, to within `ERROR`.

    Args:
        counts: ``(LEVELS,)`` tokens by level.
        bits: of all tokens.
        percent: how many of them, exactly: of a token at the edge the part that belongs.
    """
    if not 0 < bits < math.inf:
        return math.nan
    falling = counts[::-1]
    before = np.cumsum(falling) - falling
    taken = np.clip(percent / 100 * counts.sum() - before, 0, falling)
    some = taken > 0
    return min(1.0, float(taken[some] @ _values()[::-1][some]) / bits)


def half_the_bits(counts: NDArray[np.int64]) -> float:
    """Give the least share of the tokens that holds half of the bits, give or take `ERROR`."""
    some = np.flatnonzero(counts)[::-1]
    tokens, values = counts[some], _values()[some]
    held = np.cumsum(tokens * values)
    if not len(held) or not 0 < held[-1] < math.inf:
        return math.nan
    at = int(np.searchsorted(held, held[-1] / 2))
    over = (held[at] - held[-1] / 2) / values[at]
    return float((np.cumsum(tokens)[at] - over) / tokens.sum())
