"""The use of context on a terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairway.longcontext.gain import LN2
from fairway.longcontext.longppl import LongPPL, Part
from fairway.longcontext.report import ContextReport, bits, rows
from fairway.render.visible import figure, plain
from fairway.scores import exp

WIDTH = 16
"""Columns of a bar."""


def context(console: Console, item: ContextReport) -> None:
    """Print an examination: the sentences first, then the curves that they rest on."""
    console.print(
        Text.assemble((plain(item.model), "bold"), " on ", (plain(item.data), "bold")),
        highlight=False,
    )
    for line in item.sentences():
        console.print(Text(plain(line), style="bold"))
    console.print()
    positions(console, item)
    if item.curve.gains:
        console.print()
        gains(console, item)
    if item.longppl is not None and item.longppl.value is not None:
        console.print()
        longppl(console, item.longppl)
    for note in item.notes:
        console.print(Text(f"note: {plain(note)}", style="yellow"))
    console.print(Text(f"signature: {item.signature}", style="dim"), soft_wrap=True)
    if item.longppl is not None and item.longppl.signature:
        line = f"evaluator's signature: {item.longppl.signature}"
        console.print(Text(line, style="dim"), soft_wrap=True)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in headings:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    return table


def _bar(value: float, most: float) -> Bar | str:
    """Draw a value from 0; nothing where it is negative, endless or no number."""
    if not (math.isfinite(value) and math.isfinite(most)) or value <= 0 or most <= 0:
        return ""
    return Bar(most, 0, value, width=WIDTH)


def positions(console: Console, item: ContextReport) -> None:
    """Print bits by position."""
    table = _table(item.unit, "bits/byte", "95% interval", "tokens", "docs")
    finite = [b.bits_per_byte for b in item.buckets if math.isfinite(b.bits_per_byte)]
    for one in item.buckets:
        span = "-"
        if one.interval is not None:
            span = f"{figure(one.interval.low)} to {figure(one.interval.high)}"
        table.add_row(
            f"{one.low:,} to {one.high - 1:,}", figure(one.bits_per_byte), span,
            f"{one.totals.tokens:,}", f"{one.totals.documents:,}",
            _bar(one.bits_per_byte, max(finite, default=0.0)),
        )  # fmt: skip
    console.print(table)
    console.print(
        Text(
            "later rows hold long documents only, and other text: compare the gains below for "
            f"context alone; a window holds {item.room:,} tokens and every token has at least "
            f"{item.sure:,} of context, where as many stand before it",
            style="dim",
        )
    )


def gains(console: Console, item: ContextReport) -> None:
    """Print the context-gain curve."""
    curve = item.curve
    level = f"{curve.gains[0].found.level:.0%} interval"
    table = _table("beyond", "bits/byte", level, "bits", "p")
    most = max(one.bits_per_byte for one in curve.gains)
    for one in curve.gains:
        low, high = one.found.low / LN2, one.found.high / LN2
        table.add_row(
            f"{one.k:,}{'*' if one.real else ' '}", f"{one.bits_per_byte:+.4f}",
            "-" if low != low else f"{low:+.4f} to {high:+.4f}",
            f"{one.found.relative:+.1%}", "-" if low != low else f"{one.adjusted:.2g}",
            _bar(one.bits_per_byte, most),
        )  # fmt: skip
    console.print(table)
    console.print(
        Text(
            f"the same {curve.tokens:,} tokens ({curve.bytes:,} bytes, {curve.documents:,} "
            f"document{'s' * (curve.documents != 1)}, drawn from {curve.eligible:,}) with k "
            "tokens of context and with all, "
            f"{curve.full:,.0f} on average, which cost {figure(curve.full_bits_per_byte)} bits per "
            "byte; * a gain, tested at 5% from the smallest k on",
            style="dim",
        )
    )


def longppl(console: Console, item: LongPPL) -> None:
    """Print what key tokens cost, and what the rest does."""
    table = _table("", "perplexity", "interval", "bits/byte", "interval", "tokens")
    for name, part in (("key spans", item.key), ("the rest", item.rest)):
        cells = []
        for metric, value in _values(part):
            found = part.intervals.get(metric)
            cells += [
                figure(value),
                f"{figure(found.low)} to {figure(found.high)}" if found else "-",
            ]
        table.add_row(name, *cells, f"{part.totals.tokens:,}")
    console.print(table)
    console.print(
        Text(
            f"{plain(item.evaluator)} finds {item.key_tokens:,} key tokens among "
            f"{item.candidates:,} with {item.short:,} or more before them: log-probability above "
            f"{item.beta:g}, and over {item.alpha:g} nats more than with {item.short:,} to "
            f"{item.short + item.step - 1:,} tokens of context; the spans lie in "
            f"{item.key.documents:,} document{'s' * (item.key.documents != 1)}",
            style="dim",
        )
    )


def _values(part: Part) -> tuple[tuple[str, float], ...]:
    return (
        ("perplexity", exp(part.totals.per("tokens"))),
        ("bits_per_byte", bits(part.totals.per("bytes"))),
    )


def markdown(item: ContextReport) -> str:
    """Give every figure in one Markdown table, sentences above it and the signature below."""
    lines = [*(plain(line).replace("|", "\\|") for line in item.sentences()), ""]
    lines += [
        "| result | where | metric | value | low | high | tokens | bytes | documents |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows(item):
        cells = [figure(v) if isinstance(v, float) else _blank(v) for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"`{item.signature}`"]) + "\n"


def as_csv(item: ContextReport) -> str:
    """Give every figure as a row of CSV, with full precision."""
    out = io.StringIO()
    found = rows(item)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*(found[0] if found else ()), "signature"])
    for row in found:
        cells = [repr(v) if isinstance(v, float) else _blank(v, "") for v in row.values()]
        writer.writerow([*cells, str(item.signature)])
    return out.getvalue()


def _blank(value: Any, nothing: str = "-") -> str:
    return nothing if value is None else str(value)
