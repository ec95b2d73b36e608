"""Reports as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from fairway.companions import METRICS, RATIOS, Figures
from fairway.render.visible import figure, plain
from fairway.report import Group, Report

HEADER = ("model", "data", "group", "perplexity", "bits/byte", "word ppl", "tokens", "documents")


def _rows(reports: Sequence[Report]) -> Iterable[tuple[str, ...]]:
    """Every report's rows; the convention stands beside the corpus where there are several."""
    several = len({report.protocol for report in reports}) > 1
    for report in reports:
        yield from _cells(report, f"{report.data} ({report.protocol})" if several else report.data)


def _cells(report: Report, data: str) -> Iterable[tuple[str, ...]]:
    parts = [("all", report.totals, report.metrics, report.intervals)]
    parts += [(g.name, g.totals, g.metrics, g.intervals) for g in report.groups]
    for name, totals, metrics, intervals in parts:
        cells = []
        for key in (report.perplexity, "bits_per_byte", "word_perplexity"):
            value = metrics.get(key, metrics.get("perplexity", float("nan")))
            interval = intervals.get(key)
            span = f" [{figure(interval.low)}, {figure(interval.high)}]" if interval else ""
            cells.append(figure(value) + span)
        yield (
            plain(report.model), plain(data), plain(name), *cells,
            "-" if totals.scored and not totals.tokens else str(totals.tokens),
            str(totals.documents),
        )  # fmt: skip


def markdown(reports: Sequence[Report]) -> str:
    """Give a Markdown table, and the signatures below it."""
    lines = [
        "| " + " | ".join(HEADER) + " |",
        "|---|---|---|" + "---:|" * (len(HEADER) - 3),
    ]
    for cells in _rows(reports):
        escaped = [cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells]
        lines.append("| " + " | ".join(escaped) + " |")
    lines.append("")
    lines += [f"`{report.signature}`" for report in reports]
    return "\n".join(lines) + "\n"


def as_csv(reports: Sequence[Report]) -> str:
    """Give CSV with full precision, a row per report and group.

    What stands beside perplexity has columns where a report has it. Text that a spreadsheet would
    take for a formula gets a quote in front.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    metrics = list(reports[0].metrics) if reports else []
    counts = list(reports[0].totals.to_json()) if reports else []
    known = any(report.companions is not None for report in reports)
    beside = METRICS if known else ()
    ends = [f"{key}_{end}" for key in RATIOS for end in ("low", "high")] if known else []
    writer.writerow(
        ["model", "data", "group", *metrics, *counts, "bpb_low", "bpb_high", *beside, *ends]
        + ["signature"]
    )
    for report in reports:
        parts: list[tuple[str, Report | Group]] = [("all", report)]
        parts += [(group.name, group) for group in report.groups]
        for name, part in parts:
            values, interval = part.metrics, part.intervals.get("bits_per_byte")
            more = part.companions or Figures(0, {})
            row = [
                harmless(report.model), harmless(report.data), harmless(name),
                *(repr(values[key]) if key in values else "" for key in metrics),
                *part.totals.to_json().values(),
                repr(interval.low) if interval else "", repr(interval.high) if interval else "",
                *(repr(more.metrics[key]) if key in more.metrics else "" for key in beside),
                *_ends(more, known),
                str(report.signature),
            ]  # fmt: skip
            writer.writerow(["" if cell == "nan" else cell for cell in row])
    return out.getvalue()


def _ends(item: Figures, known: bool) -> list[str]:
    """Give the ends of the intervals of ratios, in the order of `RATIOS`."""
    out = []
    for key in RATIOS if known else ():
        interval = item.intervals.get(key)
        out += [repr(interval.low), repr(interval.high)] if interval else ["", ""]
    return out


def harmless(text: str) -> str:
    """Put a quote before text that a spreadsheet would take for a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def latex(reports: Sequence[Report]) -> str:
    """Give a LaTeX tabular (booktabs), the signatures as comments."""
    lines = [r"\begin{tabular}{lllrrrrr}", r"\toprule", " & ".join(HEADER) + r" \\", r"\midrule"]
    lines += [" & ".join(map(tex, cells)) + r" \\" for cells in _rows(reports)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [f"% {report.signature}" for report in reports]
    return "\n".join(lines) + "\n"


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def tex(text: str) -> str:
    """Escape what LaTeX would read as its own."""
    return "".join(_TEX.get(char, char) for char in text)


def citation(report: Report) -> str:
    """Give one line that can stand in a paper."""
    bpb = report.intervals.get("bits_per_byte")
    span = ""
    if bpb is not None:
        span = f" ({bpb.level:.0%} CI {figure(bpb.low)} to {figure(bpb.high)})"
    name = report.perplexity.replace("_", "-")
    parts = []
    if report.totals.bytes:
        parts.append(f"{figure(report.metrics['bits_per_byte'])} bits per byte{span}")
    if report.totals.tokens:
        parts.append(f"a token {name} of {figure(report.metrics[report.perplexity])}")
    return (
        f"{report.model} reaches {' and '.join(parts)} on {report.data} "
        f"(fairway {report.version}, {report.signature})."
    )
