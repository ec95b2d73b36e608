"""Reports and heat maps for a terminal, through rich."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairway.render import companions
from fairway.render.explain import rule_of_thumb
from fairway.render.visible import BARS, COLOURS, LEVELS, bits, figure, level, plain, visible
from fairway.report import Group, Report
from fairway.scores import CONDITIONAL, OWN_OUTPUT, PERPLEXITY, PSEUDO, Totals, kind_of, named, real
from fairway.statistics import LEVEL, Interval

COLUMNS = (
    ("perplexity", "perplexity"),
    ("bits_per_byte", "bits/byte"),
    ("word_perplexity", "word ppl"),
)
WIDE = 72
"""Columns of a terminal from which on labels are not broken."""
BYTES = "comparable across tokenizers"
REMARKS = {
    PSEUDO: "no code length",
    CONDITIONAL: "given the source",
    OWN_OUTPUT: "of its own words",
}
"""What is said of bits per byte where perplexity has another name."""


def titled(label: str, perplexity: str, between: str = " ") -> str:
    """Put before a label what kind of likelihood it is of: pseudo, conditional."""
    return f"{kind_of(perplexity).replace('_', between)}{label}"


def headings(table: Table, perplexity: str = PERPLEXITY) -> None:
    """Add the columns that every table of several numbers has; bits per byte has the interval."""
    for key, label in COLUMNS:
        table.add_column(titled(label, perplexity, "\n"), justify="right", no_wrap=True)
        if key == "bits_per_byte":
            table.add_column("95% interval", no_wrap=True, style="dim")


def cells(
    metrics: Mapping[str, float], interval: Interval | None, perplexity: str = PERPLEXITY
) -> list[str]:
    """Write those columns for one row."""
    span = f"{figure(interval.low)} to {figure(interval.high)}" if interval else "-"
    out = []
    for key, _ in COLUMNS:
        out.append(figure(metrics.get(named(key, perplexity), math.nan)))
        if key == "bits_per_byte":
            out.append(span)
    return out


def report(console: Console, item: Report) -> None:
    """Print one report: the numbers with intervals, what they rest on, and the signature."""
    metrics = item.metrics
    name = item.perplexity
    console.print(
        Text.assemble((plain(item.model), "bold"), " on ", (plain(item.data), "bold")),
        highlight=False,
    )
    rows = (
        ("perplexity", "perplexity", "per token"),
        ("bits_per_byte", "bits per byte", REMARKS.get(name, BYTES)),
        ("bits_per_char", "bits per character", ""),
        ("word_perplexity", "word perplexity", "per whitespace word"),
        ("nll_per_token", "nats per token", ""),
        ("bytes_per_token", "bytes per token", ""),
    )
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=console.width >= WIDE)
    for plainly, label, remark in rows:
        key = named(plainly, name)
        label = label if key == plainly else titled(label, name)
        value = metrics.get(key, math.nan)
        interval = item.intervals.get(key)
        shown = figure(value, 5) if value == value else item.reasons.get(key, "-")
        span = ""
        if key == "bits_per_byte" and item.oov is not None and item.oov.tokens:
            remark = "unknown words are not spelled"
        if interval is not None:
            span = f"[{figure(interval.low, 5)}, {figure(interval.high, 5)}]"
        table.add_row(
            label, Text(shown, style="bold"), Text(span), Text(remark, style="dim"),
        )  # fmt: skip
    beside = companions.rows(item.companions) if item.companions is not None else []
    if item.oov is not None:
        beside += companions.unknown(item.oov)
    for row in beside:
        bold, dim = Text(row.value, style="bold"), Text(row.remark, style="dim")
        table.add_row(row.label, bold, Text(row.span), dim)
    console.print(table)
    console.print(Text(extent(item.totals), style="dim"))
    interval = next(iter(item.intervals.values()), None)
    if interval is not None:
        effect = ""
        if item.design_effect == item.design_effect:
            effect = f"; design effect {figure(item.design_effect, 3)}"
        console.print(
            Text(f"intervals: {interval.level:.0%}, {interval.method}{effect}", style="dim")
        )
    elif "intervals" in item.reasons:
        console.print(Text(item.reasons["intervals"], style="dim"))
    if "companions" in item.reasons and item.totals.tokens:
        why = plain(item.reasons["companions"])
        console.print(Text(f"no accuracy, entropy and percentiles: {why}", style="dim"))
    if item.groups:
        groups(console, item)
        companion_groups(console, item)
    for note in item.notes:
        console.print(Text(f"note: {plain(note)}", style="yellow"))
    skipped(console, item)
    console.print(Text(rule_of_thumb(item)))
    console.print(Text(f"signature: {item.signature}", style="dim"), soft_wrap=True)


def extent(totals: Totals) -> str:
    """Say how much was scored."""
    skip = f" ({totals.tokens_skipped:,} skipped)" if totals.tokens_skipped else ""
    tokens = f"{totals.tokens:,} tokens{skip}"
    if totals.scored and not totals.tokens:
        tokens = "tokens not counted"
    return (
        f"{tokens}, {totals.bytes:,} bytes, {totals.words:,} words, "
        f"{totals.documents:,} document{'s' * (totals.documents != 1)}"
    )


def groups(console: Console, item: Report) -> None:
    """Print the report's parts as a table, with micro and macro averages."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("group")
    headings(table, item.perplexity)
    table.add_column("docs", justify="right")
    name = item.perplexity
    byte = named("bits_per_byte", name)
    whole = Group("all (micro)", item.totals, item.intervals, perplexity=name)
    for group in (*item.groups, whole):
        table.add_row(
            plain(group.name),
            *cells(group.metrics, group.intervals.get(byte), name),
            f"{group.totals.documents:,}",
        )
    if item.macro:
        macro = {key: value for key, (value, _, _) in item.macro.items()}
        span = None
        if byte in item.macro:
            _, low, high = item.macro[byte]
            span = Interval(low, high, LEVEL, "bootstrap")
        table.add_row("mean (macro)", *cells(macro, span, name), "")
    console.print(table)


def companion_groups(console: Console, item: Report) -> None:
    """Print what stands beside perplexity for the report's parts, where it is known."""
    parts = [(group.name, group.companions) for group in item.groups]
    parts.append(("all (micro)", item.companions))
    known = [(name, figures) for name, figures in parts if figures is not None]
    if len(known) < 2:
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("group", overflow="fold")
    for _, label in companions.COLUMNS:
        table.add_column(label, justify="right", overflow="fold")
    for name, figures in known:
        shown = (companions.shown(key, figures.metrics[key]) for key, _ in companions.COLUMNS)
        table.add_row(plain(name), *shown)
    console.print(table)


def skipped(console: Console, item: Report, most: int = 5) -> None:
    """Print the rows that could not be scored, the first few."""
    if not item.skipped_total:
        return
    rows = item.skipped_total
    console.print(Text(f"{rows:,} row{'s' * (rows != 1)} skipped:", style="yellow"))
    for row in item.skipped_rows[:most]:
        console.print(Text(plain(f"  {row['source']}:{row['line']}: {row['reason']}")))
    if rows > most:
        console.print(Text(f"  and {rows - most:,} more; --json lists them"))


def table(console: Console, items: Sequence[Report]) -> None:
    """Print several reports as one table; perplexities of another kind have one of their own."""
    for name in dict.fromkeys(item.perplexity for item in items):
        _table(console, [item for item in items if item.perplexity == name], name)


def _table(console: Console, items: Sequence[Report], name: str) -> None:
    out = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for label in ("model", "data"):
        out.add_column(label)
    headings(out, name)
    out.add_column("tokens", justify="right")
    for item in items:
        numbers = cells(item.metrics, item.intervals.get(named("bits_per_byte", name)), name)
        if item.oov is not None and item.oov.tokens:
            numbers[1] += "*"  # unknown words are not spelled, as a note below says
        out.add_row(called(item), plain(item.data), *numbers, f"{item.totals.tokens:,}")
    console.print(out)
    for item in items:
        console.print(Text(f"signature: {item.signature}", style="dim"), soft_wrap=True)
    for item in items:
        mark = "* " if item.oov is not None and item.oov.tokens else ""
        for note in item.notes:
            line = f"{mark}{called(item)} on {plain(item.data)}: {plain(note)}"
            console.print(Text(line, style="yellow"))


def called(item: Report) -> str:
    """Name a model with its kind, where that is not the usual one."""
    kind = item.signature.get("kind")
    return plain(f"{kind}:{item.model}" if kind else item.model)


def heat_map(console: Console, tokens: Sequence[Mapping[str, Any]], costliest: int = 5) -> None:
    """Print a text with each token's surprisal as its colour, then the costliest tokens.

    Args:
        console: where to; without colour a bar behind each token stands for its level.
        tokens: ``text`` and ``logprob`` of each token, as in the JSON contract.
        costliest: how many tokens to list.
    """
    colour = console.color_system is not None and not console.no_color
    line = Text()
    shown_until = -1
    hidden = False
    for token in tokens:
        text = token["text"]
        if token["start"] < shown_until:
            # A character in several byte tokens is shown once; the later ones show their place.
            text, hidden = "", True
        shown_until = max(shown_until, token["end"])
        shown = visible(text) or "∅"
        surprisal = bits(real(token["logprob"]))
        if surprisal != surprisal:
            line.append(shown, style="dim underline")
        elif colour:
            back, front = COLOURS[level(surprisal)]
            line.append(shown, style=f"{front} on {back}")
        else:
            line.append(shown + BARS[level(surprisal)])
        if "\n" in text:
            line.append("\n")
    console.print(line, highlight=False)
    legend(console, colour, hidden)
    ranked = sorted(
        (t for t in tokens if t["logprob"] is not None), key=lambda t: real(t["logprob"])
    )
    if ranked and costliest:
        listed = ", ".join(
            f"{visible(t['text']) or '∅'} {figure(bits(real(t['logprob'])), 3)}"
            for t in ranked[:costliest]
        )
        console.print(Text(f"costliest tokens (bits): {listed}"))


def legend(console: Console, colour: bool, hidden: bool = False) -> None:
    """Print the scale, and what ∅ stands for where it was used."""
    line = Text("bits: ")
    edges = ["0", *(f"{edge:g}" for edge in LEVELS)]
    for index, edge in enumerate(edges):
        if colour:
            back, front = COLOURS[index]
            line.append(f" {edge}+ ", style=f"{front} on {back}")
        else:
            line.append(f"{BARS[index]} {edge}+  ")
    line.append("  ")
    line.append("not scored", style="dim underline" if colour else "")
    if not colour:
        line.append(" has no bar")
    if hidden:
        line.append("  ∅ a further token of the same character")
    console.print(line, highlight=False)
