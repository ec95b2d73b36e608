"""State-space and recurrent models: their state restarted in windows, or carried through a text."""

from __future__ import annotations

import copy
import gzip
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fairway
from fairway import windows
from fairway.backends import transformers as backend
from fairway.backends.transformers import attention, carry, forward
from fairway.errors import InputError, ProtocolError
from models import CONFIGS, STATEFUL, build, reference, tokenizer

TEXTS = [
    "the hen in the garden, and then some",
    "x",
    "a longer text in which the line",
    "émigré 🐕 ไทย",
]
SINGLE = {"mamba", "falcon_mamba", "jamba", "zamba", "minimax"}
"""Whose code, in transformers 5.23, forgets the state before a piece of several tokens."""
WHOLE = {"recurrent_gemma", "xlstm"}
"""Whose code gives no state that could be handed on."""


def encoded(text: str) -> list[int]:
    return [0, *tokenizer()(text, add_special_tokens=False)["input_ids"]]


def plainly(model: Any, ids: list[int]) -> np.ndarray:
    """One forward for each token, float64, on exactly the tokens before it."""
    exact = copy.deepcopy(model).double()
    if hasattr(model.config, "num_local_experts") or hasattr(model.config, "num_experts"):
        exact.set_experts_implementation("eager")
    out = []
    with torch.no_grad():
        for at in range(1, len(ids)):
            logits = exact(torch.tensor([ids[:at]]), use_cache=False).logits[0, -1].double()
            out.append(float(torch.log_softmax(logits, -1)[ids[at]]))
    return np.array(out)


def test_attention_models_have_no_state() -> None:
    assert set(STATEFUL) < set(CONFIGS)
    assert not carry.stateful(build("llama")) and not carry.stateful(build("mistral"))


@pytest.mark.parametrize("name", STATEFUL)
def test_a_carried_state_equals_one_forward_per_token(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of 8 tokens; alone, in company, and in any order."""
    monkeypatch.setattr(carry, "PIECE", 8)
    model = build(name)
    scorer = backend.load(model, tokenizer=tokenizer(), state="carried")
    documents = [fairway.Document(str(i), text) for i, text in enumerate(TEXTS)]
    together = list(scorer.score(documents))
    shuffled = list(scorer.score(documents[::-1]))[::-1]
    for document, score, other in zip(documents, together, shuffled, strict=True):
        expected = plainly(model, encoded(document.text))
        assert np.abs(score.logprobs - expected).max() < 2e-5
        (alone,) = scorer.score([document])
        assert np.abs(alone.logprobs - score.logprobs).max() < 2e-5
        assert np.abs(other.logprobs - score.logprobs).max() < 2e-5
    found = scorer.path.carry
    assert found is not None and found.single is (name in SINGLE)
    assert (found.name is None) is (name in WHOLE)
    assert scorer.signature["state"] == "carried" and scorer.signature["length"] == "all"
    assert scorer.signature.get("stride") is None


@pytest.mark.parametrize("name", STATEFUL)
def test_a_restarted_state_equals_windows_by_hand(name: str) -> None:
    """Each window begins with an empty state; padding of shorter ones reaches nothing."""
    model, text = build(name), TEXTS[0]
    assert carry.stateful(model) and not attention.usable(model)
    scorer = backend.load(model, tokenizer=tokenizer(), max_length=10, stride=5)
    documents = [fairway.Document(str(i), one) for i, one in enumerate((text, "x", "the hen"))]
    score = next(iter(scorer.score(documents)))
    ids = encoded(text)[1:]
    expected = np.full(len(ids), np.nan)
    for w in windows.rolling(len(ids), 10, 5, 1):
        expected[w.score_from : w.end] = reference(
            model, [0, *ids[w.begin : w.end]], 1 + w.score_from - w.begin
        )
    assert np.abs(score.logprobs - expected).max() < 2e-5
    assert scorer.signature["state"] == "restarted" and scorer.path.packed is False
    carried = next(iter(backend.load(model, tokenizer=tokenizer(), state="carried").score(
        documents
    )))  # fmt: skip
    # What lies before the window matters, so that the two are two different numbers.
    assert np.abs(carried.logprobs - score.logprobs).max() > 1e-3


@pytest.mark.parametrize("name", ["mamba", "jamba"])
def test_a_state_that_the_models_code_forgets_is_not_handed_on_in_pieces(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the trial left out, every number behind the first piece would be wrong."""
    monkeypatch.setattr(carry, "PIECE", 8)
    model = build(name)
    scorer = backend.load(model, tokenizer=tokenizer(), state="carried")
    found = scorer.path.carry
    assert found is not None and found.single
    document = fairway.Document("x", TEXTS[0])
    right = next(iter(scorer.score([document])))
    from dataclasses import replace

    scorer.path = replace(scorer.path, carry=replace(found, single=False))
    wrong = next(iter(scorer.score([document])))
    assert np.abs(right.logprobs[:7] - wrong.logprobs[:7]).max() < 2e-5
    assert np.abs(right.logprobs[8:] - wrong.logprobs[8:]).max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_a_forgotten_state_is_found_all_the_same(dtype: torch.dtype) -> None:
    """There it shows less than rounding does; and the weights are left as they were, bit by bit."""
    for name in ("mamba", "jamba", "zamba", "mamba2"):
        model = build(name).to(dtype)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with torch.inference_mode():
            found = carry.choose(model)
            assert found.single is (name in SINGLE) and found.name
            assert carry.choose(model, quantised=True).single
        for key, value in model.state_dict().items():
            assert value.dtype == before[key].dtype and torch.equal(value, before[key])


def test_columns_and_distributions_of_a_carried_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of pieces equal those of one window that holds the whole text."""
    model = build("mamba2")
    document = fairway.Document("x", TEXTS[0])
    want = ("entropy", "rank", "top5", "boundary")
    whole = next(iter(backend.load(model, tokenizer=tokenizer()).score([document], want)))
    monkeypatch.setattr(carry, "PIECE", 8)
    scorer = backend.load(model, tokenizer=tokenizer(), state="carried")
    pieces = next(iter(scorer.score([document], want)))
    for key in whole.extras:
        assert np.allclose(whole.extras[key], pieces.extras[key], atol=1e-4, equal_nan=True), key
    (made,) = scorer.distributions([document])
    (other,) = backend.load(model, tokenizer=tokenizer()).distributions([document])
    gap = np.asarray(made.tile(0, made.vocabulary)) - np.asarray(other.tile(0, other.vocabulary))
    assert gap.shape[0] == len(made) > 8 and np.abs(gap).max() < 1e-4


def test_a_head_of_no_usual_form_is_carried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carry, "PIECE", 8)
    model = build("mamba2")
    scorer = backend.load(model, tokenizer=tokenizer(), state="carried")
    from dataclasses import replace

    document = fairway.Document("x", TEXTS[0])
    fast = next(iter(scorer.score([document], ("entropy",))))
    scorer.path = replace(scorer.path, head=None)
    own = next(iter(scorer.score([document], ("entropy",))))
    assert np.abs(fast.logprobs - own.logprobs).max() < 2e-5
    assert np.abs(fast.extras["entropy"] - own.extras["entropy"]).max() < 1e-4


def test_what_cannot_be_carried_is_refused() -> None:
    words, mamba = tokenizer(), build("mamba")

    def load(model: Any = mamba, **options: Any) -> Any:
        return backend.load(model, tokenizer=words, **options)

    with pytest.raises(ProtocolError, match="no recurrent state"):
        load(build("llama"), state="carried")
    with pytest.raises(ProtocolError, match="leave --max-length and --stride away"):
        load(state="carried", max_length=32)
    with pytest.raises(ProtocolError, match="lm-eval cuts texts its own way"):
        load(state="carried", like="lm-eval")
    with pytest.raises(InputError, match="neither restarted nor carried"):
        load(state="kept")
    windowed = fairway.Document("x", TEXTS[0], windows=((0, 0, 9), (4, 9, len(TEXTS[0]))))
    with pytest.raises(InputError, match="has windows of its own"):
        list(load(state="carried").score([windowed]))
    long = fairway.Document("x", "the cat " * 200)
    with pytest.raises(ProtocolError, match="the model's attention reaches over 64 positions"):
        list(load(build("zamba2"), state="carried").score([long]))
    assert next(iter(load(state="carried").score([long]))).totals.tokens_skipped == 0


def test_whole_texts_are_what_hf_evaluate_reads_anyway() -> None:
    model, document = build("mamba2"), fairway.Document("x", TEXTS[0])
    plain = backend.load(model, tokenizer=tokenizer(), like="hf-evaluate")
    carried = backend.load(model, tokenizer=tokenizer(), like="hf-evaluate", state="carried")
    (one,), (other,) = plain.score([document]), carried.score([document])
    assert np.abs(one.logprobs - other.logprobs).max() < 2e-5


def test_carried_and_restarted_runs_are_not_compared_without_a_word(tmp_path: Path) -> None:
    model, texts = build("mamba2"), [*TEXTS, "and the cat"]
    for state in ("restarted", "carried"):
        scorer = backend.load(model, tokenizer=tokenizer(), state=state)
        fairway.evaluate(scorer, texts, out=tmp_path / state)
    with pytest.raises(ProtocolError, match="--model-arg state=restarted, or pass --allow length"):
        fairway.compare(tmp_path / "restarted", tmp_path / "carried")
    found = fairway.compare(tmp_path / "restarted", tmp_path / "carried", allow=("length",))
    assert found is not None


def test_no_mask_is_passed_where_none_is_used() -> None:
    """RWKV of transformers warns of it once for each run."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    log = logging.getLogger("transformers")
    listener = Listener()
    log.addHandler(listener)
    try:
        scorer = backend.load(build("rwkv"), tokenizer=tokenizer())
        list(scorer.score([fairway.Document(str(i), text) for i, text in enumerate(TEXTS)]))
    finally:
        log.removeHandler(listener)
    assert not [one for one in said if "attention_mask" in one]
    rows = [forward.row([1, 2, 3], [2, 3, 4]), forward.row([5], [6], document=1)]
    assert forward.pad(rows, torch.device("cpu"))[1] is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("corpus", "bits"),
    [
        ("tinystories/tinystories_valid_794k.txt.gz", 3.63),
        ("tinyshakespeare/input.txt", 4.54),
        ("wikitext2/wiki.test.raw", 3.96),
    ],
)
def test_a_published_rwkv_has_its_bits_per_byte(assets: Path, corpus: str, bits: float) -> None:
    """On the first 30,000 characters, as the assets' MANIFEST has them."""
    scorer = fairway.load(f"hf:{assets / 'models/tiny_rwkv/hf_4v0_660K'}", state="carried")
    path = assets / "corpora" / corpus
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")[:30_000]
    score = next(iter(scorer.score([fairway.Document("x", text)])))
    assert score.metrics["bits_per_byte"] == pytest.approx(bits, abs=0.005)
