"""Every architecture against a plain one-document loop, in any batch and any order."""

from __future__ import annotations

import numpy as np
import pytest

import fairway
from fairway.backends import transformers as backend
from models import CONFIGS, POSITIONS, STATEFUL, build, reference, tokenizer

TEXTS = [
    "the cat and the hen in the garden",
    "x",
    "a much longer text, in which the line goes on",
    "émigré 🐕 ไทย",
    "  and\n\nthe end ",
]
UNPACKED = {"bloom", "falcon", *STATEFUL}
"""Recurrent models, and those whose attention transformers does not let be replaced."""


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_equals_the_plain_loop(name: str) -> None:
    model, words = build(name), tokenizer()
    scorer = backend.load(model, tokenizer=words, batch_tokens=120)
    documents = [fairway.Document(str(i), text) for i, text in enumerate(TEXTS)]
    together = list(scorer.score(documents))
    for document, score in zip(documents, together, strict=True):
        ids = [0, *words(document.text, add_special_tokens=False)["input_ids"]]
        assert len(ids) <= POSITIONS
        assert np.abs(score.logprobs - reference(model, ids, 1)).max() < 2e-5
        alone = next(iter(scorer.score([document])))
        assert np.abs(alone.logprobs - score.logprobs).max() < 2e-5
        assert score.totals.bytes == len(document.text.encode())
        assert score.lossy is False
    assert scorer.path.packed is (name not in UNPACKED)
    shuffled = list(scorer.score(documents[::-1]))[::-1]
    for a, b in zip(together, shuffled, strict=True):
        assert a.id == b.id and np.abs(a.logprobs - b.logprobs).max() < 2e-5


@pytest.mark.parametrize("name", ["gemma2", "granite", "cohere", "phi"])
def test_the_heads_transformations_matter(name: str) -> None:
    """Were the cap, the scale or the bias left out, the fast path would be found wrong."""
    from dataclasses import replace

    from fairway.backends.transformers import forward, head

    model = build(name)
    found = head.find(model)
    assert found is not None and forward.probe(model, forward.Path(found)) < 1e-4
    if name == "phi":
        model.lm_head.bias.data.zero_()
        bare = found
        model.lm_head.bias.data.normal_(0, 2)
        kept = model.lm_head.bias.data.clone()
        scorer = backend.load(model, tokenizer=tokenizer())
        with_bias = next(iter(scorer.score([fairway.Document("x", "the cat")])))
        model.lm_head.bias.data.zero_()
        without = next(iter(scorer.score([fairway.Document("x", "the cat")])))
        assert bare is found and kept.abs().max() > 1
        assert np.abs(with_bias.logprobs - without.logprobs).max() > 0.1
    else:
        wrong = replace(found, scale=1.0, cap=0.0)
        assert forward.probe(model, forward.Path(wrong)) > 0.1


def test_a_model_that_the_fast_path_gets_wrong_uses_its_own_forward() -> None:
    model = build("llama")
    whole = model.forward

    def halved(*words: object, **options: object) -> object:
        out = whole(*words, **options)
        out.logits = out.logits / 2
        return out

    model.forward = halved
    scorer = backend.load(model, tokenizer=tokenizer())
    assert scorer.path.head is None and any("own forward" in note for note in scorer.notes)
    score = next(iter(scorer.score([fairway.Document("x", "the cat in the hat")])))
    ids = [0, *score.ids.tolist()]
    import torch

    with torch.no_grad():
        logp = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    expected = [float(logp[i - 1, ids[i]]) for i in range(1, len(ids))]
    assert np.abs(score.logprobs - expected).max() < 2e-5


@pytest.mark.parametrize("prefix", ["bos", "none"])
@pytest.mark.parametrize("stride", [8, 16])
def test_windows_equal_windows_by_hand(prefix: str, stride: int) -> None:
    from fairway import windows

    model, words = build("gpt2"), tokenizer()
    text = "the cat and the hen went in the garden and then an animal came again"
    scorer = backend.load(model, tokenizer=words, prefix=prefix, max_length=16, stride=stride)
    score = next(iter(scorer.score([fairway.Document("x", text)])))
    ids = words(text, add_special_tokens=False)["input_ids"]
    front = [0] if prefix == "bos" else []
    expected = np.full(len(ids), np.nan)
    for w in windows.rolling(len(ids), 16, stride, len(front)):
        values = reference(
            model, [*front, *ids[w.begin : w.end]], len(front) + w.score_from - w.begin
        )
        expected[w.score_from : w.end] = values
    assert np.array_equal(np.isnan(expected), np.isnan(score.logprobs))
    assert np.nanmax(np.abs(expected - score.logprobs)) < 2e-5


def test_context_is_read_and_not_scored() -> None:
    model, words = build("llama"), tokenizer()
    scorer = backend.load(model, tokenizer=words)
    score = next(iter(scorer.score([fairway.Document("x", " the hen", "the cat and")])))
    ids = [0, *words("the cat and the hen", add_special_tokens=False)["input_ids"]]
    size = len(words(" the hen", add_special_tokens=False)["input_ids"])
    assert len(score) == size and score.totals.bytes == len(" the hen")
    assert np.abs(score.logprobs - reference(model, ids, len(ids) - size)).max() < 2e-5


def test_special_tokens_in_text_are_text() -> None:
    model, words = build("llama"), tokenizer()
    text = "the <s> tag"
    plain = next(iter(backend.load(model, tokenizer=words).score([fairway.Document("x", text)])))
    assert 0 not in plain.ids.tolist() and plain.totals.bytes == len(text)
    parsed = backend.load(model, tokenizer=words, special_tokens="parse")
    assert 0 in next(iter(parsed.score([fairway.Document("x", text)]))).ids.tolist()


def test_out_of_memory_batches_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    from fairway.backends.transformers import forward

    scorer = backend.load(build("llama"), tokenizer=tokenizer())
    documents = [fairway.Document(str(i), f"the cat {i}" * 4) for i in range(5)]
    whole = [s.totals.nll for s in scorer.score(documents)]
    run = forward.run

    def short(model: object, path: object, rows: list[object], want: object) -> object:
        if len(rows) > 2:
            raise MemoryError
        return run(model, path, rows, want)

    monkeypatch.setattr(forward, "run", short)
    assert [s.totals.nll for s in scorer.score(documents)] == pytest.approx(whole, abs=1e-4)
