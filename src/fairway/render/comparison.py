"""Comparisons on a terminal and as Markdown: the verdict first, then what it rests on."""

from __future__ import annotations

import csv
import io
import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairway.comparison import LN2, Comparison, Ranking
from fairway.comparison import TITLES as CORRECTED
from fairway.pairs import POWER, Difference
from fairway.render.tables import harmless, tex
from fairway.render.visible import figure, plain

STYLES = {"better": "bold green", "worse": "bold red", "undecided": "bold yellow"}


def comparison(console: Console, item: Comparison) -> None:
    """Print one comparison."""
    mark = {"better": "✓", "worse": "✗", "undecided": "≈"}[item.verdict]
    console.print(Text(f"{mark} {plain(item.sentence())}", style=STYLES[item.verdict]))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    for name in (plain(item.first.name), plain(item.second.name), "difference", "interval"):
        table.add_column(name, justify="right")
    for label, one, scale, unit in (
        (item.unit, item.byte, 1 / LN2, "bytes"),
        ("nats per token", item.token, 1.0, "tokens"),
        ("nats per word", item.word, 1.0, "words"),
    ):
        if one is not None:
            both = [side.report.totals.per(unit) * scale for side in (item.first, item.second)]
            table.add_row(label, *(figure(value, 5) for value in both), *_span(one, scale))
    console.print(table)
    for line in basis(item.byte, item.unit):
        console.print(Text(line, style="dim"))
    if item.groups:
        groups(console, item)
    for key, (ours, theirs) in item.allowed.items():
        line = f"allowed to differ: {key} ({ours or 'none'} and {theirs or 'none'})"
        console.print(Text(plain(line), style="yellow"))
    for line in item.warnings:
        console.print(Text(f"note: {plain(line)}", style="yellow"))


def _span(one: Difference, scale: float) -> tuple[str, str]:
    if math.isnan(one.low):
        return f"{one.value * scale:+.4f}", "-"
    return f"{one.value * scale:+.4f}", f"{one.low * scale:+.4f} to {one.high * scale:+.4f}"


def basis(one: Difference, unit: str = "bits per byte") -> list[str]:
    """Say what a verdict rests on."""
    kind = unit.removesuffix("bits per byte")
    ratio = f"{kind}perplexity per byte times {math.exp(one.value):.4f}"
    if math.isnan(one.low):
        return [ratio]
    how = "every pattern" if one.exact else "at random"
    lines = [
        f"{ratio}; {one.relative:+.2%} bits ({one.level:.0%} {one.relative_low:+.2%} to "
        f"{one.relative_high:+.2%})",
        f"paired t p = {one.p_t:.2g}; sign flips ({how}) p = {one.p_flip:.2g}; likelier in "
        f"{one.wins:.0%} of {one.documents:,} documents",
        f"a difference of {one.detectable / LN2:.4f} {unit} would be found {POWER:.0%} of the time",
    ]
    if one.needed is not None and not one.real:
        lines[-1] += f"; one of {abs(one.value) / LN2:.4f} needs about {one.needed:,} documents"
    return lines


def groups(console: Console, item: Comparison) -> None:
    """Print the groups' differences, with p values corrected for their number."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("group")
    for name in (
        "bits/byte",
        "interval",
        "bits",
        "wins",
        f"p ({CORRECTED[item.correction]})",
        "docs",
    ):
        table.add_column(name, justify="right")
    for name, one in (*item.groups.items(), ("all (micro)", item.byte)):
        adjusted = item.adjusted.get(name)
        table.add_row(
            plain(name), *_span(one, 1 / LN2), f"{one.relative:+.1%}", f"{one.wins:.0%}",
            "-" if adjusted is None else f"{adjusted:.2g}", f"{one.documents:,}",
        )  # fmt: skip
    if item.macro is not None and len(item.groups) > 1:
        table.add_row("mean (macro)", f"{item.macro / LN2:+.4f}")
    console.print(table)
    if item.worst is not None and len(item.groups) > 1:
        value = item.groups[item.worst].value / LN2
        line = f"least favourable group: {plain(item.worst)} ({value:+.4f} bits per byte)"
        console.print(Text(line, style="dim"))


def ranking(console: Console, item: Ranking) -> None:
    """Print several runs, best first, with tiers and the matrix of differences."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("tier", "run", "bits/byte"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for place in range(len(item.sides)):
        table.add_column(f"- {place + 1}", justify="right")
    for place, side in enumerate(item.sides):
        cells = []
        for other in range(len(item.sides)):
            low, high = min(place, other), max(place, other)
            if low == high:
                cells.append("")
                continue
            value = item.pairs[low, high].byte.value / LN2 * (1 if place == high else -1)
            mark = "*" if item.adjusted[low, high] < 1 - item.pairs[low, high].byte.level else " "
            cells.append(f"{value:+.4f}{mark}")
        name = f"{place + 1} {plain(side.name)}"
        table.add_row(str(item.tiers[place] + 1), name, f"{side.bits_per_byte:.4f}", *cells)
    console.print(table)
    console.print(
        Text(
            "row minus column in bits per byte; * differs at 5% after Holm; runs of one tier "
            "cannot be told apart from the best of it",
            style="dim",
        )
    )


def markdown(items: list[Comparison]) -> str:
    """Give comparisons as a Markdown table."""
    lines = [
        "| run | against | bits per byte | difference | 95% interval | bits | p (t) | p (flips) | "
        "wins | documents | verdict |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|---:|---|",
    ]
    for item in items:
        one = item.byte
        value, span = _span(one, 1 / LN2)
        lines.append(
            f"| {_cell(item.second.name)} | {_cell(item.first.name)} "
            f"| {item.second.bits_per_byte:.4f} | {value} | {span} | {one.relative:+.2%} "
            f"| {one.p_t:.2g} | {one.p_flip:.2g} | {one.wins:.0%} | {one.documents} "
            f"| {item.verdict} |"
        )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return plain(text).replace("|", "\\|")


COLUMNS = (
    "run", "against", "group", "bits_per_byte_first", "bits_per_byte", "difference", "low", "high",
    "standard_error", "relative", "p_t", "p_sign_flip", "p_corrected", "win_rate", "documents",
    "verdict",
)  # fmt: skip


def as_csv(items: list[Comparison]) -> str:
    """Give CSV with full precision, a row per comparison and group."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, "signature_first", "signature"])
    for item in items:
        for name, one in (("all", item.byte), *item.groups.items()):
            whole = name == "all" and one is item.byte
            sides = [s.bits_per_byte if whole else math.nan for s in (item.first, item.second)]
            numbers = [
                *sides, one.value / LN2, one.low / LN2, one.high / LN2, one.error / LN2,
                one.relative, one.p_t, one.p_flip, item.adjusted.get(name, math.nan), one.wins,
            ]  # fmt: skip
            writer.writerow(
                [
                    harmless(item.second.name), harmless(item.first.name), harmless(name),
                    *("" if value != value else repr(float(value)) for value in numbers),
                    one.documents, item.verdict if whole else "",
                    str(item.first.signature), str(item.second.signature),
                ]
            )  # fmt: skip
    return out.getvalue()


def latex(items: list[Comparison]) -> str:
    """Give a LaTeX tabular (booktabs), the signatures as comments."""
    lines = [
        r"\begin{tabular}{lrrrrrl}", r"\toprule",
        r"run & bits/byte & difference & 95\% interval & $p$ & documents & verdict \\", r"\midrule",
    ]  # fmt: skip
    if items:
        first = items[0].first
        lines.append(rf"{tex(plain(first.name))} & {first.bits_per_byte:.4f} & & & & & \\")
    for item in items:
        value, span = _span(item.byte, 1 / LN2)
        cells = (
            tex(plain(item.second.name)), f"{item.second.bits_per_byte:.4f}", f"${value}$",
            "$" + span.replace(" to ", "$ to $") + "$", f"{item.byte.p_t:.2g}",
            str(item.byte.documents), item.verdict,
        )  # fmt: skip
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    sides = [items[0].first, *(item.second for item in items)] if items else []
    lines += [f"% {side.signature}" for side in sides]
    return "\n".join(lines) + "\n"
