"""The page at /, in a real browser: its numbers are those of /v1/score, and all can use it."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pages
from fairway.render.visible import COLOURS, figure, level, visible
from fairway.segments import Tokens, align
from fairway.serve.playground import RANKS
from pages import NAME, TEXT, ask, clipboard, drawn, score, send


def test_the_numbers_are_the_servers(opened: Any, address: str) -> None:
    page = opened()
    score(page, TEXT)
    wanted = ask(address, TEXT)
    entry = wanted["texts"][0]
    for name in ("perplexity", "bits_per_byte"):
        shown = page.inner_text(f"[data-metric={name}]")
        assert shown == figure(entry["metrics"][name], 5)
        span = entry["sentence_intervals"][name]
        assert f"{figure(span['low'])} to {figure(span['high'])}" in page.inner_text(".big")
    assert f"{entry['metrics']['tokens']} tokens, {len(TEXT.encode())} bytes" in page.inner_text(
        ".counts"
    )
    assert page.inner_text("#picture").replace("\n", "").replace("⏎", "") == visible(TEXT).replace(
        "⏎", ""
    )
    token = page.locator(".strip span").nth(3)
    token.click()
    row, details = entry["tokens"][3], page.inner_text("#details")
    assert f"{figure(-row['logprob'] / math.log(2))} bits" in details
    assert f"{figure(row['entropy'] / math.log(2))} bits were expected" in details
    for one in row["top"]:
        assert visible(one["text"]) in details
        assert figure(-one["logprob"] / math.log(2), 3) in details
    assert page.inner_text(".rule").lower().startswith(("rule of thumb", "the rule of thumb"))
    page.click(".signed summary")
    page.click(".signature button")
    assert clipboard(page) == wanted["signature"]
    page.click("#json")
    assert json.loads(clipboard(page))["texts"][0]["metrics"] == entry["metrics"]


def test_the_scale_is_that_of_every_picture(opened: Any, address: str) -> None:
    page = opened()
    score(page, TEXT)
    style = "getComputedStyle(document.querySelector('.legend .l{}')).backgroundColor"
    for place, (back, _) in enumerate(COLOURS):
        red, green, blue = (int(back[at : at + 2], 16) for at in (1, 3, 5))
        assert page.evaluate(style.format(place)) == f"rgb({red}, {green}, {blue})"
    groups: list[list[Any]] = []
    for one in ask(address, TEXT)["texts"][0]["tokens"]:
        if groups and one["start"] < groups[-1][-1]["end"]:
            groups[-1].append(one)
        else:
            groups.append([one])
    values = {
        "surprisal": lambda some: level(-sum(one["logprob"] for one in some) / math.log(2)),
        "entropy": lambda some: level(sum(one["entropy"] for one in some) / math.log(2)),
        "rank": lambda some: sum(max(one["rank"] for one in some) + 1 > edge for edge in RANKS),
    }
    classes = "Array.from(document.querySelectorAll('.strip span'), (one) => one.className)"
    for mode, value in values.items():
        page.check(f"input[name=mode][value={mode}]")
        assert page.evaluate(classes) == [f"l{value(some)}" for some in groups]


def test_two_models_differ_by_spans_that_add_up(opened: Any, address: str) -> None:
    page = opened()
    score(page, TEXT, "builtin", NAME)
    page.check("input[name=view][value=difference]")
    sides = [ask(address, TEXT, name)["texts"][0] for name in ("builtin", NAME)]
    bits = [entry["metrics"]["nll"] / math.log(2) for entry in sides]
    table = page.locator(".sums")
    for name in ("difference", "sum"):
        found = float(table.get_attribute(f"data-{name}"))
        assert found == pytest.approx(bits[1] - bits[0], rel=1e-9)
    rows = [
        Tokens(
            np.array([(one["start"], one["end"]) for one in entry["tokens"]]),
            np.array([one["logprob"] for one in entry["tokens"]]),
        )
        for entry in sides
    ]
    wanted = align(TEXT, *rows)
    script = """async ([a, b]) => {
      const units = await import("/static/units.js");
      const read = (one) => units.read({ texts: [one] });
      return units.pair(read(a), read(b)).spans.map((one) => one.difference);
    }"""
    found = page.evaluate(script, sides)
    assert found == pytest.approx(((wanted.second - wanted.first) / math.log(2)).tolist(), abs=1e-9)
    assert page.locator(".strip > .lines > span").count() == len(wanted)


def test_two_texts_differ_by_what_was_changed(opened: Any, address: str) -> None:
    page = opened()
    other = TEXT.replace("lighthouse", "old inn").replace(" he said.", "")
    score(page, TEXT, second=other)
    page.check("input[name=view][value=difference]")
    bits = [
        ask(address, text)["texts"][0]["metrics"]["nll"] / math.log(2) for text in (TEXT, other)
    ]
    found = [float(page.locator(".sums").get_attribute(f"data-{n}")) for n in ("sum", "difference")]
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    # The page's two requests were scored in one batch, which rounds otherwise.
    assert found[1] == pytest.approx(bits[1] - bits[0], abs=1e-4)
    left, right = page.locator(".sides .strip").all()
    assert "·he·said" in left.locator(".changed").all_inner_texts()[-1]
    assert len(left.locator("span").all()) == len(right.locator("span").all())


def test_every_token_is_in_one_span(opened: Any) -> None:
    """Random texts of few letters, alike or not, cut at random: spans hold all, in order."""
    page = opened()
    draw = random.Random(5)

    def reading(text: str) -> dict[str, Any]:
        tokens, at = [], 0
        while at < len(text):
            start = at - (draw.random() < 0.1 and at > 0)
            end = min(len(text), at + draw.choice([0, 1, 1, 2, 3]))
            logprob = None if draw.random() < 0.1 else -draw.random() * 9
            tokens.append({"id": 1, "text": "", "start": start, "end": end, "logprob": logprob})
            at = end
        return {"text": text, "tokens": tokens}

    cases = []
    for size in [*range(1, 40), *range(1, 40), 3000]:
        text = "".join(draw.choices("abc", k=size))
        other = text
        if size % 2 == 0:
            place = draw.randrange(size)
            other = text[:place] + "".join(draw.choices("abc", k=draw.randrange(9))) + text[place:]
            other = other[: draw.randrange(len(other))] + "b" if size > 20 else other
        cases.append([reading(text), reading(other)])
    cases.append([reading("ab" * 2000), reading("ba" + "c" * 2000 + "ab" * 900)])
    for (first, second), found in zip(cases, pages.look(page, "spans", cases), strict=True):
        assert found["whole"] and found["texts"] and found["alike"]
        nats = [
            -math.fsum(one["logprob"] or 0.0 for one in side["tokens"]) for side in (first, second)
        ]
        assert found["sum"] == pytest.approx((nats[1] - nats[0]) / math.log(2), abs=1e-7)


def test_a_kind_without_columns_says_so(opened: Any) -> None:
    page = opened()
    score(page, "the cat and the cat", "bigram")
    assert "no rank, entropy and alternatives" in page.inner_text("#legend")
    assert page.is_disabled("input[name=mode][value=rank]")
    page.locator(".strip span").first.click()
    assert "bits" in page.inner_text("#details")


def test_numbers_have_the_names_that_they_have_elsewhere(opened: Any, address: str) -> None:
    page = opened(quiet=False)
    score(page, "the cat and the hen in the garden", "bert")
    wanted = ask(address, "the cat and the hen in the garden", "bert")["texts"][0]["metrics"]
    assert [one.lower() for one in page.locator(".big dt").all_inner_texts()] == [
        "pseudo perplexity", "pseudo bits per byte",
    ]  # fmt: skip
    for name in ("pseudo_perplexity", "pseudo_bits_per_byte"):
        assert page.inner_text(f"[data-metric={name}]") == figure(wanted[name], 5)
    assert "does not apply: it is a pseudo perplexity" in page.inner_text(".rule")
    page.uncheck("#model-3")
    page.check("#model-4")
    page.click("#score")
    page.wait_for_selector("#problem:not([hidden])")
    assert "context" in page.inner_text("#problem")
    page.check("#model-3")
    send(page)
    good, bad = page.locator(".card").all()
    assert "context" in bad.locator(".problem").inner_text() and good.locator(".big").count() == 1
    page.wait_for_selector("#status:has-text('1 request failed')")
    page.uncheck("#model-3")
    page.click("#before summary")
    page.fill("#context", "the garden")
    send(page)
    assert page.locator("[data-metric=conditional_perplexity]").count() == 1
    page.check("#model-3")
    send(page)
    assert page.is_disabled("input[name=view][value=difference]")


def test_what_is_taken_along(opened: Any, address: str, tmp_path: Path) -> None:
    page = opened()
    text = '=1+1 "quoted", @cmd\n-2 the end'
    score(page, text)
    page.click("#csv")
    rows = list(csv.DictReader(io.StringIO(clipboard(page))))
    entry = ask(address, text)["texts"][0]
    assert [int(row["id"]) for row in rows] == [one["id"] for one in entry["tokens"]]
    assert float(rows[2]["logprob"]) == entry["tokens"][2]["logprob"]
    assert not any(row["token"].startswith(("=", "+", "-", "@")) for row in rows)
    assert any(row["token"].startswith("'=") for row in rows)
    with page.expect_download() as waiting:
        page.click("#save")
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    assert path.name == "fairway-report.html"
    content = path.read_text("utf-8")
    assert "<script" not in content and figure(entry["metrics"]["perplexity"], 5) in content


def test_everything_by_keyboard(opened: Any) -> None:
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("#text")
    page.keyboard.type("The cat sat on the mat. It purred.")
    assert page.is_hidden("#results")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#results:not([hidden])")
    drawn(page)
    held = "document.activeElement.getAttribute('aria-label')"
    place = "Number(document.activeElement.dataset.index ?? -1)"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(place) >= 0:
            break
    assert page.evaluate(place) == 0 and "bits, probability" in page.evaluate(held)
    page.keyboard.press("ArrowRight")
    assert page.evaluate(place) == 1
    page.keyboard.press("End")
    last = page.evaluate("document.querySelectorAll('.strip span').length") - 1
    assert page.evaluate(place) == last and page.inner_text("#details h3").startswith(".")
    page.keyboard.press("Home")
    assert page.evaluate(place) == 0
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.wait_for_selector("#status:has-text('Done.')")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "dark"),
        (1280, "light"),
        pytest.param(390, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
    ],
)
def test_it_can_be_read_everywhere(opened: Any, scheme: str, width: int) -> None:
    page = opened(viewport={"width": width, "height": 800}, color_scheme=scheme)
    second = "W" * 300 + " the end. Then more."
    score(page, TEXT, "builtin", NAME, "bigram", second=second)
    for one in page.locator("details:not([hidden]) > summary").all():
        one.click()
    for name in ("heat", "sentences", "tokenizer", "difference"):
        page.check(f"input[name=view][value={name}]")
        drawn(page)
        if name != "sentences":
            page.locator(".strip span").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        low = {key: value for key, value in pages.look(page, "contrast").items() if value < 4.5}
        assert not low, (name, low)
        assert pages.look(page, "unnamed") == []


@pytest.mark.slow
def test_a_long_text_stays_usable(opened: Any) -> None:
    page = opened()
    row = {"id": 5, "text": "word ", "logprob": -1.5, "entropy": 1.0, "rank": 3}
    tokens = [{**row, "start": 5 * i, "end": 5 * i + 5} for i in range(20_000)]
    script = """async (tokens) => {
      const { heat } = await import("/static/heat.js");
      const { read } = await import("/static/units.js");
      const entry = { text: "word ".repeat(tokens.length), tokens };
      const drawn = heat(read({ texts: [entry] }), "long", () => "surprisal", () => {});
      document.getElementById("results").hidden = false;
      document.getElementById("picture").replaceChildren(drawn.element);
      return drawn.element.querySelectorAll("span").length;
    }"""
    assert 0 < page.evaluate(script, tokens) < 3000
    drawn(page)
    assert page.locator(".strip span").count() == 20_000
    page.locator(".strip span").first.focus()
    page.keyboard.press("End")
    assert page.evaluate("Number(document.activeElement.dataset.index)") == 19_999
