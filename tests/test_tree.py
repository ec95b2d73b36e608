"""Packing: every window finds its own tokens, sees what it should, and no batch is too large."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.backends.transformers.tree import SHARED, common, pack, padded, plan, rounded

BASE = [int(n) for n in np.random.default_rng(3).integers(0, 3, 200)]
windows = st.lists(
    st.tuples(st.integers(0, 150), st.lists(st.integers(0, 2), max_size=60)).filter(
        lambda pair: pair[0] + len(pair[1]) > 0
    ),
    min_size=1,
    max_size=25,
)


def made(pairs: list[tuple[int, list[int]]]) -> list[np.ndarray]:
    return [np.array(BASE[:k] + tail, dtype=np.int64) for k, tail in pairs]


@settings(max_examples=200, deadline=None)
@given(windows, st.booleans())
def test_every_window_sees_its_own_tokens_and_no_others(
    pairs: list[tuple[int, list[int]]], share: bool
) -> None:
    inputs = made(pairs)
    packed = pack(inputs, share)
    above = {}
    for index, segment in enumerate(packed.segments):
        own = list(range(segment.start, segment.start + segment.length))
        before = above[segment.parent] if segment.parent >= 0 else []
        assert segment.depth == len(before) and segment.parent < index
        above[index] = before + own
    for ids, places in zip(inputs, packed.places, strict=True):
        assert np.array_equal(packed.ids[places], ids)
        assert np.array_equal(packed.positions[places], np.arange(len(ids)))
        # The window's places are a segment and all above it: what attention lets it see.
        assert places.tolist() in above.values()
    assert len(packed.ids) <= sum(map(len, inputs))
    assert share or len(packed.ids) == sum(map(len, inputs))


@settings(max_examples=200, deadline=None)
@given(windows, st.integers(1, 400))
def test_batches_hold_each_window_once_within_the_budget(
    pairs: list[tuple[int, list[int]]], budget: int
) -> None:
    inputs = made(pairs)
    batches = plan(inputs, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(inputs)))
    for batch in batches:
        laid = len(pack([inputs[index] for index in batch]).ids)
        longest = max(len(inputs[index]) for index in batch)
        assert len(batch) == 1 or laid <= budget + longest + SHARED * len(batch)
    assert batches == plan(inputs, budget)
    lengths = [len(ids) for ids in inputs]
    for batch in padded(lengths, budget):
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget


@given(windows)
def test_what_two_texts_begin_with_alike(pairs: list[tuple[int, list[int]]]) -> None:
    inputs = made(pairs)
    one, other = inputs[0], inputs[-1]
    alike = 0
    while alike < min(len(one), len(other)) and one[alike] == other[alike]:
        alike += 1
    assert common(one, other) == alike


def test_every_beginning_of_a_text() -> None:
    """A text cut at each length: a chain as deep as it is long."""
    inputs = [np.arange(size) for size in range(1, 1500)]
    packed = pack(inputs)
    assert len(packed.ids) < 1500 + SHARED * SHARED
    assert all(np.array_equal(packed.ids[p], i) for p, i in zip(packed.places, inputs, strict=True))


def test_one_context_is_read_once() -> None:
    context = list(range(500))
    inputs = [np.array([*context, 1000 + i, 2000 + i]) for i in range(64)]
    assert len(pack(inputs).ids) == 500 + 128
    assert len(plan(inputs, 150)) == 1 and len(plan(inputs, 100)) == 2


def test_lengths_are_few_and_hardly_longer() -> None:
    sizes = range(1, 5000)
    made = {rounded(size) for size in sizes}
    assert len(made) < 200
    assert all(size <= rounded(size) < size + max(8, size / 16) for size in sizes)
    inputs = [np.arange(100), np.arange(50) + 7]
    filled = pack(inputs, fill=True)
    assert len(filled.ids) == rounded(150) and filled.segments[-1].parent == -1
    assert [len(p) for p in filled.places] == [100, 50]
