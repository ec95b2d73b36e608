"""Models of every kind on one text set: one report, and no table of what does not belong."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kinds
from fairway import comparable, scorer
from fairway.cli import app
from fairway.errors import FairwayError
from fairway.oov import Oov

TEXTS = ["the cat and the hen", "the hen in the garden and the cat", "and the cat"]
READY = [name for name, kind in scorer.BACKENDS.items() if not kind.missing]
SIX = tuple(
    name
    for name in ("hf", "hf, mamba", "kenlm", "arpa", "ngram", "gguf", "masked")
    if name.partition(",")[0] in READY
)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind on the same texts."""
    folder = tmp_path_factory.mktemp("kinds")
    data = folder / "texts.jsonl"
    data.write_text("\n".join(json.dumps({"text": one}) for one in TEXTS), "utf-8")
    out = {}
    for name in SIX:
        place = folder / name.replace(", ", "-")
        place.mkdir()
        out[name] = folder / f"run {name}"
        spec = kinds.KINDS[name][0](place)
        run("eval", "--model", spec, "--data", str(data), "--out", str(out[name]))
    return out


def test_one_report(runs: dict[str, Path]) -> None:
    """`show` sets them in one table, and each sum is of the same bytes of the same texts."""
    listed = [str(path) for path in runs.values()]
    reports = json.loads(run("show", *listed, "--json"))["reports"]
    assert len(reports) == len(SIX)
    size = sum(len(text) for text in TEXTS)
    for name, report in zip(SIX, reports, strict=True):
        assert report["metrics"]["bytes"] == size, name
        assert report["metrics"]["documents"] == len(TEXTS)
        assert len({one["signature"].split("digest:")[1].split("|")[0] for one in reports}) == 1
        named = "pseudo_perplexity" if name == "masked" else "perplexity"
        assert report.get("perplexity_name", "perplexity") == named
        bits = report["metrics"]["nll"] / math.log(2) / size
        assert report["metrics"][
            "bits_per_byte" if name != "masked" else "pseudo_bits_per_byte"
        ] == pytest.approx(bits)
    rows = list(csv.DictReader(io.StringIO(run("show", *listed, "--csv"))))
    assert len(rows) == len(SIX)
    table = run("show", *listed, "--md")
    assert "pseudo" in table and table.count("\n| ") >= len(SIX)


def test_what_may_be_compared(runs: dict[str, Path]) -> None:
    """All but the masked model: in bits per byte, whatever their tokens are."""
    for one, other in itertools.combinations([name for name in SIX if name != "masked"], 2):
        first, second = comparable.read(runs[one]), comparable.read(runs[other])
        try:
            comparable.refuse(first, second)
        except FairwayError as problem:
            # Words that a vocabulary lacks, or windows of another length: named, never silent.
            assert any(key in str(problem) for key in ("oov:", "length:")), (one, other, problem)
    for other in SIX[:-1]:
        with pytest.raises(FairwayError, match="masked model's is no probability"):
            comparable.refuse(comparable.read(runs[other]), comparable.read(runs["masked"]))


def test_unknown_words_must_be_in_the_same_texts(runs: dict[str, Path]) -> None:
    """As many of them in other texts are other words: a sum would not tell."""
    side = comparable.read(runs["arpa"])
    one, two, *rest = side.records

    def lacking(first: int, second: int) -> comparable.Side:
        some = [replace(a, oov=Oov(n)) for a, n in ((one, first), (two, second))]
        return replace(side, records=(*some, *rest))

    assert comparable.refuse(lacking(1, 2), lacking(1, 2)) == {}
    with pytest.raises(FairwayError, match="oov: 3 and 3"):
        comparable.refuse(lacking(1, 2), lacking(2, 1))


def test_rounding_is_no_verdict(runs: dict[str, Path]) -> None:
    """KenLM keeps probabilities in float32, the reader of ARPA files in float64."""
    found = json.loads(run("compare", str(runs["kenlm"]), str(runs["arpa"]), "--json"))
    assert found["verdict"] == "undecided"
    assert found["bits_per_byte"]["difference"] == 0 or "up to rounding" in found["sentence"]


def test_unknown_words_are_marked(runs: dict[str, Path], tmp_path: Path) -> None:
    """Their bits per byte are no length of a code, wherever they are shown."""
    data = tmp_path / "texts.txt"
    data.write_text("the cat and the unheard garden\n", "utf-8")
    spec = kinds.KINDS["arpa"][0](tmp_path)
    out = tmp_path / "run"
    shown = run("eval", "--model", spec, "--data", str(data), "--out", str(out))
    assert "14.3% of them unknown words" in " ".join(shown.split())
    several = run("show", str(out), str(runs["hf"]))
    assert several.count("*") == 2 and "1 of 7 tokens" in " ".join(several.split())
    assert "no length of a code" in run("show", str(out), str(runs["hf"]), "--md")


def test_words_of_an_ngram_model_are_its_tokens(tmp_path: Path) -> None:
    spec = kinds.KINDS["arpa"][0](tmp_path)
    found = json.loads(run("score", "the cat", "--model", spec, "--by", "word", "--json"))
    assert [one["text"] for one in found["texts"][0]["words"]] == ["the", "cat"]
