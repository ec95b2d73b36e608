"""Text from anywhere, made safe and visible for a terminal; and the scale of surprisal."""

from __future__ import annotations

import math

LEVELS = (1.0, 2.0, 4.0, 6.0, 8.0, 11.0, 14.0)
"""Upper edges of all but the last colour, bits: a fixed scale, so that pictures compare."""

COLOURS = (
    ("#fff7d6", "#1a1a1a"),
    ("#fde6a2", "#1a1a1a"),
    ("#f8c66b", "#1a1a1a"),
    ("#ec9f4d", "#1a1a1a"),
    ("#d3744a", "#1a1a1a"),
    ("#a9505a", "#ffffff"),
    ("#74366a", "#ffffff"),
    ("#3b1f5b", "#ffffff"),
)
"""Background and foreground by level: lightness falls steadily, so hue is not needed."""

BARS = "▁▂▃▄▅▆▇█"
"""The same levels without colour."""


def bits(logprob: float) -> float:
    """Turn a log-probability (nats) into surprisal (bits); NaN stays NaN."""
    return -logprob / math.log(2) if logprob == logprob else math.nan


def level(surprisal: float) -> int:
    """Give the level, from 0 to 7, of a surprisal in bits."""
    return sum(surprisal > edge for edge in LEVELS)


def visible(text: str, newline: str = "⏎") -> str:
    """Show blanks, and replace what could steer a terminal by its code."""
    out = []
    for char in text:
        if char == " ":
            out.append("·")
        elif char == "\n":
            out.append(newline)
        elif char == "\t":
            out.append("→")
        elif char.isprintable():
            out.append(char)
        else:
            out.append(f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}")
    return "".join(out)


def plain(text: str) -> str:
    """Replace what could steer a terminal by its code; blanks stay blanks."""
    return "".join(c if c.isprintable() or c == " " else visible(c) for c in text)


def figure(value: float, digits: int = 4) -> str:
    """Write a number with so many significant digits, without an exponent where it can be."""
    if value != value:
        return "-"
    if math.isinf(value):
        return "inf"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size >= 9 or size < -5:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - size)}f}"
