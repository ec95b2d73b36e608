"""Bytes and places of tokens, against one look at each character."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from fairway.longcontext.depth import split
from fairway.longcontext.spans import owned, positions, touching
from fairway.scores import Score
from fairway.text import close_gaps

TOKENIZER = models.tokenizer()


@st.composite
def scored_texts(drawing: Any) -> Score:
    """Texts with characters of one to four bytes, split ones among them; some tokens unscored."""
    text = drawing(st.text("ab é漢🐕\n", min_size=1, max_size=200))
    encoded = TOKENIZER(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    seed = drawing(st.integers(0, 2**32 - 1))
    noise = np.random.default_rng(seed)
    if drawing(st.booleans()):
        # Tokens that share characters with their neighbours, or that trim a blank.
        offsets[:, 1] = np.minimum(len(text), offsets[:, 1] + noise.integers(0, 2, len(offsets)))
        offsets[:, 0] = np.minimum(
            offsets[:, 1], offsets[:, 0] + noise.integers(0, 2, len(offsets))
        )
    logprobs = -noise.exponential(3.0, len(offsets))
    logprobs[noise.random(len(offsets)) < drawing(st.sampled_from([0.0, 0.2]))] = np.nan
    spans = None
    if drawing(st.booleans()):
        cut = sorted(drawing(st.tuples(*[st.integers(0, len(text))] * 2)))
        spans = ((cut[0], cut[1]),)
    score = Score("x", text, offsets, logprobs, np.zeros(len(offsets), np.int64), spans)
    if spans is not None:
        score = replace(score, logprobs=np.where(score.wanted, logprobs, np.nan))
    return score


@given(scored_texts(), st.sampled_from(["bytes", "tokens"]))
@settings(max_examples=150, deadline=None)
def test_buckets_add_up_to_the_documents_totals(score: Score, unit: str) -> None:
    parts = split(score, unit).values()
    totals = score.totals
    assert sum(part.tokens for part in parts) == totals.tokens
    assert sum(part.bytes for part in parts) == totals.bytes == int(owned(score).sum())
    assert math.fsum(part.nll for part in parts) == pytest.approx(totals.nll, abs=1e-9)


@given(scored_texts())
@settings(max_examples=150, deadline=None)
def test_each_byte_has_the_first_scored_token_that_covers_it(score: Score) -> None:
    closed = close_gaps(score.offsets, len(score.text)).tolist()
    sizes = [0] * len(score)
    for at, char in enumerate(score.text):
        if score.scored is not None and not any(s <= at < e for s, e in score.scored):
            continue
        for place, (start, end) in enumerate(closed):
            if start <= at < end and not math.isnan(score.logprobs[place]):
                sizes[place] += len(char.encode())
                break
    assert owned(score).tolist() == sizes


@given(scored_texts())
@settings(max_examples=100, deadline=None)
def test_tokens_that_share_a_character_stand_together(score: Score) -> None:
    closed = close_gaps(score.offsets, len(score.text)).tolist()
    where = positions(score).tolist()
    assert where == sorted(where)
    for one in range(len(closed)):
        # A token stands at a character's first byte, no later than its own first character.
        prefix = len(score.text[: closed[one][0]].encode())
        assert where[one] <= prefix
        for other in range(one):
            if max(closed[one][0], closed[other][0]) < min(closed[one][1], closed[other][1]):
                assert where[one] == where[other]


def test_a_split_character_is_in_one_bucket() -> None:
    text = "a" * 62 + "🐕b"
    encoded = TOKENIZER(text, return_offsets_mapping=True)
    offsets = np.array(encoded["offset_mapping"], dtype=np.int64)
    assert len(offsets) == 62 + 4 + 1
    score = Score("x", text, offsets, np.full(67, -1.0), np.zeros(67, np.int64))
    found = split(score)
    assert {k: (t.nll, t.tokens, t.bytes) for k, t in found.items()} == {
        0: (66.0, 66, 66), 1: (1.0, 1, 1),
    }  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=12),
)
def test_touching_is_one_character_in_common(spans: Any, tokens: Any) -> None:
    offsets = np.array([(s, min(40, s + n)) for s, n in tokens], dtype=np.int64).reshape(-1, 2)
    wanted = [
        any(set(range(s, e)) & set(range(a, b)) for a, b in spans) for s, e in offsets.tolist()
    ]
    assert touching(offsets, spans, 40).tolist() == wanted
