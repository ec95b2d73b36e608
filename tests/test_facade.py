"""The calls of the Python façade, as a notebook uses them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fairway
from fairway.errors import InputError
from models import build, tokenizer


def test_a_score_is_plain_data_and_a_frame_and_a_picture(small: str) -> None:
    score: Any = fairway.score("the cat & the <hen>", small, want=("entropy", "rank"))
    frame = score.to_frame()
    assert list(frame.columns) == ["id", "text", "start", "end", "logprob", "entropy", "rank"]
    assert "".join(frame["text"]) == score.text
    assert -frame["logprob"].sum() == pytest.approx(score.totals.nll, rel=1e-12)
    picture = score._repr_html_()
    assert "fw-heat" in picture and "&amp;" in picture and "<hen>" not in picture


def test_texts_in_texts_out(small: str) -> None:
    one, many = fairway.score("the cat", small), fairway.score(["the cat", "and"], small)
    assert isinstance(many, list) and not isinstance(one, list)
    assert np.array_equal(one.logprobs, many[0].logprobs) and len(many) == 2
    with pytest.raises(InputError, match="Text 2 is int"):
        fairway.score(["a", 5], small)  # type: ignore[list-item]


def test_a_report_is_a_frame(small: str) -> None:
    report = fairway.evaluate(small, "sample:all", group_by="domain", corpus={"sample": 12})
    frame = report.to_frame()
    assert list(frame["group"])[0] == "all" and len(frame) == 1 + len(report.groups)
    assert frame["nll"].iloc[1:].sum() == pytest.approx(frame["nll"].iloc[0], rel=1e-12)
    assert frame["perplexity"].iloc[0] == report.metrics["perplexity"]


def test_objects_in_memory() -> None:
    model, words = build("gpt2"), tokenizer()
    report = fairway.evaluate(model, ["the cat", "an inn"], tokenizer=words)
    assert report.model == "GPT2LMHeadModel" and report.totals.documents == 2
    scorer = fairway.load(model, tokenizer=words)
    assert fairway.evaluate(scorer, ["the cat", "an inn"]).totals == report.totals
    assert isinstance(scorer, fairway.Scorer)
