"""``fairway ngram train``: what it prints, what it refuses, and lmplz in its place."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import kenlm
import numpy as np
import pytest

from fairway.cli import main
from fairway.corpus import Document
from fairway.errors import InputError
from fairway.ngram.training import train
from fairway.ngram.training.discounts import estimate
from fairway.ngram.training.settings import settings, size

LINES = "the cat sat on the mat\nthe dog sat on the rug\na cat and a dog\n" * 3


Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; what it prints on stdout and stderr."""

    def call(*words: str | Path, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["fairway", "ngram", "train", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        assert (end.value.code or 0) == code, told.err
        return told.out, told.err

    return call


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(LINES, "utf-8")
    return path


def test_the_command_writes_a_model_that_kenlm_loads(run: Run, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.arpa.gz"
    told, _ = run("--data", text, "--out", out, "--order", "3", "--discount-fallback")
    assert "9 sentences" in told and "no estimate" in told
    (tmp_path / "plain.arpa").write_bytes(gzip.decompress(out.read_bytes()))
    assert kenlm.Model(str(tmp_path / "plain.arpa")).order == 3
    assert not (tmp_path / "m.arpa.gz.work").exists()
    assert "is there already" in run("--data", text, "--out", out, code=2)[1]


def test_json_holds_what_was_read_and_made(run: Run, text: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"t": "one more cat"}\n{"t": 5}\n', "utf-8")
    out = tmp_path / "m.arpa"
    told, said = run(
        "--data", text, "--data", rows, "--text-field", "t", "--out", out, "--order", "2",
        "--discount-fallback", "--discounts", "0.4", "--prune", "0 1", "--json",
    )  # fmt: skip
    made = json.loads(told)
    assert made["text"]["sentences"] == 10 and made["text"]["skipped"] == 1
    assert made["settings"]["prune"] == [0, 1] and made["discounts"][1]["more"] == 0.4
    assert made["ngrams"] == [int(line.split("=")[1]) for line in out.read_text().split("\n")[1:3]]
    assert "1 rows of rows.jsonl were skipped" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--order", "7"], "not within 1 to 6"),
        (["--order", "0"], "not within 1 to 6"),
        (["--prune", "1,0"], "must not decrease"),
        (["--prune", "0,x"], "no list of counts"),
        (["--prune", "0,0,0,0", "--order", "3"], "only 3 orders"),
        (["--discounts", "0.5,3", "--discount-fallback"], "not within 0 to 2"),
        (["--discounts", "a", "--discount-fallback"], "no list of numbers"),
        (["--memory", "lots"], "is no size"),
        (["--memory", "1K"], "too little"),
        (["--special-words", "x"], "not one of error, skip, unk"),
        (["--counter", "x"], "not one of fairway, lmplz"),
        (["--counter", "lmplz", "--lmplz", "/nowhere/lmplz"], "no program /nowhere/lmplz"),
        ([], "--discount-fallback"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(
    options: list[str], said: str, run: Run, text: Path, tmp_path: Path
) -> None:
    _, told = run("--data", text, "--out", tmp_path / "m.arpa", *options, code=2)
    assert said in told and len(told.strip().splitlines()) == 1
    assert not (tmp_path / "m.arpa").exists()


@pytest.mark.parametrize("word", ["<s>", "</s>", "<unk>", "<UNK>"])
def test_special_words_are_refused_left_out_or_counted(word: str, tmp_path: Path) -> None:
    text = LINES + f"the {word} sat\n"
    options = {"order": 2, "discount_fallback": (0.5, 1, 1.5), "memory": "512M"}
    with pytest.raises(InputError, match=f"Sentence 10 .* {word}"):
        train([text], tmp_path / "m.arpa", **options)
    train([text], tmp_path / "skip.arpa", special_words="skip", **options)
    train([LINES + "the sat\n"], tmp_path / "without.arpa", **options)
    assert (tmp_path / "skip.arpa").read_bytes() == (tmp_path / "without.arpa").read_bytes()
    train([text], tmp_path / "unk.arpa", special_words="unk", **options)
    assert (
        "\tthe <unk>\t" in (tmp_path / "unk.arpa").read_text()
        or "\tthe <unk>\n" in (tmp_path / "unk.arpa").read_text()
    )


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n", b"\xff\xfe\xfa\n"])
def test_a_corpus_without_words_is_refused(content: bytes, run: Run, tmp_path: Path) -> None:
    (tmp_path / "e.txt").write_bytes(content)
    _, told = run("--data", tmp_path / "e.txt", "--out", tmp_path / "m.arpa", code=2)
    assert "holds no words" in told
    assert not (tmp_path / "m.arpa.work").exists()


def test_bad_rows_are_counted_and_strict_stops(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(LINES.encode() + b"bad \xff line\n")
    command = ["--data", tmp_path / "t.txt", "--out", tmp_path / "m.arpa", "--discount-fallback"]
    assert "t.txt:10" in run(*command, "--strict", code=2)[1]
    assert "1 rows of t.txt were skipped" in run(*command)[1]


def test_token_ids_are_no_text(tmp_path: Path) -> None:
    document = Document("1", "", ids=np.arange(5))
    with pytest.raises(InputError, match="token ids"):
        train([document], tmp_path / "m.arpa")


def test_a_damaged_work_folder_is_named(run: Run, text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m.arpa.work"
    folder.mkdir()
    (folder / "counts.duckdb").write_bytes(b"no database" * 1000)
    _, told = run("--data", text, "--out", tmp_path / "m.arpa", "--discount-fallback", code=2)
    assert str(folder) in told


def test_sizes() -> None:
    assert size("2G") == size("2048M") == size("2GiB") == size("2 gb") == 2 << 30
    assert size("600000000") == 600_000_000
    for wrong in ("", "G", "-1G", "2X", "nan"):
        with pytest.raises(InputError):
            size(wrong)


def test_settings_fill_in_the_last_threshold_and_discount() -> None:
    made = settings(5, [0, 0, 1], [0.5])
    assert made.prune == (0, 0, 1, 1, 1) and made.fallback == (0.5, 0.5, 0.5)


def test_discounts_of_chen_and_goodman() -> None:
    """Worked by hand: Y = 100 / (100 + 2 * 40) = 5/9."""
    found = estimate(2, {1: 100, 2: 40, 3: 20, 4: 12})
    assert found[:3] == pytest.approx((1 - 2 * 5 / 9 * 0.4, 2 - 3 * 5 / 9 * 0.5, 3 - 20 / 9 * 0.6))
    with pytest.raises(InputError, match="would be -"):
        estimate(2, {1: 100, 2: 40, 3: 90, 4: 12})
    with pytest.raises(InputError, match="count of 2 or 3"):
        estimate(2, {1: 100})
    assert estimate(2, {1: 9}, (0.5, 1, 1.5)) == (0.5, 1, 1.5, False)


def test_lmplz_in_its_place_gives_the_same_model(tmp_path: Path) -> None:
    program = os.environ.get("FAIRWAY_LMPLZ") or shutil.which("lmplz")
    if not program:
        pytest.skip("which lmplz: found nothing, and FAIRWAY_LMPLZ is not set")
    from test_ngram_training import arpa, legal

    options = {"order": 3, "prune": [0, 0, 1], "memory": "512M"}
    train([legal()], tmp_path / "a.arpa.gz", **options)
    made = train(
        [legal()], tmp_path / "b.arpa.gz", counter="lmplz", lmplz_path=program, **options
    )  # fmt: skip
    ours, theirs = arpa(tmp_path / "a.arpa.gz"), arpa(tmp_path / "b.arpa.gz")
    assert ours.keys() == theirs.keys() and made.counter == "lmplz"
    assert all(ours[g] == pytest.approx(theirs[g], abs=1e-5) for g in ours)
    assert b"ngram 3=" in gzip.decompress((tmp_path / "b.arpa.gz").read_bytes())[:200]
    with pytest.raises(InputError, match="--discount-fallback"):
        train([LINES], tmp_path / "c.arpa", counter="lmplz", lmplz_path=program)
