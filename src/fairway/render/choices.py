"""Accuracies on a terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairway.accuracy import Accuracy, Average, ChoiceReport
from fairway.flips import Contest
from fairway.render.tables import harmless
from fairway.render.visible import figure, plain
from fairway.statistics import Interval

LABELS = {
    "acc": "summed log-prob",
    "acc_norm": "per character",
    "acc_bytes": "per byte",
    "acc_tokens": "per token",
    "acc_mutual_info": "less unconditional",
}
LISTED = 5
"""Rows and flips that are listed."""


def report(console: Console, item: ChoiceReport) -> None:
    """Print one model's accuracies, what they rest on, its groups and the signature."""
    heading = Text.assemble((plain(item.model), "bold"), " on ", (plain(item.data), "bold"))
    console.print(heading, highlight=False)
    single = item.item_perplexity is not None
    table = _table("", "accuracy", "95% interval", "right", "ties", "")
    table.columns[-1].justify = "left"
    for name, one in item.accuracies.items():
        table.add_row(
            name, Text(f"{one.value:.4f}", style="bold"), span(one.interval), f"{one.right:,}",
            f"{one.ties:,}", Text("first guess" if single else LABELS[name], style="dim"),
        )  # fmt: skip
    console.print(table)
    kind = "a single choice each" if single else f"guessing gives {item.chance:.4f}"
    lines = [f"{item.task}, items: {len(item.decisions):,}; {kind}"]
    first = next(iter(item.accuracies.values()))
    lines.append(f"intervals: {first.interval.method}")
    if first.clustered is not None:
        lines.append(f"acc with {first.clustered.method}: {span(first.clustered)}")
    for line in lines:
        console.print(Text(line, style="dim"))
    if item.item_perplexity is not None:
        value = item.item_perplexity
        console.print(
            f"perplexity of the whole answer, per item and not per token: "
            f"{figure(value.value)}{_between(value)}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    if item.groups:
        groups(console, item)
    for line in item.notes:
        console.print(Text(f"note: {plain(line)}", style="yellow"))
    skipped(console, item)
    console.print(Text(f"signature: {item.signature}", style="dim"), soft_wrap=True)


def groups(console: Console, item: ChoiceReport) -> None:
    """Print the groups' accuracies, with micro and macro averages."""
    more = ["acc_norm"] if "acc_norm" in item.accuracies else []
    table = _table("group", "acc", "95% interval", *more, "items")
    for name, found in (*item.groups.items(), ("all (micro)", item.accuracies)):
        one = found["acc"]
        cells = (f"{found[metric].value:.4f}" for metric in more)
        table.add_row(plain(name), f"{one.value:.4f}", span(one.interval), *cells, f"{one.items:,}")
    if item.macro:
        mean = item.macro["acc"]
        cells = (f"{item.macro[metric].value:.4f}" for metric in more)
        table.add_row("mean (macro)", f"{mean.value:.4f}", span(mean.interval), *cells, "")
    console.print(table)


def skipped(console: Console, item: ChoiceReport) -> None:
    """Print the rows and items that could not be scored, the first few."""
    rows = item.skipped_total
    if not rows:
        return
    console.print(Text(f"{rows:,} row{'s' * (rows != 1)} skipped:", style="yellow"))
    for row in item.skipped[:LISTED]:
        place = f"{row.source}:{row.line}" if row.line else row.source
        console.print(Text(plain(f"  {place}: {row.reason}")))
    if rows > LISTED:
        console.print(Text(f"  and {rows - LISTED:,} more; --json lists them"))


def contest(console: Console, item: Contest) -> None:
    """Print how a second model's decisions differ from a first one's."""
    names = plain(item.second.model), plain(item.first.model)
    console.print(Text.assemble((names[0], "bold"), " against ", (names[1], "bold")))
    table = _table("", "difference", "95% interval", "gained", "lost", "p (McNemar)")
    for name, one in item.flips.items():
        table.add_row(
            name, f"{one.difference.value:+.4f}", _between(one.difference, "+.4f").strip(" []"),
            f"{len(one.gained):,}", f"{len(one.lost):,}", f"{one.p:.2g}",
        )  # fmt: skip
    console.print(table)
    first = item.flips["acc"]
    method = first.difference.interval.method if first.difference.interval else "none"
    line = f"items: {first.items:,}; intervals: {method}; the test is exact"
    console.print(Text(line, style="dim"))
    for label, ids in (("gained", first.gained), ("lost", first.lost)):
        if ids:
            more = f", and {len(ids) - LISTED:,} more" if len(ids) > LISTED else ""
            line = f"{label} (acc): {plain(', '.join(ids[:LISTED]))}{more}"
            console.print(Text(line, style="dim"))
    if item.alone:
        line = f"note: left out, since only one model could score them: {item.alone}"
        console.print(Text(line, style="yellow"))


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place, name in enumerate(headings):
        table.add_column(name, justify="right" if place else "left")
    return table


def span(interval: Interval | None) -> str:
    """Write an interval of a share."""
    return "-" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"


def _between(value: Average, form: str = "") -> str:
    if value.interval is None:
        return ""
    ends = (value.interval.low, value.interval.high)
    low, high = (format(end, form) if form else figure(end) for end in ends)
    return f" [{low} to {high}]"


def _rows(
    reports: Sequence[ChoiceReport],
) -> list[tuple[ChoiceReport, str, str, Accuracy]]:
    return [
        (item, group, name, one)
        for item in reports
        for group, found in (("all", item.accuracies), *item.groups.items())
        for name, one in found.items()
    ]


def markdown(reports: Sequence[ChoiceReport], contests: Sequence[Contest] = ()) -> str:
    """Give a Markdown table of accuracies, one of differences, and the signatures below."""
    lines = [
        "| model | data | group | metric | accuracy | 95% interval | items | ties |",
        "|---|---|---|---|---:|---|---:|---:|",
    ]
    for item, group, name, one in _rows(reports):
        lines.append(
            f"| {_cell(item.model)} | {_cell(item.data)} | {_cell(group)} | {name} "
            f"| {one.value:.4f} | {span(one.interval)} | {one.items} | {one.ties} |"
        )
    for item in reports:
        if item.item_perplexity is not None:
            value = item.item_perplexity
            lines += [
                "",
                f"{_cell(item.model)}: perplexity of the whole answer, per item: "
                f"{figure(value.value)}{_between(value)}",
            ]
    if contests:
        lines += [
            "",
            "| model | against | metric | difference | 95% interval | gained | lost | p (exact) |",
            "|---|---|---|---:|---|---:|---:|---:|",
        ]
    for found in contests:
        for name, flips in found.flips.items():
            apart = flips.difference
            lines.append(
                f"| {_cell(found.second.model)} | {_cell(found.first.model)} | {name} "
                f"| {apart.value:+.4f} | {_between(apart, '+.4f').strip(' []')} "
                f"| {len(flips.gained)} | {len(flips.lost)} | {flips.p:.2g} |"
            )
    lines += ["", *(f"`{item.signature}`" for item in reports)]
    return "\n".join(lines) + "\n"


def as_csv(reports: Sequence[ChoiceReport]) -> str:
    """Give CSV with full precision, a row for each report, group and metric."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["model", "data", "group", "metric", "accuracy", "low", "high", "right", "items", "ties",
         "item_perplexity", "signature"]
    )  # fmt: skip
    for item, group, name, one in _rows(reports):
        value = item.item_perplexity if group == "all" else None
        writer.writerow(
            [harmless(item.model), harmless(item.data), harmless(group), name, repr(one.value),
             repr(one.interval.low), repr(one.interval.high), one.right, one.items, one.ties,
             "" if value is None else repr(value.value), str(item.signature)]
        )  # fmt: skip
    return out.getvalue()


def _cell(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace("|", "\\|")
