"""GGUF files through llama.cpp, held to a float64 forward, to hf: and to llama.cpp's own loop."""

from __future__ import annotations

import ctypes
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fairway
import lacking
from fairway.corpus import Document
from fairway.errors import ModelError

api = pytest.importorskip("llama_cpp", reason=lacking.gguf())
pytest.importorskip("gguf", reason=lacking.gguf())

import gguf_models  # noqa: E402
from fairway.backends.gguf import columns, decoding, loading, tokens  # noqa: E402

ODD = (
    "", "a", "Hello", " lead", "  two  spaces\n\n", "\0 null", "</s> spelled <s>", "日本 🦙",
    "e\u0301 and é", "\ufeffmark", "ＦＵＬＬ", "\u00a0\u3000", "\r\n\t",
    "👩\u200d👩\u200d👧", "é" * 50, "▁", "x ▁▁ y", "word " * 300,
)  # fmt: skip


@pytest.fixture(scope="module")
def file(assets: Path) -> str:
    return str(assets / "models/stories260K/gguf/stories260K-f32.gguf")


@pytest.fixture(scope="module")
def reference(assets: Path) -> Any:
    return json.loads((assets / "models/stories260K/reference_scores.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def texts(reference: Any) -> list[Document]:
    return [Document(str(i), d["text"]) for i, d in enumerate(reference["docs"])]


@cache
def vocabulary(name: str) -> tokens.Tokenizer:
    """A vocabulary-only file of llama.cpp's own tests."""
    folder = Path(os.environ["FAIRWAY_ASSETS"]) / "tokenizers/ggml_vocab"
    loading.quiet()
    chosen = api.llama_model_default_params()
    chosen.vocab_only = True
    path = str(folder / f"ggml-vocab-{name}.gguf").encode()
    model = api.llama_model_load_from_file(path, chosen)
    return tokens.Tokenizer(name, api.llama_model_get_vocab(model), model)


def score(spec: str, texts: list[Document], want: tuple[str, ...] = (), **options: Any) -> Any:
    return list(fairway.load(spec, **options).score(texts, want))


def test_per_token_reference(file: str, reference: Any, texts: list[Document]) -> None:
    for wanted, found in zip(reference["docs"], score(f"gguf:{file}", texts), strict=True):
        assert found.ids.tolist() == wanted["ids"][1:]
        expected = np.array(wanted["logprobs"])[-len(found) :]
        assert np.abs(found.logprobs - expected).max() < 2e-5
        assert found.totals.bytes == len(found.text.encode()) and found.lossy is False


@pytest.mark.parametrize(
    ("length", "stride", "expected"), [(512, 512, 125.522), (256, 128, 117.521)]
)
def test_windows_on_wikitext(
    assets: Path, file: str, length: int, stride: int, expected: float
) -> None:
    text = (assets / "corpora/wikitext2/wiki.test.raw").read_bytes().decode()[:6000]
    found = fairway.score(text, f"gguf:{file}", prefix="none", max_length=length, stride=stride)
    assert math.isclose(found.metrics["perplexity"], expected, rel_tol=1e-5)


@pytest.mark.parametrize("special", ["text", "parse"])
def test_same_tokens_places_and_numbers_as_transformers(
    file: str, stories: str, special: str
) -> None:
    documents = [Document(str(i), text) for i, text in enumerate(ODD)]
    documents += [
        Document("context", "the park.", context="Tom went to "),
        Document("spans", "Tom went to the park.", scored=((4, 8), (12, 15))),
        Document("ids", "", ids=np.array([1, 410, 346, 306, 414]), context_ids=2),
    ]
    want = ("entropy", "rank", "top3", "top", "window")
    options: dict[str, Any] = {"special_tokens": special, "max_length": 128}
    ours = score(f"gguf:{file}", documents, want, **options)
    theirs = score(stories, documents, want, **options)
    for a, b in zip(ours, theirs, strict=True):
        assert a.ids.tolist() == b.ids.tolist(), a.text
        assert np.allclose(a.logprobs, b.logprobs, atol=3e-5, equal_nan=True), a.text
        assert a.lossy == b.lossy and a.totals.bytes == b.totals.bytes, a.text
        assert a.totals.chars == b.totals.chars and a.totals.words == b.totals.words
        if special == "text":
            assert a.offsets.tolist() == b.offsets.tolist(), a.text
        done = ~np.isnan(a.logprobs)
        for name in b.extras:
            one, other = a.extras[name][done], b.extras[name][done]
            # Of two float32 engines, one may have some unlikely tokens the other way round.
            close = {"atol": 1, "rtol": 0.01} if name == "rank" else {"atol": 1e-4, "rtol": 0}
            assert np.allclose(one, other, **close), (a.text, name)


def test_pairs_of_context_and_continuation(file: str, stories: str) -> None:
    documents = [
        Document("1", " girl named Lily.", context="Once upon a time there was a little "),
        Document("2", "Tom ran.", context=""),
        Document("3", "</s> ran", context="<s>Tom"),
    ]
    ours = score(f"gguf:{file}", documents, ("rank",), like="lm-eval-pairs")
    theirs = score(stories, documents, ("rank",), like="lm-eval-pairs")
    for a, b in zip(ours, theirs, strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        assert np.allclose(a.logprobs, b.logprobs, atol=3e-5, equal_nan=True)


def test_one_forward_for_each_token(file: str, texts: list[Document]) -> None:
    """The slow way: a fresh context for each token, float64 sums."""
    loaded = loading.load(file)
    text = replace(texts[0], text=texts[0].text[:60])
    ids = [1, *tokens.Tokenizer.of(loaded).encode_text(text.text).ids.tolist()]
    options = api.llama_context_default_params()
    options.type_k = options.type_v = api.GGML_TYPE_F32
    options.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
    options.n_threads = options.n_threads_batch = 1
    expected = []
    for at in range(1, len(ids)):
        context = api.llama_init_from_model(loaded.model, options)
        read = (ctypes.c_int32 * at)(*ids[:at])
        assert api.llama_decode(context, api.llama_batch_get_one(read, at)) == 0
        logits = [api.llama_get_logits_ith(context, -1)[v] for v in range(512)]
        expected.append(logits[ids[at]] - math.log(math.fsum(map(math.exp, logits))))
        api.llama_free(context)
    assert score(f"gguf:{file}", [text])[0].logprobs.tolist() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("own", [False, True])
def test_like_llama_cpp_is_its_own_arithmetic(assets: Path, file: str, own: bool) -> None:
    """perplexity.cpp: chunks of n_ctx, BOS over the first, the second half scored, tail dropped."""
    text = (assets / "corpora/wikitext2/wiki.test.raw").read_bytes().decode()[:9000]
    n_ctx = 256
    chosen = {"dtype": "float16", "flash": True} if own else {}
    loading.quiet()
    model = api.llama_model_load_from_file(file.encode(), api.llama_model_default_params())
    options = api.llama_context_default_params()
    options.n_ctx = options.n_batch = n_ctx
    if not own:
        options.type_k = options.type_v = api.GGML_TYPE_F32
        options.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
    options.n_threads = options.n_threads_batch = 1
    context = api.llama_init_from_model(model, options)
    raw = text.removesuffix("\n").encode()
    room = (ctypes.c_int32 * (len(raw) + 8))()
    vocabulary = api.llama_model_get_vocab(model)
    count = api.llama_tokenize(vocabulary, raw, len(raw), room, len(room), True, False)
    size = api.llama_vocab_n_tokens(vocabulary)
    nll, scored, first = 0.0, 0, n_ctx // 2
    for chunk in range(count // n_ctx):
        start = chunk * n_ctx
        kept = room[start]
        room[start] = api.llama_vocab_bos(vocabulary)
        api.llama_memory_clear(api.llama_get_memory(context), True)
        batch = api.llama_batch_init(n_ctx, 0, 1)
        batch.n_tokens = n_ctx
        for i in range(n_ctx):
            batch.token[i], batch.pos[i] = room[start + i], i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, i >= first
        assert api.llama_decode(context, batch) == 0
        api.llama_batch_free(batch)
        room[start] = kept
        for i in range(first, n_ctx - 1):
            logits = np.ctypeslib.as_array(api.llama_get_logits_ith(context, i), (size,))
            top = logits.max()
            total = np.exp(logits - top).astype(np.float64).sum()
            nll -= float(logits[room[start + i + 1]] - top - np.log(total))
            scored += 1
    api.llama_free(context)
    api.llama_model_free(model)
    found = fairway.evaluate(f"gguf:{file}", [text], like="llama.cpp", max_length=n_ctx, **chosen)
    assert found.totals.tokens == scored
    assert found.totals.nll == pytest.approx(nll, rel=1e-6)


def test_batches_change_nothing_but_the_last_digits(file: str, texts: list[Document]) -> None:
    base = score(f"gguf:{file}", texts)
    for documents, budget in ((texts[:3], 1), (texts, 32), (texts, 100), (texts[::-1], 512)):
        found = {one.id: one for one in score(f"gguf:{file}", documents, batch_tokens=budget)}
        for one in base[: len(documents)]:
            assert np.abs(one.logprobs - found[one.id].logprobs).max() < 2e-5
    again = score(f"gguf:{file}", texts)
    for one, other in zip(base, again, strict=True):
        assert one.logprobs.tobytes() == other.logprobs.tobytes()


def test_batches_hold_windows_once_and_stay_within_bounds(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    sizes = draw.integers(1, 700, 500).tolist()
    batches = decoding.plan(sizes, 512)
    assert sorted(index for batch in batches for index in batch) == list(range(500))
    for batch in batches:
        assert len(batch) == 1 or sum(sizes[index] for index in batch) <= 512
        assert len(batch) <= decoding.TEXTS
    assert all(len(batch) == 1 for batch in decoding.plan(sizes, 512, alone=True))
    decoder = decoding.Decoder(loading.load(file), "float32", 1)
    assert decoder.limit() == decoding.BATCH
    monkeypatch.setattr(decoding.Decoder, "vocabulary", 1_000_000)
    assert 0 < decoder.limit() * 1_000_000 <= decoding.LOGITS


def test_the_cache_is_float32_unless_asked(file: str, texts: list[Document]) -> None:
    exact = fairway.load(f"gguf:{file}")
    assert exact.signature["cache"] == "float32" and exact.signature["dtype"] == "float32"
    coarse = fairway.load(f"gguf:{file}", dtype="float16")
    assert coarse.signature["cache"] == "float16"
    gaps = [
        np.abs(a.logprobs - b.logprobs).max()
        for a, b in zip(exact.score(texts), coarse.score(texts), strict=True)
    ]
    # 1.4e-2 was measured elsewhere too.
    assert 1e-3 < max(gaps) < 2e-2
    flash = fairway.load(f"gguf:{file}", flash=True)
    assert flash.signature["cache"] == "float32+flash"
    gaps = [
        np.abs(a.logprobs - b.logprobs).max()
        for a, b in zip(exact.score(texts), flash.score(texts), strict=True)
    ]
    assert 1e-3 < max(gaps) < 5e-2


def test_state_is_forgotten_between_windows(tmp_path: Path) -> None:
    path = gguf_models.mamba(tmp_path / "mamba.gguf")
    text = "the hat on an inn, the other in a tent. " * 6
    scorer = fairway.load(f"gguf:{path}", max_length=64, stride=64)
    assert scorer.loaded.positions is None and scorer.signature["state"] == "restarted"
    twice = [Document("1", text), Document("2", text)]
    found, again = scorer.score(twice)
    assert found.logprobs.tolist() == again.logprobs.tolist()
    ids = found.ids.tolist()
    one = fairway.load(f"gguf:{path}", max_length=2048)
    # Each window of 63 tokens by itself, as a text of its own ids.
    for at in (0, 63, 126):
        part = Document("part", "", ids=np.array(ids[at : at + 63]))
        alone = next(one.score([part]))
        assert alone.logprobs == pytest.approx(found.logprobs[at : at + 63], abs=1e-5)


def test_a_filled_in_bos_is_not_believed(assets: Path, file: str) -> None:
    """llama.cpp takes token 11, a comma, for the BOS of byte-level files that name none."""
    tokenizer = vocabulary("gpt-2")
    loaded = loading.load(file)
    bare = replace(loaded.header, fields={"general.architecture": "gpt2"})
    assert tokenizer._known(replace(loaded, header=bare), "bos", 11) is None
    assert tokenizer._known(replace(loaded, header=bare), "bos", 50256) == 50256
    assert tokenizer.facts(loaded).adds == ()


@pytest.mark.parametrize("name", ["gpt-2", "llama-spm"])
def test_tokens_are_those_of_llama_cpps_own_cases(assets: Path, name: str) -> None:
    path = assets / f"tokenizers/ggml_vocab/ggml-vocab-{name}.gguf"
    tokenizer = vocabulary(name)
    cases = path.with_suffix(".gguf.inp").read_bytes().decode()
    inputs = cases.split("\n__ggml_vocab_test__\n")
    outputs = path.with_suffix(".gguf.out").read_text("utf-8").splitlines()
    assert len(inputs) - 1 == len(outputs) > 40
    for text, line in zip(inputs, outputs, strict=False):
        found = tokenizer.encode_text(text)
        assert found.ids.tolist() == [int(one) for one in line.split()], text
        assert not found.lossy and tokenizer.decode(found.ids) == text
        covered = {c for start, end in found.offsets.tolist() for c in range(start, end)}
        assert covered == set(range(len(text)))
    assert tokenizer.kind == ("byte-level" if name == "gpt-2" else "byte fallback")
    pieces = tokenizer.pieces
    spelled = {piece for piece in pieces if len(piece) == 1}
    assert len(pieces) == len(tokenizer) and {bytes([byte]) for byte in range(256)} <= spelled


@given(st.text(st.characters(codec="utf-8"), max_size=40))
@settings(deadline=None, max_examples=100)
def test_any_text_is_spelled_by_its_tokens(assets: Path, text: str) -> None:
    for tokenizer in map(vocabulary, ("gpt-2", "llama-spm")):
        found = tokenizer.encode_text(text)
        spelled = b"".join(tokenizer.piece(token) for token in found.ids.tolist())
        changed = tokenizer.spm and "▁" in text
        assert found.lossy == changed
        # SentencePiece puts one blank more before any text but the empty one.
        assert changed or spelled.decode() == (" " + text if tokenizer.spm and text else text)
        covered = {c for start, end in found.offsets.tolist() for c in range(start, end)}
        assert covered == set(range(len(text)))


def test_columns_against_float64() -> None:
    draw = np.random.default_rng(1)
    logits = (draw.normal(size=(50, 3000)) * 6).astype(np.float32)
    logits[3, ::2] = -np.inf
    logits[4, 7] = 300.0
    logits[5, :2] = logits[5].max() + 1
    ids = draw.integers(0, 1500, 50) * 2 + 1
    ids[5] = 1
    found = columns.score(logits, ids, ("entropy", "rank", "top", "top4"))
    for row, target in enumerate(ids.tolist()):
        wide = logits[row].astype(np.float64)
        shares = np.exp(wide - wide.max())
        logs = wide - wide.max() - math.log(math.fsum(shares))
        shares /= math.fsum(shares)
        some = shares > 0
        assert found["logprob"][row] == pytest.approx(min(0.0, logs[target]), abs=1e-6)
        entropy = -float((shares[some] * logs[some]).sum())
        assert found["entropy"][row] == pytest.approx(entropy, abs=1e-5)
        assert found["rank"][row] == (logits[row] > logits[row, target]).sum()
        best = np.argsort(-logits[row], kind="stable")[:4]
        assert found["top4"][row].tolist() == best.tolist() and found["top"][row] == best[0]
        assert found["top4_logprob"][row] == pytest.approx(np.minimum(logs[best], 0), abs=1e-6)
    with pytest.raises(ModelError, match="not a number"):
        columns.score(np.full((1, 3), np.nan, np.float32), np.array([1]))


def test_it_prints_nothing(file: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fairway", "score", "--model", f"gguf:{file}", "Hello", "--json"],
        capture_output=True, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["signature"].startswith("kind:gguf|model:stories260K-f32|")
