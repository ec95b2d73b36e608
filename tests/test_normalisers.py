"""Normalisers of other tools: their own outputs, a plain twin, and places in the source."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairway.errors import InputError
from fairway.ngram.normalisers import NORMALISERS, named
from fairway.ngram.normalisers.ccnet import PUNCTUATION
from fairway.ngram.normalisers.characters import MARKS, SPACE
from fairway.text import close_gaps, mark

GOLDEN = json.loads((Path(__file__).parent / "golden" / "normalisers.json").read_text("utf-8"))
ODD = "Café prices rose 12.5% in 2024.\nThe end of line one\nNext line: see １ item."
TEXTS = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from(
            "aÉéßİΣσΑ\u0301\u0327\u302e\U0001d165१7９.,٫—．…►“\n\r\t\x00\x1f\x85 \u00a0"
        ),
    ),
    max_size=60,
)


@pytest.mark.parametrize("name", ["ccnet", "ccnet-fixed", "edugp", "datatrove"])
def test_it_gives_what_the_tool_gives(name: str) -> None:
    normalise = named(name)
    for case in GOLDEN["cases"]:
        assert normalise(case["text"]).text == case[name], case["text"]


def test_the_odd_sentence() -> None:
    found = {name: named(name)(ODD).text for name in NORMALISERS}
    assert found == {
        "none": ODD,
        "ccnet": "cafe prices rose 00.0% in 0000.the end of line onenext line: see 0 item.",
        "ccnet-fixed": "cafe prices rose 00.0% in 0000.\nthe end of line one\n"
        "next line: see 0 item.",
        "edugp": "Café prices rose 00.0% in 0000.The end of line oneNext line: see 0 item.",
        "datatrove": "cafe prices rose 0% in 0.the end of line onenext line: see 0 item.",
        "data-juicer": ODD,
    }


def plain(text: str, lower: bool, accents: bool, number: str) -> str:
    """The rules, step by step over the whole text; punctuation is not looked up as there."""
    text = text.lower() if lower else text
    text = re.sub(number, "0", text)
    if not accents:
        text = "".join(
            c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn"
        )
    for old, new in PUNCTUATION.items():
        text = text.replace(old, new)
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "", text)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("ΑΣ\u0301 İΣ")
@example("\u302e\U0001d165")
@example("\u302e\u0301\U0001d165\u093f\U0001d165\u302e")
def test_it_equals_the_plain_rules(text: str) -> None:
    # Canonical: no punctuation that is replaced has another form in NFD, and no digit moves.
    bare = text.strip()
    assert named("ccnet")(text).text == plain(bare, True, False, r"\d")
    assert named("edugp")(text).text == plain(bare, False, True, r"\d")
    by_line = "\n".join(plain(one.strip(), True, False, r"\d") for one in text.split("\n"))
    assert named("ccnet-fixed")(text).text == by_line


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("\x00 1.5\u0301 ")
def test_numbers_of_datatrove(text: str) -> None:
    pattern = r"\d+([.,،٫⎖⎗⎘]\d+)?"
    # Digits that Python does not know yet are the golden file's part.
    if any(unicodedata.category(char) == "Cn" for char in text):
        return
    marked = re.sub(pattern, "0", text.lower())
    bare = "".join(
        c for c in unicodedata.normalize("NFD", marked) if unicodedata.category(c) != "Mn"
    ).strip()
    assert named("datatrove")(text).text == plain(bare, False, True, r"(?!)")


@settings(max_examples=200, deadline=None)
@given(TEXTS)
@pytest.mark.parametrize("name", sorted(NORMALISERS))
def test_places_lie_in_the_source_in_order(name: str, text: str) -> None:
    made = named(name)(text)
    assert len(made.codes) == len(made.starts) == len(made.ends) == len(made.text)
    empty = made.starts == made.ends
    assert np.all(made.starts <= made.ends) and np.all(made.starts >= 0)
    assert np.all(made.codes[empty] == 32)
    assert np.all(made.ends <= len(text))
    assert np.all(np.diff(made.starts) >= 0) and np.all(np.diff(made.ends) >= 0)
    if len(made.codes):
        spans = np.stack((made.starts, made.ends), axis=1)
        assert mark(close_gaps(spans, len(text)), len(text)).all()


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_a_kept_character_stands_where_it_stood(text: str) -> None:
    made = named("edugp")(text)
    for char, start, end in zip(made.text, made.starts.tolist(), made.ends.tolist(), strict=True):
        if start == end:
            assert char == " " and ("—" in text[max(0, end - 1) : end + 1] or text[end - 1] == "．")
            continue
        source = text[start]
        assert char == "0" or char == source or char in PUNCTUATION[source]


def test_a_number_is_one_zero_that_stands_for_all_of_it() -> None:
    text = "a 12,345.6 b"
    made = named("datatrove")(text)
    assert made.text == "a 0.0 b"
    spans = [text[a:b] for a, b in zip(made.starts, made.ends, strict=True)]
    assert spans == ["a", " ", "12,345", ".", "6", " ", "b"]


def test_a_blank_beside_a_dash_stands_for_nothing() -> None:
    made = named("edugp")("a—b．c…")
    assert made.text == "a - b. c..."
    assert list(zip(made.starts.tolist(), made.ends.tolist(), strict=True)) == [
        (0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 4), (4, 4), (4, 5), (5, 6), (5, 6), (5, 6)
    ]  # fmt: skip


def test_what_the_fast_way_takes_for_granted() -> None:
    lowered = [chr(point) for point in range(0x110000) if len(chr(point).lower()) != 1]
    assert lowered == ["İ"]
    assert [p for p in range(0x110000) if chr(p).isspace()] == np.flatnonzero(SPACE).tolist()
    for point in range(MARKS):
        for char in unicodedata.normalize("NFD", chr(point)):
            assert not unicodedata.combining(char) or unicodedata.category(char) == "Mn"


def test_settings() -> None:
    kept = named("ccnet", {"digits": True, "punctuation": True, "lower": False})
    # With digits kept, cc_net's table would make a quotation mark of a full-width one.
    assert kept("É１ “2”").text == "E１ “2”"
    assert named("ccnet", {"digits": True})("１").text == '"'
    with pytest.raises(InputError, match="no setting 'case'; it takes: lower, accents"):
        named("ccnet", {"case": True})
    with pytest.raises(InputError, match="yes or no"):
        named("ccnet", {"lower": 3})
    with pytest.raises(InputError, match="is no normaliser; there are none, ccnet"):
        named("moses")
