"""Intervals as static SVG that follows the page's colours, dark or light; no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from fairway.render.visible import plain

WIDTH, ROW, LEFT, RIGHT, TOP, FOOT = 640, 30, 170, 24, 8, 44

STYLE = """
svg.fw { display: block; width: 100%; max-width: 40rem; height: auto;
  font: 14px system-ui, sans-serif; }
svg.fw text { fill: currentColor; } svg.fw .axis { stroke: currentColor; stroke-opacity: .35; }
svg.fw .nil { stroke: currentColor; stroke-dasharray: 4 3; stroke-opacity: .8; }
svg.fw .better { stroke: #0072b2; fill: #0072b2; } svg.fw .worse { stroke: #d55e00; fill: #d55e00; }
svg.fw .undecided { stroke: #888; fill: #888; }
@media (prefers-color-scheme: dark) { svg.fw .better { stroke: #56b4e9; fill: #56b4e9; }
  svg.fw .worse { stroke: #e69f00; fill: #e69f00; } }
@media (max-width: 480px) { svg.fw { font-size: 19px; } }
"""
"""Blue and orange of Okabe and Ito; marks differ in shape as well."""


class Span(NamedTuple):
    """One line of the chart.

    Attributes:
        label: in front of it.
        value: the estimate.
        low: lower end; NaN = no interval.
        high: upper end.
        verdict: better, worse or undecided.
    """

    label: str
    value: float
    low: float
    high: float
    verdict: str


def intervals(spans: Sequence[Span], unit: str) -> str:
    """Draw estimates with their intervals on one axis that holds zero."""
    ends = [v for s in spans for v in (s.value, s.low, s.high) if math.isfinite(v)] + [0.0]
    low, high = min(ends), max(ends)
    wide = (high - low) or 1.0
    low, high = low - 0.06 * wide, high + 0.06 * wide
    height = TOP + ROW * len(spans) + FOOT
    room = WIDTH - LEFT - RIGHT

    def at(value: float) -> float:
        return round(LEFT + room * (value - low) / (high - low), 1)

    bottom = TOP + ROW * len(spans)
    parts = [f'<line class="nil" x1="{at(0)}" x2="{at(0)}" y1="{TOP}" y2="{bottom}"/>']
    parts.append(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    )
    for tick in ticks(low, high):
        parts.append(
            f'<line class="axis" x1="{at(tick)}" x2="{at(tick)}" y1="{bottom}" y2="{bottom + 5}"/>'
            f'<text x="{at(tick)}" y="{bottom + 19}" text-anchor="middle">{_told(tick)}</text>'
        )
    parts.append(
        f'<text x="{LEFT + room / 2}" y="{bottom + 37}" text-anchor="middle">{escape(unit)}</text>'
    )
    for place, span in enumerate(spans):
        y = TOP + ROW * place + ROW / 2
        label = plain(span.label)
        label = label if len(label) <= 20 else label[:19] + "…"
        parts.append(f'<text x="{LEFT - 12}" y="{y + 5}" text-anchor="end">{escape(label)}</text>')
        if math.isfinite(span.low) and math.isfinite(span.high):
            parts.append(
                f'<line class="{span.verdict}" x1="{at(span.low)}" x2="{at(span.high)}" '
                f'y1="{y}" y2="{y}" stroke-width="3"/>'
            )
        parts.append(_mark(span.verdict, at(span.value), y))
    told = "; ".join(f"{plain(s.label)} {s.value:+.4f}" for s in spans)
    return (
        f'<svg class="fw" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(f"{unit}: {told}", quote=True)}">{"".join(parts)}</svg>'
    )


def _mark(verdict: str, x: float, y: float) -> str:
    """A triangle down for fewer bits, up for more, a circle for neither."""
    if verdict == "undecided":
        return f'<circle class="undecided" cx="{x}" cy="{y}" r="6"/>'
    tip = 7 if verdict == "better" else -7
    points = f"{x - 7},{y - tip} {x + 7},{y - tip} {x},{y + tip}"
    return f'<polygon class="{verdict}" points="{points}"/>'


def _told(tick: float) -> str:
    return f"{tick:+g}" if tick else "0"


def ticks(low: float, high: float) -> list[float]:
    """Give four to six round values between two that differ."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(step * times for times in (1, 2, 5, 10) if (high - low) / (step * times) <= 6)
    first = math.ceil(low / step)
    return [round(step * place, 12) for place in range(first, math.floor(high / step) + 1)]
