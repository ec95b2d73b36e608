"""Sums and ratios: additive, exact, counted in the source text."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fairway.scores import Score, Totals, add, ratios
from fairway.text import close_gaps, mark, measure

texts = st.text(st.characters(codec="utf-8"), max_size=60)


def make(text: str, cuts: list[int], logprobs: list[float]) -> Score:
    edges = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    offsets = np.array(list(zip(edges[:-1], edges[1:], strict=True)), dtype=np.int64)
    values = np.resize(np.array(logprobs or [-1.0]), len(offsets))
    return Score("x", text, offsets, values, np.zeros(len(offsets), dtype=np.int64))


@given(texts, st.lists(st.integers(0, 60), max_size=8), st.lists(st.floats(-50, 0), max_size=5))
def test_all_units_hold_the_same_bits(text: str, cuts: list[int], logprobs: list[float]) -> None:
    totals = make(text, cuts, logprobs).totals
    metrics = ratios(totals)
    assert totals.bytes == len(text.encode())
    assert totals.words == len(text.split())
    bits = totals.nll / math.log(2)
    for name, count in (("bits_per_byte", totals.bytes), ("bits_per_char", totals.chars)):
        if count:
            assert math.isclose(metrics[name] * count, bits, rel_tol=1e-12, abs_tol=1e-12)
    for name, count in (("word_perplexity", totals.words), ("perplexity", totals.tokens)):
        if count and not math.isinf(metrics[name]):
            assert math.isclose(math.log2(metrics[name]) * count, bits, rel_tol=1e-9, abs_tol=1e-9)


@given(texts, st.lists(st.integers(0, 60), max_size=8), st.data())
def test_parts_add_up_to_the_whole(text: str, cuts: list[int], data: st.DataObject) -> None:
    whole = make(text, cuts, [-1.5])
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(whole), max_size=len(whole))))
    parts = []
    for keep in (chosen, ~chosen):
        values = np.where(keep, whole.logprobs, np.nan)
        part = Score("x", text, whole.offsets, values, whole.ids).totals
        parts.append(part)
    both = parts[0] + parts[1]
    assert both.tokens == len(whole)
    assert both.bytes == len(text.encode()) and both.words == len(text.split())


def test_gaps_belong_to_the_following_token() -> None:
    spans = close_gaps(np.array([[1, 3], [5, 6], [6, 8]]), 10)
    assert spans.tolist() == [[0, 3], [3, 6], [6, 10]]


def test_a_character_of_several_tokens_counts_once() -> None:
    score = Score(
        "x", "a🐕", np.array([[0, 1], [1, 2], [1, 2]]), np.array([-1.0, -1.0, np.nan]), np.arange(3)
    )
    totals = score.totals
    assert (totals.tokens, totals.tokens_skipped, totals.chars, totals.bytes) == (2, 1, 2, 5)


def test_overflow_is_infinite_and_nothing_is_nan() -> None:
    metrics = ratios(Totals(nll=1e6, tokens=1, bytes=1, words=1, chars=1, documents=1))
    assert math.isinf(metrics["perplexity"]) and metrics["nll_per_token"] == 1e6
    assert math.isnan(ratios(Totals())["perplexity"])


def test_exact_sum_does_not_depend_on_order() -> None:
    parts = [Totals(nll=x, tokens=1) for x in (1e16, 1.0, -1e16, 1.0)]
    assert add(parts).nll == add(reversed(parts)).nll == 2.0


def test_words_are_counted_where_they_begin() -> None:
    covered = mark([(1, 5)], 7)
    assert measure("ab cd e", covered) == (4, 4, 1)
