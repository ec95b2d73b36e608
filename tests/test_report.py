"""Reports as plain data: round trip, schema, infinities, newer formats."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway import report as reports
from fairway.errors import InputError
from fairway.report import Group, Report, dumps, from_json, summarize
from fairway.scores import Score, Totals, add, exp, ratios
from fairway.signature import Signature
from fairway.statistics import Interval

SCHEMA = json.loads((files("fairway") / "data" / "report.schema.json").read_text("utf-8"))
SIGNATURE = Signature.of({"model": "a|b: c", "protocol": "fairway", "version": "1"})


def valid(text: str) -> Any:
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    jsonschema.validate(data, SCHEMA)
    return data


def score(text: str, logprobs: list[float]) -> Score:
    """One token for each character."""
    n = len(text)
    offsets = np.stack([np.arange(n), np.arange(n) + 1], axis=1)
    return Score("one", text, offsets, np.array(logprobs), np.arange(n))


counts = st.integers(0, 10**12)
sums = st.builds(
    Totals, st.floats(0, 1e15) | st.just(math.inf), counts, counts, counts, counts, counts, counts
)
real = st.floats(allow_nan=False)
intervals = st.dictionaries(
    st.text(max_size=8), st.builds(Interval, real, real, st.just(0.95), st.text(max_size=8))
)
words = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)


@given(
    sums,
    intervals,
    words,
    st.lists(st.builds(Group, st.text(max_size=5), sums, intervals, words), max_size=3),
)
def test_round_trip(totals: Totals, found: Any, why: Any, groups: list[Group]) -> None:
    report = Report(
        "m",
        "d",
        "fairway",
        SIGNATURE,
        totals,
        found,
        why,
        tuple(groups),
        {"perplexity": (1.0, 0.0, 2.0)},
    )
    text = dumps([report])
    back = from_json(valid(text))
    assert dumps([back]) == text
    assert back.totals == report.totals and back.signature == report.signature
    assert [g.totals for g in back.groups] == [g.totals for g in groups]


def test_several_reports_stand_under_reports() -> None:
    report = Report("m", "d", "fairway", SIGNATURE, Totals(1.0, 1, 0, 1, 1, 1, 1))
    assert len(valid(dumps([report, report]))["reports"]) == 2


def test_the_schema_refuses_what_is_wrong() -> None:
    data = Report("m", "d", "fairway", SIGNATURE, Totals(1.0, 1, 0, 1, 1, 1, 1)).to_json()
    jsonschema.validate(data, SCHEMA)
    for path, value in (("metrics", {}), ("groups", 3), ("signature", None)):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**data, path: value}, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            {**data, "metrics": {**data["metrics"], "perplexity": "Infinity"}}, SCHEMA
        )


def test_a_newer_format_is_refused_with_a_sentence() -> None:
    data = Report("m", "d", "fairway", SIGNATURE, Totals()).to_json()
    with pytest.raises(InputError, match="newer format"):
        from_json({**data, "format": reports.FORMAT + 1, "fairway": "9.0"})
    with pytest.raises(InputError, match="not a fairway report"):
        from_json({"metrics": 1})


def test_overflow_gives_infinity_and_a_finite_nll() -> None:
    report = summarize([score("ab", [-2000.0, -3000.0])], SIGNATURE)
    data = valid(dumps([report]))
    assert data["metrics"]["perplexity"] == "inf"
    assert data["metrics"]["nll"] == 5000.0
    assert data["metrics"]["nll_per_token"] == 2500.0
    assert exp(710) == math.inf and exp(1.0) == math.e


def test_nothing_scored_gives_nan_and_a_reason() -> None:
    one = score("a", [math.nan])
    assert one.totals == Totals(0.0, 0, 1, 0, 0, 0, 1)
    assert all(math.isnan(value) for value in one.metrics.values())
    data = valid(dumps([summarize([one], SIGNATURE)]))
    assert data["metrics"]["perplexity"] is None and data["metrics"]["tokens"] == 0
    assert data["reasons"]["perplexity"] == "no token was scored"
    assert data["texts"][0]["tokens"][0]["logprob"] is None


def test_metrics_are_ratios_of_sums() -> None:
    totals = Totals(nll=10.0, tokens=4, words=2, chars=8, bytes=16, documents=1)
    got = ratios(totals)
    assert got["perplexity"] == pytest.approx(math.exp(2.5), rel=1e-15)
    assert got["bits_per_byte"] == pytest.approx(10 / 16 / math.log(2), rel=1e-15)
    assert got["bits_per_char"] == pytest.approx(10 / 8 / math.log(2), rel=1e-15)
    assert got["word_perplexity"] == pytest.approx(math.exp(5.0), rel=1e-15)
    assert got["byte_perplexity"] == pytest.approx(math.exp(10 / 16), rel=1e-15)
    assert got["bytes_per_token"] == 4.0


@given(st.lists(sums, max_size=8), st.randoms())
def test_adding_does_not_depend_on_the_order(parts: list[Totals], rng: Any) -> None:
    whole = add(parts)
    rng.shuffle(parts)
    assert add(parts) == whole


def test_intervals_are_absent_with_a_reason_below_two_documents() -> None:
    report = summarize([score("ab", [-1.0, -2.0])], SIGNATURE)
    assert report.intervals == {} and "two are needed" in report.reasons["intervals"]
