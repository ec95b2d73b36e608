"""Windows are integers: every property is checked over many sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway import windows
from fairway.errors import ProtocolError

sizes = st.tuples(st.integers(0, 400), st.integers(3, 64)).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), st.integers(1, pair[1]))
)


@given(sizes, st.integers(0, 2))
def test_rolling_scores_each_token_once_with_enough_context(
    size: tuple[int, int, int], prefix: int
) -> None:
    tokens, length, stride = size
    cut = windows.rolling(tokens, length, stride, prefix)
    scored = [index for w in cut for index in range(w.score_from, w.end)]
    assert len(scored) == len(set(scored)) and scored == sorted(scored)
    missed = set(range(tokens)) - set(scored)
    if prefix:
        assert not missed
    elif stride < length:
        assert missed <= {0}
    else:
        assert missed == set(range(0, tokens, length))
    for number, w in enumerate(cut):
        assert 0 <= w.begin <= w.score_from < w.end <= tokens
        assert w.end - w.begin + prefix <= length
        if number:
            assert w.score_from - w.begin + prefix >= min(length - stride, length - 1)


@given(st.integers(0, 400), st.integers(2, 64))
def test_harness_scores_every_token_once_within_the_models_length(tokens: int, length: int) -> None:
    cut = windows.harness(tokens, length)
    assert [i for w in cut for i in range(w.score_from, w.end)] == list(range(tokens))
    for w in cut:
        assert w.end - w.begin - 1 + w.prefix <= length
        assert w.prefix or w.score_from > w.begin


def test_second_halves_by_hand() -> None:
    cut = windows.second_halves(20, 8, True)
    assert [tuple(w) for w in cut] == [(1, 8, 5, True), (9, 16, 13, True)]
    assert [tuple(w) for w in windows.second_halves(16, 8, False)] == [
        (0, 8, 5, False),
        (8, 16, 13, False),
    ]


def test_rows_drop_the_tail() -> None:
    assert [tuple(w) for w in windows.rows(19, 8)] == [(0, 8, 1, False), (8, 16, 9, False)]


@pytest.mark.parametrize(
    ("length", "stride", "prefix"), [(8, 9, 0), (8, 0, 0), (1, 1, 0), (1, 1, 1)]
)
def test_impossible_lengths_are_refused(length: int, stride: int, prefix: int) -> None:
    with pytest.raises(ProtocolError):
        windows.rolling(10, length, stride, prefix)
