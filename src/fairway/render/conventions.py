"""One text and model under several conventions: how far the numbers lie apart, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairway.protocol import CONVENTIONS
from fairway.render.visible import figure, plain
from fairway.report import Report

WIDE = 110
"""Columns from which on the explanations stand in the table, and not below it."""


def conventions(
    console: Console, reports: Sequence[Report], refused: Sequence[tuple[str, str]]
) -> None:
    """Print a table per model and corpus, then what was not computed, notes and signatures.

    Args:
        console: where to.
        reports: one per convention, model and corpus.
        refused: conventions that gave no number, and why.
    """
    pairs = list(dict.fromkeys((report.model, report.data) for report in reports))
    wide = console.width >= WIDE
    for model, data in pairs:
        console.print(
            Text.assemble((plain(model), "bold"), " on ", (plain(data), "bold")), highlight=False
        )
        console.print(_table([r for r in reports if (r.model, r.data) == (model, data)], wide))
        console.print()
    if reports and not wide:
        shown = list(dict.fromkeys(report.protocol for report in reports))
        _lines(console, "What makes them differ", [(n, CONVENTIONS[n].summary) for n in shown])
    _lines(console, "Not computed", refused)
    notes = [(report.protocol, note) for report in reports for note in report.notes]
    _lines(console, "Notes", list(dict.fromkeys(notes)))
    for report in reports:
        console.print(Text(f"signature: {report.signature}", style="dim"), soft_wrap=True)


def _table(reports: Sequence[Report], wide: bool) -> Table:
    own = next((r.metrics[r.perplexity] for r in reports if r.protocol == "fairway"), math.nan)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("convention", no_wrap=True)
    for label in ("perplexity", "vs fairway", "bits/byte", "word ppl", "tokens"):
        table.add_column(label, justify="right", no_wrap=True)
    if wide:
        table.add_column("what makes it differ")
    for report in reports:
        metrics = report.metrics
        value = metrics[report.perplexity]
        gap = value / own - 1 if own and math.isfinite(own) else math.nan
        cells = [
            report.protocol,
            figure(value),
            "" if report.protocol == "fairway" or not math.isfinite(gap) else f"{gap:+.2%}",
            figure(metrics["bits_per_byte"]),
            figure(metrics["word_perplexity"]),
            f"{report.totals.tokens:,}",
        ]
        table.add_row(*cells, *([CONVENTIONS[report.protocol].summary] if wide else []))
    return table


def _lines(console: Console, heading: str, lines: Sequence[tuple[str, str]]) -> None:
    """Print names with a text each, the text hanging behind the name."""
    if not lines:
        return
    console.print(Text(heading, style="bold"))
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, text in lines:
        table.add_row(plain(name), Text(plain(text)))
    console.print(table)
    console.print()
