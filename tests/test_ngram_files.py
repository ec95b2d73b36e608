"""Files of n-gram models: what is read, what is refused and in which words, and what never dies."""

from __future__ import annotations

import gzip
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arpas
from fairway.backends.ngram import load_arpa, load_kenlm, reading
from fairway.backends.ngram.arpa import read
from fairway.backends.ngram.scoring import NgramScorer
from fairway.corpus import Document
from fairway.errors import FairwayError, ModelError

WORDS = ("a", "b", "é", "x")
GOOD = arpas.write(arpas.draw(1, WORDS, 3), 3)
TEXT = "a b é x a\n\nzz b <unk> a b é </s> <s> x"


def score(spec: str, text: str = TEXT, **options: Any) -> np.ndarray[Any, Any]:
    return next(iter(load(spec, **options).score([Document("x", text)]))).logprobs


def load(spec: str, **options: Any) -> NgramScorer:
    """Load without looking for other packages' kinds, which takes longer than a small file."""
    kind, _, name = spec.partition(":")
    return {"kenlm": load_kenlm, "arpa": load_arpa}[kind](name, **options)


def changed(old: str, new: str) -> str:
    assert old in GOOD, old
    return GOOD.replace(old, new, 1)


def line_of(text: str, start: str) -> int:
    return 1 + next(i for i, line in enumerate(text.split("\n")) if line.startswith(start))


FIRST = GOOD.split("\\2-grams:\n")[1].split("\n")[0]
WRONG = [
    (changed("\\data\\", "data"), "no ARPA file", ""),
    (changed("\\data\\\n", "\\data\\\n\n\\1-grams:\n"), "followed by no line like", ""),
    (changed("ngram 2=", "ngram 3="), "expected a line like 'ngram 2=COUNT'", "ngram 3="),
    (changed("ngram 1=", "ngram 1=1"), "the head promises 1", "\\1-grams"),
    (changed("\\2-grams:", "\\4-grams:"), r"expected \\2-grams:, found", "\\4-grams"),
    (GOOD[: GOOD.index("\\3-grams:")], r"the file ends where \\3-grams: should stand", ""),
    (changed("\\end\\", "\\stop\\"), r"expected \\end\\, found", "\\stop"),
    (GOOD[: GOOD.index("\\end\\")], r"the file ends where \\end\\ should stand", ""),
    (GOOD + "\nmore\n", "found 'more' after", "more"),
    (changed(FIRST, "1.5" + FIRST[FIRST.index("\t") :]), "1.5 is no log-probability", "1.5"),
    (changed(FIRST, "nan" + FIRST[FIRST.index("\t") :]), "'nan' is no number", "nan"),
    (changed(FIRST, "-1_0" + FIRST[FIRST.index("\t") :]), "'-1_0' is no number", "-1_0"),
    (changed(FIRST, "-1e400" + FIRST[FIRST.index("\t") :]), "", ""),
    (changed(FIRST, "-1,5" + FIRST[FIRST.index("\t") :]), "'-1,5' is no number", "-1,5"),
    (changed(FIRST, "-1\ta b\tinf"), "'inf' is no number", "-1\ta"),
    (changed(FIRST, "-1\ta b\t1e999"), "inf is no back-off weight", "-1\ta"),
    (changed(FIRST, "-1\ta"), "a 2-gram has 3 or 4 fields, this line has 2", "-1\ta"),
    (changed(FIRST, "-1\ta b -1 -1"), "this line has 5", "-1\ta"),
    (changed(FIRST, "-1\ta q"), "the word 'q' is not among the 1-grams", "-1\ta"),
    (changed(FIRST, "-1\ta \0b"), "a NUL byte", "-1\ta"),
    (changed("\ta", "\tb"), "the word 'b' stands twice", ""),
    (changed("<unk>", "<s>"), "the word '<s>' stands twice", ""),
    (changed(FIRST + "\n", FIRST + "\n" + FIRST + "\n").replace(
        "ngram 2=", "ngram 2=0", 1), "the head promises", ""),
]  # fmt: skip
"""A file, what is said of it, how the line begins that is named."""


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_files_are_refused_by_line(tmp_path: Path, number: int) -> None:
    text, said, begins = WRONG[number]
    path = tmp_path / "m.arpa"
    path.write_text(text, "utf-8")
    if not said:
        # A log-probability may be minus infinity.
        assert np.isneginf(read(path).levels[1].logprobs).sum() == 1
        return
    with pytest.raises(ModelError, match=said) as problem:
        read(path)
    assert str(problem.value).startswith("m.arpa")
    if begins:
        assert f"m.arpa:{line_of(text, begins)}: " in str(problem.value)


def test_contexts_and_twins_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.arpa"
    grams = {("a",): (-1.0, 0.0), ("<s>",): (-9.0, 0.0), ("</s>",): (-1.0, 0.0)}
    path.write_text(arpas.write({**grams, ("a", "a", "</s>"): (-1.0, 0.0)}, 3), "utf-8")
    with pytest.raises(ModelError, match=r"m.arpa:14: the first 2 words of this 3-gram are no"):
        read(path)
    text = arpas.write({**grams, ("a", "a"): (-1.0, 0.0)}, 2)
    row = "-1.000000\ta a\n"
    path.write_text(text.replace(row, row + row).replace("2=1", "2=2"), "utf-8")
    with pytest.raises(ModelError, match=r"m.arpa:12: this 2-gram stands twice"):
        read(path)


def test_tolerated_files_score_alike(tmp_path: Path) -> None:
    path = tmp_path / "m.arpa"
    path.write_text(GOOD, "utf-8")
    expected = score(f"kenlm:{path}")
    for name, text in (
        ("spaces", GOOD.replace("\t", "   ")),
        ("head", "made by hand\n=====\n\n" + GOOD),
        ("returns", GOOD.replace("\n", "\r\n")),
        ("blank lines", GOOD.replace("\n-1.", "\n\n \n-1.")),
        ("counts", GOOD.replace("ngram 1=", "ngram  1 = ")),
        ("no last newline", GOOD.rstrip()),
    ):
        path.write_bytes(text.encode("utf-8"))
        assert np.allclose(score(f"arpa:{path}"), expected, rtol=1e-6), name


def test_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.arpa"
    path.write_text(GOOD, "utf-8")
    whole = read(path)
    for size in (1, 7, 50):
        monkeypatch.setattr(reading, "BLOCK", size)
        parts = read(path)
        assert parts.words == whole.words
        for a, b in zip(parts.levels, whole.levels, strict=True):
            assert np.array_equal(a.keys, b.keys) and np.array_equal(a.logprobs, b.logprobs)
            assert np.array_equal(a.backoffs, b.backoffs)
    path.write_text(changed(FIRST, "-1\ta q"), "utf-8")
    with pytest.raises(
        ModelError, match=f"m.arpa:{line_of(path.read_text(), FIRST[:1] + '1' + chr(9))}"
    ):
        read(path)


@pytest.mark.parametrize("order", [1, 7])
def test_orders_that_kenlm_has_not(tmp_path: Path, order: int) -> None:
    path = tmp_path / "m.arpa"
    grams = arpas.draw(2, WORDS, order)
    text = arpas.write({g: v for g, v in grams.items() if len(g) <= order}, order)
    path.write_text(text, "utf-8")
    with pytest.raises(ModelError, match="KenLM refuses m.arpa: .* Try arpa:"):
        load(f"kenlm:{path}")
    expected = [row[2] for row in arpas.rows(arpas.parse(text), order, TEXT)]
    assert np.allclose(score(f"arpa:{path}"), expected, rtol=1e-9)


def test_sentence_marks_that_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "m.arpa"
    path.write_text(arpas.write({("a",): (-1.0, 0.0), ("</s>",): (-1.0, 0.0)}, 1), "utf-8")
    with pytest.raises(ModelError, match="lists no <s>; give --model-arg bos=no"):
        load(f"arpa:{path}")
    assert len(score(f"arpa:{path}", "a a", bos="no")) == 3
    path.write_text(arpas.write({("a",): (-1.0, 0.0), ("<s>",): (-1.0, 0.0)}, 1), "utf-8")
    with pytest.raises(ModelError, match="lists no </s>; give --model-arg eos=no"):
        load(f"arpa:{path}")
    assert len(score(f"arpa:{path}", "a a", eos="no")) == 2


def test_what_is_no_probability_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.arpa"
    grams = {
        ("a",): (-0.5, 2.0),
        ("<s>",): (-9.0, 0.0),
        ("</s>",): (-1.0, 0.0),
        ("<s>", "a"): (-1.0, 0.0),
    }
    path.write_text(arpas.write(grams, 2), "utf-8")
    for kind in ("kenlm", "arpa"):
        with pytest.raises(ModelError, match="log-probability 1 to base 10"):
            score(f"{kind}:{path}", "a")


@pytest.mark.parametrize("kind", ["kenlm", "arpa"])
def test_no_such_file(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ModelError, match="There is no file"):
        load(f"{kind}:{tmp_path / 'absent.arpa'}")
    with pytest.raises(ModelError, match="is a folder"):
        load(f"{kind}:{tmp_path}")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ModelError, match="empty"):
        load(f"{kind}:{tmp_path / 'empty'}")


PIECES = (
    b"\t", b"\n", b" ", b"-", b"nan", b"inf", b"-inf", b"99999999999", b"\\end\\", b"\\2-grams:\n",
    b"1e400", b"\0", b"<s>", b"0", b"ngram 4=1\n", b"\xff", b"\r", b"\x0b", b"\\", b"1_0",
    b"\\data\\\n",
)  # fmt: skip


def mutate(data: bytes, seed: int) -> bytes:
    rng = random.Random(seed)
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(out) + 1)
        how = rng.randrange(6)
        if how == 0 and at < len(out):
            out[at] = rng.randrange(256)
        elif how == 1:
            del out[at : at + rng.choice((1, 2, 10, 100))]
        elif how == 2:
            out[at:at] = rng.choice(PIECES)
        elif how == 3:
            piece = rng.choice(PIECES)
            out[at : at + len(piece)] = piece
        elif how == 4:
            start = rng.randrange(len(out) + 1)
            out[at:at] = out[start : start + rng.randrange(60)]
        else:
            del out[at + 40 * rng.randrange(20) :]
    return bytes(out)


def survive(path: Path, seeds: range) -> Counter[str]:
    """Load and score mutated files; only our own errors may come, and none may take long."""
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        path.write_bytes(mutate(GOOD.encode("utf-8"), seed))
        for kind in ("kenlm", "arpa"):
            start = time.monotonic()
            try:
                found = score(f"{kind}:{path}")
                assert not np.isnan(found).any(), seed
                outcomes[f"{kind} scored"] += 1
            except FairwayError as problem:
                assert str(problem)
                outcomes[f"{kind} refused"] += 1
            assert time.monotonic() - start < 10, seed
    return outcomes


def test_mutated_files_never_crash(tmp_path: Path) -> None:
    outcomes = survive(tmp_path / "m.arpa", range(400))
    assert min(outcomes.values()) > 20, outcomes


@pytest.mark.slow
def test_many_mutated_files_never_crash(tmp_path: Path) -> None:
    outcomes = survive(tmp_path / "m.arpa", range(1000, 11000))
    assert min(outcomes.values()) > 500, outcomes


BINARIES = Path(__file__).parent / "data" / "ngram"
"""A model of `arpas.draw` and what KenLM's build_binary makes of it: ``-s probing``, ``trie``, and
``-q 8 -b 8 -a 22 trie``, whose 8 bits hold all of its values."""


@pytest.mark.parametrize("name", ["probing", "trie", "quantised"])
def test_binaries_score_as_their_source(tmp_path: Path, name: str) -> None:
    text = "the cat é on\n\n日本 zz the\nthe the on cat é\0 the\n"
    expected = arpas.parse((BINARIES / "toy.arpa").read_text("utf-8"))
    wanted = [row[2] for row in arpas.rows(expected, 3, text)]
    path = BINARIES / f"{name}.bin"
    assert np.allclose(score(f"kenlm:{path}", text), wanted, rtol=1e-6)
    packed = tmp_path / "m.bin.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert np.allclose(score(f"kenlm:{packed}", text), wanted, rtol=1e-6)
    with pytest.raises(ModelError, match="no ARPA file.*kenlm: loads"):
        load(f"arpa:{path}")


def test_damaged_binaries_end_no_process(tmp_path: Path) -> None:
    """KenLM trusts a binary's head, and dies of a wrong count: in a process of its own."""
    data = (BINARIES / "quantised.bin").read_bytes()
    path = tmp_path / "m.bin"
    said = []
    for at, value in ((60, 1), (88, 9), (96, 200), (108, 255), (137, 200), (139, 9), (142, 77)):
        broken = bytearray(data)
        broken[at] = value
        path.write_bytes(bytes(broken))
        try:
            score(f"kenlm:{path}")
        except ModelError as problem:
            said.append(str(problem))
    assert sum("crashes" in one for one in said) >= 2 and len(said) >= 5, said
    path.write_bytes(data[: len(data) // 4])
    with pytest.raises(ModelError, match="KenLM refuses m.bin: "):
        load(f"kenlm:{path}")
