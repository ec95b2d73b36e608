"""Paired tests against scipy and full enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway import pairs
from fairway.pairs import Paired, benjamini_hochberg, difference, holm, sign_flips


def drawn(n: int, shift: float, seed: int = 0) -> Paired:
    draw = np.random.default_rng(seed)
    counts = draw.integers(50, 5000, n)
    first = counts * draw.normal(1.5, 0.3, n).clip(0.2)
    second = first + counts * draw.normal(shift, 0.05, n)
    return Paired(first, second, counts)


def test_equal_counts_are_scipys_paired_t() -> None:
    draw = np.random.default_rng(1)
    first, second = draw.normal(100, 9, 230), draw.normal(103, 9, 230)
    found = difference(Paired(first, second, np.full(230, 40)))
    t = scipy.stats.ttest_rel(second, first)
    low, high = t.confidence_interval(0.95)
    assert found.p_t == pytest.approx(t.pvalue, abs=1e-12)
    assert found.value == pytest.approx(np.mean(second - first) / 40, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((low / 40, high / 40), rel=1e-9)


def test_the_error_is_the_ratio_estimators() -> None:
    """Against a regression through the origin with cluster-robust errors, written out."""
    sample = drawn(260, -0.02)
    found = difference(sample)
    apart = sample.second - sample.first
    weight = sample.counts.astype(float)
    slope = np.sum(apart) / np.sum(weight)
    meat = np.sum((apart - slope * weight) ** 2) * 260 / 259
    assert found.error == pytest.approx(math.sqrt(meat) / np.sum(weight), rel=1e-9)
    share = np.sum(sample.second) / np.sum(sample.first)
    meat = np.sum((sample.second - share * sample.first) ** 2) * 260 / 259
    half = scipy.stats.t.ppf(0.975, 259) * math.sqrt(meat) / np.sum(sample.first)
    assert found.relative == pytest.approx(share - 1, rel=1e-9)
    assert found.relative_high - found.relative == pytest.approx(half, rel=1e-9)


def test_the_paired_t_is_that_of_the_documents_nats() -> None:
    sample = drawn(60, -0.002)
    found = difference(sample)
    assert found.p_t == pytest.approx(
        scipy.stats.ttest_1samp(sample.second - sample.first, 0).pvalue
    )


def test_few_documents_get_the_studentised_bootstrap() -> None:
    """Against a plain loop of Efron and Tibshirani's algorithm with resamples of its own."""
    sample = drawn(25, 0.05, 3)
    x, c = sample.second - sample.first, sample.counts.astype(float)

    def ratio(x: np.ndarray, c: np.ndarray) -> tuple[float, float]:
        r = x.sum() / c.sum()
        return r, math.sqrt(25 / 24 * ((x - r * c) ** 2).sum()) / c.sum()

    value, error = ratio(x, c)
    draw = np.random.default_rng(99)
    quotients = []
    for _ in range(20_000):
        places = draw.integers(0, 25, 25)
        r, e = ratio(x[places], c[places])
        quotients.append((r - value) / e)
    low, high = np.quantile(quotients, [0.025, 0.975])
    found = difference(sample)
    assert found.low == pytest.approx(value - high * error, abs=0.15 * error)
    assert found.high == pytest.approx(value - low * error, abs=0.15 * error)
    mixed = draw.permutation(25)
    again = difference(sample.take(mixed))
    assert (again.low, again.high) == pytest.approx((found.low, found.high), rel=1e-12)
    few = difference(sample.take(np.arange(7)))
    t = scipy.stats.t.ppf(0.975, 6)
    assert few.high - few.value == pytest.approx(t * few.error)


def test_documents_that_do_not_vary_get_an_interval_of_no_width() -> None:
    counts = np.arange(10, 30)
    found = difference(Paired(2.0 * counts, 2.5 * counts, counts))
    assert found.low == pytest.approx(0.5) and found.high == pytest.approx(0.5)
    assert found.relative_low == pytest.approx(0.25) and found.real


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-50, 50).map(lambda x: round(x, 3)), min_size=1, max_size=9))
def test_flips_of_few_documents_are_all_of_them(values: list[float]) -> None:
    apart = np.array(values)
    reached = [
        abs(sum(s * x for s, x in zip(signs, values, strict=True))) >= abs(sum(values)) - 1e-9
        for signs in itertools.product((-1, 1), repeat=len(values))
    ]
    p, exact = sign_flips(apart)
    assert exact and p == pytest.approx(np.mean(reached), abs=1e-12)


def test_random_flips_agree_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = np.random.default_rng(4).normal(0.5, 1.2, 14)
    whole, exact = sign_flips(apart)
    assert exact
    monkeypatch.setattr(pairs, "EXACT", 1)
    some, exact = sign_flips(apart, 3)
    assert not exact and abs(some - whole) < 4 * math.sqrt(whole / pairs.FLIPS)
    assert sign_flips(apart, 3) == (some, False)


def test_alike_models_are_not_told_apart_and_unlike_ones_are() -> None:
    alike = drawn(50, 0.0)
    same = Paired(alike.first, alike.first.copy(), alike.counts)
    found = difference(same)
    assert (found.value, found.p_t, found.p_flip, found.wins) == (0.0, 1.0, 1.0, 0.5)
    assert not found.real and found.needed is None
    better = difference(drawn(50, -0.1))
    assert better.real and better.value < 0 and better.wins > 0.9 and better.high < 0
    swapped = drawn(50, -0.1)
    worse = difference(Paired(swapped.second, swapped.first, swapped.counts))
    assert worse.value == pytest.approx(-better.value)
    assert worse.p_t == pytest.approx(better.p_t) and worse.p_flip == better.p_flip


def test_a_null_is_rejected_as_often_as_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models swapped at random per document: 5% of the tests may say that they differ."""
    monkeypatch.setattr(pairs, "FLIPS", 999)
    draw = np.random.default_rng(7)
    base = drawn(40, -0.03)
    rejected = np.zeros(2)
    for round_ in range(1500):
        swap = draw.integers(0, 2, 40).astype(bool)
        first = np.where(swap, base.second, base.first)
        second = np.where(swap, base.first, base.second)
        found = difference(Paired(first, second, base.counts), seed=round_)
        rejected += found.p_t < 0.05, found.p_flip <= 0.05
    # Four standard errors of 1,500 draws around 5%.
    assert all(0.0275 < share < 0.0725 for share in rejected / 1500)


def test_what_can_be_detected_is_detected_four_times_in_five() -> None:
    hits = 0
    for seed in range(400):
        sample = drawn(40, 0.0, 100 + seed)
        shift = difference(sample).detectable * sample.counts
        hits += difference(Paired(sample.first, sample.second + shift, sample.counts)).p_t < 0.05
    assert 0.72 < hits / 400 < 0.88


def test_one_document_or_none() -> None:
    one = difference(Paired(np.array([10.0]), np.array([9.0]), np.array([5])))
    assert one.value == pytest.approx(-0.2) and math.isnan(one.error) and not one.real
    with pytest.raises(ValueError, match="no scored document"):
        difference(Paired(np.array([]), np.array([]), np.array([], dtype=np.int64)))


@given(st.lists(st.floats(0, 1), max_size=12))
def test_adjusted_p_values(values: list[float]) -> None:
    adjusted = benjamini_hochberg(values)
    if values:
        assert adjusted == pytest.approx(list(scipy.stats.false_discovery_control(values)))
    strict = holm(values)
    m = len(values)
    order = sorted(range(m), key=lambda i: values[i])
    for place, index in enumerate(order):
        wanted = max(min(1.0, (m - k) * values[order[k]]) for k in range(place + 1))
        assert strict[index] == pytest.approx(wanted)
    assert all(a >= b - 1e-12 for a, b in zip(strict, adjusted, strict=True))
