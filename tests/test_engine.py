"""The engine under any lengths, budget, order, threads and kernels, held to the plain loop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairway
from fairway import api, blocks, run
from fairway.backends import transformers as backend
from fairway.backends.transformers import forward, memory, products
from fairway.corpus import Corpus, Document, read
from fairway.errors import InputError
from fairway.request import Request
from models import CONFIGS, POSITIONS, build, reference, tokenizer

ALPHABET = "the in an cat hen,. xyzé猫"
texts = st.lists(
    st.one_of(
        st.text(ALPHABET, max_size=POSITIONS),
        st.sampled_from(["", "x", "the cat in the hat " * 4, "the cat in the hat " * 3 + "x"]),
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def scorers() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("name", sorted(CONFIGS))
@settings(max_examples=6, deadline=None)
@given(
    texts=texts,
    budget=st.sampled_from([1, 70, 300, 5000]),
    length=st.sampled_from([POSITIONS, 9]),
    threads=st.sampled_from([1, 2]),
    seed=st.randoms(use_true_random=False),
)
def test_equals_the_twin(
    scorers: dict[str, Any], name: str, texts: list[str], budget: int, length: int, threads: int,
    seed: Any,
) -> None:  # fmt: skip
    if name not in scorers:
        model, words = build(name), tokenizer()
        scorers[name] = {
            size: backend.load(model, tokenizer=words, max_length=size) for size in (POSITIONS, 9)
        }
    scorer = scorers[name][length]
    scorer.budget = budget
    order = list(range(len(texts)))
    seed.shuffle(order)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        scores = list(scorer.score([Document(str(i), texts[i]) for i in order]))
    finally:
        torch.set_num_threads(before)
    assert [score.id for score in scores] == [str(i) for i in order]
    for score in scores:
        ids = [0, *score.ids.tolist()]
        assert len(ids) > 1 or score.text == ""
        expected = np.full(len(ids) - 1, np.nan)
        for window in scorer.plan.cut(len(ids) - 1):
            piece = [0, *ids[1 + window.begin : 1 + window.end]]
            first = 1 + window.score_from - window.begin
            expected[window.score_from : window.end] = reference(scorer.loaded.model, piece, first)
        assert np.abs(score.logprobs - expected).max(initial=0) < 2e-5


@pytest.mark.parametrize("name", ["gpt2", "llama", "phi", "gemma2", "mamba"])
@pytest.mark.parametrize("onednn", [True, False])
def test_either_kernel_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str, onednn: bool
) -> None:
    if onednn and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(products, "onednn_wins", lambda: onednn)
    model = build(name)
    scorer = backend.load(model, tokenizer=tokenizer())
    assert scorer.path.products.onednn is onednn
    score = next(iter(scorer.score([Document("x", "the cat and the hen in the garden")])))
    expected = reference(model, [0, *score.ids.tolist()], 1)
    assert np.abs(score.logprobs - expected).max() < 2e-5


@pytest.mark.parametrize("name", ["gpt2", "phi"])
def test_a_float64_model_stays_in_float64(name: str) -> None:
    model = build(name).double()
    scorer = backend.load(model, tokenizer=tokenizer())
    assert scorer.path.head is not None
    score = next(iter(scorer.score([Document("x", "the cat and the hen in the garden")])))
    expected = reference(model, [0, *score.ids.tolist()], 1)
    assert np.abs(score.logprobs - expected).max() < 1e-10


def test_a_model_is_left_as_it_was() -> None:
    model = build("gpt2")
    before = [type(m.act).__name__ for m in model.transformer.h.modules() if hasattr(m, "act")]
    scorer = backend.load(model, tokenizer=tokenizer())
    assert before and scorer.path.products.twins
    list(scorer.score([Document("x", "the cat")]))
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert model.config._attn_implementation != "fairway"


def test_thousands_of_tiny_texts(small: str) -> None:
    scorer = fairway.load(small)
    documents = [Document(str(i), f"{'abcdefghij'[i % 10]}{i}") for i in range(3000)]
    scores = list(scorer.score(documents))
    assert [s.text for s in scores] == [d.text for d in documents]
    for index in (0, 1, 1234, 2999):
        alone = next(iter(scorer.score([documents[index]])))
        assert np.abs(alone.logprobs - scores[index].logprobs).max() < 2e-5


def test_a_text_that_comes_again_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = backend.load(build("llama"), tokenizer=tokenizer())
    seen: list[int] = []
    whole = forward.run

    def counted(model: Any, path: Any, rows: Any, want: Any) -> Any:
        seen.append(len(rows))
        return whole(model, path, rows, want)

    monkeypatch.setattr(forward, "run", counted)
    documents = [Document(str(i), ["the cat", "an inn"][i % 2]) for i in range(10)]
    scores = list(scorer.score(documents, ["rank"]))
    assert sum(seen) == 2
    assert all(np.array_equal(s.logprobs, scores[i % 2].logprobs) for i, s in enumerate(scores))
    assert all("rank" in s.extras for s in scores)


def test_a_run_computes_a_text_once(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 40)
    scorer = fairway.load(small)
    texts = ["the cat in the hat", "an inn"] * 30
    states: list[Any] = []
    from fairway.evaluation import evaluate
    from fairway.protocol import convention

    report = evaluate(scorer, read(texts), convention("fairway"), progress=states.append)
    assert report.totals.documents == 60
    assert states[-1].fresh * 5 < report.totals.tokens


def test_a_shared_context_is_read_once_and_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    scorer = backend.load(model, tokenizer=tokenizer())
    context = "the cat and the hen in the garden of the old inn, and "
    documents = [Document(str(i), tail, context) for i, tail in enumerate(["an ant", "x", "the"])]
    read_tokens: list[int] = []
    body = model.base_model.forward

    def counted(ids: Any, **options: Any) -> Any:
        read_tokens.append(ids.numel())
        return body(ids, **options)

    monkeypatch.setattr(model.base_model, "forward", counted)
    scores = list(scorer.score(documents))
    monkeypatch.undo()
    whole = len(tokenizer()(context, add_special_tokens=False)["input_ids"])
    assert sum(read_tokens) < 2 * whole
    for score, document in zip(scores, documents, strict=True):
        ids = [0, *tokenizer()(context + document.text, add_special_tokens=False)["input_ids"]]
        expected = reference(model, ids, len(ids) - len(score))
        assert np.abs(score.logprobs - expected).max() < 2e-5


def test_extras_are_asked_for_by_name(small: str) -> None:
    scorer = fairway.load(small)
    document = Document("x", "the cat in the hat")
    score = next(iter(scorer.score([document], ["top", "top4", "entropy", "rank"])))
    assert score.extras["top4"].shape == (len(score), 4)
    assert np.array_equal(score.extras["top4"][:, 0], score.extras["top"])
    assert (np.diff(score.extras["top4_logprob"], axis=1) <= 0).all()
    likely = score.extras["rank"] == 0
    assert np.array_equal(likely, score.ids == score.extras["top"])
    plain = next(iter(scorer.score([document])))
    assert not plain.extras and np.array_equal(plain.logprobs, score.logprobs)
    assert len(score.to_frame().columns) == 5 + 5
    for name in ("likelihood", "top0", "topmost"):
        with pytest.raises(InputError, match="want takes"):
            scorer.score([document], [name])


def test_bfloat16_on_a_trained_model() -> None:
    """Log-sum-exp and sums stay in float32 and float64; only states and weights are rounded."""
    documents = list(read("sample:all"))
    full = [score.totals for score in fairway.load().score(documents)]
    half = [score.totals for score in fairway.load(dtype="bfloat16").score(documents)]
    gaps = [(b.nll - a.nll) / a.tokens for a, b in zip(full, half, strict=True)]
    tokens = sum(one.tokens for one in full)
    assert abs(sum(b.nll - a.nll for a, b in zip(full, half, strict=True))) / tokens < 5e-4
    assert max(map(abs, gaps)) < 2e-2


def test_budgets_come_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    assert memory.budget(model) == memory.CPU_TOKENS
    monkeypatch.setattr(memory, "total", lambda: 100 * memory.activations(model) * 50)
    assert memory.budget(model) == 256
    assert memory.budget(model) & (memory.budget(model) - 1) == 0


def test_a_run_keeps_its_budget(small: str, tmp_path: Path, monkeypatch: Any) -> None:
    """A resumed run plans its batches as when it began; one that ran out of memory plans less."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 400)
    data = tmp_path / "data.jsonl"
    lines = [json.dumps({"text": f"{i} the cat in the hat " * 8}) for i in range(12)]
    data.write_text("\n".join(lines), "utf-8")
    folder = tmp_path / "run"
    request = Request(small, str(data))
    scorer: Any = fairway.load(small, batch_tokens=1000)
    whole, calls = forward.run, 0

    def short(model: Any, path: Any, rows: Any, want: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise MemoryError
        if calls == 7:
            raise KeyboardInterrupt
        return whole(model, path, rows, want)

    monkeypatch.setattr(forward, "run", short)
    with pytest.raises(KeyboardInterrupt):
        api.perform(request, scorer, read(str(data)), out=folder)
    kept = json.loads((folder / run.SETTINGS).read_text("utf-8"))["engine"]
    assert kept["budget"] == 500 and kept["threads"] == torch.get_num_threads()
    other: Any = fairway.load(small, batch_tokens=4000)
    kept_before = sum(r.totals.tokens for block in run.read_blocks(folder) for r in block)
    states: list[Any] = []
    report = api.perform(
        request, other, read(str(data)), out=folder, progress=states.append
    )  # fmt: skip
    assert other.budget == 500 and report.totals.documents == 12
    assert kept_before > 0 and states[-1].fresh == report.totals.tokens - kept_before


def test_what_was_begun_is_committed_before_a_mistake_stops_the_run(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 30)

    def broken() -> Iterator[Document]:
        for index in range(5):
            yield Document(str(index), f"{index} the cat in the hat, the cat in the hat")
        raise InputError("the sixth row is bad")

    folder = tmp_path / "run"
    corpus = Corpus("broken", lambda _: broken())
    with pytest.raises(InputError, match="sixth row"):
        api.perform(Request(small, "x"), fairway.load(small), corpus, out=folder)
    assert sum(len(block) for block in run.read_blocks(folder)) == 5


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_devices_give_the_same(small: str, device: str, dtype: str) -> None:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present[device]:
        pytest.skip(f"this machine has no {device} device")
    context = "the cat and the hen in the garden of the old inn, and "
    documents = [Document(str(i), f"{i} the cat", context * (i % 2)) for i in range(20)]
    here = list(fairway.load(small).score(documents, ["entropy", "rank", "top3"]))
    there: Any = fairway.load(small, device=device, dtype=dtype)
    assert there.path.packed
    for one, other in zip(here, there.score(documents, ["entropy", "rank", "top3"]), strict=True):
        gap = np.abs(one.logprobs - other.logprobs).max()
        assert gap < (2e-4 if dtype == "float32" else 0.5)


def test_threads(small: str) -> None:
    before = torch.get_num_threads()
    try:
        scorer: Any = fairway.load(small, threads=1)
        assert torch.get_num_threads() == 1 and scorer.engine["threads"] == 1
    finally:
        torch.set_num_threads(before)
    with pytest.raises(InputError, match="--threads"):
        fairway.load(small, threads=0)


def test_one_scorer_in_several_threads(small: str) -> None:
    """While it runs a model is changed in places: threads have their turns."""
    scorer: Any = fairway.load(small)
    shared = "the cat in the hat and the hen "
    documents = [Document(str(n), f"{shared}{n} {'the cat ' * (n % 3)}") for n in range(24)]
    alone = list(scorer.score(documents))
    bare = scorer.bare()
    ids = [Document(str(n), "", ids=one.ids) for n, one in enumerate(alone)]
    expected = list(bare.score(ids))
    jobs = [(scorer, documents, alone), (bare, ids, expected)] * 6
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda job: list(job[0].score(job[1])), jobs))
    for (_, _, wanted), found in zip(jobs, done, strict=True):
        for one, other in zip(wanted, found, strict=True):
            assert np.array_equal(one.logprobs, other.logprobs, equal_nan=True)


def test_a_hint_is_measured_on_the_runs_own_documents() -> None:
    from fairway.cli import hinting

    if not products.fast_half():
        pytest.skip("this processor has no fast bfloat16")
    sample = hinting.Sample()
    corpus = read("sample:news")
    sample.watch(corpus)
    total = len(list(corpus))
    assert 1 < len(sample.documents) < total
    sample.seconds, sample.tokens = 0.5, 1000
    assert hinting.hint(fairway.load(), sample) is None
    sample.seconds = hinting.LONG
    scorer: Any = fairway.load()
    found = scorer.trial(sample.documents)
    assert 0 < abs(found.difference) < 5e-3 and found.worst < 2e-2
    assert scorer.trial(sample.documents) is None, "it is in bfloat16 already"
    line = hinting.hint(fairway.load(), sample)
    assert line is None or (line.startswith("hint: --dtype bfloat16") and "nats per token" in line)
