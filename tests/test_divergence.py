"""Divergences of two models: held to float64, to scipy, to llama.cpp's definitions, to identity."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr
from transformers import AutoModelForCausalLM

import fairway
from fairway import variants
from fairway.cli import main
from fairway.cli.diverging import dtype_of
from fairway.corpus import Document
from fairway.distributions import ROWS, Distributions
from fairway.divergence import Divergences, block, diverge, terms
from fairway.errors import FairwayError, InputError, ModelError, ProtocolError
from fairway.statistics import mean
from models import build, tokenizer

TEXTS = [
    "the cat in the hat, and the hen; " * 9,
    "a",
    "an inn in the thin tin; Übermäßig é 🐕 " * 4,
    *(f"{i}: then the man " * (1 + i % 5) for i in range(40)),
]
DOCUMENTS = [Document(f"d{i}", text) for i, text in enumerate(TEXTS)]


def rounded(model: Any, scale: float = 0.02) -> Any:
    """Damage a model a little: weights to a grid."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter / scale).round() * scale)
    return model


def scorer(model: Any, **options: Any) -> Any:
    return fairway.load(model, tokenizer=tokenizer(), **options)


def saved(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(rounded(build("llama")), tmp_path_factory.mktemp("models") / "rounded")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), "utf-8")
    return path


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["fairway", "compare", "--kld", *words])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


def slow(first: Any, second: Any, length: int, stride: int) -> dict[str, np.ndarray]:
    """Window by window, from whole logits of the models' own forward, in float64 with scipy."""
    words = tokenizer()
    out: dict[str, list[float]] = {"document": [], "kld": [], "same": [], "base": [], "variant": []}
    for number, text in enumerate(TEXTS):
        ids = words(text)["input_ids"]
        begin, done = 0, 0
        while done < len(ids):
            end = min(begin + length - 1, len(ids))
            with torch.no_grad():
                row = torch.tensor([[0, *ids[begin:end]]])
                pair = [
                    log_softmax(one(row, use_cache=False).logits[0].double().numpy(), axis=1)
                    for one in (first, second)
                ]
            for at in range(done, end):
                p, q = (one[at - begin] for one in pair)
                out["document"].append(number)
                out["kld"].append(float(rel_entr(np.exp(p), np.exp(q)).sum()))
                out["same"].append(p.argmax() == q.argmax())
                out["base"].append(p[ids[at]])
                out["variant"].append(q[ids[at]])
            done = end
            begin += stride
    return {name: np.array(column) for name, column in out.items()}


@pytest.mark.parametrize(
    ("name", "wide"),
    # Mamba computes in float32 inside, whatever its weights are.
    [(name, False) for name in ("llama", "gemma2", "gpt2", "mamba")]
    + [(name, True) for name in ("llama", "gemma2", "gpt2")],
)
def test_every_token_is_that_of_whole_logits(name: str, wide: bool) -> None:
    """Several windows a document, packed and padded, with a capped head, and in float64."""
    first, second = build(name), rounded(build(name))
    if wide:
        first, second = first.double(), second.double()
    a, b = (scorer(model, max_length=32, stride=16) for model in (first, second))
    found = diverge(a, b, DOCUMENTS)
    expected = slow(first, second, 32, 16)
    assert len(found) == len(expected["kld"]) > 2 * ROWS
    assert (found.document == expected["document"]).all()
    assert expected["kld"].mean() > 1e-4
    gaps = np.abs(found.kld - expected["kld"])
    assert gaps.mean() < 1e-6 and abs(found.kld.mean() - expected["kld"].mean()) < 1e-6
    assert not wide or gaps.max() < 1e-9
    assert np.abs(found.base - expected["base"]).max() < (1e-9 if wide else 2e-4)
    assert np.abs(found.variant - expected["variant"]).max() < (1e-9 if wide else 2e-4)
    assert (found.same == expected["same"]).mean() > 0.999


def test_own_logits_where_there_is_no_usual_head() -> None:
    a, b = (scorer(model, max_length=32) for model in (build("llama"), rounded(build("llama"))))
    fast = diverge(a, b, DOCUMENTS)
    a.path = b.path = type(a.path)()
    own = diverge(a, b, DOCUMENTS)
    assert np.abs(fast.kld - own.kld).max() < 1e-4
    assert np.abs(fast.kld - own.kld).mean() < 1e-6
    assert (fast.same == own.same).mean() > 0.999


def test_a_model_does_not_diverge_from_itself(small: str) -> None:
    found = diverge(fairway.load(small), fairway.load(small), DOCUMENTS)
    assert found.kld.max() < 1e-9 and found.same.all() and (found.base == found.variant).all()
    half = fairway.load(small, dtype="bfloat16")
    found = diverge(half, fairway.load(small, dtype="bfloat16"), DOCUMENTS)
    assert found.kld.max() < 1e-9 and found.same.all()


def test_rows_are_those_that_are_scored(small: str) -> None:
    """Contexts and spans that are not scored are left out, and the places are the score's."""
    documents = [
        Document("a", "the cat in the hat", context="an inn "),
        Document("b", "the cat in the hat", scored=((0, 3), (11, 14))),
        Document("c", ""),
        *DOCUMENTS,
    ]
    one = fairway.load(small, max_length=32, prefix="none")
    scores = list(one.score(documents))
    blocks = list(one.distributions(documents))
    assert {len(each) for each in blocks[:-1]} == {ROWS}
    rows = [
        (number, place, int(score.ids[place]), float(score.logprobs[place]))
        for number, score in enumerate(scores)
        for place in np.flatnonzero(~np.isnan(score.logprobs))
    ]
    got = [
        row
        for each in blocks
        for row in zip(each.document, each.place, each.ids, each.logprobs, strict=True)
    ]
    assert [row[:3] for row in got] == [row[:3] for row in rows]
    assert np.abs(np.array([r[3] for r in got]) - [r[3] for r in rows]).max() < 2e-5
    for each in one.distributions(documents[:3]):
        whole = each.tile(0, each.vocabulary).numpy()
        assert np.abs(np.exp(whole).sum(1) - 1).max() < 1e-6
        assert np.abs(whole[np.arange(len(each)), each.ids] - each.logprobs).max() < 1e-5


LOGITS = st.lists(
    st.tuples(st.floats(-900, 900), st.floats(-900, 900)), min_size=2, max_size=40
).map(np.array)


@given(LOGITS)
@settings(deadline=None, max_examples=300)
def test_terms_are_scipys(logits: np.ndarray) -> None:
    p, q = log_softmax(logits, axis=0).T
    expected = rel_entr(np.exp(p), np.exp(q))
    if min(p.min(), q.min()) < -700:
        # scipy takes probabilities, of which float64 holds few digits there, or none.
        expected = np.where(np.exp(p) > 0, np.exp(p) * (p - q), 0.0)
    for library in (np, torch):
        pair = [library.asarray(np.ascontiguousarray(one)) for one in (p, q)]
        found = np.asarray(terms(*pair, library))
        assert (found >= 0).all()
        assert found.sum() == pytest.approx(expected.sum(), rel=1e-9, abs=1e-12)


@given(LOGITS, st.floats(1e-12, 1e-3))
@settings(deadline=None, max_examples=200)
def test_near_distributions_keep_their_digits(logits: np.ndarray, apart: float) -> None:
    """Against the second-order expansion, where ``p ln(p / q)`` itself has none left."""
    p = log_softmax(logits[:, 0] / 100)
    q = log_softmax(p + apart * logits[:, 1] / 900)
    d = q - p
    expected = float((np.exp(p) * d * d * (0.5 + d / 6 + d * d / 24)).sum())
    assert float(terms(p, q).sum()) == pytest.approx(expected, rel=1e-3, abs=1e-28)


def test_what_has_no_probability() -> None:
    inf = math.inf
    p, q = np.array([0.0, -inf, -inf]), np.array([-inf, 0.0, -inf])
    assert np.isinf(terms(p, q)[0]) and terms(p, q)[1] == 1 and terms(p, q)[2] == 0


def made(logits: np.ndarray, ids: np.ndarray, width: int = 0) -> Distributions:
    """Distributions that stand in memory: what a scorer of any kind may give."""
    logp = log_softmax(logits, axis=1)
    rows = np.arange(len(ids))
    return Distributions(
        rows, rows, ids, logp[rows, ids], logp.shape[1], lambda a, b: logp[:, a:b], 1 << 10
    )


@given(st.integers(0, 1 << 30), st.integers(1, 70), st.floats(0.01, 30))
@settings(deadline=None, max_examples=60)
def test_the_size_of_tiles_does_not_matter(seed: int, size: int, spread: float) -> None:
    draw = np.random.default_rng(seed)
    one = np.round(draw.normal(0, spread, (7, 61)), 1)
    two = np.round(one + draw.normal(0, 0.3 * spread, one.shape), 1)
    ids = draw.integers(0, 61, 7)
    p, q = made(one, ids), made(two, ids)
    kld, same, outside = block(p, q, size)
    expected = rel_entr(np.exp(p.tile(0, 61)), np.exp(q.tile(0, 61))).sum(1)
    assert kld == pytest.approx(expected, rel=1e-9, abs=1e-12) and outside == 0
    # Rounded logits have ties; the lowest id is taken, in whatever tile it lies.
    assert (same == (p.tile(0, 61).argmax(1) == q.tile(0, 61).argmax(1))).all()


def test_padding_of_the_vocabulary_is_left_out() -> None:
    draw = np.random.default_rng(0)
    one, two = draw.normal(0, 2, (2, 9, 40))
    ids = draw.integers(0, 40, 9)
    plain = block(made(one, ids), made(two, ids), 16)
    padded = np.concatenate((two, np.full((9, 24), -1.0)), axis=1)
    for p, q in ((one, padded), (padded, one)):
        kld, _, outside = block(made(p, ids), made(q, ids), 16)
        again = plain if p is one else block(made(two, ids), made(one, ids), 16)
        assert kld == pytest.approx(again[0], rel=1e-12) and (again[1] == plain[1]).all()
        assert 0.01 < outside < 1


def test_figures_are_those_of_llama_cpp() -> None:
    """Means, quantiles and roots as in perplexity.cpp; errors with documents as clusters."""
    draw = np.random.default_rng(3)
    document = np.sort(draw.integers(0, 12, 999)).astype(np.int32) * 3
    base = -draw.exponential(2, 999)
    variant = base + draw.normal(0, 0.1, 999)
    variant = np.minimum(variant, 0)
    kld, same = draw.exponential(0.1, 999), draw.random(999) < 0.9
    found = Divergences(document, base, variant, kld, same)
    one = variants.summarize(found, variants.Model("v", "", 0, None, math.nan, 1), "b")
    delta = [math.exp(q) - math.exp(p) for p, q in zip(base, variant, strict=True)]
    assert one.kld.value == pytest.approx(sum(kld) / 999, rel=1e-12)
    assert one.same_top.value == pytest.approx(sum(same) / 999, rel=1e-12)
    assert one.delta_p.value == pytest.approx(sum(delta) / 999, rel=1e-12)
    rms = math.sqrt(sum(d * d for d in delta) / 999)
    assert one.rms_delta_p.value == pytest.approx(rms, rel=1e-12)
    assert one.ratio.value == pytest.approx(-sum(variant - base) / 999, rel=1e-12)
    for at, value in one.kld_at.items():
        assert value == pytest.approx(np.quantile(kld, at), rel=1e-12)
    for at, value in one.delta_p_at.items():
        assert value == pytest.approx(np.quantile(delta, at), rel=1e-12)
    # Each document as a cluster, by a plain loop.
    squares = 0.0
    for which in set(document.tolist()):
        inside = [kld[i] - one.kld.value for i in range(999) if document[i] == which]
        squares += sum(inside) ** 2
    n = len(set(document.tolist()))
    assert one.kld.error == pytest.approx(math.sqrt(n / (n - 1) * squares) / 999, rel=1e-9)
    # A document a token: llama.cpp's own error, its count less one under the root.
    alone = replace(found, document=np.arange(999, dtype=np.int32))
    one = variants.summarize(alone, variants.Model("v", "", 0, None, math.nan, 1), "b")
    theirs = math.sqrt((np.mean(kld**2) - np.mean(kld) ** 2) / 998)
    assert one.kld.error == pytest.approx(theirs, rel=1e-9)
    mse = np.square(delta)
    theirs = 0.5 / rms * math.sqrt((np.mean(mse**2) - np.mean(mse) ** 2) / 998)
    assert one.rms_delta_p.error == pytest.approx(theirs, rel=1e-9)
    apart = variant - base
    theirs = math.sqrt((np.mean(apart**2) - np.mean(apart) ** 2) / 998)
    assert one.ratio.error == pytest.approx(theirs, rel=1e-9)
    share = np.mean(same)
    assert one.same_top.error == pytest.approx(math.sqrt(share * (1 - share) / 998), rel=1e-9)


def test_a_verdict_says_when_its_tests_disagree() -> None:
    """Five documents: a paired t can be sure, and no pattern of signs is rarer than 1 in 16."""
    draw = np.random.default_rng(1)
    document = np.repeat(np.arange(5, dtype=np.int32), 50)
    base = -draw.exponential(2, 250)
    variant = base - 0.05 + draw.normal(0, 0.001, 250)
    found = Divergences(document, base, variant, np.full(250, 0.1), np.ones(250, bool))
    model = variants.Model("v", "", 0, None, math.nan, 1)
    one = variants.summarize(found, model, "b")
    assert one.ratio.p_flip == pytest.approx(1 / 16) and one.ratio.p_t < 1e-6
    assert "tests disagree" in one.sentence()
    many = replace(found, document=np.repeat(np.arange(25, dtype=np.int32), 10))
    assert "v has a higher perplexity than b" in variants.summarize(many, model, "b").sentence()
    alone = replace(found, document=np.zeros(250, np.int32))
    assert "nothing follows" in variants.summarize(alone, model, "b").sentence()


def test_intervals_need_two_documents() -> None:
    assert math.isnan(mean(np.array([1.0]), np.array([4])).low)
    with pytest.raises(InputError, match="No token is scored"):
        one = scorer(build("llama"))
        diverge(one, one, [])


def test_what_cannot_be_compared_is_refused(small: str, tmp_path: Path) -> None:
    other = build("llama")
    words = tokenizer(adds=True)
    a, b = fairway.load(small), fairway.load(other, tokenizer=words)
    with pytest.raises(InputError, match="different tokenizers"):
        diverge(a, b, DOCUMENTS, names=("a", "b"))
    with pytest.raises(ProtocolError, match="--max-length"):
        diverge(a, fairway.load(small, max_length=16), DOCUMENTS)

    class Bare:
        signature = a.signature

        def score(self, documents: Any, want: Any = ()) -> Iterator[Any]:
            yield from ()

    with pytest.raises(InputError, match="whole distributions"):
        diverge(a, Bare(), DOCUMENTS)


def test_damaged_weights_are_an_error_that_names_the_model(
    small: str, tmp_path: Path, command: Run
) -> None:
    model = AutoModelForCausalLM.from_pretrained(small)
    with torch.no_grad():
        # One row of the embedding, which the probe of the loader does not read.
        model.get_input_embeddings().weight[tokenizer()("w")["input_ids"][0]] = math.nan
    folder = saved(model, tmp_path / "damaged")
    with pytest.raises(ModelError, match="damaged: .*its weights are damaged"):
        diverge(
            fairway.load(small), fairway.load(folder), [Document("w", "w w w w")],
            names=("small", "damaged"),
        )  # fmt: skip
    with torch.no_grad():
        model.get_input_embeddings().weight[:] = math.nan
    whole = saved(model, tmp_path / "worse")
    code, _, said = command("--model", small, "--model", whole, "--data", "sample:en")
    assert code == 2 and "fairway: worse: " in said and "float32" in said


def test_the_command_prints_the_table(small: str, variant: str, data: Path, command: Run) -> None:
    words = ("--model", small, "--model", variant, "--model", f"{small}:bfloat16",
             "--data", str(data))  # fmt: skip
    code, out, _ = command(*words, "--json")
    assert code == 0
    table = json.loads(out)
    assert table["base"]["name"] == "small-llama" and table["documents"] == len(TEXTS)
    first, half = table["variants"]
    assert half["name"] == "small-llama:bfloat16" and "dtype:bfloat16" in half["signature"]
    stored = (Path(small) / "model.safetensors").stat().st_size
    assert table["base"]["bytes"] == stored and table["base"]["bits_per_weight"] > 32
    assert half["bits_per_weight"] == 16 and half["tokens_per_second"] > 0
    found = diverge(fairway.load(small), fairway.load(variant),
                    [Document(str(i), text) for i, text in enumerate(TEXTS)])  # fmt: skip
    assert first["kld"]["value"] == pytest.approx(found.kld.mean(), rel=1e-6)
    assert first["kld"]["low"] < first["kld"]["value"] < first["kld"]["high"]
    ratio = first["perplexity"] / table["base"]["perplexity"]
    assert first["perplexity_ratio"] == pytest.approx(ratio, rel=1e-12)
    report = fairway.evaluate(variant, data)
    assert first["perplexity"] == pytest.approx(report.metrics["perplexity"], rel=1e-5)
    assert "2606.19558" in table["caution"]
    code, shown, _ = command(*words)
    assert code == 0 and "2606.19558" in shown
    assert "rounded" in shown and "same top" in shown
    page = command(*words, "--md")[1]
    assert page.splitlines()[0].count("|") == page.splitlines()[3].count("|") == 15


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "SMALL"], "twice or more"),
        (["SMALL", "--model", "SMALL", "--model", "SMALL"], "RUN is for runs"),
        (["--model", "SMALL", "--model", "SMALL", "--fail-on", "worse"], "--fail-on is for runs"),
        (["--model", "SMALL", "--model", "SMALL:int4"], "SMALL:int4"),
        (["--model", "SMALL", "--model", "SMALL", "--model", "SMALL", "--data", "-"], "read once"),
    ],
)
def test_mistakes_are_said(small: str, words: list[str], said: str, command: Run) -> None:
    code, _, err = command(*(word.replace("SMALL", small) for word in words))
    assert code == 2 and said.replace("SMALL", small) in err


def test_a_dtype_stands_behind_the_last_colon(tmp_path: Path) -> None:
    assert dtype_of("hf:builtin:bfloat16") == ("hf:builtin", "bfloat16")
    assert dtype_of("builtin:float16") == ("builtin", "float16")
    assert dtype_of("hf:gpt2") == ("hf:gpt2", None)
    odd = tmp_path / "x:bfloat16"
    odd.mkdir()
    assert dtype_of(str(odd)) == (str(odd), None)


def test_the_files_of_a_variant_are_weighed(variant: str, tmp_path: Path) -> None:
    shutil.copytree(variant, tmp_path / "copy")
    one = fairway.load(str(tmp_path / "copy"))
    files = sum(p.stat().st_size for p in (tmp_path / "copy").glob("*.safetensors"))
    assert one.stored[0] == files  # type: ignore[attr-defined]
    assert issubclass(ModelError, FairwayError)
