"""A server's model is the model: the same numbers, signature, cache and commands as here."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import fairway
import kinds
import serving
from fairway import conformance, scorer
from fairway.cache import ScoreCache
from fairway.cli import app
from fairway.companions import WANT
from fairway.corpus import Document, read
from fairway.evaluation import evaluate
from fairway.protocol import convention
from fairway.request import Request
from fairway.run import Run, read_blocks
from fairway.scorer import fills
from fairway.scores import Score

TEXTS = [
    "the cat and the hen", " The hen, in the garden.\n\nAnd the cat. ", "猫 e\u0301 Straße 🙂",
    "x", "the cat and the hen in the garden: " * 12,
]  # fmt: skip


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, small: str) -> Iterator[str]:
    """One server with a causal model and an n-gram model."""
    folder = tmp_path_factory.mktemp("served")
    models = {"causal": ("hf", fairway.load(small))}
    models["arpa"] = ("arpa", scorer.load(kinds.KINDS["arpa"][0](folder)))
    with serving.served(models) as url:
        yield url


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    rows = [{"text": f"{n} {TEXTS[n % 4]}", "kind": "ab"[n % 2]} for n in range(12)]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return str(path)


def alike(one: Score, other: Score, exact: bool = False) -> None:
    """The same score: all columns, and numbers but for rounding, or to the bit."""
    for name in ("id", "text", "scored", "lossy", "unit", "byte_count", "perplexity", "metadata"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("offsets", "ids"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert (one.token_bytes is None) == (other.token_bytes is None)
    if one.token_bytes is not None:
        assert np.array_equal(one.token_bytes, other.token_bytes)
    assert one.extras.keys() == other.extras.keys()
    pairs = [
        (one.logprobs, other.logprobs),
        *((one.extras[n], other.extras[n]) for n in one.extras),
    ]
    for a, b in pairs:
        if exact:
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        else:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert exact is False or one.totals == other.totals
    assert one.totals.nll == pytest.approx(other.totals.nll, rel=1e-5)


def near(one: Any, other: Any, where: str = "") -> None:
    """The same JSON, its reals but for rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            near(value, other[key], f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), where
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            near(a, b, f"{where}[{place}]")
    elif isinstance(one, float) and isinstance(other, float):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5), where
    else:
        assert one == other, where


def asked(name: str) -> list[Document]:
    """Documents of every form that a kind might take."""
    given = [Document(f"plain {n}", text) for n, text in enumerate(TEXTS)]
    given += [
        Document("behind", " the hen", "the cat and"),
        Document("spans", "the cat and the hen", scored=((4, 7),)),
        Document("ids", "", ids=np.array([2, 3, 4, 3]), byte_count=9),
        Document("context ids", "", ids=np.array([2, 3, 4, 3]), context_ids=2),
        Document("windows", "the cat and the hen", windows=((0, 0, 9), (4, 9, 19))),
        Document("half", "half \ud83d of one"),
        Document("\ud83d", "the name is half"),
        Document("chat", "the cat", metadata={"messages": [{"role": "user", "content": "the"}]}),
        Document("kept", "the hen", metadata={"kind": "a", "deep": [1, {"x": None}]}),
    ]
    if name == "seq2seq":
        given = [replace(one, context=one.context or "the garden") for one in given]
    return given


def outcome(call: Callable[[], list[Score]]) -> Score | str:
    try:
        return call()[0]
    except fairway.FairwayError as problem:
        return f"{type(problem).__name__}: {problem}"


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        "causal",
        "arpa",
        *(pytest.param(name, marks=SLOW) for name in ("kenlm", "masked", "seq2seq")),
    ],
)
def test_every_kind_is_what_it_is_here(name: str, server: str, small: str, tmp_path: Path) -> None:
    """Numbers, columns, and what is refused, document by document and in one call."""
    with ExitStack() as stack:
        if name in ("causal", "arpa"):
            spec, url = small if name == "causal" else kinds.KINDS[name][0](tmp_path), server
        else:
            spec = kinds.KINDS[name][0](tmp_path)
            url = stack.enter_context(serving.served({name: (name, scorer.load(spec))}))
        compare(name, fairway.load(spec), scorer.load(f"fairway:{name}@{url}"))


def compare(name: str, here: Any, there: Any) -> None:
    assert str(there.signature) == str(here.signature)
    assert there.columns == tuple(here.columns)
    exact = name in ("kenlm", "arpa")
    want = tuple(here.columns) if name != "causal" else (*WANT, "top5", "window")  # type: ignore[attr-defined]
    fine = []
    for document in asked(name):
        one = outcome(lambda d=document: list(here.score([d], want)))  # type: ignore[misc]
        other = outcome(lambda d=document: list(there.score([d], want)))  # type: ignore[misc]
        if isinstance(one, str):
            # As one line; the half of a pair in an id cannot be printed.
            assert isinstance(other, str)
            assert other.split()[0] == one.split()[0] and other[:40].strip() in " ".join(
                one.split()
            )
            continue
        assert isinstance(other, Score), other
        alike(one, other, exact)
        fine.append(document)
    assert len(fine) > 4
    together = list(there.score(fine * 20, want))
    assert [one.id for one in together] == [one.id for one in fine] * 20
    for one, other in zip(here.score(fine, want), together, strict=False):
        alike(one, other, exact)


THROUGH = (
    "hf in bfloat16", "hf, mamba carried", "kenlm", "ngram", "gguf", "masked", "seq2seq",
    "bigram of the docs",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", THROUGH)
def test_kinds_conform_through_a_server(name: str, plugin: Path, tmp_path: Path) -> None:
    build, options = kinds.KINDS[name]
    spec = build(tmp_path)
    kind = scorer.split(spec)[0]
    with serving.served({"model": (kind, scorer.load(spec, **options))}) as url:
        findings = conformance.examine(
            fairway.connect(url), lambda: fairway.connect(url), "fairway"
        )
    assert [one for one in findings if one.outcome == "defect"] == []
    assert sum(one.outcome == "ok" for one in findings) >= 12


# Commands.


def test_score(server: str, small: str) -> None:
    spec = f"fairway:causal@{server}"
    there = json.loads(run("score", TEXTS[1], "--model", spec, "--tokens", "--json"))
    here = json.loads(run("score", TEXTS[1], "--model", small, "--tokens", "--json"))
    assert there["metrics"]["nll"] == pytest.approx(here["metrics"]["nll"], rel=1e-5)
    assert there["texts"][0]["tokens"][0]["text"] == here["texts"][0]["tokens"][0]["text"]
    words = json.loads(run("score", "the cat", "--model", f"fairway:arpa@{server}", "--by", "word",
                           "--json"))  # fmt: skip
    assert [one["text"] for one in words["texts"][0]["words"]] == ["the", "cat"]


def test_eval_compare_and_cache(server: str, small: str, data: str, tmp_path: Path) -> None:
    """The same numbers, no refusal, one cache, and a run that goes on at either end."""
    name = Path(small).name
    with serving.served({name: ("hf", fairway.load(small))}) as url:
        one, other = tmp_path / "here", tmp_path / "there"
        more = ["--data", data, "--group-by", "kind"]
        here = json.loads(run("eval", "--model", small, *more, "--out", str(one), "--no-cache",
                              "--json"))  # fmt: skip
        there = json.loads(run("eval", "--model", f"fairway:{url}", *more, "--out", str(other),
                               "--json"))  # fmt: skip
        assert there["signature"] == here["signature"]
        assert there["metrics"].keys() == here["metrics"].keys()
        for key, value in here["metrics"].items():
            assert there["metrics"][key] == pytest.approx(value, rel=1e-5), key
        assert there["companions"].keys() == here["companions"].keys()
        assert len(there["groups"]) == 2
        found = json.loads(run("compare", str(one), str(other), "--json"))
        assert found["verdict"] == "undecided"
        assert abs(found["bits_per_byte"]["difference"]) < 1e-6
        settings = json.loads((other / "run.json").read_text("utf-8"))
        assert settings["ask"]["model"] == f"fairway:{url}" and settings["engine"]["served"]
        assert "Confirmed" in run("eval", "--repeat", str(other))
        # The signature alone is repeated at the server, too (it does not tell the groups).
        bare = there["signature"].replace("|seed:0", "")
        shown = run("eval", "--repeat", bare, "--model", f"fairway:{url}", "--data", data)
        assert "The setting is the signature's" in shown
    # What the server scored is known to a run here.
    cache = ScoreCache()
    asked = []
    local = fairway.load(small)
    kept = local.score
    spy: Any = type("Spy", (), {
        "signature": local.signature, "columns": local.columns,  # type: ignore[attr-defined]
        "score": lambda self, documents, want=(): kept(asked.extend(documents) or documents, want),
    })()  # fmt: skip
    from fairway import api

    report = api.perform(Request(small, data, {"like": "fairway"}), spy, read(data), cache=cache)
    cache.close()
    assert report.totals.documents == 12 and asked == []


@pytest.mark.parametrize("first", ["here", "there"])
def test_a_run_goes_on_at_the_other_end(
    first: str, server: str, small: str, data: str, tmp_path: Path
) -> None:
    """Begun here and ended at the server, or the other way about: one run."""
    here: Any = fairway.load(small)
    ends = [here, fairway.connect(server)]
    like = convention("fairway")

    def go(model: Any, out: Path, stop: int | None = None) -> Any:
        request = Request("m", data, {"like": "fairway"})
        corpus = read(data)
        with closing(Run(out, request.settings(model, corpus))) as kept:
            return evaluate(model, corpus, like, run=kept, block_bytes=90, progress=Stop(stop))

    with pytest.raises(KeyboardInterrupt):
        go(ends[first == "there"], tmp_path / "run", 3)
    assert sum(1 for _ in read_blocks(tmp_path / "run")) == 3
    report = go(ends[first == "here"], tmp_path / "run")
    whole = go(here, tmp_path / "whole")
    assert str(report.signature) == str(whole.signature)
    assert report.totals.nll == pytest.approx(whole.totals.nll, rel=1e-6)
    assert report.totals.tokens == whole.totals.tokens and report.totals.documents == 12


class Stop:
    """Interrupts an evaluation behind so many blocks."""

    def __init__(self, blocks: int | None) -> None:
        self.left = blocks

    def __call__(self, progress: Any) -> None:
        if self.left is not None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


@pytest.mark.slow
def test_like_all(server: str, small: str, data: str) -> None:
    """Every convention that the model can take, of one loaded model."""
    more = ["--data", data, "--like", "all", "--max-length", "32", "--no-cache", "--json"]
    here = json.loads(run("eval", "--model", small, *more))["reports"]
    there = json.loads(run("eval", "--model", f"fairway:causal@{server}", *more))["reports"]
    assert [one["protocol"] for one in there] == [one["protocol"] for one in here]
    assert len(there) > 4
    for a, b in zip(here, there, strict=True):
        assert b["metrics"]["perplexity"] == pytest.approx(a["metrics"]["perplexity"], rel=1e-5)
        assert b["metrics"]["bytes"] == a["metrics"]["bytes"]


def test_a_bad_row_is_lost_alone(server: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "the cat"}\n{"text": "half \\ud83d"}\n{"text": "the hen"}\n')
    found = json.loads(run("eval", "--model", f"fairway:causal@{server}", "--data", str(path),
                           "--no-cache", "--json"))  # fmt: skip
    assert found["metrics"]["documents"] == 2 and found["skipped_total"] == 1


@pytest.mark.parametrize("like", ["fairway", "lm-eval"])
def test_choose(like: str, server: str, small: str, tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    rows = [{"context": "the cat", "choices": ["and the hen", "in the"], "answer": 0}] * 3
    path.write_text("\n".join(map(json.dumps, rows)))
    more = ["--data", str(path), "--like", like, "--json"]
    here = json.loads(run("choose", "--model", small, *more))
    there = json.loads(run("choose", "--model", f"fairway:causal@{server}", *more))
    assert there["items"] == here["items"] and there["accuracies"] == here["accuracies"]


def test_context(server: str, small: str, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text(TEXTS[4] * 2)
    more = ["--data", str(path), "--json"]
    here = json.loads(run("context", "--model", small, *more))
    there = json.loads(run("context", "--model", f"fairway:causal@{server}", *more))
    near(here, there)


def test_fair_windows(server: str, small: str, data: str) -> None:
    spec = f"fairway:causal@{server}"
    found = json.loads(run("compare", "--model", small, "--model", spec, "--data", data, "--fair",
                           "--max-length", "16", "--json"))  # fmt: skip
    assert abs(found["bits_per_byte"]["difference"]) < 1e-6


def test_tokenizers(server: str, small: str, data: str) -> None:
    spec = f"fairway:causal@{server}"
    here = json.loads(run("tokenizers", small, "--data", data, "--json"))["tokenizers"][0]
    there = json.loads(run("tokenizers", spec, "--data", data, "--json"))["tokenizers"][0]
    assert there.pop("tokenizer") and here.pop("tokenizer")
    assert there == here
    more = ["--marginal", "the cat", "--samples", "16", "--json"]
    one = json.loads(run("tokenizers", small, *more))["marginals"][0]
    other = json.loads(run("tokenizers", spec, *more))["marginals"][0]
    for key, value in one.items():
        if isinstance(value, float) and math.isfinite(value):
            assert other[key] == pytest.approx(value, rel=1e-4), key


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compare", "--kld", "--model", "M", "--model", "M"), "distributions"),
        (("tokenizers", "fairway:arpa@URL"), "vocabulary"),
        (("eval", "--model", "M", "--device", "cuda:0,cuda:1"), "server's to choose"),
        (("score", "x", "--model", "fairway:nothing@URL"), "has no model 'nothing'"),
        (("score", "x", "--model", "fairway:somewhere"), "takes a URL"),
    ],
)
def test_what_cannot_be_is_said(words: tuple[str, ...], said: str, server: str, data: str) -> None:
    spec = f"fairway:causal@{server}"
    given = [spec if one == "M" else one.replace("URL", server) for one in words]
    with pytest.raises(fairway.FairwayError, match=said):
        run(*given, *(["--data", data] if given[0] in ("compare", "eval") else []), code=2)


def test_threads_end(server: str) -> None:
    """Also where scores are not read to the end."""
    there = fairway.connect(server)
    for _ in range(3):
        scores = there.score([Document(str(n), TEXTS[0]) for n in range(600)], WANT)
        next(scores)
        scores.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name == "fairway-request":
            thread.join(20)
            assert not thread.is_alive()
    assert fills(there, WANT)
