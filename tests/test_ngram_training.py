"""Training of n-gram models: what lmplz makes, an independent reference, sums, resuming."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import kenlm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.corpus import Document
from fairway.errors import InputError
from fairway.ngram.training import counting, reading, train, writing

GOLDEN = Path(__file__).parent / "golden" / "lmplz"
CASES = json.loads((GOLDEN / "cases.json").read_text("utf-8"))
FALLBACK = (0.5, 1.0, 1.5)
Grams = dict[tuple[str, ...], tuple[float, float]]


def arpa(path: Path) -> Grams:
    """Read an ARPA file: words to log10 probability and back-off; the header must be right."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    said: dict[int, int] = {}
    found: Grams = {}
    for line in text.split("\n"):
        if line.startswith("ngram "):
            order, _, count = line[6:].partition("=")
            said[int(order)] = int(count)
        fields = line.split("\t")
        if len(fields) > 1:
            words = tuple(fields[1].split(" "))
            assert words not in found
            found[words] = float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0
    assert Counter(map(len, found)) == Counter(said)
    return found


def probability(model: Grams, context: tuple[str, ...], word: str) -> float:
    """The probability of a word by the back-off rule."""
    log = 0.0
    while (*context, word) not in model:
        log += model.get(context, (0.0, 0.0))[1]
        context = context[1:]
    return 10.0 ** (log + model[*context, word][0])


def sums(model: Grams) -> float:
    """How far the worst context's probabilities are from a sum of one."""
    words = [gram[0] for gram in model if len(gram) == 1 and gram != ("<s>",)]
    order = max(map(len, model))
    contexts = [gram for gram in model if len(gram) < order and gram[-1] != "</s>"]
    return max(
        abs(sum(probability(model, context, word) for word in words) - 1)
        for context in [(), ("never", "seen"), *contexts]
    )


def small(text: str, out: Path, **options: Any) -> Grams:
    train([text], out, memory="512M", threads=1, **options)
    return arpa(out)


@pytest.mark.parametrize("name", sorted(CASES))
def test_lmplz_gives_the_same(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    text = gzip.decompress((GOLDEN / f"{case['text']}.txt.gz").read_bytes()).decode("utf-8")
    ours = small(
        text, tmp_path / "m.arpa", order=case["order"], prune=case.get("prune", ()),
        discount_fallback=case.get("fallback"), special_words=case.get("special_words", "error"),
        interpolate_unigrams=case.get("interpolate_unigrams", True),
    )  # fmt: skip
    theirs = arpa(GOLDEN / f"{name}.arpa.gz")
    assert ours.keys() == theirs.keys()
    for gram, (prob, back) in theirs.items():
        assert ours[gram] == (pytest.approx(prob, abs=2e-6), pytest.approx(back, abs=2e-6)), gram


def reference(
    sentences: list[list[str]],
    order: int,
    prune: list[int],
    fallback: tuple[float, ...],
    interpolate: bool,
) -> Grams:
    """Modified Kneser-Ney from the formulas, with sets and dictionaries; log10, as in ARPA."""
    raw: Counter[tuple[str, ...]] = Counter()
    left: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for words in sentences:
        line = ["<s>", *words, "</s>"]
        for end in range(1, len(line)):
            for length in range(1, order + 1):
                if end - length + 1 >= 0:
                    gram = tuple(line[end - length + 1 : end + 1])
                    raw[gram] += 1
                    if end - length >= 0:
                        left[gram].add(line[end - length])
    seen = {word: place for place, word in enumerate(dict.fromkeys(sum(sentences, [])), 3)}
    seen |= {"<s>": 1, "</s>": 2}
    whole = {g: c if len(g) == order or g[0] == "<s>" else len(left[g]) for g, c in raw.items()}
    kept = {
        g for g in raw
        if raw[g] > prune[len(g) - 1] or g == ("</s>",)
    }  # fmt: skip
    rates = []
    for k in range(1, order + 1):
        grams = [g for g in whole if len(g) == k]
        # lmplz counts the last n-gram of an order below the highest by its occurrences.
        last = max(grams, key=lambda g: [seen[w] for w in reversed(g)], default=None)
        n = Counter(raw[g] if g == last and k < order else whole[g] for g in grams)
        d = None
        if n[1] and n[2] and n[3]:
            y = n[1] / (n[1] + 2 * n[2])
            d = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
        rates.append(d if d and min(d) >= 0 else list(fallback))
    vocabulary = {g[0] for g in kept if len(g) == 1} | {"<unk>"}
    after: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for gram in whole:
        after[gram[:-1]].append(gram)

    def gamma(context: tuple[str, ...]) -> float:
        d = rates[len(context)]
        grams = after[context]
        lost = sum(d[min(whole[g], 3) - 1] if g in kept else whole[g] for g in grams)
        return lost / sum(whole[g] for g in grams)

    def p(gram: tuple[str, ...]) -> float:
        if not gram:
            return 1 / len(vocabulary)
        context = gram[:-1]
        total = sum(whole[g] for g in after[context])
        own = whole[gram] - rates[len(context)][min(whole[gram], 3) - 1] if gram in kept else 0.0
        if len(gram) == 1 and not interpolate:
            return own / total + (gamma(()) if gram == ("<unk>",) else 0.0)
        return own / total + gamma(context) * p(gram[1:])

    def log(value: float) -> float:
        return max(-99.0, math.log10(value)) if value > 0 else -99.0

    out: Grams = {("<s>",): (0.0, log(gamma(("<s>",))) if order > 1 else 0.0)}
    for gram in [*kept, ("<unk>",)]:
        context = len(gram) < order and after.get(gram)
        out[gram] = log(p(gram)), log(gamma(gram)) if context else 0.0
    return out


texts = st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=6), min_size=1,
                 max_size=40)  # fmt: skip


@st.composite
def trainings(draw: st.DrawFn) -> tuple[list[list[str]], dict[str, Any]]:
    order = draw(st.integers(1, 6))
    prune = draw(st.lists(st.integers(0, 2), max_size=min(order, 3)).map(sorted))
    fallback = draw(st.sampled_from([FALLBACK, (0.3, 0.3, 0.3), (0.0, 1.0, 3.0)]))
    return draw(texts), {
        "order": order, "prune": prune, "discount_fallback": fallback,
        "interpolate_unigrams": draw(st.booleans()),
    }  # fmt: skip


def held_against_the_formulas(sentences: list[list[str]], options: dict[str, Any]) -> None:
    order, prune = options["order"], options["prune"]
    with tempfile.TemporaryDirectory() as folder:
        ours = small("\n".join(map(" ".join, sentences)), Path(folder) / "m.arpa", **options)
    thresholds = [*prune, *[prune[-1] if prune else 0] * (order - len(prune))]
    theirs = reference(
        sentences, order, thresholds, options["discount_fallback"], options["interpolate_unigrams"]
    )
    assert ours.keys() == theirs.keys()
    for gram, (prob, back) in theirs.items():
        assert ours[gram] == (pytest.approx(prob, abs=2e-7), pytest.approx(back, abs=2e-7)), gram
    assert sums(ours) < 1e-6


@given(trainings())
@settings(max_examples=12, deadline=None)
def test_the_formulas_give_the_same(training: tuple[list[list[str]], dict[str, Any]]) -> None:
    held_against_the_formulas(*training)


@pytest.mark.slow
@given(trainings())
@settings(max_examples=120, deadline=None)
def test_the_formulas_give_the_same_often(
    training: tuple[list[list[str]], dict[str, Any]],
) -> None:
    held_against_the_formulas(*training)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
@settings(max_examples=12, deadline=None)
def test_any_text_gives_a_model_of_its_words(text: str) -> None:
    words = set(text.encode().split()) - {b"<s>", b"</s>", b"<unk>", b"<UNK>"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "m.arpa"
        try:
            model = small(text, out, order=2, special_words="skip", discount_fallback=FALLBACK)
        except InputError as problem:
            assert "holds no words" in str(problem) and not words
            return
        assert kenlm.Model(str(out)).order == 2
    known = {gram[0].encode() for gram in model if len(gram) == 1}
    assert known == words | {b"<s>", b"</s>", b"<unk>"}
    assert sums(model) < 1e-6


def legal() -> str:
    return gzip.decompress((GOLDEN / "legal.txt.gz").read_bytes()).decode("utf-8")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_memory_threads_chunks_and_blocks_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train([legal()], tmp_path / "a.arpa", order=4, prune=[0, 0, 1])
    monkeypatch.setattr(counting, "CHUNK", 997)
    monkeypatch.setattr(reading, "BLOCK", 501)
    monkeypatch.setattr(writing, "ROWS", 3001)
    lines = [Document(str(n), line) for n, line in enumerate(legal().split("\n")) if line]
    train(lines, tmp_path / "b.arpa", order=4, prune=[0, 0, 1], memory="512M", threads=1)
    assert digest(tmp_path / "a.arpa") == digest(tmp_path / "b.arpa")


def test_a_compressed_model_is_the_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("a.arpa.gz", "b.arpa.gz", "a.arpa"):
        train([legal()[:3000]], tmp_path / name, order=2, discount_fallback=FALLBACK)
    assert digest(tmp_path / "a.arpa.gz") == digest(tmp_path / "b.arpa.gz")
    whole = gzip.decompress((tmp_path / "a.arpa.gz").read_bytes())
    assert whole == (tmp_path / "a.arpa").read_bytes()


def test_kenlm_reads_what_was_trained(tmp_path: Path) -> None:
    text = gzip.decompress((GOLDEN / "unicode.txt.gz").read_bytes()).decode("utf-8")
    ours = small(text, tmp_path / "m.arpa", order=3, discount_fallback=FALLBACK)
    model = kenlm.Model(str(tmp_path / "m.arpa"))
    assert model.order == 3
    for sentence in ("a\u00a0b c", "吾輩は猫である 。", "never seen", "👩‍👩‍👧 🏳️‍🌈"):
        words = ["<s>", *sentence.split(" "), "</s>"]
        known = [word if (word,) in ours else "<unk>" for word in words]
        total = sum(
            math.log10(probability(ours, tuple(known[max(0, at - 2) : at]), known[at]))
            for at in range(1, len(known))
        )
        assert model.score(sentence) == pytest.approx(total, abs=1e-5)


def test_each_context_of_a_real_text_sums_to_one(tmp_path: Path) -> None:
    model = small(legal()[:9000], tmp_path / "m.arpa", order=3, discount_fallback=FALLBACK)
    assert sums(model) < 1e-6


def test_unk_in_the_text_is_an_ordinary_word(tmp_path: Path) -> None:
    """Its numbers are those of any word in its place, but for the name."""
    words = legal()[:12000].replace(" the ", " <unk> ").replace(" of ", " <UNK> ")
    ours = small(words, tmp_path / "a.arpa", order=3, special_words="unk",
                 discount_fallback=FALLBACK)  # fmt: skip
    other = words.replace("<UNK>", "<unk>").replace("<unk>", "anything")
    theirs = small(other, tmp_path / "b.arpa", order=3, discount_fallback=FALLBACK)
    assert len([g for g in ours if "<unk>" in g]) > 50
    renamed = {tuple("<unk>" if w == "anything" else w for w in g): v for g, v in theirs.items()}
    assert {g for g in renamed if len(g) > 1} == {g for g in ours if len(g) > 1}
    # There the vocabulary has one word more, the <unk> that never occurs.
    size = len([g for g in ours if len(g) == 1]) - 1
    free = 10 ** theirs["<unk>",][0] * (size + 1)
    expected = 10 ** theirs["anything",][0] - free / (size + 1) + free / size
    assert 10 ** ours["<unk>",][0] == pytest.approx(expected, abs=1e-7)
    assert sums(ours) < 1e-6


def test_blank_lines_and_line_ends_change_nothing(tmp_path: Path) -> None:
    text = legal()[:4000]
    train([text], tmp_path / "a.arpa", order=2, discount_fallback=FALLBACK)
    other = "\n \t\n" + text.replace("\n", "\r\n\n").replace(" ", " \v\f")
    train([other], tmp_path / "b.arpa", order=2, discount_fallback=FALLBACK)
    assert digest(tmp_path / "a.arpa") == digest(tmp_path / "b.arpa")


class Stopped(BaseException):
    """As Ctrl-C."""


@pytest.mark.parametrize("at", ["counting", "adjusting counts", "estimating", "writing"])
def test_an_interrupted_training_goes_on(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train([legal()], tmp_path / "whole.arpa", order=3)
    out = tmp_path / "m.arpa"
    seen: list[str] = []

    def stop(stage: str, share: float | None) -> None:
        if stage == at and (share or 0) > 0.2:
            raise Stopped

    with pytest.raises(Stopped):
        train([legal()], out, order=3, show=stop)
    assert not out.exists() and (tmp_path / "m.arpa.work").is_dir()
    made = train([legal()], out, order=3, show=lambda stage, share: seen.append(stage))
    assert digest(out) == digest(tmp_path / "whole.arpa")
    assert made.resumed == (at != "counting")
    # The slow part is not done again.
    assert ("counting" in seen) == (at == "counting")
    assert not (tmp_path / "m.arpa.work").exists()


def test_another_text_begins_anew_and_another_pruning_keeps_the_counts(tmp_path: Path) -> None:
    out = tmp_path / "m.arpa"
    with pytest.raises(InputError, match="--discount-fallback"):
        train([legal()[:2000]], out, order=4)
    seen: list[str] = []
    made = train(
        [legal()[:2000]], out, order=4, discount_fallback=FALLBACK, prune=[0, 1],
        show=lambda stage, share: seen.append(stage),
    )  # fmt: skip
    assert made.resumed and "counting" not in seen
    train([legal()[:2000]], tmp_path / "n.arpa", order=4, discount_fallback=FALLBACK, prune=[0, 1])
    assert digest(out) == digest(tmp_path / "n.arpa")
    out.unlink()
    with pytest.raises(InputError, match="--discount-fallback"):
        train([legal()[:2000]], out, order=4)
    other = train([legal()[:2500]], out, order=4, discount_fallback=FALLBACK)
    assert not other.resumed
    train([legal()[:2500]], tmp_path / "o.arpa", order=4, discount_fallback=FALLBACK)
    assert digest(out) == digest(tmp_path / "o.arpa")


def test_a_killed_process_leaves_what_can_be_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(legal(), "utf-8")
    code = f"""
import os, signal
from fairway.ngram.training import train
def show(stage, share):
    if stage == "estimating" and share > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
train({str(tmp_path / "text.txt")!r}, {str(tmp_path / "m.arpa")!r}, order=4, show=show)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -9
    made = train(tmp_path / "text.txt", tmp_path / "m.arpa", order=4)
    assert made.resumed
    train(tmp_path / "text.txt", tmp_path / "n.arpa", order=4)
    assert digest(tmp_path / "m.arpa") == digest(tmp_path / "n.arpa")
