"""Comparisons of runs: paired on the source, refused where they make no sense, gates for CI."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fairway
from fairway import comparable, comparison
from fairway.cli.comparing import limit_of
from fairway.errors import InputError, ProtocolError
from models import build, tokenizer


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fairway", "compare", *words], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of another tokenizer: one with a BOS of its own and no merges used."""
    folder = tmp_path_factory.mktemp("models") / "other-llama"
    build("llama_tied").save_pretrained(folder)
    words = tokenizer(adds=True)
    words.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    lines = [
        {"text": f"{i}: the cat in the hat, and the hen " * (1 + i % 4), "kind": "ab"[i % 2]}
        for i in range(24)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return path


@pytest.fixture(scope="module")
def runs(small: str, other: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, model, options in (
        ("a", small, {}), ("b", other, {}), ("short", small, {"max_length": 16}),
        ("none", small, {"prefix": "none"}),
    ):  # fmt: skip
        fairway.evaluate(model, data, group_by="kind", out=folder / name, **options)
    return folder


def sides(runs: Path, *names: str) -> list[Any]:
    return [comparable.read(runs / name) for name in names]


def test_the_difference_is_that_of_the_totals(runs: Path) -> None:
    a, b = sides(runs, "a", "b")
    found = comparison.compare(a, b)
    gap = b.report.metrics["bits_per_byte"] - a.report.metrics["bits_per_byte"]
    assert found.byte.value / math.log(2) == pytest.approx(gap, abs=1e-12)
    assert found.byte.documents == 24 and set(found.groups) == {"a", "b"}
    weights = {g.name: g.totals.bytes for g in a.report.groups}
    whole = sum(found.groups[name].value * weights[name] for name in weights)
    assert whole / sum(weights.values()) == pytest.approx(found.byte.value, abs=1e-12)
    assert found.macro == pytest.approx(np.mean([g.value for g in found.groups.values()]))
    assert all(found.adjusted[name] >= found.groups[name].p_t for name in found.groups)
    back = comparison.compare(b, a)
    assert back.byte.value == pytest.approx(-found.byte.value)
    assert {found.verdict, back.verdict} in ({"better", "worse"}, {"undecided"})


def test_a_run_is_not_told_apart_from_itself(runs: Path) -> None:
    a = sides(runs, "a")[0]
    found = comparison.compare(a, replace(a, name="again"))
    assert found.verdict == "undecided" and found.byte.value == 0 and found.token is not None
    assert "cannot be told apart" in found.sentence()


@pytest.mark.parametrize(
    ("name", "key", "mend"),
    [("short", "length", "Evaluate a again with --max-length 16"), ("none", "prefix", "--prefix")],
)
def test_unlike_runs_are_refused_with_the_way_out(
    runs: Path, name: str, key: str, mend: str
) -> None:
    a, b = sides(runs, "a", name)
    with pytest.raises(ProtocolError, match=f"{key}: .*{mend}"):
        comparison.compare(a, b)


def test_what_is_allowed_is_said(runs: Path) -> None:
    a, b = sides(runs, "a", "short")
    found = comparison.compare(a, b, allow=["length", "stride"])
    assert set(found.allowed) == {"length", "stride"}
    assert found.to_json()["allowed"]["length"] == ["64", "16"]
    with pytest.raises(InputError, match="--allow takes"):
        comparison.compare(a, b, allow=["lenght"])
    none = sides(runs, "none")[0]
    with pytest.raises(InputError, match="same --prefix"):
        comparison.compare(a, none, allow=["prefix"])


def test_masked_against_causal_is_refused(runs: Path) -> None:
    a = sides(runs, "a")[0]
    masked = replace(a, name="bert", report=replace(a.report, perplexity="pseudo_perplexity"))
    with pytest.raises(ProtocolError, match="masked"):
        comparison.compare(a, masked)


def test_a_document_of_one_run_alone_is_named(runs: Path) -> None:
    a = sides(runs, "a")[0]
    less = replace(a, name="less", records=a.records[:-1])
    missing = a.records[-1].id
    with pytest.raises(InputError, match=rf"{missing} is scored in a and not in less"):
        comparison.compare(a, less)
    with pytest.raises(InputError, match=rf"{missing} is scored in a and not in less"):
        comparison.compare(less, a)


def test_a_text_that_stands_twice_is_paired_twice(runs: Path) -> None:
    a, b = sides(runs, "a", "b")
    doubled = [replace(side, records=side.records + side.records[:3]) for side in (a, b)]
    assert comparison.compare(*doubled).byte.documents == 27


def test_tests_that_disagree_are_said(runs: Path) -> None:
    """Of four documents no pattern of signs is rare enough, however clear the difference."""
    a = sides(runs, "a")[0]
    records = a.records[:4]
    worse = [
        replace(r, totals=replace(r.totals, nll=r.totals.nll + 0.5 * r.totals.bytes))
        for r in records
    ]
    few = replace(a, records=records)
    found = comparison.compare(few, replace(few, name="b", records=tuple(worse)))
    assert found.byte.p_t < 0.05 < found.byte.p_flip == 0.125
    assert found.verdict == "undecided" and "and tests disagree" in found.sentence()


def test_a_document_that_most_rests_on_is_named(runs: Path) -> None:
    a, b = sides(runs, "a", "b")
    assert not any("variance" in line for line in comparison.compare(a, b).warnings)
    odd = b.records[3]
    odd = replace(odd, totals=replace(odd.totals, nll=odd.totals.nll + 5000))
    changed = replace(b, records=(*b.records[:3], odd, *b.records[4:]))
    found = comparison.compare(a, changed).warnings
    assert any(odd.id in line and "of the difference's variance" in line for line in found)


def test_probability_zero_is_named(runs: Path) -> None:
    a, b = sides(runs, "a", "b")
    never = replace(b.records[2], totals=replace(b.records[2].totals, nll=math.inf))
    broken = replace(b, records=(*b.records[:2], never, *b.records[3:]))
    with pytest.raises(InputError, match=f"{never.id} has probability zero under b"):
        comparison.compare(a, broken)


def test_several_runs_are_ranked(runs: Path) -> None:
    a, b = sides(runs, "a", "b")
    ranking = comparison.rank([b, a, replace(a, name="twin")])
    assert len(ranking.pairs) == 3 and len(ranking.sides) == 3
    values = [side.bits_per_byte for side in ranking.sides]
    assert values == sorted(values)
    names = [side.name for side in ranking.sides]
    tiers = dict(zip(names, ranking.tiers, strict=True))
    assert tiers["a"] == tiers["twin"]


def test_the_facade(runs: Path) -> None:
    a, b = sides(runs, "a", "b")
    found = fairway.compare(runs / "a", str(runs / "b"), level=0.9)
    assert found.to_json() == comparison.compare(a, b, level=0.9).to_json()


def test_the_command(runs: Path, tmp_path: Path) -> None:
    out = command(str(runs / "a"), str(runs / "b"), "--json")
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout)
    assert found["verdict"] in ("better", "worse", "undecided") and found["sentence"]
    worse = ["a", "b"] if found["bits_per_byte"]["difference"] > 0 else ["b", "a"]
    gate = command(*(str(runs / name) for name in worse), "--fail-on", "worse")
    assert gate.returncode == (1 if found["verdict"] != "undecided" else 0)
    passed = command(*(str(runs / name) for name in worse), "--fail-on", "worse:1000%")
    assert passed.returncode == 0
    text = command(str(runs / "a"), str(runs / "b"), str(runs / "b")).stdout
    assert "bits per byte" in text and "p (Holm)" in text and "tier" in text
    table = command(str(runs / "a"), str(runs / "b"), "--md").stdout.splitlines()
    assert len(table) == 3 and table[0].count("|") == table[2].count("|")
    refused = command(str(runs / "a"), str(runs / "short"))
    assert refused.returncode == 2 and "cannot be compared" in refused.stderr
    bare = tmp_path / "bare"
    shutil.copytree(runs / "a", bare)
    for words, reason in (
        ([str(runs / "a")], "two run directories"),
        ([str(runs / "a"), str(runs / "a" / "report.json")], "without its documents"),
        ([str(runs / "a"), str(runs / "b"), "--fail-on", "better"], "--fail-on"),
        ([str(runs / "a"), "--model", "x"], "not both"),
        (["--model", "hf:builtin"], "nothing to be compared with"),
    ):
        wrong = command(*words)
        assert wrong.returncode == 2 and reason in wrong.stderr, wrong.stderr
        assert "Traceback" not in wrong.stderr


def test_models_in_place_of_runs(small: str, other: str, data: Path) -> None:
    out = command("--model", small, "--model", other, "--data", str(data), "--json")
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout)["bits_per_byte"]["documents"] == 24


def test_gates() -> None:
    assert limit_of(None) is None and limit_of("worse") == 0
    assert limit_of("worse:0.5%") == pytest.approx(0.005) and limit_of("worse:0.02") == 0.02
    for wrong in ("better", "worse:", "worse:x%", "worse:-1%"):
        with pytest.raises(InputError):
            limit_of(wrong)
