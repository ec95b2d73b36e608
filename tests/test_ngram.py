"""N-gram models: published scores, KenLM against the own reader, both against plain loops."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import arpas
import fairway as fw
from fairway import oov, report
from fairway.backends.ngram import lines
from fairway.backends.ngram.lines import Line
from fairway.backends.ngram.scoring import NgramScorer, Rule
from fairway.cli import app
from fairway.corpus import Document
from fairway.errors import InputError, ModelError
from fairway.scorer import load
from fairway.scores import Score

LN10 = math.log(10)
KINDS = ("kenlm", "arpa")
WORDS = ("the", "cat", "é", "日本", "a\u00a0b", "x\x1cy", "1.5", "-0.3", "🙂", "\\end\\")
ODD = (
    " ", "\n", "  ", "\t", "\r\n", "\x0b", "\x0c", "\0", "\u00a0", "\u2003", "\u3000", "\x85",
    "\x1c", "\u2028", "e\u0301", "\u200d", "<unk>", "</s>", "zz", "\ufeff", "\U0001f468",
)  # fmt: skip
texts = st.lists(st.sampled_from([*WORDS, *ODD, " ", " ", "\n"]), max_size=30).map("".join)
MANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def one(scorer: Any, text: str, **more: Any) -> Score:
    return next(iter(scorer.score([Document("x", text, **more)])))


def table(score: Score) -> list[tuple[int, int, float, bool]]:
    return [
        (t.start, t.end, t.logprob, bool(flag))
        for t, flag in zip(score.tokens, score.extras["oov"], strict=True)
    ]


def same(found: list[Any], expected: list[Any], exact: float = 1e-5) -> None:
    assert [(*row[:2], row[3]) for row in found] == [(*row[:2], row[3]) for row in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine[2] == pytest.approx(theirs[2], rel=exact, abs=1e-5)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ngram") / "toy.arpa"
    path.write_text(arpas.write(arpas.draw(3, WORDS, 3), 3), "utf-8")
    return path


GOLDEN = [
    ("kenlm/test.arpa", "kenlm/expected.json", True),
    ("deepspeech/pruned_lm.scorer", "deepspeech/pruned_lm.scorer.expected.json", True),
    ("flashlight/lm.arpa.gz", "flashlight/expected.json", True),
    ("kaldi/0.1k_3gram_unpruned.arpa", "kaldi/0.1k_3gram_unpruned.arpa.expected.json", False),
    ("cmusphinx/an4_full.bigram.lm", "cmusphinx/an4_full.bigram.lm.expected.json", False),
    ("cmusphinx/an4_full.trigram.lm", "cmusphinx/an4_full.trigram.lm.expected.json", False),
    ("cmusphinx/turtle.lm", "cmusphinx/turtle.lm.expected.json", False),
    ("cmusphinx/weather.lm.gz", "cmusphinx/weather.lm.expected.json", False),
]
"""File, its scores, whether KenLM reads it."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("file", "scores", "kenlm"), GOLDEN)
def test_scores_of_real_files(assets: Path, kind: str, file: str, scores: str, kenlm: bool) -> None:
    spec = f"{kind}:{assets / 'ngram' / file}"
    expected = json.loads((assets / "ngram" / scores).read_text("utf-8"))
    if kind == "kenlm" and not kenlm:
        with pytest.raises(ModelError, match="KenLM refuses .* Try arpa:"):
            load(spec)
        return
    if kind == "arpa" and file.endswith(".scorer"):
        with pytest.raises(ModelError, match="no ARPA file"):
            load(spec)
        return
    scorer: Any = load(spec)
    assert scorer.model.order == expected["order"]
    for item in expected["sentences"]:
        rule = Rule(item["bos"], item["eos"])
        score = one(NgramScorer(scorer.model, scorer.signature, rule), item["text"])
        wanted = np.array([row[0] for row in item["tokens"]])
        assert np.allclose(score.logprobs / LN10, wanted, rtol=1e-5, atol=0)
        assert [bool(flag) for flag in score.extras["oov"]] == [row[2] for row in item["tokens"]]
        assert score.totals.nll == pytest.approx(-LN10 * item["log10_total"], rel=1e-5)


def test_published_scores(assets: Path) -> None:
    """KenLM's own ``lm/model_test.cc``, and flashlight-text's ``test_decoder.py``."""
    for kind in KINDS:
        expected = json.loads((assets / "ngram/kenlm/expected.json").read_text("utf-8"))
        scorer: Any = load(f"{kind}:{assets / 'ngram/kenlm/test.arpa'}")
        chain = expected["upstream_model_test_cc"]["Continuation (state starts at <s>)"]
        words = " ".join(word for word, *_ in chain[:-1])
        found = one(scorer, words).logprobs / LN10
        # Theirs adds -20 for a word that this model lists so.
        assert np.allclose(found, [value for *_, value in chain], rtol=1e-5, atol=0)
        upstream = json.loads((assets / "ngram/flashlight/expected.json").read_text("utf-8"))
        scorer = load(f"{kind}:{assets / 'ngram/flashlight/lm.arpa.gz'}")
        totals = one(scorer, upstream["upstream"]["sentence"]).totals
        assert -totals.nll / LN10 == pytest.approx(-19.5123, abs=5e-5)


@pytest.mark.parametrize("name", ["test.arpa", "test_nounk.arpa", "toy0.arpa", "toy1.arpa"])
def test_the_twins_agree_on_files_that_both_read(assets: Path, name: str) -> None:
    path = assets / "ngram/kenlm" / name
    text = "looking on a little the biarritz not_found more .\n\na b a b c\nthe zz\tzz little"
    kenlm, arpa = (load(f"{kind}:{path}") for kind in KINDS)
    same(table(one(arpa, text)), table(one(kenlm, text)), 1e-6)
    assert kenlm.notes == arpa.notes and bool(arpa.notes) == (name == "test_nounk.arpa")  # type: ignore[attr-defined]


@MANY
@given(
    st.integers(0, 1 << 30),
    st.integers(2, 5),
    st.booleans(),
    st.booleans(),
    texts,
    st.booleans(),
    st.booleans(),
)
def test_both_kinds_equal_a_plain_loop(
    tmp_path: Path,
    seed: int,
    order: int,
    unknown: bool,
    gaps: bool,
    text: str,
    eos: bool,
    document: bool,
) -> None:
    path = tmp_path / "m.arpa"
    drawn = arpas.draw(seed, WORDS, order, unknown, gaps)
    written = arpas.write(drawn, order)
    path.write_text(written, "utf-8")
    expected = arpas.rows(arpas.parse(written), order, text, eos, document)
    for kind in KINDS:
        segment = "document" if document else "lines"
        try:
            scorer = load(f"{kind}:{path}", eos=eos, segment=segment)
        except ModelError as problem:
            assert kind == "kenlm" and "Avoid pruning" in str(problem)
            continue
        score = one(scorer, text)
        found = table(score)
        if document and eos and text:
            # What stands behind the last word is the end's, as in a line.
            assert found[-1][1] == len(text)
        same(found, expected)
        if eos:
            assert score.totals.bytes == len(text.encode()) or not found
            assert score.totals.tokens_skipped == 0
    path.write_text(arpas.write(drawn, order, " ", "by hand\n\n"), "utf-8")
    same(table(one(load(f"arpa:{path}", eos=eos, segment=segment), text)), expected)


@MANY
@given(st.lists(texts, min_size=1, max_size=6), st.sampled_from(["lines", "document"]))
def test_texts_cut_together_are_cut_as_each_alone(many: list[str], segment: str) -> None:
    made = lines.cut(many, segment)
    assert made.lossy == [lines.cut([text], segment).lossy[0] for text in many]
    for number, text in enumerate(many):
        alone = lines.cut([text], segment)
        rows = slice(made.bounds[number], made.bounds[number + 1])
        assert np.array_equal(made.offsets[rows], alone.offsets)
        assert np.array_equal(made.ends[rows], alone.ends)
        pieces = [bytes(line).split() for line in alone.lines]
        back = "\n".join(" ".join(word.decode() for word in piece) for piece in pieces)
        if segment == "lines" and "\0" not in text:
            assert alone.lossy[0] == (back != text.removesuffix("\n"))
        elif "\0" not in text and pieces:
            assert alone.lossy[0] == (b" ".join(pieces[0]).decode() != text.removesuffix("\n"))


def test_a_context_leaves_its_last_line_open(toy: Path) -> None:
    for kind in KINDS:
        scorer = load(f"{kind}:{toy}")
        whole = one(scorer, "cat\nthe cat the\ncat é").logprobs
        part = one(scorer, "the\ncat é", context="cat\nthe cat ").logprobs
        assert np.allclose(part, whole[4:], rtol=1e-6)
        fresh = one(scorer, "the\ncat é", context="cat\nthe cat\n").logprobs
        assert np.array_equal(fresh, one(scorer, "the\ncat é").logprobs)
        mixed = [Document("a", "é"), Document("b", "the", context="the cat "), Document("c", "é\n")]
        apart = [one(scorer, d.text, context=d.context).logprobs for d in mixed]
        for score, alone in zip(scorer.score(mixed), apart, strict=True):
            assert np.array_equal(score.logprobs, alone)


def test_what_is_scored(toy: Path) -> None:
    text = "the cat  \n\n \nthe é"
    scorer = load(f"kenlm:{toy}")
    everything = one(scorer, text)
    assert [t.text for t in everything.tokens] == [
        "the", "cat", "  \n", "\n", " \n", "the", "é", ""
    ]  # fmt: skip
    assert everything.lossy and not one(scorer, "the cat\n\nthe é").lossy
    without = one(load(f"kenlm:{toy}", eos="no"), text)
    assert [t.text for t in without.tokens] == ["the", "cat", "the", "é"]
    assert without.totals.bytes == 13 and without.totals.tokens_skipped == 0
    skipped = one(load(f"kenlm:{toy}", blank="skip"), text)
    assert [t.text for t in skipped.tokens] == ["the", "cat", "  \n", "the", "é", ""]
    assert skipped.totals.bytes == 16
    part = one(scorer, text, scored=((4, 7), (13, 16)))
    assert np.array_equal(
        np.isnan(part.logprobs), [True, False, True, True, True, False, True, True]
    )
    assert part.totals.tokens == 2 and part.totals.tokens_skipped == 0 and part.totals.bytes == 6
    assert one(scorer, "").totals.tokens == 0
    start = one(load(f"kenlm:{toy}", bos=False), "the cat")
    assert start.logprobs[0] != one(scorer, "the cat").logprobs[0]


def test_the_signature_says_what_changes_the_number(toy: Path) -> None:
    plain = load(f"kenlm:{toy}").signature
    assert plain["kind"] == "kenlm" and plain["model"] == "toy.arpa" and plain["order"] == "3"
    assert plain["eos"] == "scored" and plain["segment"] == "lines" and plain["unit"] == "word"
    assert load(f"arpa:{toy}").signature["weights"] == plain["weights"]
    lines_ = {
        str(load(f"kenlm:{toy}", **more).signature)
        for more in ({}, {"eos": "no"}, {"bos": "no"}, {"segment": "document"}, {"blank": "skip"})
    }
    assert len(lines_) == 5


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"text": "a \ud800 b"}, "lone surrogate, U\\+D800, at character 2"),
        ({"text": "", "ids": np.array([1])}, "token ids"),
        ({"text": "a", "windows": ((0, 0, 1),)}, "windows"),
        ({"text": "", "metadata": {"messages": []}}, "chat messages"),
    ],
)
def test_documents_that_cannot_be_read(toy: Path, more: dict[str, Any], said: str) -> None:
    scorer = load(f"kenlm:{toy}")
    bad = Document("bad", **more)
    with pytest.raises(InputError, match=said):
        list(scorer.score([bad]))
    stream = scorer.score([Document("good", "the"), bad])
    assert next(stream).id == "good"
    with pytest.raises(InputError):
        next(stream)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eos": "perhaps"}, "neither yes nor no"),
        ({"segment": "words"}, "neither lines nor document"),
        ({"blank": "x"}, "neither scored nor skip"),
        ({"stride": 5}, "no setting stride"),
        ({"dtype": "float16"}, "no setting dtype"),
    ],
)
def test_settings_that_there_are_none_of(toy: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(f"kenlm:{toy}", **options)
    with pytest.raises(InputError, match="no column 'rank'"):
        list(load(f"arpa:{toy}").score([Document("x", "a")], want=("rank",)))


def test_a_cutter_of_its_own(toy: Path) -> None:
    """The seam for bundles: sentences and words made elsewhere, with places in the source."""

    def cut(text: str) -> list[Line]:
        middle = len(text) // 2
        return [Line(("the", "c t", "", "é\0"), np.array([[0, 1], [1, 2], [2, 2], [2, 3]]), (3, 4)),
                Line((), np.empty((0, 2)), (middle, len(text)))]  # fmt: skip

    base: Any = load(f"arpa:{toy}")
    scorer = NgramScorer(base.model, base.signature, Rule(), cut)
    score = one(scorer, "abcdefgh")
    expected = one(base, "the <unk> <unk> <unk>\n\n")
    assert np.array_equal(score.logprobs, expected.logprobs)
    assert score.extras["oov"].tolist() == [0, 1, 1, 1, 0, 0] and score.lossy is None
    assert score.offsets.tolist()[-2:] == [[3, 4], [4, 8]]


def test_reports_count_unknown_words(toy: Path, tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    rows = [
        {"text": "the cat zz\n", "g": "a"},
        {"text": "é the\ncat", "g": "b"},
        {"text": "yy", "g": "a"},
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    words = ["eval", "--model", f"kenlm:{toy}", "--data", str(data), "--group-by", "g", "--json"]
    out = [CliRunner().invoke(app, [*words, "--out", str(tmp_path / "run")]) for _ in range(2)]
    assert out[0].exit_code == 0, out[0].output
    assert out[0].stdout == out[1].stdout
    found = json.loads(out[0].stdout)
    part = found["oov"]
    scores = list(load(f"arpa:{toy}").score(Document("x", row["text"]) for row in rows))
    pairs = [
        pair for score in scores for pair in zip(score.logprobs, score.extras["oov"], strict=True)
    ]
    unknown = [-p for p, flag in pairs if flag]
    known = [-p for p, flag in pairs if not flag]
    assert part["tokens"] == len(unknown) == 2 and part["known"] == len(known)
    assert part["nll"] == pytest.approx(sum(unknown), rel=1e-6)
    assert part["metrics"]["oov_rate"] == 2 / len(pairs)
    alone = math.exp(sum(known) / len(known))
    assert part["metrics"]["perplexity_without_oov"] == pytest.approx(alone, rel=1e-6)
    assert [group["oov"]["tokens"] for group in found["groups"]] == [2, 0]
    assert any("unknown to the model" in note for note in found["notes"])
    again = report.from_json(found)
    assert again.oov is not None and again.oov.tokens == 2 and again.to_json()["oov"] == part
    page = tmp_path / "page.html"
    shows = [CliRunner().invoke(app, ["show", str(tmp_path / "run"), *more]).output
             for more in ((), ("--md",), ("--csv",), ("--html", str(page)))]  # fmt: skip
    assert "unknown words" in shows[0] and "unknown words" in shows[1] and "oov_rate" in shows[2]
    assert "unknown words" in page.read_text("utf-8")
    words = CliRunner().invoke(app, ["show", str(tmp_path / "run"), "--explain"]).output
    assert "no length of a code" in words and "Used as a compressor" not in words


def test_sums_of_unknown_words_add_up() -> None:
    a, b = oov.Oov(1, 2.0, 3, 4.0), oov.Oov(0, 0.0, 2, 1.0)
    assert a + b == oov.Oov(1, 2.0, 5, 5.0) and oov.plus(None, a) == a
    assert math.isnan(oov.Oov().metrics["oov_rate"]) and oov.note(b) == []
    assert oov.from_json(oov.Oov(1, math.inf, 0, 0.0).to_json()) == oov.Oov(1, math.inf, 0, 0.0)


def test_comparing_needs_the_same_unknown_words(toy: Path, tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    texts = ["the cat\n", "é the cat", "the the", "cat zz", "日本 the"]
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    small = tmp_path / "small.arpa"
    small.write_text(arpas.write(arpas.draw(5, WORDS[:2], 2), 2), "utf-8")
    for name, spec in (("a", f"kenlm:{toy}"), ("b", f"arpa:{toy}"), ("c", f"arpa:{small}")):
        words = ["eval", "--model", spec, "--data", str(data), "--out", str(tmp_path / name)]
        assert CliRunner().invoke(app, words).exit_code == 0
    run = CliRunner()
    assert run.invoke(app, ["compare", str(tmp_path / "a"), str(tmp_path / "b")]).exit_code == 0
    two = ["compare", str(tmp_path / "a"), str(tmp_path / "c")]
    refused = run.invoke(app, two)
    assert isinstance(refused.exception, fw.FairwayError) and "--allow oov" in str(
        refused.exception
    )
    assert "allowed to differ: oov" in run.invoke(app, [*two, "--allow", "oov"]).output


def test_no_other_library_is_imported(toy: Path) -> None:
    code = (
        "import sys, fairway\n"
        f"scorer = fairway.load('arpa:{toy}')\n"
        "list(scorer.score([fairway.Document('x', 'the cat')]))\n"
        "print([m for m in ('torch', 'transformers', 'kenlm', 'zstandard') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_compressed_files(toy: Path, tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    data = toy.read_bytes()
    (tmp_path / "m.gz").write_bytes(gzip.compress(data))
    (tmp_path / "m.zst").write_bytes(zstandard.compress(data))
    expected = one(load(f"kenlm:{toy}"), "the cat é").logprobs
    for kind in KINDS:
        for name in ("m.gz", "m.zst"):
            found = one(load(f"{kind}:{tmp_path / name}"), "the cat é").logprobs
            assert np.allclose(found, expected, rtol=1e-6)
        for cut in (30, len(data) // 4):
            (tmp_path / "cut.gz").write_bytes(gzip.compress(data)[:cut])
            with pytest.raises(ModelError, match="cut.gz cannot be"):
                load(f"{kind}:{tmp_path / 'cut.gz'}")
