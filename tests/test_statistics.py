"""Error bars against direct formulas, scipy's bootstrap, and simulated coverage."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fairway.scores import Totals
from fairway.statistics import (
    MacroBootstrap,
    Moments,
    absence,
    documents_needed,
    half_width,
    intervals,
    quantile,
    token_error,
)

Documents = list[tuple[list[float], int]]
token_nll = st.floats(0, 30, allow_subnormal=False)
documents = st.lists(
    st.tuples(st.lists(token_nll, min_size=1, max_size=20), st.integers(1, 80)),
    min_size=2,
    max_size=12,
)


def moments(texts: Documents) -> Moments:
    """Of documents given as (nll of each token, bytes)."""
    parts = [
        Moments.of(
            Totals(math.fsum(nll), len(nll), 0, 1, size, size, 1), math.fsum(x * x for x in nll)
        )
        for nll, size in texts
    ]
    return reduce(lambda a, b: a + b, parts, Moments())


def direct(total: np.ndarray, count: np.ndarray) -> float:
    """The ratio estimator's standard error, written out."""
    n, r = len(total), total.sum() / count.sum()
    return float(np.sqrt(n / (n - 1) * ((total - r * count) ** 2).sum()) / count.sum())


@given(documents)
def test_standard_error_is_the_direct_formula(texts: Documents) -> None:
    got = moments(texts)
    total = np.array([math.fsum(nll) for nll, _ in texts])
    for unit, count in (
        ("tokens", np.array([len(nll) for nll, _ in texts])),
        ("bytes", np.array([size for _, size in texts])),
    ):
        # The sums of squares cancel, so the last digits of the largest summand are lost.
        scale = math.sqrt(float((total**2).sum())) / count.sum()
        assert got.standard_error(unit) == pytest.approx(
            direct(total, count), rel=1e-9, abs=1e-6 * scale
        )


@given(documents, documents)
def test_moments_add(a: Documents, b: Documents) -> None:
    left, right = moments(a) + moments(b), moments(a + b)
    assert left.counts == right.counts and left.documents == right.documents
    assert left.nll2 == pytest.approx(right.nll2, rel=1e-12)


def test_interval_of_perplexity_is_the_exponential_of_the_endpoints() -> None:
    rng = np.random.default_rng(3)
    got = moments([(rng.gamma(2, 1.5, 50).tolist(), 200) for _ in range(9)])
    found = intervals(got)
    t = float(stats.t.ppf(0.975, 8))
    assert quantile(9) == pytest.approx(t, rel=1e-12)
    r, se = got.ratio("tokens"), got.standard_error("tokens")
    assert found["perplexity"].low == pytest.approx(math.exp(r - t * se), rel=1e-12)
    assert found["perplexity"].high == pytest.approx(math.exp(r + t * se), rel=1e-12)
    assert found["bits_per_byte"].high == pytest.approx(
        (got.ratio("bytes") + t * got.standard_error("bytes")) / math.log(2), rel=1e-12
    )
    assert "t with 8 degrees" in found["perplexity"].method


def test_one_document_has_no_interval() -> None:
    assert intervals(moments([([1.0, 2.0], 5)])) == {}
    assert "1 scored document," in absence(1) and "0 scored documents" in absence(0)


def clustered(rng: np.random.Generator, n: int, between: float) -> list[tuple[list[float], int]]:
    """Documents whose level varies between them: true mean 3 nats per token."""
    return [((3 + between * rng.normal() + rng.normal(0, 1, 40)).tolist(), 160) for _ in range(n)]


def test_coverage_where_documents_differ() -> None:
    """95% intervals hold the truth about 95 times in 100; those of single tokens far less."""
    rng = np.random.default_rng(8)
    hits = naive = 0
    repeats = 600
    for _ in range(repeats):
        texts = clustered(rng, 25, 0.8)
        found = intervals(moments(texts))["nll_per_token"]
        hits += found.low <= 3 <= found.high
        tokens = np.concatenate([nll for nll, _ in texts])
        error = 1.96 * tokens.std(ddof=1) / math.sqrt(len(tokens))
        naive += abs(tokens.mean() - 3) <= error
    # Four standard errors of a proportion of 0.95 in 600 repeats are 0.036.
    assert abs(hits / repeats - 0.95) < 0.036
    assert naive / repeats < 0.6


def test_design_effect_is_one_without_and_large_with_clusters() -> None:
    rng = np.random.default_rng(5)
    alone = moments(clustered(rng, 400, 0.0)).design_effect()
    together = moments(clustered(rng, 400, 1.0)).design_effect()
    assert alone == pytest.approx(1.0, abs=0.3)
    # Kish: 1 + (m - 1) * rho with m = 40 tokens and rho = 1 / 2.
    assert together == pytest.approx(1 + 39 / 2, rel=0.3)


def test_token_error_is_llama_cpps() -> None:
    nll = np.array([1.0, 2.5, 0.3, 4.0])
    totals = Totals(float(nll.sum()), 4, documents=1)
    want = math.sqrt((np.mean(nll**2) - nll.mean() ** 2) / 3)
    assert token_error(totals, float((nll**2).sum())) == pytest.approx(want, rel=1e-12)


def test_documents_needed_gives_the_precision_that_was_asked() -> None:
    rng = np.random.default_rng(11)
    pilot = moments(clustered(rng, 60, 0.5))
    needed = documents_needed(pilot, 0.05)
    assert needed is not None
    assert half_width(moments(clustered(rng, needed, 0.5))) == pytest.approx(0.05, rel=0.25)
    assert documents_needed(moments([([1.0], 1)]), 0.05) is None


@settings(max_examples=20)
@given(st.permutations(list(range(30))))
def test_bootstrap_does_not_depend_on_the_order(order: list[int]) -> None:
    rng = np.random.default_rng(1)
    texts = [(f"d{i}", "ab"[i % 2], Totals(float(rng.gamma(9)), 5, bytes=20)) for i in range(30)]
    one, two = MacroBootstrap(4), MacroBootstrap(4)
    for name, group, totals in texts:
        one.add(group, name, totals)
    for index in order:
        name, group, totals = texts[index]
        two.add(group, name, totals)
    assert one.interval("bytes") == pytest.approx(two.interval("bytes"), rel=1e-12)


def test_bootstrap_agrees_with_scipys() -> None:
    rng = np.random.default_rng(2)
    groups = {name: rng.gamma(9, level, 80) for name, level in (("a", 1.0), ("b", 2.0))}
    mine = MacroBootstrap(0, 4000)
    for name, values in groups.items():
        for i, value in enumerate(values):
            mine.add(name, f"{name}{i}", Totals(float(value), 5, bytes=20))
    low, high = mine.interval("bytes")
    theirs = stats.bootstrap(
        (groups["a"], groups["b"]),
        lambda a, b, axis: (a.mean(axis) + b.mean(axis)) / 40,
        n_resamples=4000, method="percentile", rng=np.random.default_rng(7), vectorized=True,
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.1 * width)
    assert high == pytest.approx(theirs.high, abs=0.1 * width)
