"""Self-contained HTML: no script, no outside request, every text escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fairway.render import companions
from fairway.render.explain import explain
from fairway.render.visible import COLOURS, LEVELS, bits, figure, level, plain, visible
from fairway.report import Report
from fairway.scores import kind_of, named, real

if TYPE_CHECKING:
    from fairway.scores import Score

MOST_TOKENS = 20_000
"""Tokens drawn on a page, which keeps it below 2 MB."""

STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: light-dark(#666, #a0a0a0); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line); }
td:first-child, th:first-child { text-align: left; }
.dim, .signature { color: var(--dim); font-size: .85rem; }
.signature { font-family: ui-monospace, monospace; }
"""


def heat_style() -> str:
    """Give the rules that `heat` needs on its page."""
    rules = [
        f".fw-heat .l{index}{{background:{back};color:{front}}}"
        for index, (back, front) in enumerate(COLOURS)
    ]
    return (
        ".fw-heat{font:15px/1.9 ui-monospace,monospace;overflow-wrap:anywhere}"
        ".fw-heat span{border-radius:2px;padding:1px 0;margin-right:1px}"
        ".fw-heat .u{border-bottom:2px dotted #888}" + "".join(rules)
    )


def _token(token: Mapping[str, Any], hidden: bool) -> str:
    surprisal = bits(real(token["logprob"]))
    text = "" if hidden else token["text"]
    shown = escape(visible(text) or "∅")
    tail = "<br>" if "\n" in text else ""
    if surprisal != surprisal:
        return f'<span class="u" title="not scored">{shown}</span>{tail}'
    tip = f"{figure(surprisal, 3)} bits, p = {figure(math.exp(real(token['logprob'])), 3)}"
    return f'<span class="l{level(surprisal)}" title="{tip}">{shown}</span>{tail}'


def heat(tokens: Sequence[Mapping[str, Any]], budget: int = MOST_TOKENS) -> str:
    """Draw tokens with their surprisal as background, and the scale."""
    parts = []
    until = -1
    for token in tokens[:budget]:
        parts.append(_token(token, token["start"] < until))
        until = max(until, token["end"])
    split = any(a["end"] > b["start"] for a, b in pairwise(tokens[:budget]))
    further = " &nbsp; ∅ a further token of the same character" if split else ""
    more = ""
    if len(tokens) > budget:
        more = f'<p class="dim">{len(tokens) - budget:,} further tokens are not drawn.</p>'
    edges = ["0", *(f"{edge:g}" for edge in LEVELS)]
    scale = "".join(
        f'<span class="l{index}">&nbsp;{edge}+&nbsp;</span>' for index, edge in enumerate(edges)
    )
    return (
        f'<div class="fw-heat">{"".join(parts)}<p>bits: {scale} '
        f'<span class="u">not scored</span>{further}</p></div>{more}'
    )


def heat_map(score: Score) -> str:
    """Draw one score; this is what a notebook shows."""
    from fairway.report import text_entry

    metrics, name = score.metrics, score.perplexity
    kind = kind_of(name).replace("_", " ")
    bits_per_byte = metrics[named("bits_per_byte", name)]
    return (
        f"<style>{heat_style()}</style><p>{kind}perplexity {figure(metrics[name])}, "
        f"{figure(bits_per_byte)} {kind}bits per byte, {score.totals.tokens:,} tokens</p>"
        + heat(text_entry(score)["tokens"])
    )


def _safe(text: str) -> str:
    return escape(plain(text))


def _row(label: str, value: str, remark: str = "") -> str:
    return (
        f"<tr><td>{_safe(label)}</td><td>{_safe(value)}</td>"
        f"<td class='dim'>{escape(remark)}</td></tr>"
    )


def _section(report: Report) -> str:
    metrics = report.metrics
    rows = []
    for key, value in metrics.items():
        interval = report.intervals.get(key)
        span = f"{figure(interval.low)} to {figure(interval.high)}" if interval else ""
        shown = figure(value, 5) if value == value else report.reasons.get(key, "-")
        rows.append(_row(key.replace("_", " "), shown, span))
    for key, value in report.totals.to_json().items():
        shown = figure(real(value), 7) if key == "nll" else f"{value:,}"
        rows.append(_row(key.replace("_", " "), shown))
    if report.companions is not None:
        rows += [
            _row(row.label, row.value, f"{row.span} {row.remark}")
            for row in companions.rows(report.companions)
        ]
    if report.oov is not None:
        rows += [_row(row.label, row.value, row.remark) for row in companions.unknown(report.oov)]
    parts = [
        f"<h2>{_safe(report.model)} on {_safe(report.data)}</h2>",
        "<table><tr><th>metric</th><th>value</th><th>interval</th></tr>" + "".join(rows),
        "</table>",
        "".join(f"<p>{_safe(line)}</p>" for line in explain(report).splitlines()),
    ]
    if report.groups:
        kind = _safe(kind_of(report.perplexity).replace("_", " "))
        byte = named("bits_per_byte", report.perplexity)
        parts.append(f"<h3>Groups</h3><table><tr><th>group</th><th>{kind}perplexity</th>")
        parts.append(f"<th>{kind}bits per byte</th><th>documents</th></tr>")
        for group in report.groups:
            cells = []
            for key in (report.perplexity, byte):
                interval = group.intervals.get(key)
                span = f" [{figure(interval.low)}, {figure(interval.high)}]" if interval else ""
                cells.append(figure(group.metrics[key]) + span)
            parts.append(
                f"<tr><td>{_safe(group.name)}</td><td>{escape(cells[0])}</td>"
                f"<td>{escape(cells[1])}</td><td>{group.totals.documents:,}</td></tr>"
            )
        for key, (value, low, high) in report.macro.items():
            if key == byte:
                parts.append(
                    f"<tr><td>mean (macro)</td><td></td><td>{figure(value)} "
                    f"[{figure(low)}, {figure(high)}]</td><td></td></tr>"
                )
        parts.append("</table>")
        parts.append(_companion_groups(report))
    parts += [f"<p>note: {_safe(note)}</p>" for note in report.notes]
    if report.skipped_total:
        parts.append(f"<p>{report.skipped_total:,} rows were skipped.</p><ul>")
        for row in report.skipped_rows[:50]:
            line = f"{row['source']}:{row['line']}: {row['reason']}"
            parts.append(f"<li>{_safe(line)}</li>")
        parts.append("</ul>")
    parts.append(f'<p class="signature">{_safe(str(report.signature))}</p>')
    return "\n".join(parts)


def _companion_groups(report: Report) -> str:
    """Give a table of what stands beside perplexity for each group, where it is known."""
    known = [(g.name, g.companions) for g in report.groups if g.companions is not None]
    if not known:
        return ""
    heads = "".join(f"<th>{escape(label)}</th>" for _, label in companions.COLUMNS)
    lines = []
    for name, item in known:
        cells = (companions.shown(key, item.metrics[key]) for key, _ in companions.COLUMNS)
        shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr><td>{_safe(name)}</td>{shown}</tr>")
    return f"<table><tr><th>group</th>{heads}</tr>{''.join(lines)}</table>"


def page(reports: Sequence[Report], title: str = "fairway report") -> str:
    """Give a whole page: each report, then its texts as heat maps where they were kept."""
    body = [f"<h1>{escape(title)}</h1>"]
    left = MOST_TOKENS
    for report in reports:
        body.append(_section(report))
        for entry in report.texts:
            if left <= 0:
                body.append('<p class="dim">Further texts are not drawn.</p>')
                break
            value = figure(real(entry["metrics"].get(report.perplexity)))
            heading = _safe(f"{entry['id']}: {report.perplexity} {value}")
            body.append(f"<h3>{heading}</h3>")
            body.append(heat(entry["tokens"], left))
            left -= len(entry["tokens"])
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}{heat_style()}</style></head>\n"
        f"<body>{''.join(body)}</body></html>\n"
    )
