"""The command line as a user meets it: numbers, files, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def fairway(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fairway", *words], input=stdin, capture_output=True, text=True
    )


def test_score_json_contract() -> None:
    out = fairway("score", "Once upon a time", "--json")
    assert out.returncode == 0, out.stderr
    report = json.loads(out.stdout)
    text = report["texts"][0]
    assert "".join(t["text"] for t in text["tokens"]) == "Once upon a time"
    total = -sum(t["logprob"] for t in text["tokens"])
    assert total == pytest.approx(report["metrics"]["nll"], rel=1e-12)
    assert report["metrics"]["bytes"] == 16
    assert report["reasons"]["intervals"]


def test_a_run_resumes_to_the_same_report(small: str, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    with data.open("w") as stream:
        for number in range(40):
            row = {"text": f"Story {number}. " + "The cat saw the dog and ran away. " * 120}
            stream.write(json.dumps(row) + "\n")
        stream.write('{"text": \n{"other": 1}\n{"text": ""}\n')
    words = ("eval", "--model", small, "--data", str(data), "--no-cache", "--json", "--out")
    whole = fairway(*words, str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    # An interrupted run: one committed block, then half a line.
    part = tmp_path / "part"
    part.mkdir()
    (part / "run.json").write_bytes((tmp_path / "whole" / "run.json").read_bytes())
    lines = (tmp_path / "whole" / "scores.jsonl").read_bytes().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.startswith(b'{"block"')) + 1
    assert first < len(lines)
    (part / "scores.jsonl").write_bytes(b"".join(lines[: first + 1]) + lines[first + 1][:30])
    again = fairway(*words, str(part))
    assert again.returncode == 0, again.stderr
    assert again.stdout == whole.stdout
    assert (part / "scores.jsonl").read_bytes() == (tmp_path / "whole/scores.jsonl").read_bytes()
    report = json.loads(whole.stdout)
    assert report["metrics"]["documents"] == 40
    assert [row["line"] for row in report["skipped_rows"]] == [41, 42, 43]
    other = fairway(*words, str(part), "--stride", "20")
    assert other.returncode == 2 and "another signature" in other.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["score", ""], "is empty"),
        (["score", "--file", "/nowhere/x.txt"], "cannot be read"),
        (["score", "a", "--like", "foo"], "no convention"),
        (["score", "a", "--stride", "65"], "stride 65"),
        (["score", "a", "--max-length", "5000"], "at most 64"),
        (["score", "a", "--dtype", "int3"], "no dtype"),
        (["eval", "--data", "nowhere.txt"], "no file, folder or glob"),
        (["eval", "--precision", "much"], "--precision"),
    ],
)
def test_mistakes_are_one_sentence(small: str, words: list[str], reason: str) -> None:
    out = fairway(*words, "--model", small)
    assert out.returncode == 2
    assert reason in out.stderr and "Traceback" not in out.stderr


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    out = fairway("score", "a", "--model", str(tmp_path))
    assert out.returncode == 2 and "config.json" in out.stderr


def test_corrupted_weights(small: str, tmp_path: Path) -> None:
    for path in Path(small).iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[:1000] if path.suffix == ".safetensors" else data)
    out = fairway("score", "a", "--model", str(tmp_path))
    assert out.returncode == 2 and "cannot be loaded" in out.stderr
    assert "Traceback" not in out.stderr


def test_show_needs_no_model(small: str, tmp_path: Path) -> None:
    data = tmp_path / "d.txt"
    data.write_text("A small story about a dog.\n\nAnother one.\n")
    run = tmp_path / "run"
    words = ("eval", "--model", small, "--data", str(data), "--split", "paragraphs")
    assert fairway(*words, "--out", str(run)).returncode == 0
    for option in ("--explain", "--md", "--csv", "--latex", "--json"):
        out = fairway("show", str(run), option)
        assert out.returncode == 0 and out.stdout, option
    page = tmp_path / "page.html"
    assert fairway("show", str(run), "--html", str(page)).returncode == 0
    assert "<script" not in page.read_text()


def test_a_page_that_cannot_be_written_does_not_hide_the_number(small: str, tmp_path: Path) -> None:
    data = tmp_path / "d.txt"
    data.write_text("the cat")
    where = str(tmp_path / "no" / "page.html")
    for words in (["score", "the cat"], ["eval", "--data", str(data), "--no-cache"]):
        out = fairway(*words, "--model", small, "--html", where, "--json")
        assert out.returncode == 2 and "cannot be written" in out.stderr
        assert json.loads(out.stdout)["metrics"]["bytes"] == 7


def test_nothing_to_score_is_no_number_and_no_citation(small: str, tmp_path: Path) -> None:
    data = tmp_path / "d.bin.txt"
    data.write_bytes(b"\xff\xfe\x00")
    out = fairway("eval", "--model", small, "--data", str(data))
    assert out.returncode == 0 and "cite as" not in out.stdout
    assert "no token was scored" in out.stdout and "not UTF-8" in out.stdout
    gone = fairway("show", str(tmp_path / "gone"))
    assert gone.returncode == 2 and "There is no" in gone.stderr
