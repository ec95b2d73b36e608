"""Documents of ids of which the first are only read, against one forward of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import models
from fairway import Document, load, read, record


@pytest.fixture(scope="module")
def scorer(small: str) -> Any:
    return load(small, max_length=0, threads=1)


@pytest.fixture(scope="module")
def model(scorer: Any) -> Any:
    return scorer.loaded.model


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "rwkv"])
@pytest.mark.parametrize("prefix", ["bos", "none"])
def test_leading_ids_are_only_read(name: str, prefix: str) -> None:
    built = models.build(name)
    scorer = load(built, tokenizer=models.tokenizer(), prefix=prefix)
    ids = np.random.default_rng(3).integers(2, 250, 30)
    front = [0] if prefix == "bos" else []
    for context in (1, 7, 29):
        (score,) = scorer.score([Document("x", "", ids=ids, context_ids=context)])
        wanted = models.reference(built, [*front, *map(int, ids)], len(front) + context)
        assert score.logprobs == pytest.approx(wanted, abs=2e-5)
        assert score.ids.tolist() == ids[context:].tolist() and len(score) == 30 - context
        assert score.totals.tokens == 30 - context
        # Of ids without text, each byte-level token is a byte, or a merge of some.
        assert score.totals.bytes >= 30 - context
    (nothing,) = scorer.score([Document("x", "", ids=ids, context_ids=30)])
    assert len(nothing) == 0 and nothing.totals.tokens == 0


def test_leading_ids_longer_than_a_window_and_a_prefix_among_them(scorer: Any, model: Any) -> None:
    ids = np.random.default_rng(4).integers(2, 250, 100)
    (whole,) = scorer.score([Document("x", "", ids=ids)])
    (part,) = scorer.score([Document("x", "", ids=ids, context_ids=80)])
    assert part.logprobs == pytest.approx(whole.logprobs[80:], abs=2e-5)
    with_bos = np.concatenate(([0], ids[:20]))
    (front,) = scorer.score([Document("x", "", ids=with_bos, context_ids=11)])
    assert front.logprobs == pytest.approx(
        models.reference(model, with_bos.tolist(), 11), abs=2e-5
    )  # fmt: skip


def test_leading_ids_are_part_of_a_documents_identity() -> None:
    ids = np.arange(5)
    one, other = Document("x", "", ids=ids), Document("x", "", ids=ids, context_ids=2)
    assert record.key(one) != record.key(other)
    digests = set()
    for document in (one, other):
        corpus = read([document])
        list(corpus)
        digests.add(corpus.digest)
    assert len(digests) == 2
