"""Bundles: made, loaded, checked; the tools' numbers; damage; what does not fit is told."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import ngrams
from fairway.api import evaluate
from fairway.backends.ngram import lines
from fairway.cli import app
from fairway.corpus import Document, read
from fairway.errors import InputError, ModelError
from fairway.ngram.bundles import load, manifest
from fairway.ngram.bundles.calibration import Calibration, Figure, calibrate
from fairway.ngram.bundles.cutting import cutter
from fairway.ngram.bundles.making import Plan, make
from fairway.ngram.bundles.tokenisers import load as tokeniser
from fairway.ngram.normalisers import named
from fairway.report import summarize
from fairway.scores import Totals
from fairway.text import close_gaps, mark

kenlm = pytest.importorskip("kenlm", reason="KenLM's module is not installed")
pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")

TRAIN = ngrams.sentences(1500, 4)
ODD = "Café prices rose 12.5% in 2024.\nThe end of line one\nNext line: see １ item."


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return ngrams.parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def ready(parts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ngrams.bundle(parts, tmp_path_factory.mktemp("bundles") / "ready")


def bundle(parts: dict[str, Path], out: Path, normaliser: str, **more: Any) -> Path:
    make(Plan(parts["pieces"], normaliser, tokeniser=str(parts["sp"]), **more), out)
    return out


TEXTS = (
    ODD,
    "the cat sat on a mat\n\nand every dog\n",
    "  été or Été, says Zoë \r\n (who knows) \x85 of 7 towns",
    "１２３ mice — ran after « 99.5 » dogs…",
)


def ccnet(text: str, sp: Callable[[str], list[str]], model: Any, lines: list[str]) -> float:
    """The loop of cc_net and its heirs: ``10 ** (-log10 / (words + 1 per line))``."""
    total, length = 0.0, 0
    for line in lines:
        total += sum(row[0] for row in model.full_scores(line))
        length += len(line.split()) + 1
    return 10.0 ** (-total / length)


@pytest.mark.parametrize("name", ["ccnet", "edugp", "datatrove", "ccnet-fixed", "data-juicer"])
def test_perplexity_is_the_tools(name: str, parts: dict[str, Path], tmp_path: Path) -> None:
    scorer = load(str(bundle(parts, tmp_path / "b", name)))
    sp, model = ngrams.pieces(parts["sp"]), kenlm.Model(str(parts["pieces"]))
    for text in TEXTS:
        changed = named(name)(text).text
        if name == "ccnet-fixed":
            lines = [" ".join(sp(one)) for one in changed.removesuffix("\n").split("\n")]
        elif name == "data-juicer":
            lines = " ".join(sp(text)).splitlines()
        else:
            lines = " ".join(sp(changed)).split("\n")
        score = next(iter(scorer.score([Document("1", text)])))
        report = summarize([score], scorer.signature)
        assert report.metrics["perplexity"] == pytest.approx(
            ccnet(text, sp, model, lines), rel=1e-12
        )
        assert report.totals.bytes == len(text.encode())
        # The tools' own call, which adds up float32.
        assert -score.totals.nll / math.log(10) == pytest.approx(
            sum(model.score(line) for line in lines), rel=1e-5
        )


@pytest.mark.parametrize("name", ["test_model", "test_ja_model"])
def test_perplexity_with_models_of_the_world(name: str, assets: Path, tmp_path: Path) -> None:
    book = "books/botchan" if name == "test_model" else "multilingual/ja_wagahai"
    texts = [
        one.text for one in read(assets / "corpora" / f"{book}.txt.gz", split="lines", limit=400)
    ]
    model = assets / "tokenizers" / "sentencepiece" / f"{name}.model"
    sp, normalise = ngrams.pieces(model), named("edugp")
    (tmp_path / "lm.arpa").write_text(
        ngrams.arpa(sp(normalise(text).text) for text in texts[:300]), "utf-8"
    )
    make(Plan(tmp_path / "lm.arpa", "edugp", tokeniser=str(model)), tmp_path / "b")
    reference = kenlm.Model(str(tmp_path / "lm.arpa"))
    scores = load(str(tmp_path / "b")).score([Document("1", text) for text in texts])
    for text, score in zip(texts, scores, strict=True):
        line = " ".join(sp(normalise(text).text))
        assert score.metrics["perplexity"] == pytest.approx(
            ccnet(text, sp, reference, [line]), rel=1e-12
        )


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("the mat\n \t\x00é\u3000\u00a0"), min_size=1, max_size=40))
@pytest.mark.parametrize("segment", ["lines", "document"])
def test_words_as_they_are_are_kenlms(parts: dict[str, Path], segment: str, text: str) -> None:
    found = cutter(named("none"), tokeniser("none"), segment)(text)
    expected = lines.cut([text], segment)
    assert [" ".join(one.words).encode() for one in found if "\0" not in text] == [
        b" ".join(one.split()) for one in expected.lines if "\0" not in text
    ]
    spans = [span for one in found for span in (*one.offsets.tolist(), list(one.end))]
    words = ~expected.ends
    assert np.array_equal(np.array(spans)[words], expected.offsets[words])


def test_line_breaks_that_a_tokeniser_leaves() -> None:
    def words(text: str) -> Any:
        # A tokeniser of single characters, as unknown pieces come.
        from fairway.ngram.bundles.tokenisers import Pieces

        places = np.arange(len(text))
        return Pieces(list(text), places, places + 1)

    cut = cutter(named("data-juicer"), words, "pieces")
    for text in ("ab\ncd", "a\n", "\n", "\n\nb", "a\u2028b\x85c\x1cd", "a\tb \n c", "a\n \nb\n "):
        joined = " ".join(text)
        lines = cut(text)
        assert [list(line.words) for line in lines] == [
            one.encode().split() and [w.decode() for w in one.encode().split()]
            for one in joined.splitlines()
        ]
    first, second = cut("ab\ncd")
    assert first.end == (2, 3) and second.end == (5, 5)
    assert second.offsets.tolist() == [[3, 4], [4, 5]]
    assert cut("") == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.text(
        st.one_of(st.characters(codec="utf-8"), st.sampled_from("ab 12.5\n\r\t\x00é\u0301—…Σ")),
        min_size=1, max_size=50,
    ),
    normaliser=st.sampled_from(["none", "ccnet", "ccnet-fixed", "edugp", "datatrove"]),
    segmenter=st.sampled_from(["document", "lines", "pieces"]),
    kind=st.sampled_from(["none", "whitespace", "sentencepiece"]),
)  # fmt: skip
@example(text="\x00", normaliser="ccnet", segmenter="lines", kind="sentencepiece")
def test_every_byte_is_covered_once(
    parts: dict[str, Path], text: str, normaliser: str, segmenter: str, kind: str
) -> None:
    lines = cutter(named(normaliser), tokeniser(kind, parts["sp"]), segmenter)(text)
    spans = [span for line in lines for span in (*line.offsets.tolist(), list(line.end))]
    for line in lines:
        assert len(line.words) == len(line.offsets)
        assert all(word.encode().split() == [word.encode()] for word in line.words)
    starts = [start for start, _ in spans]
    assert starts == sorted(starts)
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    if spans:
        closed = close_gaps(np.array(spans), len(text))
        assert mark(closed, len(text)).all()


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("the  mat 12é\n")), max_size=40)
)
def test_places_are_sentencepieces(parts: dict[str, Path], text: str) -> None:
    import sentencepiece

    found = tokeniser("sentencepiece", parts["sp"])(text)
    model = sentencepiece.SentencePieceProcessor(model_file=str(parts["sp"]))
    expected = model.encode(text, return_type="offset_mapping")
    assert found.words == expected["pieces"] == model.encode_as_pieces(text)
    assert list(zip(found.begins, found.stops, strict=True)) == expected["offsets"]


def test_offsets_show_the_source(ready: Path) -> None:
    score = next(iter(load(str(ready)).score([Document("1", "Zoë  (12.5% « été)")])))
    text = score.text
    assert "".join(text[a:b] for a, b in close_gaps(score.offsets, len(text))) == text
    assert {"Z", "(", "1", "%", "«"} <= {one for token in score.tokens for one in token.text}


def test_a_bundle_keeps_what_it_was_made_with(ready: Path, parts: dict[str, Path]) -> None:
    found = manifest.read(ready)
    assert manifest.parse(json.loads(json.dumps(found.to_json()))) == found
    assert found.segmenter == "document" and found.tokeniser == "sentencepiece"
    assert {path.name for path in ready.iterdir()} == {"bundle.json", "pieces.arpa", "sp.model"}
    assert (ready / "pieces.arpa").stat().st_ino == parts["pieces"].stat().st_ino
    assert found.calibration is not None and found.calibration.documents == 1500
    signature = load(str(ready)).signature
    assert signature["kind"] == "ngram" and signature["normaliser"] == "ccnet"
    assert signature["weights"] == found.lm.sha256[:12]
    assert signature["segment"] == "document"


def test_making_refuses(parts: dict[str, Path], ready: Path, tmp_path: Path) -> None:
    plan = Plan(parts["pieces"], "ccnet", tokeniser=str(parts["sp"]))
    with pytest.raises(InputError, match="is there already"):
        make(plan, ready)
    with pytest.raises(InputError, match=r"too short to calibrate by: .* bytes"):
        make(plan, tmp_path / "a", read([Document("1", "the cat")]))
    with pytest.raises(InputError, match="is no file"):
        make(Plan(tmp_path / "none.arpa"), tmp_path / "a")
    with pytest.raises(ModelError, match="no SentencePiece model"):
        make(Plan(parts["pieces"], tokeniser=str(parts["pieces"])), tmp_path / "a")
    with pytest.raises(ModelError, match=r"sp\.model is no ARPA file"):
        make(Plan(parts["sp"]), tmp_path / "a")
    with pytest.raises(InputError, match="is no segmenter"):
        make(Plan(parts["pieces"], segmenter="words"), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_context_is_read_and_not_scored(
    ready: Path, parts: dict[str, Path], tmp_path: Path
) -> None:
    sp, model = ngrams.pieces(parts["sp"]), kenlm.Model(str(parts["pieces"]))
    before, text = "the cat sat on", "a mat and"
    score = next(iter(load(str(ready)).score([Document("1", text, before)])))
    rows = list(model.full_scores(" ".join([*sp(before), *sp(text)])))
    expected = [row[0] * math.log(10) for row in rows][len(sp(before)) :]
    assert score.logprobs == pytest.approx(expected, rel=1e-12)


def test_a_changed_text_is_told(ready: Path) -> None:
    report = evaluate(f"ngram:{ready}", ["the cat sat", "The cat", "the 0 mats", "12 mats"])
    assert any("does not give 2 of 4 texts back unchanged" in note for note in report.notes)


def test_a_resumed_run_gives_the_same_report(ready: Path, tmp_path: Path) -> None:
    texts = [*ngrams.sentences(40, 9), "QXZ 漢字"]
    whole = evaluate(f"ngram:{ready}", texts)
    first = evaluate(f"ngram:{ready}", texts, out=tmp_path / "run")
    again = evaluate(f"ngram:{ready}", texts, out=tmp_path / "run")
    assert whole.to_json() == first.to_json() == again.to_json()


def test_without_kenlm(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = Document("1", ODD)
    expected = next(iter(load(str(ready)).score([document])))
    monkeypatch.setitem(sys.modules, "kenlm", None)
    # Its golden scores are those that KenLM gave.
    found = next(iter(load(str(ready)).score([document])))
    assert found.logprobs == pytest.approx(expected.logprobs, rel=1e-6)
    assert np.array_equal(found.offsets, expected.offsets)


def test_a_bundle_with_a_tokenizer_of_hugging_face(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    model = library.Tokenizer(library.models.BPE())
    model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, show_progress=False, special_tokens=["<|end|>"]
    )
    model.train_from_iterator(TRAIN, trainer)
    model.save(str(tmp_path / "tokenizer.json"))
    cut = [model.encode(text).tokens for text in TRAIN]
    (tmp_path / "lm.arpa").write_text(ngrams.arpa(cut), "utf-8")
    plan = Plan(tmp_path / "lm.arpa", tokeniser=str(tmp_path / "tokenizer.json"), eos=False)
    made = make(plan, tmp_path / "b")
    assert made.tokeniser == "hf" and made.segmenter == "lines"
    text = "the cat  sat\n\nZoë 漢字 — 12.5%\t"
    score = next(iter(load(str(tmp_path / "b")).score([Document("1", text)])))
    reference = kenlm.Model(str(tmp_path / "lm.arpa"))
    lines = [model.encode(line).tokens for line in text.split("\n")]
    rows = [row[0] for line in lines for row in reference.full_scores(" ".join(line), True, False)]
    assert score.logprobs / math.log(10) == pytest.approx(rows, rel=1e-12)
    # Line ends are not scored, and their bytes not counted.
    assert score.totals.bytes == len(text.encode()) - 2
    broken = tmp_path / "broken.json"
    broken.write_text((tmp_path / "tokenizer.json").read_text("utf-8")[:-5], "utf-8")
    with pytest.raises(ModelError, match=r"broken\.json is no tokenizer\.json"):
        make(Plan(tmp_path / "lm.arpa", tokeniser=str(broken)), tmp_path / "c")


def said(folder: Path, texts: list[str]) -> list[str]:
    """What a report of these texts says."""
    report = evaluate(f"ngram:{folder}", texts)
    return [note for note in report.notes if "against" in note]


def test_text_that_does_not_fit_is_told(ready: Path) -> None:
    assert said(ready, ngrams.sentences(300, 9)) == []
    (note,) = said(ready, ["彼は「はい」と言った。価格は１２３円です！" * 5])
    assert re.search(
        r"OOV \d\d% against 0%.* \(on reference\.jsonl\): this text is unlike what", note
    )
    scorer = load(str(ready))
    usual = manifest.read(ready).calibration
    assert usual is not None
    tokens = round(usual.figures["tokens_per_byte"].value * 50_000)
    (note,) = scorer.remarks(Totals(0.05 * math.log(2) * 50_000, tokens, bytes=50_000), 0)
    assert re.search(r"^0\.05 bits per byte against .*: this text repeats itself", note)
    # One unknown letter in a few words is no evidence.
    assert said(ready, ["the cat sat on a ж mat"]) == []


def test_text_that_was_not_normalised_is_told(parts: dict[str, Path], tmp_path: Path) -> None:
    normalise = named("ccnet")
    documents = [Document(str(i), normalise(t).text) for i, t in enumerate(TRAIN)]
    make(Plan(parts["words"]), tmp_path / "b", read(documents))
    (note,) = said(tmp_path / "b", [text.upper() for text in ngrams.sentences(300, 9)])
    assert "this text was probably not normalised for this model" in note


def test_what_was_scored_before_is_judged_too(ready: Path, tmp_path: Path) -> None:
    texts = ["QXZ " * 40 + str(number) for number in range(40)]
    first, again = (evaluate(f"ngram:{ready}", texts, out=tmp_path / "run") for _ in range(2))
    assert any("against" in note for note in first.notes)
    assert any("against" in note for note in again.notes)


def test_calibration_is_sums_of_pieces(ready: Path) -> None:
    scorer = load(str(ready))
    scores = list(scorer.score([Document(str(i), t) for i, t in enumerate(TRAIN)]))
    sums, figures = calibrate("r", iter(scores))
    assert sums.documents == 1500
    nll = -math.fsum(math.fsum(score.logprobs.tolist()) for score in scores)
    size = sum(len(score.text.encode()) for score in scores)
    assert figures["bits_per_byte"].value == pytest.approx(nll / math.log(2) / size, rel=1e-12)
    known = manifest.read(ready).calibration
    assert known is not None and known.figures == figures
    pieces: list[float] = []
    held = [0.0, 0]
    for score in scores:
        held = [held[0] - score.logprobs.sum(), held[1] + len(score.text.encode())]
        if held[1] >= 4096:
            pieces.append(held[0] / held[1] / math.log(2))
            held = [0.0, 0]
    mean = sum(pieces) / len(pieces)
    spread = math.sqrt(sum((one - mean) ** 2 for one in pieces) / (len(pieces) - 1))
    assert figures["bits_per_byte"].spread == pytest.approx(spread, rel=1e-9)


def test_evidence_grows_with_the_text() -> None:
    figure = {"oov": Figure(0.03, 0.01), "bits_per_byte": Figure(2.0, 0.2)}
    known = Calibration("r", "0", 9, 90000, 9000, figure)

    def told(tokens: int, oov: float, bits: float) -> list[str]:
        size = tokens * 5
        sums = Totals(bits * size * math.log(2), tokens, bytes=size)
        return known.evidence(sums, round(oov * tokens))

    assert told(100000, 0.41, 7.0) == ["OOV 41% against 3%", "7 bits per byte against 2"]
    assert told(100000, 0.07, 2.9) == []
    assert told(4, 0.25, 5.0) == [] and told(0, 0, 0) == []
    assert told(10, 0.2, 2.0) == [] and told(100, 0.41, 2.0) == ["OOV 41% against 3%"]


def test_the_command_line(parts: dict[str, Path], tmp_path: Path) -> None:
    run = CliRunner().invoke
    words = ["ngram", "bundle", "--lm", str(parts["pieces"]), "--tokenizer", str(parts["sp"]),
             "--normaliser", "ccnet", "--setting", "digits=yes", "--reference",
             str(parts["reference"]), "--out", str(tmp_path / "b"), "--json"]  # fmt: skip
    done = run(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    made = json.loads(done.stdout)
    assert made["normaliser"] == {"name": "ccnet", "settings": {"digits": True}}
    done = run(app, ["eval", "--model", f"ngram:{tmp_path}/b", "--data", str(parts["reference"]),
                     "--out", str(tmp_path / "run"), "--json"], catch_exceptions=False)  # fmt: skip
    report = json.loads(done.stdout)
    assert "normaliser:ccnet,digits=yes" in report["signature"]
    assert report["metrics"]["documents"] == 1500
    done = run(
        app, ["score", "--model", f"ngram:{tmp_path}/b", "彼は「はい」と言った。" * 9, "--json"]
    )
    assert any("OOV" in note for note in json.loads(done.stdout)["notes"])
    with pytest.raises(InputError, match="is there already"):
        run(app, words, catch_exceptions=False)
