"""Windows of the same bytes: every model fits, every character is scored once, sums are plain."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import fairway
from fairway import fair
from fairway.cli import app
from fairway.corpus import Document
from fairway.errors import InputError


def spans(edges: list[int]) -> np.ndarray:
    return np.array(list(zip(edges, edges[1:], strict=False)), dtype=np.int64).reshape(-1, 2)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 120),
    st.lists(st.integers(1, 119), max_size=100),
    st.lists(st.integers(1, 119), max_size=100),
    st.integers(2, 20),
    st.integers(2, 20),
)
def test_windows(length: int, a: list[int], b: list[int], room_a: int, room_b: int) -> None:
    cuts = [sorted({0, length, *(one for one in some if one < length)}) for some in (a, b)]
    both = [spans(edges) for edges in cuts]
    found = fair.windows(length, both, [room_a, room_b])
    assert found[0][:2] == (0, 0) and found[-1][2] == length
    assert all(x[2] == y[1] for x, y in zip(found, found[1:], strict=False))
    for begin, scored, end in found:
        assert begin <= scored < end
        for one, room in zip(both, (room_a, room_b), strict=True):
            held = np.sum((one[:, 0] >= begin) & (one[:, 0] < end))
            assert held <= room


def test_a_character_of_many_tokens_is_not_cut() -> None:
    """Nine tokens of one character in a room of four: it overflows, and the text goes on."""
    many = np.array([(0, 1), *[(1, 2)] * 9, (2, 3)], dtype=np.int64)
    assert [one[1:] for one in fair.windows(3, [many], [4])][-1][1] == 3


@pytest.fixture(scope="module")
def models(small: str) -> list[Any]:
    return [fairway.load("hf:builtin", max_length=64), fairway.load(small, max_length=24)]


def test_a_text_in_fair_windows_is_scored_as_by_a_plain_loop(models: list[Any]) -> None:
    text = "The cat sat on the mat, and 12 dogs came. " * 7
    made = [one.spans([text])[0] for one in models]
    windows = fair.windows(len(text), made, [one.room for one in models])
    assert len(windows) > 3
    for scorer, offsets in zip(models, made, strict=True):
        score = next(iter(scorer.score([Document("d", text, windows=windows)])))
        assert score.totals.bytes == len(text) and not np.isnan(score.logprobs).any()
        model, prefix = scorer.loaded.model, list(scorer.plan.prefix)
        starts = offsets[:, 0]
        for begin, scored, end in windows:
            inside = [i for i, s in enumerate(starts) if begin <= s < end]
            ids = [*prefix, *score.ids[inside].tolist()]
            assert len(ids) <= scorer.plan.max_length
            with torch.inference_mode():
                logp = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
            for place, i in enumerate(inside):
                if starts[i] >= scored:
                    wanted = float(logp[place + len(prefix) - 1, ids[place + len(prefix)]])
                    assert score.logprobs[i] == pytest.approx(wanted, abs=2e-5)


def test_one_window_is_the_usual_score(models: list[Any]) -> None:
    text = "A short one."
    document = Document("d", text, windows=((0, 0, len(text)),))
    for scorer in models:
        a, b = scorer.score([document, replace(document, windows=None)])
        assert a.totals.nll == pytest.approx(b.totals.nll, abs=1e-9)
    with pytest.raises(InputError, match="windows of its own"):
        list(models[0].score([replace(document, context="x")]))


def test_the_command(small: str, tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    rows = [{"text": f"{n} cats sat on a mat, and slept. " * (3 + n % 5)} for n in range(12)]
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    words = ["compare", "--model", "hf:builtin", "--model", small, "--data", str(data), "--json"]
    refused = CliRunner().invoke(app, words)
    assert refused.exception is not None and "--max-length 64" in str(refused.exception)
    done = CliRunner().invoke(app, [*words, "--fair"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    for side in ("first", "second"):
        assert "windows:fair" in found[side]["signature"]
        assert "length:" not in found[side]["signature"]
    assert "every model read the same windows" in done.stderr
    assert math.isfinite(found["bits_per_byte"]["difference"])
    for more, reason in (
        (["--like", "lm-eval"], "cuts windows by itself"),
        (["--template", "{text}"], "One --template"),
    ):
        wrong = CliRunner().invoke(app, [*words, "--fair", *more])
        assert wrong.exit_code != 0 and reason in str(wrong.exception)
