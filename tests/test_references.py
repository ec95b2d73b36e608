"""Figures that are known from elsewhere, each under the conditions it was stated with."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import fairway
from fairway.backends.transformers.encode import encode
from fairway.protocol import convention, prepare


@pytest.fixture(scope="module")
def wikitext(assets: Path) -> Path:
    return assets / "corpora" / "wikitext2" / "wiki.test.raw"


@pytest.fixture(scope="module")
def gpt2_tokenizer(assets: Path) -> Any:
    """GPT-2's tokenizer from its two published files."""
    import transformers

    folder = assets / "tokenizers" / "gpt2"
    words = json.loads((folder / "encoder.json").read_text("utf-8"))
    lines = (folder / "vocab.bpe").read_text("utf-8").splitlines()[1:]
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines if line)]
    core = Tokenizer(models.BPE(words, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def test_wikitext_has_the_published_count_of_gpt2_tokens(
    gpt2_tokenizer: Any, wikitext: Path
) -> None:
    (joined,) = prepare(convention("hf-doc"), fairway.read(wikitext))
    assert len(encode(gpt2_tokenizer, joined.text).ids) == 287_644
    (whole,) = fairway.read(wikitext)
    assert len(encode(gpt2_tokenizer, whole.text).ids) == 286_221
    assert len(whole.text.encode("utf-8")) == 1_290_590
    # The same text through articles, as the named corpus gives it.
    articles = fairway.read(wikitext, split="wikitext")
    (again,) = prepare(convention("hf-doc"), articles, wikitext=True)
    assert again.text == joined.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "stride", "expected"),
    [(512, 512, 119.41), (512, 256, 126.04), (256, 256, 112.75), (256, 128, 113.63)],
)
def test_whole_wikitext_without_bos(
    stories: str, wikitext: Path, length: int, stride: int, expected: float
) -> None:
    report = fairway.evaluate(stories, wikitext, prefix="none", max_length=length, stride=stride)
    assert report.metrics["perplexity"] == pytest.approx(expected, abs=0.006)
    tokens = report.totals.tokens + report.totals.tokens_skipped
    # Without overlap each window's first token has no context; with it only the text's first.
    skipped = -(-tokens // length) if stride == length else 1
    assert report.totals.tokens_skipped == skipped


@pytest.mark.slow
@pytest.mark.parametrize(("stride", "expected"), [(256, 115.48), (128, 116.24)])
def test_whole_wikitext_as_the_documentation_has_it(
    stories: str, wikitext: Path, stride: int, expected: float
) -> None:
    report = fairway.evaluate(stories, wikitext, like="hf-doc", max_length=256, stride=stride)
    assert report.metrics["perplexity"] == pytest.approx(expected, abs=0.006)


def test_window_sums_of_an_independent_forward(assets: Path, stories: str, wikitext: Path) -> None:
    """Sums in float64 by a forward written without transformers (reference_scores.json)."""
    folder = assets / "models" / "stories260K"
    reference = json.loads((folder / "reference_scores.json").read_text("utf-8"))
    text = wikitext.read_bytes().decode("utf-8")[:6000]
    for row in reference["windows"]:
        window = {key: row[key] for key in ("max_length", "stride")}
        score = fairway.score(text, stories, prefix="none", **window)
        assert score.ids.tolist() == reference["window_ids"]
        assert score.totals.tokens == row["n_scored"]
        assert score.totals.nll == pytest.approx(row["nll_sum"], rel=1e-6)
    assert len(reference["windows"]) == 5


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("tinystories/tinystories_valid_794k.txt.gz", 3.63),
        ("tinyshakespeare/input.txt", 4.54),
        ("wikitext2/wiki.test.raw", 3.96),
    ],
)
def test_tiny_rwkv(assets: Path, source: str, expected: float) -> None:
    """A byte-level recurrent model; the figures are stated as approximate."""
    data = (assets / "corpora" / source).read_bytes()
    text = (gzip.decompress(data) if source.endswith(".gz") else data).decode()[:20_000]
    score = fairway.score(text, str(assets / "models/tiny_rwkv/hf_4v0_660K"), max_length=512)
    assert score.metrics["bits_per_byte"] == pytest.approx(expected, abs=0.03)
    assert score.totals.bytes + score.totals.tokens_skipped == len(text.encode())
    assert np.isnan(score.logprobs[0]) and not np.isnan(score.logprobs[1:]).any()
