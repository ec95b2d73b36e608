"""Where two models differ: pieces add up to the text, groups and extremes to the difference."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import fairway
from fairway import comparable, comparison, where
from fairway.cli import app
from fairway.errors import InputError
from fairway.render import charts, verdict
from fairway.segments import Tokens, align
from models import build, tokenizer

TEXTS = [
    "The cat sat, 12 times.",
    "Привет, мир! 🐕 e\u0301\n\nx",
    "  two  blanks\tand tabs ",
    "猫が座った。",
]


def tokens(cuts: list[int], length: int, nll: float) -> Tokens:
    """Cut a text at places; each token costs its number times ``nll``."""
    edges = sorted({0, length, *(cut for cut in cuts if 0 < cut < length)})
    offsets = np.array(list(zip(edges, edges[1:], strict=False)), dtype=np.int64).reshape(-1, 2)
    return Tokens(offsets, -nll * np.arange(1, len(offsets) + 1, dtype=np.float64))


@settings(max_examples=150, deadline=None)
@given(
    st.text(min_size=1, max_size=40),
    st.lists(st.integers(1, 39), max_size=12),
    st.lists(st.integers(1, 39), max_size=12),
)
def test_pieces_are_the_coarsest_common_cut(text: str, a: list[int], b: list[int]) -> None:
    first, second = tokens(a, len(text), 0.7), tokens(b, len(text), 1.3)
    pieces = align(text, first, second)
    assert "".join(pieces.pieces()) == text
    ends = [{int(end) for _, end in one.offsets} for one in (first, second)]
    assert set(pieces.ends.tolist()) == ends[0] & ends[1]
    assert pieces.bytes.sum() == len(text.encode("utf-8", "surrogatepass"))
    for own, one in ((pieces.first, first), (pieces.second, second)):
        assert math.fsum(own) == pytest.approx(-math.fsum(one.logprobs), abs=1e-9)
        # Each piece by itself, by a plain loop over tokens.
        for start, end, nats in zip(pieces.starts, pieces.ends, own, strict=True):
            inside = [
                -p
                for (s, e), p in zip(one.offsets, one.logprobs, strict=True)
                if s >= start and e <= end
            ]
            assert nats == pytest.approx(math.fsum(inside))


def test_tokens_of_one_character_stay_together() -> None:
    """Four tokens of a dog, each with the character's span; a blank that no token claims."""
    text = "a 🐕b"
    split = Tokens(np.array([(0, 1), (2, 3), (2, 3), (2, 3), (3, 4)]), -np.array([1.0, 2, 3, 4, 5]))
    whole = Tokens(np.array([(0, 1), (1, 3), (3, 4)]), -np.array([1.0, 2, 3]))
    pieces = align(text, split, whole)
    assert list(pieces.pieces()) == ["a", " 🐕", "b"]
    assert pieces.first.tolist() == [1, 9, 5] and pieces.bytes.tolist() == [1, 5, 1]


def test_what_is_not_scored_has_no_bytes() -> None:
    first = Tokens(np.array([(0, 1), (1, 2)]), np.array([np.nan, -1.0]))
    second = Tokens(np.array([(0, 1), (1, 2)]), np.array([-3.0, -2.0]))
    pieces = align("ab", first, second)
    assert pieces.bytes.tolist() == [0, 1] and pieces.first.tolist() == [0, 1]
    nothing = Tokens(np.zeros((0, 2), np.int64), np.zeros(0))
    assert len(align("", nothing, nothing)) == 0


@pytest.mark.parametrize(
    ("piece", "kind"),
    [
        (" the", "Latin letters"), ("é", "Latin letters"), ("e\u0301", "Latin letters"),
        ("мир", "Cyrillic letters"), ("猫", "CJK letters"), ("ก", "Thai letters"), ("42", "digits"),
        ("\n\n", "line breaks"), (" \t", "blanks"), (" ,", "punctuation"), ("a1", "mixed"),
        ("🐕", "symbols"), ("€", "symbols"), ("$", "punctuation"),
    ],
)  # fmt: skip
def test_kinds(piece: str, kind: str) -> None:
    assert where.kind(piece) == kind


@pytest.fixture(scope="module")
def runs(small: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("where")
    other = folder / "other"
    build("gpt2").save_pretrained(other)
    tokenizer(adds=True).save_pretrained(other)
    rows = [{"text": text * (1 + n % 3), "kind": "ab"[n % 2]} for n, text in enumerate(TEXTS * 3)]
    data = folder / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    for name, model in (("a", small), ("b", str(other)), ("c", "hf:builtin")):
        fairway.evaluate(model, data, group_by="kind", texts=True, out=folder / name)
    fairway.evaluate(small, data, out=folder / "bare")
    return folder


@pytest.mark.parametrize("second", ["b", "c"])
def test_every_way_of_grouping_adds_up_to_the_difference(runs: Path, second: str) -> None:
    a, b = comparable.read(runs / "a"), comparable.read(runs / second)
    found = where.locate(a, b)
    totals = a.report.totals.nll, b.report.totals.nll
    for parts in (found.kinds, found.places, found.words):
        assert math.fsum(one.first for one in parts) == pytest.approx(totals[0], abs=1e-9)
        assert math.fsum(one.second for one in parts) == pytest.approx(totals[1], abs=1e-9)
        assert sum(one.bytes for one in parts) == a.report.totals.bytes
    for among in (found.documents, found.spans, found.texts):
        apart = (among.gained + among.lost) / math.log(2)
        assert apart == pytest.approx((totals[1] - totals[0]) / math.log(2), abs=1e-9)
        for gains, order in ((among.better, 1), (among.worse, -1)):
            values = [one.apart for one in gains]
            assert values == sorted(values, reverse=order < 0)
            assert all(value * order < 0 for value in values)
            assert sum(map(among.share, gains)) <= 1 + 1e-9
    assert [one.name for one in found.words][-1] == "no word"
    plain = found.to_json()
    assert json.loads(json.dumps(plain))["spans"]["worse"][0]["text"]


def test_documents_are_those_of_a_plain_sort(runs: Path) -> None:
    a, b = comparable.read(runs / "a"), comparable.read(runs / "b")
    found = where.locate(a, b).documents
    apart = sorted(y.totals.nll - x.totals.nll for x, y in comparable.match(a, b))
    worst = [one for one in reversed(apart) if one > 0][: where.MOST]
    assert [one.apart for one in found.worse] == pytest.approx(worst)


def test_runs_without_tokens_are_named(runs: Path) -> None:
    a, bare = comparable.read(runs / "a"), comparable.read(runs / "bare")
    with pytest.raises(InputError, match="bare has not kept its tokens.*--texts"):
        where.locate(a, bare)


class Page(HTMLParser):
    """Checks that tags are closed, and collects them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "line", "circle", "polygon"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_small_and_safe(runs: Path) -> None:
    a, b = comparable.read(runs / "a", "<script>x</script>"), comparable.read(runs / "b")
    item = comparison.compare(a, b)
    text = verdict.page([(item, where.locate(a, b)), (item, None)])
    page = Page()
    page.feed(text)
    assert not page.open and len(text) < 2_000_000
    tags = [tag for tag, _ in page.seen]
    assert "script" not in tags and "img" not in tags and tags.count("svg") == 5
    assert not re.search(r"(src|href)=|https?://|url\(|@import", text)
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text
    assert str(a.signature).split("|")[0] in text and "has not kept" not in text
    # A table beside every chart.
    assert tags.count("table") >= tags.count("svg")


def test_a_chart_holds_zero_and_says_its_numbers() -> None:
    spans = [
        charts.Span("a & b", 0.25, 0.1, 0.4, "worse"),
        charts.Span("one", -0.1, math.nan, math.nan, "undecided"),
    ]
    text = charts.intervals(spans, "bits")
    assert "a &amp; b" in text and 'aria-label="bits: a &amp; b +0.2500; one -0.1000"' in text
    assert ">0</text>" in text and "nan" not in text
    assert charts.intervals([charts.Span("none", 0.0, 0.0, 0.0, "undecided")], "bits")


def test_commands(runs: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    out = tmp_path / "page.html"
    words = ["compare", str(runs / "a"), str(runs / "b")]
    done = run(app, [*words, "--where", "--html", str(out)])
    assert done.exit_code == 0, done.output
    assert "Cyrillic letters" in done.output and "all spans alike" in done.output
    assert "Texts with the largest differences" in out.read_text("utf-8")
    data = json.loads(run(app, [*words, "--where", "--json"]).stdout)
    assert data["where"]["kinds"] and "where" not in json.loads(run(app, [*words, "--json"]).stdout)
    bare = run(app, ["compare", str(runs / "a"), str(runs / "bare"), "--html", str(out)])
    assert bare.exit_code == 0 and "eval --texts" in out.read_text("utf-8")
    rows = run(app, [*words, "--csv"]).stdout.splitlines()
    assert len(rows) == 4 and rows[0].count(",") == len(rows[0].split(",")) - 1
    found = fairway.compare(runs / "a", runs / "b").byte
    assert float(rows[1].split(",")[5]) == pytest.approx(found.value / math.log(2), rel=1e-15)
    tex = run(app, [*words, "--latex"]).stdout
    assert tex.startswith(r"\begin{tabular}") and tex.count(r"\\") == 3
    holm = json.loads(run(app, [*words, "--json"]).stdout)["groups"]["a"]
    other = json.loads(run(app, [*words, "--json", "--correct", "bh"]).stdout)["groups"]["a"]
    assert other["p_bh"] <= holm["p_holm"]


def test_the_gain_of_a_document_that_is_made_better(runs: Path) -> None:
    a = comparable.read(runs / "a")
    entry = a.records[0].entry
    assert entry is not None
    cheaper = [{**row, "logprob": (row["logprob"] or 0) / 2} for row in entry["tokens"]]
    records = (replace(a.records[0], entry={**entry, "tokens": cheaper}), *a.records[1:])
    found = where.locate(a, replace(a, records=records))
    assert [one.name for one in found.documents.better] == [a.records[0].id]
    assert not found.documents.worse and found.documents.share(found.documents.better[0]) == 1
