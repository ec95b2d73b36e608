"""A real small model against an independent float64 forward and the figures of the assets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import fairway


def test_per_token_reference(assets: Path, stories: str) -> None:
    reference = json.loads((assets / "models/stories260K/reference_scores.json").read_text("utf-8"))
    documents = [fairway.Document(str(i), d["text"]) for i, d in enumerate(reference["docs"])]
    scores = list(fairway.load(stories).score(documents))
    for wanted, score in zip(reference["docs"], scores, strict=True):
        assert score.ids.tolist() == wanted["ids"][1:]
        expected = np.array(wanted["logprobs"])[-len(score) :]
        assert np.abs(score.logprobs - expected).max() < 2e-5
        assert score.totals.bytes == len(score.text.encode())


@pytest.mark.parametrize(
    ("length", "stride", "expected"),
    [
        (512, 512, 125.522),
        (512, 256, 127.874),
        (512, 64, 133.888),
        (256, 256, 122.754),
        (256, 128, 117.521),
    ],
)
def test_windows_on_wikitext(
    assets: Path, stories: str, length: int, stride: int, expected: float
) -> None:
    text = (assets / "corpora/wikitext2/wiki.test.raw").read_bytes().decode()[:6000]
    score = fairway.score(text, stories, prefix="none", max_length=length, stride=stride)
    assert math.isclose(score.metrics["perplexity"], expected, rel_tol=1e-5)


def test_the_well_known_recipe(stories: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = "Once upon a time there was a little girl who liked rain."
    model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(stories)
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        loss = model(**inputs, labels=inputs["input_ids"]).loss
    score = fairway.score(text, stories, prefix="none")
    assert math.isclose(score.metrics["perplexity"], math.exp(float(loss)), rel_tol=1e-6)
