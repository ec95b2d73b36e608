"""Where two models differ, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairway.render.visible import plain, visible
from fairway.where import LN2, Extremes, Part, Where

SHOWN = 6
"""Gains and losses shown on either side."""
TITLES = (
    ("kinds", "what the text consists of"),
    ("places", "place in the document, bytes"),
    ("words", "how often the word occurs"),
)


def where(console: Console, found: Where, first: str, second: str) -> None:
    """Print the tables of a `Where`."""
    for name, title in TITLES:
        console.print(_parts(getattr(found, name), title, first, second))
        console.print()
    for among, title in (
        (found.documents, "documents"), (found.spans, "spans"), (found.texts, "all spans alike"),
    ):  # fmt: skip
        console.print(_extremes(among, title, first, second))
        console.print()
    line = "bits; a share is that of all gains of this sort, or of all losses; pieces are as small "
    line += "as both tokenizations allow, a blank going with the word behind it"
    console.print(Text(line, style="dim"))


def _parts(parts: tuple[Part, ...], title: str, first: str, second: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(title)
    for name in ("bytes", plain(first), plain(second), "bits/byte", "interval", "share"):
        table.add_column(name, justify="right")
    whole = sum(part.second - part.first for part in parts)
    for part in parts:
        low, high = part.found.low / LN2, part.found.high / LN2
        span = f"{low:+.3f} to {high:+.3f}" if low == low else "-"
        share = (part.second - part.first) / whole if whole else 0.0
        table.add_row(
            part.name, f"{part.bytes:,}", f"{part.first / LN2 / part.bytes:.3f}",
            f"{part.second / LN2 / part.bytes:.3f}", f"{part.found.value / LN2:+.3f}", span,
            f"{share:.1%}",
        )  # fmt: skip
    return table


def _extremes(among: Extremes, title: str, first: str, second: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(title)
    for name in (plain(first), plain(second), "difference", "share"):
        table.add_column(name, justify="right")
    for one in (*among.better[:SHOWN], *among.worse[:SHOWN]):
        if one.text:
            label = Text(visible(one.before[-24:]), style="dim")
            label.append(visible(one.text), style="bold")
            if one.name:
                label.append(f"  {plain(one.name)}", style="dim")
            elif one.count > 1:
                label.append(f"  ×{one.count:,}", style="dim")
        else:
            label = Text(plain(one.name))
        table.add_row(
            label, f"{one.first / LN2:,.1f}", f"{one.second / LN2:,.1f}",
            f"{one.apart / LN2:+,.1f}", f"{among.share(one):.1%}",
        )  # fmt: skip
    return table
