"""Curves over a training's steps on a terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from rich.console import Console
from rich.console import Group as Stack
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fairway.curve import Curve, Step, figures
from fairway.render.tables import harmless
from fairway.render.visible import BARS, figure, plain
from fairway.report import Group, Report
from fairway.scores import kind_of, named

HEADS = ("step", "", "nats/token", "perplexity", "bits/byte", "95% interval")
NUMBERS, STEPS = 70, 14
"""Characters that the numbers of all take, and those of a column of steps."""


def curve(console: Console, item: Curve) -> None:
    """Print the steps, a line of bars for all and each domain, and what the tests say."""
    names = item.domains
    width = sum(max(len(plain(name)), 6) + 2 for name in names)
    together = width <= console.width - NUMBERS
    parts: list[Table | Text] = [_table(item, names if together else (), numbers=True)]
    if not together:
        parts += [Text(), *(_table(item, some, numbers=False) for some in _rows(names, console))]
    console.print(Panel(Stack(*parts), title="Training", title_align="left", expand=False))
    bars = Table.grid(padding=(0, 2, 0, 0))
    for name in (None, *names):
        values = [_bits(part(step, name)) for step in item.steps]
        known = [value for value in values if math.isfinite(value)]
        if len(known) > 1:
            bars.add_row(
                Text("all" if name is None else plain(name)), Text(sparkline(values)),
                Text(f"{figure(known[0])} to {figure(known[-1])}, lowest {figure(min(known))}"),
            )  # fmt: skip
    if bars.row_count:
        console.print(bars)
    for line in item.sentences():
        console.print(Text(plain(line)))
    data = item.steps[0].side.report
    domains = "columns of domains are bits per byte; " if names else ""
    for line in (
        f"{plain(data.data)}, {data.totals.documents:,} documents; {domains}✓ lowest, ≈ not told "
        "apart from it",
        "an interval is one step's own: paired tests on the same documents tell steps apart that "
        "lie inside each other's intervals",
    ):
        console.print(Text(line, style="dim"))


def _table(item: Curve, names: Sequence[str], numbers: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    shown = heads(item, "\n") if numbers else HEADS[:1]
    for head in (*shown, *map(plain, names)):
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for place in range(len(item.steps)):
        row = cells(item, place, names)
        style = "bold green" if place == item.best else ""
        table.add_row(*(row if numbers else [row[0], *row[len(HEADS) :]]), style=style)
    return table


def heads(item: Curve, between: str = " ") -> list[str]:
    """Give the headings, with what kind of likelihood the numbers are of."""
    kind = kind_of(item.steps[0].side.report.perplexity).replace("_", between) if item.steps else ""
    return [kind + head if head in HEADS[2:5] else head for head in HEADS]


def _rows(names: Sequence[str], console: Console) -> list[list[str]]:
    """Cut domains into tables that fit beside the steps."""
    out: list[list[str]] = [[]]
    room = left = max(20, console.width - STEPS)
    for name in names:
        size = max(len(plain(name)), 6) + 2
        if out[-1] and size > left:
            out.append([])
            left = room
        out[-1].append(name)
        left -= size
    return out


def _mark(item: Curve, place: int) -> str:
    if place == item.best:
        return "✓"
    return "≈" if place in item.alike else ""


def cells(item: Curve, place: int, names: Sequence[str]) -> list[str]:
    """Give a step's line of the table."""
    step = item.steps[place]
    report = step.side.report
    interval = report.intervals.get(named("bits_per_byte", report.perplexity))
    return [
        plain(step.label), _mark(item, place), figure(report.totals.per("tokens")),
        figure(report.metrics[report.perplexity]), figure(step.side.bits_per_byte, 5),
        f"{figure(interval.low)} to {figure(interval.high)}" if interval else "-",
        *(figure(_bits(part(step, name))) for name in names),
    ]  # fmt: skip


def part(step: Step, name: str | None) -> Report | Group | None:
    """Give a step's report, or the part of it that a domain has."""
    if name is None:
        return step.side.report
    return next((group for group in step.side.report.groups if group.name == name), None)


def _bits(found: Report | Group | None) -> float:
    if found is None:
        return math.nan
    return found.metrics[named("bits_per_byte", found.perplexity)]


def sparkline(values: Sequence[float]) -> str:
    """Draw numbers as bars between the lowest and the highest; a blank where one is not finite."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return " " * len(values)
    low, high = min(known), max(known)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(
        BARS[round((value - low) * scale)] if math.isfinite(value) else " " for value in values
    )


def markdown(item: Curve) -> str:
    """Give a Markdown table and the sentences below it."""
    names = item.domains
    header = [*heads(item), *names]
    rows = [
        "| " + " | ".join(map(_escape, header)) + " |",
        "|---:|---|" + "---:|" * (len(header) - 2),
    ]
    for place in range(len(item.steps)):
        rows.append("| " + " | ".join(map(_escape, cells(item, place, names))) + " |")
    return "\n".join([*rows, "", *(_escape(line) for line in item.sentences())]) + "\n"


def _escape(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace("|", "\\|")


def as_csv(item: Curve) -> str:
    """Give CSV with full precision, a row for each step and domain."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header: list[str] | None = None
    for place, step in enumerate(item.steps):
        for name in (None, *item.domains):
            found = part(step, name)
            if found is None:
                continue
            numbers = figures(found)
            if header is None:
                header = [
                    "step", "checkpoint", "domain", *numbers, "tokens", "bytes", "documents",
                    "best", "not_told_apart", "signature",
                ]  # fmt: skip
                writer.writerow(header)
            whole = name is None
            writer.writerow([
                step.step, harmless(step.side.name), "all" if whole else harmless(str(name)),
                *("" if value is None else repr(value) for value in numbers.values()),
                found.totals.tokens, found.totals.bytes, found.totals.documents,
                int(place == item.best) if whole else "",
                int(place in item.alike) if whole else "", str(step.side.signature),
            ])  # fmt: skip
    return out.getvalue()
