"""Sentences: where they are, sums that add up to the text's, and what /v1/score says of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fairway
from fairway import sentences
from fairway.render.visible import figure
from fairway.report import from_json
from fairway.scores import Score, Totals, add
from fairway.sentences import PLAIN, bounds, by_sentence
from fairway.serve import app
from fairway.statistics import Moments

CHARACTERS = "ab.!? \n\t\r“”。é猫😀\u0301\u2028"
SMALL = "The cat sat. The  dog “ran.” And 😀 then!\n\nWhat? 你好。再见。"


@st.composite
def scores(draw: st.DrawFn) -> Score:
    """Tokens of any shape: with gaps, empty, overlapping, of which some are not scored."""
    text = draw(st.text(CHARACTERS, min_size=1, max_size=40))
    offsets = []
    at = 0
    while at < len(text) and len(offsets) < 40:
        start = min(len(text), at + draw(st.integers(0, 2)))
        end = min(len(text), start + draw(st.integers(0, 5)))
        offsets.append((start, end))
        # Back by one where bytes of one character are parted.
        at = max(start, end - draw(st.integers(0, 1)))
        if at == start == end:
            at += 1
    logprobs = draw(
        st.lists(
            st.one_of(st.floats(-30, 0), st.just(math.nan)),
            min_size=len(offsets), max_size=len(offsets),
        )
    )  # fmt: skip
    scored = None
    if draw(st.booleans()):
        low = draw(st.integers(0, len(text)))
        scored = ((low, draw(st.integers(low, len(text)))),)
    return Score(
        "one", text, np.array(offsets, np.int64).reshape(-1, 2), np.array(logprobs, np.float64),
        np.arange(len(offsets)), scored,
    )  # fmt: skip


def same(found: Totals, wanted: Totals, documents: int) -> None:
    assert found.nll == pytest.approx(wanted.nll, rel=1e-12, abs=1e-12)
    for name in ("tokens", "tokens_skipped", "words", "chars", "bytes"):
        assert getattr(found, name) == getattr(wanted, name), name
    assert found.documents == documents


@given(scores(), st.data())
@settings(max_examples=400, deadline=None)
def test_sentences_add_up_to_the_text(score: Score, data: st.DataObject) -> None:
    inner = st.lists(st.integers(1, len(score.text)), max_size=6, unique=True)
    starts = None if data.draw(st.booleans()) else [0, *sorted(data.draw(inner))]
    found = by_sentence(score, starts)
    rows = found.sentences
    assert [rows[0].start, rows[0].first] == [0, 0]
    assert [rows[-1].end, rows[-1].last] == [len(score.text), len(score)]
    for before, after in zip(rows, rows[1:], strict=False):
        assert (before.end, before.last) == (after.start, after.first)
        assert before.first < before.last
    same(add(one.totals for one in rows), score.totals, len(rows))


@given(st.text(CHARACTERS, max_size=60))
def test_sentences_begin_with_something(text: str) -> None:
    if not text:
        assert not len(bounds(text, PLAIN))
        return
    starts = bounds(text, PLAIN).tolist()
    assert starts == sorted(set(starts)) and starts[0] == 0
    pieces = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    assert all(piece.strip() for piece in pieces) or len(pieces) <= 1 or not text.strip()
    assert "".join(pieces) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A cat. A dog.", ["A cat. ", "A dog."]),
        ("It cost 3.50, e.g. here", ["It cost 3.50, e.g. ", "here"]),
        ("“Go!” he said. (Why?) So.", ["“Go!” ", "he said. ", "(Why?) ", "So."]),
        ("one\ntwo\r\n\r\nthree", ["one\n", "two\r\n\r\n", "three"]),
        ("你好。再见！", ["你好。", "再见！"]),
        ("no end", ["no end"]),
        ("\n\n x. \n", ["\n\n x. \n"]),
    ],
)
def test_the_plain_rule(text: str, wanted: list[str]) -> None:
    starts = bounds(text, PLAIN).tolist()
    assert [text[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)] == wanted


def test_icu_finds_them_where_it_is_installed() -> None:
    pytest.importorskip("icu4py", reason="pip install 'fairway[words]'")
    text = "Version 3.5 😀 ran. He “won.” So?"
    starts = bounds(text, sentences.ICU).tolist()
    assert [text[at : at + 2] for at in starts] == ["Ve", "He", "So"]
    assert sentences.rule() == sentences.ICU


def test_a_token_counts_where_its_word_is() -> None:
    text = "Go. Now  \nhere"
    spans = [(0, 2), (2, 3), (3, 7), (7, 9), (9, 10), (10, 14)]
    score = Score(
        "one", text, np.array(spans), np.full(6, -math.log(2)), np.arange(6)
    )  # fmt: skip
    found = by_sentence(score, [0, 4, 10])
    assert [(one.first, one.last) for one in found.sentences] == [(0, 2), (2, 5), (5, 6)]
    assert [text[one.start : one.end] for one in found.sentences] == ["Go.", " Now  \n", "here"]
    assert [one.totals.bytes for one in found.sentences] == [3, 7, 4]


def test_the_interval_takes_sentences_as_clusters() -> None:
    score = fairway.score("The cat sat. Then it ran away! Who knows? Not I.\nThe end.")
    found = by_sentence(score)
    assert len(found.sentences) == 5
    moments = sum((Moments.of(one.totals, 0.0) for one in found.sentences), Moments())
    nll = [one.totals.nll for one in found.sentences]
    size = [one.totals.tokens for one in found.sentences]
    ratio = sum(nll) / sum(size)
    spread = sum((a - ratio * b) ** 2 for a, b in zip(nll, size, strict=True))
    error = math.sqrt(5 / 4 * spread) / sum(size)
    assert moments.standard_error("tokens") == pytest.approx(error, rel=1e-9)
    low, high = ratio - 2.7764451 * error, ratio + 2.7764451 * error
    assert found.intervals["perplexity"].low == pytest.approx(math.exp(max(low, 0)), rel=1e-6)
    assert found.intervals["perplexity"].high == pytest.approx(math.exp(high), rel=1e-6)
    assert found.intervals["perplexity"].method.startswith("sentences as clusters")
    one = by_sentence(fairway.score("A single one."))
    assert not one.intervals and "1 scored sentence," in one.reason


@pytest.fixture(scope="module")
def ask() -> Iterator[Any]:
    """Ask an application with the built-in model, and one of n-grams."""
    served = app.build({"builtin": ("hf", fairway.load())})

    def post(path: str, data: dict[str, Any]) -> Any:
        async def go() -> Any:
            transport = httpx2.ASGITransport(served)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as one:
                return await one.post(path, json=data)

        return asyncio.run(go())

    yield post


def test_what_is_asked_for_is_added_and_nothing_else_changes(ask: Any) -> None:
    bare = ask("/v1/score", {"text": SMALL}).json()
    more = ask(
        "/v1/score",
        {"text": SMALL, "columns": ["top5", "rank", "entropy"], "sentences": True, "explain": True},
    ).json()
    assert from_json(more).metrics == from_json(bare).metrics
    score = fairway.score(SMALL, want=("entropy", "rank", "top5"))
    entry = more["texts"][0]
    whole: NDArray[np.float64] = score.extras["entropy"]
    for place, row in enumerate(entry["tokens"]):
        assert row["logprob"] == pytest.approx(float(score.logprobs[place]), rel=1e-9)
        assert row["entropy"] == pytest.approx(float(whole[place]), rel=1e-6)
        assert row["rank"] == int(score.extras["rank"][place])
        ids = [int(one) for one in score.extras["top5"][place]]
        assert [one["id"] for one in row["top"]] == ids
        assert row["top"][0]["logprob"] >= row["top"][4]["logprob"]
        if row["rank"] == 0:
            assert row["top"][0]["id"] == row["id"]
    assert sum(one["metrics"]["nll"] for one in entry["sentences"]) == pytest.approx(
        entry["metrics"]["nll"], rel=1e-12
    )
    assert sum(one["metrics"]["bytes"] for one in entry["sentences"]) == len(SMALL.encode())
    assert "perplexity" in entry["sentence_intervals"] and "sentence_reason" not in entry
    assert any("ule of thumb" in line for line in more["explain"])
    for row in bare["texts"][0]["tokens"]:
        assert set(row) == {"id", "text", "start", "end", "logprob"}


def test_alternatives_are_spelt_by_the_vocabulary(ask: Any) -> None:
    data = ask("/v1/score", {"text": "你好 The cat sat", "columns": ["top5"]}).json()
    some = [one for row in data["texts"][0]["tokens"] for one in row["top"]]
    raw = [one for one in some if "bytes" in one]
    assert raw and all(one["text"].startswith("\\x") for one in raw)
    scorer = fairway.load()
    for one in some:
        piece = scorer.vocabulary.pieces[one["id"]]  # type: ignore[attr-defined]
        if "bytes" in one:
            assert bytes.fromhex(one["bytes"]) == piece
        elif not one.get("special"):
            assert one["text"].encode() == piece


@pytest.mark.parametrize("columns", ["rank", ["ranks"], [1], {"rank": 1}])
def test_other_columns_are_refused(ask: Any, columns: Any) -> None:
    answer = ask("/v1/score", {"text": "a", "columns": columns})
    assert answer.status_code == 400
    assert "entropy, rank, top5" in answer.json()["error"]["message"]
    assert ask("/v1/score", {"text": "a", "sentences": "no"}).status_code == 400


def test_alternatives_of_a_long_text_are_refused(ask: Any) -> None:
    answer = ask("/v1/score", {"text": ["a" * 150_000] * 2, "columns": ["top5"]})
    assert answer.status_code == 413 and "leave top5 away" in answer.json()["error"]["message"]


def test_a_report_as_a_file_has_no_script(ask: Any) -> None:
    answer = ask("/v1/page", {"model": ["builtin"], "text": ["<script>alert(1)</script>", "b c"]})
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "<script" not in answer.text and "&lt;" in answer.text
    assert figure(fairway.score("b c").metrics["perplexity"]) in answer.text
