"""Reports as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from fairway.companions import METRICS, RATIOS, Figures
from fairway.render.companions import unknown
from fairway.render.visible import figure, plain
from fairway.report import Group, Report
from fairway.scores import kind_of, named

SHOWN = ("perplexity", "bits/byte", "word ppl")
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
        for plainly in ("perplexity", "bits_per_byte", "word_perplexity"):
            key = named(plainly, report.perplexity)
            value = metrics[key]
            interval = intervals.get(key)
            span = f" [{figure(interval.low)}, {figure(interval.high)}]" if interval else ""
            cells.append(figure(value) + span)
        yield (
            plain(report.model), plain(data), plain(name), *cells,
            "-" if totals.scored and not totals.tokens else str(totals.tokens),
            str(totals.documents),
        )  # fmt: skip


def _kinds(reports: Sequence[Report]) -> list[tuple[list[str], list[Report]]]:
    """Part reports by the kind of their perplexity, each with the header of its table."""
    names = dict.fromkeys(report.perplexity for report in reports)
    out = []
    for name in names or ("perplexity",):
        kind = kind_of(name).replace("_", " ")
        header = [kind + one if one in SHOWN else one for one in HEADER]
        out.append((header, [report for report in reports if report.perplexity == name]))
    return out


def markdown(reports: Sequence[Report]) -> str:
    """Give a Markdown table, one for each kind of perplexity, and the signatures below it."""
    lines = []
    for header, some in _kinds(reports):
        lines.append("| " + " | ".join(header) + " |")
        lines.append("|---|---|---|" + "---:|" * (len(header) - 3))
        for cells in _rows(some):
            escaped = [cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells]
            lines.append("| " + " | ".join(escaped) + " |")
        lines.append("")
    lines += [f"`{report.signature}`" for report in reports]
    for report in reports:
        if report.oov is not None:
            shown = "; ".join(
                f"{row.label} {row.value} ({row.remark})" for row in unknown(report.oov)
            )
            if report.oov.tokens:
                shown += "; bits per byte are no length of a code"
            lines += ["", f"{plain(report.model)} on {plain(report.data)}: {shown}"]
    return "\n".join(lines) + "\n"


def as_csv(reports: Sequence[Report]) -> str:
    """Give CSV with full precision, a row per report and group.

    What stands beside perplexity has columns where a report has it. Text that a spreadsheet would
    take for a formula gets a quote in front.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    metrics = list(dict.fromkeys(key for report in reports for key in report.metrics))
    counts = list(reports[0].totals.to_json()) if reports else []
    known = any(report.companions is not None for report in reports)
    beside = METRICS if known else ()
    ends = [f"{key}_{end}" for key in RATIOS for end in ("low", "high")] if known else []
    told = any(report.oov is not None for report in reports)
    ends += ["oov_tokens", "oov_rate", "perplexity_without_oov"] if told else []
    writer.writerow(
        ["model", "data", "group", *metrics, *counts, "bpb_low", "bpb_high", *beside, *ends]
        + ["signature"]
    )
    for report in reports:
        parts: list[tuple[str, Report | Group]] = [("all", report)]
        parts += [(group.name, group) for group in report.groups]
        for name, part in parts:
            values = part.metrics
            interval = part.intervals.get(named("bits_per_byte", report.perplexity))
            more = part.companions or Figures(0, {})
            row = [
                harmless(report.model), harmless(report.data), harmless(name),
                *(repr(values[key]) if key in values else "" for key in metrics),
                *part.totals.to_json().values(),
                repr(interval.low) if interval else "", repr(interval.high) if interval else "",
                *(repr(more.metrics[key]) if key in more.metrics else "" for key in beside),
                *_ends(more, known),
                *_unknown(part, told),
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


def _unknown(part: Report | Group, told: bool) -> list[str]:
    """Give the cells on words that the model's vocabulary lacks."""
    if not told:
        return []
    if part.oov is None:
        return ["", "", ""]
    return [str(part.oov.tokens), *(repr(value) for value in part.oov.metrics.values())]


def harmless(text: str) -> str:
    """Put a quote before text that a spreadsheet would take for a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def latex(reports: Sequence[Report]) -> str:
    """Give a LaTeX tabular (booktabs), the signatures as comments."""
    lines = []
    for header, some in _kinds(reports):
        lines += [r"\begin{tabular}{lllrrrrr}", r"\toprule"]
        lines += [" & ".join(header) + r" \\", r"\midrule"]
        lines += [" & ".join(map(tex, cells)) + r" \\" for cells in _rows(some)]
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
    byte = named("bits_per_byte", report.perplexity)
    bpb = report.intervals.get(byte)
    span = ""
    if bpb is not None:
        span = f" ({bpb.level:.0%} CI {figure(bpb.low)} to {figure(bpb.high)})"
    name = report.perplexity.replace("_", "-")
    parts = []
    if report.totals.bytes:
        parts.append(f"{figure(report.metrics[byte])} {byte.replace('_', ' ')}{span}")
    if report.totals.tokens:
        parts.append(f"a token {name} of {figure(report.metrics[report.perplexity])}")
    lost = ""
    if report.oov is not None and report.oov.tokens:
        lost = f", {figure(100 * report.oov.metrics['oov_rate'], 3)}% of them unknown words,"
    return (
        f"{report.model} reaches {' and '.join(parts)}{lost} on {report.data} "
        f"(fairway {report.version}, {report.signature})."
    )
