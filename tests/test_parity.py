"""The conventions give what their tools print: recorded peers, and plain loops run here.

`bench/parity/run.py` makes the records with lm-eval and HF evaluate themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cases
import pytest
import tiny_models
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import fairway
from fairway.protocol import PAGE, convention, prepare

GOLDEN = Path(__file__).parent / "golden"
RECORDS = [
    record
    for name in ("lm_eval", "hf_evaluate")
    for record in json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))["records"]
]
LOOPS = [
    pytest.param(case, marks=pytest.mark.slow if case.corpus in ("wikitext", "licences") else ())
    for case in cases.loop_cases(assets=True)
]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tiny")
    return {name: str(tiny_models.save(name, folder)) for name in tiny_models.NAMES}


def place(model: str, tiny: dict[str, str], request: pytest.FixtureRequest) -> tuple[str, Any]:
    """The model's folder and the assets it needs, where it needs them."""
    if model in tiny:
        return tiny[model], None
    assets = request.getfixturevalue("assets")
    return str(assets / cases.MODELS[model]), assets


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["case"])
def test_recorded_peer(
    record: dict[str, Any], tiny: dict[str, str], request: pytest.FixtureRequest
) -> None:
    folder, assets = place(record["model"], tiny, request)
    texts = cases.corpus(record["corpus"], assets)
    assert cases.digest(texts) == record["digest"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert tiny_models.digest(model) == record["weights"]
    case = cases.Case(*(record[key] for key in ("like", "model", "corpus", "task", "options")))
    assert cases.difference(record["numbers"], cases.ours(case, folder, texts)) < TOLERANCE


@pytest.mark.parametrize("case", LOOPS, ids=lambda case: case.name)
def test_plain_loop(case: cases.Case, tiny: dict[str, str], request: pytest.FixtureRequest) -> None:
    folder, assets = place(case.model, tiny, request)
    texts = cases.corpus(case.corpus, assets)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = cases.looped(case, model, tokenizer, texts)
    assert cases.difference(theirs, cases.ours(case, folder, texts)) < TOLERANCE


def test_the_doubled_bos_is_said_and_counted(tiny: dict[str, str]) -> None:
    report = fairway.evaluate(tiny["adds-bos"], ["hello there"], like="lm-eval", texts=True)
    assert report.signature["prefix"] == "bos-doubled"
    assert any("BOS stands twice" in note for note in report.notes)
    tokens = report.texts[0]["tokens"]
    assert tokens[0]["id"] == 0 and tokens[0]["logprob"] < 0 and tokens[0]["text"] == ""
    plain = fairway.evaluate(tiny["adds-none"], ["hello there"], like="lm-eval")
    assert plain.signature["prefix"] == "bos" and not plain.notes


def test_a_tokenizer_that_adds_bos_does_not_double_it_elsewhere(tiny: dict[str, str]) -> None:
    for like in ("fairway", "hf-doc", "hf-evaluate"):
        report = fairway.evaluate(tiny["adds-bos"], ["a text"], like=like, texts=True)
        assert 0 not in [token["id"] for token in report.texts[0]["tokens"]]
        assert report.totals.bytes == len("a text")


def test_published_weights_differ_only_with_overlap(tiny: dict[str, str]) -> None:
    text = " ".join(map(str, range(120)))
    for stride, same in ((64, True), (16, False)):
        options: dict[str, Any] = {"max_length": 64, "stride": stride}
        right = fairway.evaluate(tiny["adds-none"], [text], like="hf-doc", **options)
        page = fairway.evaluate(tiny["adds-none"], [text], like="hf-doc-as-published", **options)
        gap = page.metrics["perplexity"] / right.metrics["perplexity"] - 1
        assert (abs(gap) < 1e-12) == same


def test_a_context_too_short_gives_the_reason(tiny: dict[str, str]) -> None:
    with pytest.raises(fairway.FairwayError, match="2048 is what paloma needs"):
        fairway.load(tiny["adds-none"], like="paloma")


def test_wikitext_pages_are_lm_evals(assets: Path) -> None:
    file = assets / "corpora/wikitext2/wiki.test.raw"
    corpus = fairway.read(file, split="wikitext")
    pages = [d.metadata[PAGE] for d in prepare(convention("lm-eval"), corpus, wikitext=True)]
    # EleutherAI/wikitext_document_level has 62 rows in this split, two of them begun by formulas.
    assert len(pages) == 62
    whole = file.read_bytes().decode("utf-8")
    assert "\n".join(pages) == whole.removeprefix(" \n")
    for like in ("hf-doc", "gptq", "llama.cpp"):
        articles = fairway.read(file, split="wikitext")
        (joined,) = prepare(convention(like), articles, wikitext=True)
        (direct,) = prepare(convention(like), fairway.read(file))
        assert joined.text == direct.text
