"""Pseudo and conditional likelihoods keep their names, and are never beside likelihoods."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

import fairway
from fairway import comparable, comparison
from fairway.backends import masked as masked_backend
from fairway.cli import app
from fairway.errors import ProtocolError
from fairway.report import from_json
from fairway.scores import LIKELIHOODS, named
from models import build, bytelevel, masked, seq2seq, tokenizer, wordpiece

ROWS = [
    {"text": "the cat and the hen in the garden", "source": "a cat", "g": "a"},
    {"text": "an animal in the garden, and the hen", "source": "an animal", "g": "a"},
    {"text": "a line in the end goes on", "source": "a dog", "g": "b"},
    {"text": "the the the", "source": "th", "g": "b"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of every kind, a corpus, and a run of each."""
    base = tmp_path_factory.mktemp("likelihoods")
    made = {
        "bert": (masked("bert"), wordpiece()),
        "other": (masked("distilbert"), wordpiece()),
        "roberta": (masked("roberta"), bytelevel()),
        "t5": seq2seq("t5"),
        "bart": seq2seq("bart"),
        "llama": (build("llama"), tokenizer()),
    }
    for name, (model, words) in made.items():
        model.save_pretrained(base / name)
        words.save_pretrained(base / name)
    data = base / "texts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    for run, spec, options in (
        ("bert", f"masked:{base / 'bert'}", {"max_length": 60}),
        ("other", f"masked:{base / 'other'}", {"max_length": 60}),
        ("roberta", f"masked:{base / 'roberta'}", {"max_length": 60}),
        ("bert-original", f"masked:{base / 'bert'}", {"max_length": 60, "pll": "original"}),
        ("roberta-original", f"masked:{base / 'roberta'}", {"max_length": 60, "pll": "original"}),
        ("t5", f"seq2seq:{base / 't5'}", {}),
        ("bart", f"seq2seq:{base / 'bart'}", {}),
        ("t5-open", f"seq2seq:{base / 't5'}", {"eos": False}),
        ("llama", f"hf:{base / 'llama'}", {}),
        ("llama-given", f"hf:{base / 'llama'}", {}),
    ):
        given = run.startswith(("t5", "bart")) or run == "llama-given"
        corpus = {"context_field": "source"} if given else {}
        fairway.evaluate(
            spec, str(data), out=base / "runs" / run, group_by="g", corpus=corpus, texts=True,
            **options,
        )  # fmt: skip
    return base


def side(folder: Path, name: str) -> comparable.Side:
    return comparable.read(folder / "runs" / name)


def run(*words: object) -> str:
    out = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert out.exit_code == 0, out.output + repr(out.exception)
    return out.stdout


@pytest.mark.parametrize(
    ("name", "kind"), [("bert", "pseudo_"), ("t5", "conditional_"), ("llama", "")]
)
def test_every_form_shows_the_name(folder: Path, name: str, kind: str) -> None:
    path, word = folder / "runs" / name, kind.replace("_", " ")
    data = json.loads(run("show", path, "--json"))
    schema = json.loads(
        (Path(fairway.__file__).parent / "data" / "report.schema.json").read_text("utf-8")
    )
    jsonschema.validate(data, schema)
    wanted = {kind + key for key in LIKELIHOODS}
    parts = [data, *data["groups"], *data["texts"]]
    for part in parts:
        found = {key for key in part["metrics"] if key.endswith(LIKELIHOODS)}
        assert found == wanted
    for part in parts[: 1 + len(data["groups"])]:
        assert set(part["intervals"]) == wanted
    assert set(data["macro"]) == {
        kind + key for key in ("bits_per_byte", "nll_per_token", "perplexity")
    }
    report = from_json(data)
    shown = run("show", path)
    assert f"{word}perplexity  " in shown and f"{word}bits per byte  " in shown
    table = run("show", path, "--md").splitlines()[0]
    assert f"| {word}perplexity | {word}bits/byte | {word}word ppl |" in table
    assert f"{word}bits/byte" in run("show", path, "--latex")
    row = next(csv.DictReader(io.StringIO(run("show", path, "--csv"))))
    assert float(row[f"{kind}perplexity"]) == pytest.approx(report.metrics[f"{kind}perplexity"])
    page = folder / f"{name}.html"
    run("show", path, "--html", page)
    html = page.read_text("utf-8")
    assert f"<td>{word}bits per byte</td>" in html and f"<th>{word}perplexity</th>" in html
    words = run("show", path, "--explain")
    assert ("Used as a compressor" in words) == (kind != "pseudo_")
    assert ("no code length" in words) == (kind == "pseudo_")
    assert ("rule of thumb does not apply: it is a" in words) == bool(kind)


def test_a_resumed_run_and_an_earlier_report_keep_the_name(folder: Path) -> None:
    again = fairway.evaluate(
        f"masked:{folder / 'bert'}", str(folder / "texts.jsonl"), out=folder / "runs" / "bert",
        group_by="g", texts=True, max_length=60,
    )  # fmt: skip
    kept = side(folder, "bert").report
    assert again.perplexity == kept.perplexity == "pseudo_perplexity"
    assert again.metrics == kept.metrics and again.groups[0].metrics == kept.groups[0].metrics
    assert again.companions is not None and again.companions.tokens == again.totals.tokens


def test_kinds_have_tables_of_their_own(folder: Path) -> None:
    paths = [folder / "runs" / name for name in ("bert", "llama", "t5", "other")]
    table = run("show", *paths, "--md")
    headers = [line for line in table.splitlines() if line.startswith("| model")]
    assert len(headers) == 3 and len(set(headers)) == 3
    pseudo = table[: table.index(headers[1])]
    assert "| bert |" in pseudo and "| other |" in pseudo and "llama" not in pseudo
    rows = list(csv.DictReader(io.StringIO(run("show", *paths, "--csv"))))
    for row in rows:
        filled = {key for key in row if key.endswith("bits_per_byte") and row[key]}
        assert len(filled) == 1
    assert run("show", *paths).count("perplexity") == 3 + len(paths)


def test_comparing(folder: Path) -> None:
    found = comparison.compare(side(folder, "bert"), side(folder, "other"))
    assert "pseudo bits per byte" in found.sentence() and "pseudo_bits_per_byte" in found.to_json()
    assert found.token is not None and any("rank masked models" in one for one in found.warnings)
    unlike = comparison.compare(side(folder, "bert"), side(folder, "roberta"))
    assert unlike.token is None and any("how many tokens a word has" in w for w in unlike.warnings)
    for a, b, match in (
        ("bert", "llama", "no probability of the text"),
        ("t5", "bert", "no probability of the text"),
        ("bert", "bert-original", "another pseudo-log-likelihood"),
        ("bert-original", "roberta-original", "the finer tokenizer wins"),
        ("t5", "t5-open", "the end of the text scored or not"),
        ("t5", "llama-given", "given a source"),
    ):
        for one, other in ((a, b), (b, a)):
            with pytest.raises(ProtocolError, match=match):
                comparison.compare(side(folder, one), side(folder, other))
    with pytest.raises(ProtocolError, match="--model-arg pll=within-word-l2r"):
        comparison.compare(side(folder, "bert"), side(folder, "bert-original"))
    with pytest.raises(ProtocolError, match="no probability"):
        comparison.compare(side(folder, "bert"), side(folder, "llama"), allow=["context", "pll"])
    both = comparison.compare(side(folder, "t5"), side(folder, "bart"))
    assert "conditional bits per byte" in both.sentence()
    given = comparison.compare(side(folder, "t5"), side(folder, "llama-given"), allow=["context"])
    assert any("pays for the end" in one for one in given.warnings)


def test_a_score_by_itself(folder: Path) -> None:
    score = fairway.score("the cat", f"masked:{folder / 'bert'}")
    assert isinstance(score, fairway.Score)
    assert "perplexity" not in score.metrics and "pseudo perplexity" in score._repr_html_()  # type: ignore[operator]
    out = run("score", "the cat", "in it", "--tokens", "--model", f"masked:{folder / 'bert'}")
    assert "text 1: pseudo perplexity" in out
    out = run("score", "the cat", "--by", "word", "--uncorrected", "--model",
              f"seq2seq:{folder / 't5'}", "--context", "a hen")  # fmt: skip
    assert "behind the last word" in out


def test_a_mistake_is_a_sentence(folder: Path) -> None:
    for words, match in (
        (["score", "x", "--model", f"seq2seq:{folder / 't5'}"], "has no source"),
        (["score", "x", "--model", f"masked:{folder / 'llama'}"], "give --model hf:"),
        (["score", "x", "--model", "masked:/no/such"], "not a model folder"),
        (
            [
                "eval",
                "--no-cache",
                "--data",
                str(folder / "texts.jsonl"),
                "--model",
                f"seq2seq:{folder / 't5'}",
            ],
            "can be scored: .* has no source",
        ),
        (["context", "--model", f"masked:{folder / 'bert'}"], "give a causal model"),
        (["context", "--model", f"seq2seq:{folder / 'bart'}"], "give a causal model"),
        (
            [
                "compare",
                "--kld",
                "--model",
                f"masked:{folder / 'bert'}",
                "--model",
                f"masked:{folder / 'other'}",
            ],
            "no whole distributions",
        ),
        (["score", "x", "--by", "word", "--model", f"masked:{folder / 'bert'}"], "--uncorrected"),
        (
            ["choose", "--data", "-", "--like", "lm-eval", "--model", f"masked:{folder / 'bert'}"],
            "",
        ),
    ):
        out = CliRunner().invoke(
            app, words, input='{"context": "a", "choices": ["b", "c"], "answer": 0}'
        )
        assert out.exit_code != 0 and isinstance(out.exception, fairway.FairwayError), words
        assert re.search(match, str(out.exception))


def test_repeated(folder: Path) -> None:
    out = CliRunner().invoke(app, ["eval", "--repeat", str(folder / "runs" / "bert-original")])
    assert out.exit_code == 0 and "Confirmed" in out.output, out.output
    line = str(side(folder, "bert-original").signature)
    out = CliRunner().invoke(
        app,
        ["eval", "--repeat", line, "--model", f"masked:{folder / 'bert'}", "--data",
         str(folder / "texts.jsonl")],
    )  # fmt: skip
    assert "pll was" not in out.output and "pll:original" in out.output, out.output


def test_names() -> None:
    assert named("bits_per_byte", "pseudo_perplexity") == "pseudo_bits_per_byte"
    assert named("bytes_per_token", "pseudo_perplexity") == "bytes_per_token"
    assert named("perplexity", "perplexity") == "perplexity"
    scorer: Any = masked_backend.load(masked("bert"), tokenizer=wordpiece())
    assert scorer.perplexity == "pseudo_perplexity"
