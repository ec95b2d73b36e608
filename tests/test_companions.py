"""What stands beside a perplexity: against a plain loop, exact percentiles, calibrated models."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import reduce
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

import fairway
from fairway import api, blocks, companions, evaluation, record, run
from fairway.cache import ScoreCache
from fairway.companions import (
    ERROR,
    METRICS,
    RATIOS,
    Companions,
    Pool,
    costliest,
    figures,
    half_the_bits,
    levels,
    pack,
    percentile,
    unpack,
)
from fairway.corpus import Document, read
from fairway.protocol import convention
from fairway.render import tables, terminal
from fairway.render.companions import COLUMNS, shown
from fairway.render.explain import explain
from fairway.report import Report, dumps, from_json, summarize
from fairway.request import Request
from fairway.scores import Score, Totals
from fairway.signature import Signature
from fairway.statistics import Moments, quantile
from models import build, tokenizer

LN2 = math.log(2)
SCHEMA = json.loads((files("fairway") / "data" / "report.schema.json").read_text("utf-8"))
# From what has a level to half the largest, nats; and nothing at all.
nats = st.floats(2.0**-24 * LN2, 2.0**15 * LN2, allow_subnormal=False)
nll = st.lists(nats | st.floats(0.01, 20) | st.just(0.0), min_size=1, max_size=300)


def counted(values: Iterable[float]) -> np.ndarray:
    """Tokens by level."""
    found = levels(-np.array(list(values)))
    return np.bincount(found, minlength=companions.LEVELS)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fairway", *words], capture_output=True, text=True)


@given(nll, st.sampled_from([50, 90, 99]))
@example([1.0] * 199 + [7.0], 99)
def test_percentiles_are_within_the_bound(values: list[float], percent: int) -> None:
    exact = np.percentile(np.array(values) / LN2, percent, method="inverted_cdf")
    assert percentile(counted(values), percent) == pytest.approx(exact, rel=ERROR * (1 + 1e-9))
    assert ERROR < 0.005


@given(nll, st.sampled_from([1.0, 7.0, 50.0]))
def test_the_share_of_the_costliest_is_within_the_bound(
    values: list[float], percent: float
) -> None:
    bits = sorted((value / LN2 for value in values), reverse=True)
    total = math.fsum(bits)
    share = costliest(counted(values), total, percent)
    if total == 0:
        assert math.isnan(share)
        return
    left, held = percent / 100 * len(bits), 0.0
    for value in bits:
        held += value * min(1.0, left)
        left -= min(1.0, left)
    assert share == pytest.approx(held / total, rel=ERROR * (1 + 1e-9))


@given(nll)
def test_half_of_the_bits(values: list[float]) -> None:
    bits = np.sort(np.array(values) / LN2)[::-1]
    share = half_the_bits(counted(values))
    if not bits.sum():
        assert math.isnan(share)
        return
    # Bits of the costliest tokens, by their share of all tokens, a straight line between tokens.
    held = np.concatenate(([0.0], np.cumsum(bits))) / bits.sum()
    there = np.interp(share * len(bits), np.arange(len(bits) + 1), held)
    assert there == pytest.approx(0.5, abs=ERROR * (1 + 1e-6))


def test_surprisal_without_end() -> None:
    values = [0.0, 1.0, math.inf]
    counts = counted(values)
    assert counts.sum() == 3 and counts[0] == 1 and counts[-1] == 1
    assert percentile(counts, 99) == math.inf
    assert percentile(counts, 50) == pytest.approx(1 / LN2, rel=ERROR)
    assert math.isnan(costliest(counts, math.inf)) and math.isnan(half_the_bits(counts))
    assert counted([2.0**-30, 1e9]).nonzero()[0].tolist() == [0, companions.LEVELS - 2]


@given(st.dictionaries(st.integers(0, companions.LEVELS - 1), st.integers(1, 2**40)))
def test_packed_counts_round_trip(counts: dict[int, int]) -> None:
    assert unpack(pack(counts)) == counts


# Multiples of 2^-20, so that sums in float64 are exact and may be compared for equality.
exact = st.integers(0, 2**30).map(lambda n: n / 2**20)
texts = st.lists(st.lists(st.tuples(exact, exact, st.integers(0, 9)), max_size=30), max_size=6)


def summed(tokens: list[tuple[float, float, int]]) -> Companions:
    """Companions of tokens given as (nll, entropy, rank)."""
    n = len(tokens)
    score = Score(
        "one", "x" * n, np.stack([np.arange(n), np.arange(n) + 1], 1),
        -np.array([token[0] for token in tokens]), np.arange(n),
        extras={
            "entropy": np.array([token[1] for token in tokens]),
            "rank": np.array([token[2] for token in tokens], float),
        },
    )  # fmt: skip
    made = companions.of(score, score.totals)
    assert made is not None
    return made


@given(texts)
def test_parts_add_up_to_the_whole(documents: list[list[tuple[float, float, int]]]) -> None:
    parts = [summed(one) for one in documents]
    whole = summed([token for one in documents for token in one])
    assert reduce(lambda a, b: a + b, parts, Companions()) == whole
    assert reduce(lambda a, b: b + a, parts, Companions()) == whole
    pool, single = Pool(), Pool()
    for part in parts:
        pool.add(part)
    single.add(whole)
    assert np.array_equal(pool.sums, single.sums) and np.array_equal(pool.counts, single.counts)


@settings(max_examples=50)
@given(st.lists(st.lists(st.tuples(exact, exact, st.integers(0, 9)), min_size=1, max_size=30),
                min_size=2, max_size=8))  # fmt: skip
def test_intervals_by_the_direct_formula(documents: list[list[tuple[float, float, int]]]) -> None:
    pool = Pool()
    for one in documents:
        pool.add(summed(one))
    found = figures(pool)
    assert found is not None
    n, sizes = len(documents), np.array([len(one) for one in documents])
    numerators = {
        "top1_accuracy": [sum(rank == 0 for *_, rank in one) for one in documents],
        "top5_accuracy": [sum(rank < 5 for *_, rank in one) for one in documents],
        "entropy": [sum(h for _, h, _ in one) for one in documents],
        "nll_minus_entropy": [sum(loss - h for loss, h, _ in one) for one in documents],
    }
    for name, values in numerators.items():
        ratio = sum(values) / sizes.sum()
        assert found.metrics[name] == pytest.approx(ratio, rel=1e-12, abs=1e-12)
        rest = np.array(values) - ratio * sizes
        error = math.sqrt(n / (n - 1) * float((rest**2).sum())) / sizes.sum()
        low, high = ratio - quantile(n) * error, ratio + quantile(n) * error
        least, most = RATIOS[name][1:]
        # Squares that nearly cancel leave the rounding of what cancelled.
        slack = 1e-6 * max(1.0, max(map(abs, values)))
        assert found.intervals[name].low == pytest.approx(max(low, least), rel=1e-6, abs=slack)
        assert found.intervals[name].high == pytest.approx(min(high, most), rel=1e-6, abs=slack)


def test_the_formula_is_that_of_perplexity() -> None:
    """Entropies in the place of the nll give statistics.Moments' standard error."""
    draw = np.random.default_rng(3)
    pool, moments = Pool(), Moments()
    for size in draw.integers(1, 60, 40):
        one = replace(summed([(1.0, float(h), 3) for h in draw.exponential(2, size)]))
        pool.add(one)
        moments += Moments.of(Totals(one.entropy, one.tokens, documents=1), 0.0)
    found = figures(pool)
    assert found is not None
    half = found.intervals["entropy"].high - found.metrics["entropy"]
    assert half == pytest.approx(quantile(40) * moments.standard_error("tokens"), rel=1e-9)


def sampled(model: Any, heat: float, rows: int, length: int) -> list[Document]:
    """Texts that a model wrote, its logits divided by heat."""
    generator = torch.Generator().manual_seed(5)
    size = model.config.vocab_size
    ids = torch.randint(2, size, (rows, 1), generator=generator)
    with torch.no_grad():
        for _ in range(length):
            chances = torch.softmax(model(ids).logits[:, -1].double() / heat, -1)
            ids = torch.cat([ids, torch.multinomial(chances, 1, generator=generator)], 1)
    return [Document(str(i), "", ids=np.array(row)) for i, row in enumerate(ids.tolist())]


LONG = [
    "the cat in the hat and an ant. " * 9 + "zq!",
    "and then the inn, " * 3,
    "Ünïcödé 猫 the end",
    "x",
]


def loop(model: Any, ids: list[int], room: int, step: int) -> list[tuple[float, float, int]]:
    """One forward for each token, whole logits in float64: nll, entropy, rank."""
    out = []
    for at, target in enumerate(ids):
        window = max(0, math.ceil((at + 1 - room) / step))
        with torch.no_grad():
            logits = model(torch.tensor([[0, *ids[window * step : at]]])).logits[0, -1].double()
        chances = torch.softmax(logits, 0).tolist()
        entropy = -math.fsum(p * math.log(p) for p in chances if p > 0)
        rank = sum(p > chances[target] for p in chances)
        out.append((-math.log(chances[target]), entropy, rank))
    return out


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_against_a_plain_loop(name: str) -> None:
    model = build(name).double()
    model.resize_token_embeddings(len(tokenizer()))
    scorer: Any = fairway.load(model, tokenizer=tokenizer(), max_length=32, stride=16)
    assert scorer.signature.get("prefix") == "bos"
    documents = [Document(f"text {i}", text) for i, text in enumerate(LONG)]
    # What the model would write, so that it is right at times.
    documents += sampled(model, 0.5, 4, 90)
    scores = list(scorer.score(documents))
    tokens = [loop(model, score.ids.tolist(), 31, 16) for score in scores]
    assert max(map(len, tokens)) > 3 * 32, "several windows"
    flat = [token for one in tokens for token in one]
    found = fairway.evaluate(scorer, read(documents)).companions
    assert found is not None and found.tokens == len(flat)
    n = len(flat)
    bits = np.array([value for value, *_ in flat]) / LN2
    wanted = {
        "top1_accuracy": sum(rank == 0 for *_, rank in flat) / n,
        "top5_accuracy": sum(rank < 5 for *_, rank in flat) / n,
        "entropy": math.fsum(h for _, h, _ in flat) / n,
        "nll_minus_entropy": math.fsum(value - h for value, h, _ in flat) / n,
    }
    for key, value in wanted.items():
        # Gemma's norms are float32 in a model of float64.
        near = pytest.approx(value, rel=1e-9 if name == "llama" else 1e-7)
        assert found.metrics[key] == near, key
    for percent in (50, 90, 99):
        there = np.percentile(bits, percent, method="inverted_cdf")
        assert found.metrics[f"surprisal_p{percent}"] == pytest.approx(there, rel=ERROR * 1.0001)
    assert 0 < wanted["top1_accuracy"] < wanted["top5_accuracy"] < 1
    assert set(found.metrics) == set(METRICS)
    one = summarize(scorer.score([Document("a", LONG[0])], companions.WANT), scorer.signature)
    assert one.companions is not None and not one.companions.intervals
    assert one.companions.metrics["entropy"] == pytest.approx(
        math.fsum(h for _, h, _ in tokens[0]) / len(tokens[0]), rel=1e-7
    )


def test_float32_is_near_float64(small: str) -> None:
    exact = fairway.evaluate(build("llama").double(), LONG, tokenizer=tokenizer()).companions
    found = fairway.evaluate(small, LONG).companions
    assert exact is not None and found is not None
    for key, value in exact.metrics.items():
        assert found.metrics[key] == pytest.approx(value, rel=2e-2 if "p" in key else 2e-4), key


def test_uniform_predictions() -> None:
    model = build("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    found = fairway.evaluate(model, LONG, tokenizer=tokenizer()).companions
    assert found is not None
    size = model.config.vocab_size
    assert found.metrics["entropy"] == pytest.approx(math.log(size), rel=1e-6)
    assert found.metrics["nll_minus_entropy"] == pytest.approx(0, abs=1e-6)
    assert found.metrics["surprisal_p50"] == pytest.approx(math.log2(size), rel=ERROR)
    assert found.metrics["bits_in_top_1_percent"] == pytest.approx(0.01, rel=ERROR)
    assert found.metrics["tokens_for_half_the_bits"] == pytest.approx(0.5, rel=1e-9)
    # No token is more likely than another one.
    assert found.metrics["top1_accuracy"] == 1


def test_a_model_is_calibrated_on_what_it_writes() -> None:
    words = tokenizer()
    model = build("llama")
    model.resize_token_embeddings(len(words))

    def gap(heat: float) -> tuple[float, float]:
        corpus = read(sampled(model, heat, 300, 40))
        found = fairway.evaluate(model, corpus, tokenizer=words, prefix="none").companions
        assert found is not None and found.tokens == 300 * 40
        value = found.metrics["nll_minus_entropy"]
        return value, (found.intervals["nll_minus_entropy"].high - value) / quantile(300)

    value, error = gap(1.0)
    assert 0 < error < 0.05 and abs(value) < 3 * error
    # What is written hotter than the model believes finds it over-confident, and the reverse.
    hot, error = gap(1.3)
    assert hot > 10 * error
    cold, error = gap(0.7)
    assert cold < -10 * error


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "data.jsonl"
    draw = np.random.default_rng(2)
    rows = [
        {"text": f"{i} the hat and the hen, " * int(draw.integers(1, 8)), "kind": "abc"[i % 3]}
        for i in range(60)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def perform(scorer: Any, corpus: Path, folder: Path | None, **more: Any) -> Report:
    wanted = more.pop("companions", True)
    request = Request("", str(corpus), {}, {}, "kind", companions=wanted)
    source = read(str(corpus), group_by="kind")
    return api.perform(request, scorer, source, out=folder, **more)


def test_an_interrupted_run_ends_in_the_same_report(
    small: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 700)
    scorer = fairway.load(small)
    whole = perform(scorer, corpus, tmp_path / "whole")
    seen = 0

    def stop(_: evaluation.Progress) -> None:
        nonlocal seen
        seen += 1
        if seen == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(scorer, corpus, tmp_path / "run", progress=stop)
    assert len(list(run.read_blocks(tmp_path / "run"))) == 4
    # What a run began with stays: it is no setting that could differ half-way.
    again = perform(scorer, corpus, tmp_path / "run", companions=False)
    assert again.companions == whole.companions and whole.companions is not None
    for name in ("scores.jsonl", "report.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    kept = (one for block in run.read_blocks(tmp_path / "run") for one in block)
    sketches = sum(len(one.companions.sketch) for one in kept if one.companions)
    assert 0 < sketches < 3 * whole.companions.tokens


def test_groups_sum_to_the_whole(small: str, corpus: Path) -> None:
    report = perform(fairway.load(small), corpus, None)
    parts = [group.companions for group in report.groups]
    assert len(parts) == 3 and report.companions is not None
    known = [part for part in parts if part is not None]
    assert sum(part.tokens for part in known) == report.companions.tokens == report.totals.tokens
    for name in RATIOS:
        total = math.fsum(part.metrics[name] * part.tokens for part in known)
        whole = report.companions.metrics[name]
        assert total / report.companions.tokens == pytest.approx(whole, rel=1e-12)
        assert all(name in part.intervals for part in known)
    gap = report.companions.metrics["nll_minus_entropy"] + report.companions.metrics["entropy"]
    assert gap == pytest.approx(report.metrics["nll_per_token"], rel=1e-12)


def strip(folder: Path, blocks_kept: int | None = None) -> None:
    """Make a run directory what it was before there were companions."""

    def without(data: dict[str, Any]) -> dict[str, Any]:
        data.pop("companions", None)
        for group in data.get("groups", ()):
            group.pop("companions", None)
        return data

    lines = []
    for line in (folder / "scores.jsonl").read_text("utf-8").splitlines():
        lines.append(json.dumps(without(json.loads(line))))
        if lines[-1].startswith('{"block"') and blocks_kept is not None:
            blocks_kept -= 1
            if not blocks_kept:
                (folder / "report.json").unlink()
                break
    (folder / "scores.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    for name in ("run.json", "report.json"):
        if (folder / name).exists():
            data = without(json.loads((folder / name).read_text("utf-8")))
            (folder / name).write_text(json.dumps(data), "utf-8")


def test_earlier_run_directories(
    small: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 700)
    scorer = fairway.load(small)
    new = perform(scorer, corpus, tmp_path / "new")
    perform(scorer, corpus, tmp_path / "old")
    strip(tmp_path / "old")
    _, report = run.read(tmp_path / "old")
    assert report.totals == new.totals and report.companions is None
    assert "before" in report.reasons["companions"] and "before" in explain(report)
    shown = command("show", str(tmp_path / "old"))
    assert shown.returncode == 0 and "no accuracy" in shown.stdout
    assert fairway.compare(tmp_path / "old", tmp_path / "new").byte.documents == 60
    # One that is not finished goes on without them.
    perform(scorer, corpus, tmp_path / "part")
    strip(tmp_path / "part", 3)
    assert len(list(run.read_blocks(tmp_path / "part"))) == 3
    report = perform(scorer, corpus, tmp_path / "part")
    assert report.totals == new.totals and report.companions is None
    assert "another folder" in report.reasons["companions"]
    kept = [one for block in run.read_blocks(tmp_path / "part") for one in block]
    assert len(kept) == 60 and all(one.companions is None for one in kept)


def test_records_round_trip(small: str) -> None:
    scorer = fairway.load(small)
    document = Document("é", LONG[0])
    score = next(iter(scorer.score([document], companions.WANT)))
    kept = record.make(document, score, convention("fairway"), False, True)
    assert kept.companions is not None
    assert record.from_json(json.loads(json.dumps(kept.to_json()))) == kept
    plain = record.make(document, next(iter(scorer.score([document]))), convention("fairway"),
                        False, True)  # fmt: skip
    assert plain.companions is None and "companions" not in plain.to_json()
    assert record.from_json(plain.to_json()) == plain


def test_the_cache_keeps_them_apart(small: str, corpus: Path, tmp_path: Path) -> None:
    scorer = fairway.load(small)
    cache = ScoreCache(tmp_path / "scores.sqlite")
    seen: list[int] = []
    more = {"cache": cache, "progress": lambda state: seen.append(state.fresh)}
    without = perform(scorer, corpus, None, companions=False, **more)
    assert without.companions is None and seen[-1] > 0
    assert "not asked" in without.reasons["companions"]
    first = perform(scorer, corpus, None, **more)
    assert first.companions is not None and seen[-1] == without.totals.tokens
    second = perform(scorer, corpus, None, **more)
    assert seen[-1] == 0 and second.companions == first.companions
    cache.close()


class Bare:
    """A scorer that has log-probabilities alone, and refuses what it is asked for besides."""

    def __init__(self, scorer: Any) -> None:
        self.scorer = scorer

    @property
    def signature(self) -> Signature:
        signature: Signature = self.scorer.signature
        return signature

    def score(self, documents: Iterable[Document], want: Any = ()) -> Iterator[Score]:
        assert not want
        found: Iterator[Score] = self.scorer.score(documents)
        return found


def test_a_scorer_without_them(small: str, corpus: Path, tmp_path: Path) -> None:
    bare = Bare(fairway.load(small))
    for folder in (None, tmp_path / "run"):
        report = perform(bare, corpus, folder)
        assert report.companions is None and report.totals.tokens
        assert "this kind of model" in report.reasons["companions"]
        assert all(group.companions is None for group in report.groups)


@pytest.mark.parametrize("like", ["hf-doc-as-published", "lm-eval", "llama.cpp", "hf-doc"])
def test_under_other_conventions(small: str, like: str, corpus: Path) -> None:
    report = fairway.evaluate(small, str(corpus), like=like, max_length=32)
    found = report.companions
    assert found is not None and found.tokens == report.totals.tokens
    plain = fairway.evaluate(small, str(corpus), like=like, max_length=32, companions=False)
    assert plain.metrics == report.metrics and plain.companions is None
    total = found.metrics["nll_minus_entropy"] + found.metrics["entropy"]
    assert total == pytest.approx(report.metrics["nll_per_token"], rel=1e-12)


def test_reports_carry_them(small: str, corpus: Path) -> None:
    report = perform(fairway.load(small), corpus, None)
    text = dumps([report])
    jsonschema.validate(json.loads(text), SCHEMA)
    assert dumps([from_json(json.loads(text))]) == text
    broken = json.loads(text)
    del broken["companions"]["metrics"]["entropy"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)
    plain = perform(fairway.load(small), corpus, None, companions=False)
    rows = list(csv.DictReader(io.StringIO(tables.as_csv([report, plain]))))
    assert report.companions is not None and len(rows) == 8
    for name in METRICS:
        assert float(rows[0][name]) == report.companions.metrics[name]
        assert rows[4][name] == ""
    assert float(rows[0]["entropy_high"]) == report.companions.intervals["entropy"].high
    assert "entropy" not in tables.as_csv([plain])
    frame = report.to_frame()
    assert frame["top1_accuracy"][0] == report.companions.metrics["top1_accuracy"]
    assert "over-confident" in explain(report) and "% of the tokens" in explain(report)


@pytest.mark.parametrize("width", [30, 80])
def test_terminals_lose_no_figure(small: str, corpus: Path, width: int) -> None:
    report = perform(fairway.load(small), corpus, None)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    terminal.report(console, report)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    body = [line for line in printed.splitlines() if not line.startswith("signature")]
    assert max(map(len, body)) <= width
    assert report.companions is not None
    row = [shown(key, report.companions.metrics[key]) for key, _ in COLUMNS]
    assert width < 80 or "  ".join(row).split() in [line.split()[2:] for line in body]
    console = Console(file=io.StringIO(), width=width, color_system=None)
    terminal.companion_groups(console, report)
    assert isinstance(console.file, io.StringIO)
    assert "…" not in console.file.getvalue()


def test_the_command_line(small: str, corpus: Path, tmp_path: Path) -> None:
    words = ("eval", "--model", small, "--data", str(corpus), "--limit", "9")
    page = tmp_path / "page.html"
    made = command(*words, "--html", str(page))
    assert made.returncode == 0 and "nll minus entropy" in made.stdout
    assert "nll minus entropy" in page.read_text("utf-8")
    without = command(*words, "--no-companions", "--json")
    data = json.loads(without.stdout)
    assert data["companions"] is None and "companions" in data["reasons"]
    jsonschema.validate(data, SCHEMA)
    one = command("score", "--model", small, "the hat and the hen")
    assert "top-1 accuracy" in one.stdout and "costliest 1%" in one.stdout
