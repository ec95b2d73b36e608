"""A training's curve as one self-contained page: a static SVG, the table, what the tests say."""

from __future__ import annotations

import math
from html import escape

from fairway.curve import Curve
from fairway.render import charts, html
from fairway.render.curve import cells, heads, part
from fairway.render.visible import plain
from fairway.scores import named

WIDTH, HEIGHT, LEFT, RIGHT, TOP, FOOT, ROW = 640, 320, 70, 20, 34, 50, 20
"""Of the picture; a row is a line of its key."""
LINES = 7
"""Lines drawn: all, and as many domains as have a colour and a mark of their own."""
MARKS = (
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0", "M-4,-4h8v8h-8z", "M0,-6l6,10h-12z",
    "M0,-6l5,6l-5,6l-5,-6z", "M0,6l6,-10h-12z", "M-5,-1.5h10v3h-10z", "M-1.5,-5h3v10h-3z",
)  # fmt: skip
STYLE = """
svg.curve .c0 { stroke: currentColor; fill: currentColor; }
svg.curve .c1 { stroke: light-dark(#0072b2, #56b4e9); fill: light-dark(#0072b2, #56b4e9); }
svg.curve .c2 { stroke: light-dark(#d55e00, #e69f00); fill: light-dark(#d55e00, #e69f00); }
svg.curve .c3 { stroke: light-dark(#00795a, #00b386); fill: light-dark(#00795a, #00b386); }
svg.curve .c4 { stroke: light-dark(#a8487f, #e39cc4); fill: light-dark(#a8487f, #e39cc4); }
svg.curve .c5 { stroke: light-dark(#4b6fa5, #9ab8e6); fill: light-dark(#4b6fa5, #9ab8e6); }
svg.curve .c6 { stroke: light-dark(#8a6d00, #f0e442); fill: light-dark(#8a6d00, #f0e442); }
svg.curve .line { fill: none; stroke-width: 2; }
svg.curve .band { stroke: none; opacity: .15; }
"""
"""After Okabe and Ito, darker or lighter where the ground asks for it; marks differ in shape."""


def page(item: Curve, title: str = "fairway curve") -> str:
    """Give the page."""
    report = item.steps[0].side.report
    names = item.domains
    head = "".join(f'<th scope="col">{_safe(one)}</th>' for one in (*heads(item), *names))
    rows = "".join(
        "<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in cells(item, place, names)) + "</tr>"
        for place in range(len(item.steps))
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='dim'>{_safe(report.data)}, {report.totals.documents:,} documents. Fewer bits "
        "are better; ✓ lowest, ≈ not told apart from it.</p>",
        *(f"<p>{_safe(line)}</p>" for line in item.sentences()),
        chart(item),
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>",
        "<p class='dim'>An interval is one step's own: paired tests on the same documents tell "
        "steps apart that lie inside each other's intervals.</p>",
        f'<p class="signature">{_safe(str(report.signature))}</p>',
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{html.STYLE}{charts.STYLE}{STYLE}</style></head>\n"
        f"<body>{''.join(body)}</body></html>\n"
    )


def chart(item: Curve) -> str:
    """Draw bits per byte over steps, a line for all and each domain; the band is its interval."""
    shown = (None, *item.domains[: LINES - 1])
    lines = [_points(item, name) for name in shown]
    ends = [y for line in lines for point in line for y in point[1:] if math.isfinite(y)]
    if not ends:
        return "<p>No step has finite numbers, so nothing is drawn.</p>"
    low, high = _wide(min(ends), max(ends))
    first, last = _wide(float(item.steps[0].step), float(item.steps[-1].step))
    bottom = TOP + HEIGHT

    def across(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / (last - first), 1)

    def down(value: float) -> float:
        return round(TOP + HEIGHT * (high - value) / (high - low), 1)

    parts = ['<text x="4" y="18">bits per byte</text>']
    for tick in charts.ticks(low, high):
        y = down(tick)
        parts.append(
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text x="{LEFT - 8}" y="{y + 5}" text-anchor="end">{tick:g}</text>'
        )
    for tick in charts.ticks(first, last):
        if tick == int(tick):
            x, told = across(tick), f"{tick:,.0f}"
            parts.append(f'<text x="{x}" y="{bottom + 20}" text-anchor="middle">{told}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{bottom + 40}" text-anchor="middle">training step</text>')
    for place, line in enumerate(lines):
        known = [point for point in line if math.isfinite(point[1])]
        banded = [point for point in known if math.isfinite(point[2]) and math.isfinite(point[3])]
        if place == 0 and len(banded) > 1:
            edge = [(x, up) for x, _, _, up in banded]
            edge += [(x, lower) for x, _, lower, _ in reversed(banded)]
            corners = " ".join(f"{across(x)},{down(y)}" for x, y in edge)
            parts.append(f'<polygon class="band c0" points="{corners}"/>')
        corners = " ".join(f"{across(x)},{down(y)}" for x, y, _, _ in known)
        parts.append(f'<polyline class="line c{place}" points="{corners}"/>')
        parts += [_mark(place, across(x), down(y)) for x, y, _, _ in known]
    foot = bottom + FOOT
    for place, name in enumerate(shown):
        label = f"all (band: {item.level:.0%} interval)" if name is None else plain(name)
        label = label if len(label) <= 60 else label[:59] + "…"
        y = foot + ROW * place + 10
        parts.append(_mark(place, LEFT, y))
        parts.append(f'<text x="{LEFT + 14}" y="{y + 5}">{escape(label)}</text>')
    left_out = len(item.domains) - (len(shown) - 1)
    more = f"<p class='dim'>{left_out} further domains are in the table only.</p>"
    height = foot + ROW * len(shown) + 6
    return (
        f'<svg class="fw curve" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="bits per byte over training steps; the table has the numbers">'
        f"{''.join(parts)}</svg>{more if left_out else ''}"
    )


def _points(item: Curve, name: str | None) -> list[tuple[float, float, float, float]]:
    """Give step, bits per byte and its interval where they are known."""
    out = []
    for step in item.steps:
        found = part(step, name)
        if found is not None:
            byte = named("bits_per_byte", found.perplexity)
            ends = found.intervals.get(byte)
            low, high = (ends.low, ends.high) if ends and name is None else (math.nan, math.nan)
            out.append((float(step.step), found.metrics[byte], low, high))
    return out


def _wide(low: float, high: float) -> tuple[float, float]:
    """Give a range some air; a single value lies in its middle."""
    air = 0.04 * (high - low) or 0.5
    return low - air, high + air


def _mark(place: int, x: float, y: float) -> str:
    return f'<path class="c{place}" transform="translate({x},{y})" d="{MARKS[place]}"/>'


def _safe(text: str) -> str:
    return escape(plain(text))
