"""Choices are lm-eval's, as `tools/lm_eval_choices.py` recorded them; BLiMP as it was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import fairway
from fairway import accuracy
from fairway.choices import Rule
from fairway.corpus.choices import Items, read, tidy

GOLDEN = Path(__file__).parent / "golden"
RECORD = json.loads((GOLDEN / "lm_eval_choices.json").read_text("utf-8"))
ROWS = GOLDEN / "choices_rows.jsonl"
CORPORA = {
    "hellaswag": "hellaswag/hellaswag_val_full.txt.bz2",
    "lambada": "lambada/lambada_test.jsonl.gz",
    "blimp": "blimp/*.jsonl.gz",
}
EXACT, NORMED, SINGLE = 1e-9, 2e-7, 5e-6
"""How far a choice's sum may be off, nats: absolute where a model computes in float64 throughout
(GPT-2); relative where its norm takes float32 (Llama), so that a last digit may flip a rounding;
relative in float32."""


def model_of(name: str, request: pytest.FixtureRequest) -> tuple[Any, Any]:
    if name in tiny_models.NAMES:
        return tiny_models.build(name)
    if name == "builtin":
        folder = Path(fairway.__file__).parent / "data" / "models" / "mini"
    else:
        folder = request.getfixturevalue("assets") / "models" / name / "hf"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder)


def items_of(task: str, request: pytest.FixtureRequest) -> Items:
    if task == "rows":
        return read(ROWS)
    source = request.getfixturevalue("assets") / "corpora" / CORPORA[task]
    counts = RECORD["counts"]
    if task == "blimp":
        return read(source, per_group=counts["pairs"])
    return read(source, limit=counts[task])


CASES = [
    pytest.param(
        model,
        task,
        double,
        id=f"{model}-{task}-{'64' if double else '32'}",
        marks=pytest.mark.slow if task == "hellaswag" and not double else (),
    )
    for model, tasks in RECORD["records"].items()
    for task in tasks
    for double in (True, False)
]


@pytest.mark.parametrize(("name", "task", "double"), CASES)
def test_decisions_are_lm_evals(
    name: str, task: str, double: bool, request: pytest.FixtureRequest
) -> None:
    model, tokenizer = model_of(name, request)
    if double:
        model = model.double()
    scorer = fairway.load(model, tokenizer=tokenizer, like="lm-eval-pairs")
    rule = Rule(bare=True, ties="first", unconditional=None if task == "lambada" else "")
    report = accuracy.choose(scorer, items_of(task, request), rule)
    record = RECORD["records"][name][task]
    assert not report.skipped
    assert len(report.decisions) == len(record["logprobs"])
    for one, theirs in zip(report.decisions, record["logprobs"], strict=True):
        ours = one.logprobs
        if one.unconditional is not None:
            ours = np.concatenate((ours, one.unconditional))
        loose = SINGLE if not double else 0 if name in ("adds-none", "no-bos") else NORMED
        floor = EXACT if double else 2e-5
        assert ours == pytest.approx(theirs, abs=floor, rel=loose), one.item
    for metric, right in record["right"].items():
        assert [int(one.right(metric)) for one in report.decisions] == right, metric
        assert report.accuracies[metric].value == pytest.approx(record["metrics"][metric], abs=1e-9)
    if task == "lambada":
        assert [[one.greedy] for one in report.decisions] == record["greedy"]
        assert report.item_perplexity is not None
        wanted = pytest.approx(record["metrics"]["perplexity"], rel=1e-6 if double else 1e-5)
        assert report.item_perplexity.value == wanted


def test_brackets_are_taken_out_as_lm_eval_does() -> None:
    for text, wanted in RECORD["tidied"].items():
        assert tidy(text) == wanted


def measured(assets: Path) -> dict[str, float]:
    file = assets / "corpora/blimp/published/stories260K_measured.json"
    return dict(json.loads(file.read_text("utf-8"))["accuracy"])


@pytest.mark.parametrize(
    "pattern", ["principle_A*", pytest.param("*", marks=pytest.mark.slow)]
)  # fmt: skip
def test_blimp_as_measured(pattern: str, assets: Path, stories: str) -> None:
    items = read(assets / "corpora/blimp" / f"{pattern}.jsonl.gz", per_group=200)
    report = accuracy.choose(fairway.load(stories), items)
    wanted = measured(assets)
    assert len(report.groups) == (2 if pattern != "*" else len(wanted))
    for name, found in report.groups.items():
        assert found["acc"].value == wanted[name], name
        assert found["acc"].ties == 0
