"""What people see: safe against hostile text, readable without colour and on narrow terminals."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fairway.render import tables, terminal
from fairway.render.explain import explain, rule_of_thumb
from fairway.render.html import page
from fairway.render.visible import BARS, COLOURS, LEVELS, figure, level, plain, visible
from fairway.report import Group, Report, summarize, text_entry
from fairway.scores import Score, Totals
from fairway.signature import Signature
from fairway.statistics import Interval

EVIL = "\x1b[31m<script>alert(1)</script>\u202e|=1+1\x07$_%\\"


def score(text: str, logprobs: list[float]) -> Score:
    n = len(text)
    offsets = np.stack([np.arange(n), np.arange(n) + 1], axis=1)
    return Score(EVIL, text, offsets, np.resize(np.array(logprobs), n), np.arange(n))


def report(totals: Totals = Totals(2300.0, 1000, 0, 700, 4000, 4100, 5), **more: Any) -> Report:  # noqa: B008
    values = {"model": "m", "unit": "token", "tok": "abc", "length": 512, "protocol": "fairway"}
    return Report("m", "d", "fairway", Signature.of(values), totals, **more)


def console(width: int = 80, colour: bool = False) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=colour, no_color=not colour,
        color_system="truecolor" if colour else None,
    )  # fmt: skip


def shown(made: Console) -> str:
    assert isinstance(made.file, io.StringIO)
    return made.file.getvalue()


@given(st.text(), st.lists(st.floats(-60, 0) | st.just(float("nan")), min_size=1))
def test_no_text_steers_the_terminal(text: str, logprobs: list[float]) -> None:
    made = console()
    one = score(text or "a", logprobs)
    terminal.heat_map(made, text_entry(one)["tokens"])
    terminal.report(made, summarize([one], Signature.of({"model": EVIL})))
    for char in shown(made):
        assert char == "\n" or char.isprintable()


@pytest.mark.parametrize("width", [30, 40, 80, 200])
def test_narrow_terminals_lose_no_figure(width: int) -> None:
    made = console(width)
    groups = tuple(Group(n, Totals(10.0 * i, 10, 0, 8, 40, 40, 2)) for i, n in enumerate("ab", 1))
    terminal.report(made, report(groups=groups))
    out = shown(made)
    joined = re.sub(r"\s", "", out)
    for value in ("9.9742", "0.80932"):
        assert value in joined
    body = [line for line in out.splitlines() if not line.startswith("signature")]
    assert max(map(len, body)) <= width


def test_heat_map_with_and_without_colour() -> None:
    tokens = text_entry(score("ab\n c", [-0.1, -3.0, -20.0, float("nan"), -1.0]))["tokens"]
    plain_one, coloured = console(), console(colour=True)
    terminal.heat_map(plain_one, tokens)
    terminal.heat_map(coloured, tokens)
    assert "\x1b" not in shown(plain_one) and "\x1b[" in shown(coloured)
    assert shown(plain_one).startswith("a▁b▄⏎█\n·c▂")
    assert "costliest tokens (bits): ⏎ 28.9, b 4.33" in shown(plain_one)


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
def test_environment_turns_colour_off(variable: str) -> None:
    value = {"NO_COLOR": "1", "TERM": "dumb"}[variable]
    code = (
        "from rich.console import Console; from fairway.render import terminal;"
        "c = Console(force_terminal=True);"
        "terminal.heat_map(c, [{'text': 'a', 'start': 0, 'end': 1, 'logprob': -1.0}])"
    )
    base = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    base.pop("NO_COLOR", None)
    run = {"capture_output": True, "text": True, "check": True}
    with_colour = subprocess.run([sys.executable, "-c", code], env=base, **run).stdout
    without = subprocess.run(
        [sys.executable, "-c", code], env={**base, variable: value}, **run
    ).stdout
    assert "48;2;" in with_colour and "48;2;" not in without
    assert any(bar in without for bar in BARS)


def test_the_scale_is_fixed_and_its_lightness_falls() -> None:
    assert len(BARS) == len(COLOURS) == len(LEVELS) + 1
    assert [level(x) for x in (0.0, 1.0, 1.1, 14.0, 14.1, 1e9)] == [0, 0, 1, 6, 7, 7]

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    backs = [luminance(back) for back, _ in COLOURS]
    assert backs == sorted(backs, reverse=True)
    for back, front in COLOURS:
        light, dark = sorted((luminance(back), luminance(front)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, "WCAG AA contrast"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_the_page_is_self_contained_and_escapes_everything() -> None:
    evil = summarize([score(EVIL, [-1.0])], Signature.of({"model": EVIL}), data=EVIL)
    group = Group(EVIL, evil.totals)
    row = {"source": EVIL, "line": 1, "reason": EVIL}
    whole = page(
        [
            Report(
                EVIL, EVIL, "fairway", evil.signature, evil.totals, groups=(group,),
                skipped_rows=(row,), skipped_total=1, notes=(EVIL,), texts=evil.texts,
                reasons=evil.reasons,
            )
        ]
    )  # fmt: skip
    tags = Tags()
    tags.feed(whole)
    assert "script" not in tags.seen and "img" not in tags.seen and "link" not in tags.seen
    assert not {"src", "href", "onclick"} & tags.attributes
    assert "http" not in re.sub(r"http-equiv", "", whole)
    assert "default-src 'none'" in whole
    assert "\x1b" not in whole and "\u202e" not in whole


def test_tables_escape_what_their_format_reads() -> None:
    evil = Report(
        "a|b", "=cmd()", "fairway", Signature.of({"model": "x"}), Totals(1, 1, 0, 1, 1, 1, 1)
    )
    line = tables.markdown([evil]).splitlines()[2]
    assert line.count(" | ") == len(tables.HEADER) - 1 and "a\\|b" in line
    rows = list(csv.DictReader(io.StringIO(tables.as_csv([evil]))))
    assert rows[0]["data"] == "'=cmd()" and float(rows[0]["perplexity"]) == pytest.approx(np.e)
    odd = Report("a_b&c%", "d#", "fairway", Signature.of({}), Totals(1, 1, 0, 1, 1, 1, 1))
    assert r"a\_b\&c\% & d\#" in tables.latex([odd])


@pytest.mark.parametrize(
    ("nats", "words"),
    [
        (np.log(9.9), "very confident, or overfitting"),
        (np.log(49.0), "good for general text"),
        (np.log(51.0), "between"),
        (np.log(101.0), "unsure or under-trained"),
        (2000.0, "unsure or under-trained"),
    ],
)
def test_rule_of_thumb(nats: float, words: str) -> None:
    made = report(Totals(nats * 1000, 1000, 0, 700, 4000, 4000, 5))
    assert words in rule_of_thumb(made) and "signatures agree" in rule_of_thumb(made)


def test_rule_of_thumb_is_withheld_where_it_does_not_apply() -> None:
    assert "withheld" in rule_of_thumb(report(Totals(10, 10, 0, 3, 10, 10, 1)))
    assert "withheld" in rule_of_thumb(report(Totals()))
    byte = Report("m", "d", "p", Signature.of({"unit": "byte"}), Totals(10, 10, 0, 3, 50, 50, 1))
    assert "byte" in rule_of_thumb(byte)


def test_explain_says_what_the_number_means() -> None:
    words = explain(
        report(
            Totals(np.log(23) * 1000, 1000, 0, 700, 4000, 4000, 5),
            intervals={"perplexity": Interval(20.0, 26.0, 0.95, "t")},
            design_effect=9.0,
        )
    )
    assert "as if choosing among 23.0 equally likely" in words
    assert "3.00 times too narrow" in words and "tok:abc" in words


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_figures_are_short(value: float) -> None:
    assert len(figure(value)) <= 13


@given(st.text())
def test_plain_and_visible_are_printable(text: str) -> None:
    assert all(c.isprintable() for c in visible(text))
    assert all(c.isprintable() for c in plain(text))


def test_json_of_hostile_text_is_json() -> None:
    from fairway.report import dumps

    made = summarize([score(EVIL, [-1.0])], Signature.of({"model": EVIL}))
    assert json.loads(dumps([made]))["texts"][0]["text"] == EVIL
