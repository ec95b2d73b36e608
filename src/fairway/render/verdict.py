"""A comparison as one self-contained page: verdict, intervals, where, heat maps, signatures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fairway.comparison import LN2, Comparison
from fairway.comparison import TITLES as CORRECTED
from fairway.pairs import Difference
from fairway.render import charts, html
from fairway.render.charts import Span
from fairway.render.comparison import basis
from fairway.render.visible import figure, plain, visible
from fairway.render.where import TITLES
from fairway.where import Extremes, Part, Where

DRAWN = 3
"""Documents drawn as heat maps on either side."""
TOKENS = 6_000
"""Tokens drawn in all, which keeps a page below 2 MB."""

STYLE = (
    charts.STYLE
    + """
.verdict { font-size: 1.25rem; border-left: .4rem solid; padding: .4rem 0 .4rem .8rem; }
.verdict.better { border-color: #0072b2; } .verdict.worse { border-color: #d55e00; }
.verdict.undecided { border-color: #888; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; }
.two > div { min-width: 0; }
@media (max-width: 48rem) { .two { grid-template-columns: 1fr; } }
mark { background: none; color: inherit; font-weight: 700; text-decoration: underline; }
td, th { overflow-wrap: normal; white-space: nowrap; }
td.text { text-align: left; font-family: ui-monospace, monospace; font-size: .85rem;
  white-space: normal; overflow-wrap: anywhere; min-width: 14rem; }
summary { cursor: pointer; margin-top: 1rem; font-weight: 600; }
@media print { body { margin: 0; max-width: none; } details::details-content { display: block; }
  svg.fw, table, .fw-heat { break-inside: avoid; } }
"""
)


def page(
    items: Sequence[tuple[Comparison, Where | None]], title: str = "fairway comparison"
) -> str:
    """Give the page of one or several comparisons.

    Args:
        items: each with where its runs differ; None where the tokens were not kept.
        title: of the page.
    """
    body = [f"<h1>{escape(title)}</h1>"]
    for item, where in items:
        body.append(_section(item, where, TOKENS // max(1, len(items))))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title>"
        f"<style>{html.STYLE}{html.heat_style()}{STYLE}</style></head>\n"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _section(item: Comparison, where: Where | None, budget: int) -> str:
    first, second = plain(item.first.name), plain(item.second.name)
    mark = {"better": "▼", "worse": "▲", "undecided": "●"}[item.verdict]
    parts = [
        f"<h2>{escape(second)} against {escape(first)}</h2>",
        f'<p class="verdict {item.verdict}">{mark} {_safe(item.sentence())}</p>',
        f"<p class='dim'>On {_safe(item.first.report.data)}. Fewer bits are better; an interval "
        "right of 0 means that the second model needs more.</p>",
    ]
    spans = [_span("all (micro)", item.byte)]
    spans += [_span(name, one, item.adjusted[name]) for name, one in item.groups.items()]
    parts.append(charts.intervals(spans, "difference in bits per byte, 95% interval"))
    parts.append(_numbers(item))
    parts += [f"<p class='dim'>{_safe(line)}</p>" for line in basis(item.byte, item.unit)]
    if item.groups:
        parts.append(_groups(item))
    for key, (ours, theirs) in item.allowed.items():
        parts.append(
            f"<p>Allowed to differ: {_safe(key)} ({_safe(ours or 'none')} and "
            f"{_safe(theirs or 'none')}).</p>"
        )
    parts += [f"<p>note: {_safe(line)}</p>" for line in item.warnings]
    if where is None:
        parts.append(
            "<p class='dim'>Where the models differ is not known: the runs have not kept their "
            "tokens (eval --texts).</p>"
        )
    else:
        parts.append(_where(where, first, second))
        parts.append(_maps(item, where, budget))
    parts.append("<h3>Signatures</h3>")
    parts += [
        f'<p class="signature">{_safe(side.name)}: {_safe(str(side.signature))}</p>'
        for side in (item.first, item.second)
    ]
    return "\n".join(parts)


def _safe(text: str) -> str:
    return escape(plain(text))


def _span(name: str, one: Difference, p: float | None = None) -> Span:
    real = one.real and (p is None or p < 1 - one.level)
    verdict = ("better" if one.value < 0 else "worse") if real else "undecided"
    return Span(name, one.value / LN2, one.low / LN2, one.high / LN2, verdict)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; cells are HTML already."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    lines = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _cell(text: str) -> str:
    return f"<td>{_safe(text)}</td>"


def _both(one: Difference, scale: float) -> list[str]:
    value = f"{one.value * scale:+.4f}"
    if math.isnan(one.low):
        return [value, "-"]
    return [value, f"{one.low * scale:+.4f} to {one.high * scale:+.4f}"]


def _numbers(item: Comparison) -> str:
    rows = []
    for label, one, scale, unit in (
        ("bits per byte", item.byte, 1 / LN2, "bytes"),
        ("nats per token", item.token, 1.0, "tokens"),
        ("nats per word", item.word, 1.0, "words"),
    ):
        if one is not None:
            sides = [
                figure(s.report.totals.per(unit) * scale, 5) for s in (item.first, item.second)
            ]
            rows.append([_cell(cell) for cell in (label, *sides, *_both(one, scale))])
    return _table(("", item.first.name, item.second.name, "difference", "95% interval"), rows)


def _groups(item: Comparison) -> str:
    rows = []
    for name, one in (*item.groups.items(), ("all (micro)", item.byte)):
        p = item.adjusted.get(name)
        cells = (
            name, *_both(one, 1 / LN2), f"{one.relative:+.1%}", f"{one.wins:.0%}",
            "-" if p is None else f"{p:.2g}", f"{one.documents:,}",
        )  # fmt: skip
        rows.append([_cell(cell) for cell in cells])
    if item.macro is not None:
        rows.append([_cell(c) for c in ("mean (macro)", f"{item.macro / LN2:+.4f}", *[""] * 5)])
    header = (
        "group", "bits per byte", "95% interval", "bits", "likelier in",
        f"p ({CORRECTED[item.correction]})", "documents",
    )  # fmt: skip
    return "<h3>Groups</h3>" + _table(header, rows)


def _where(where: Where, first: str, second: str) -> str:
    parts = ["<h3>Where the difference sits</h3>"]
    for name, title in TITLES:
        found: tuple[Part, ...] = getattr(where, name)
        if not found:
            continue
        parts.append(f"<h4>By {escape(title)}</h4>")
        # What is rare has an interval that would squeeze the others.
        drawn = [one for one in found if one.bytes >= 0.005 * sum(part.bytes for part in found)]
        spans = [_span(one.name, one.found) for one in drawn]
        parts.append(charts.intervals(spans, "difference in bits per byte, 95% interval"))
        parts.append(_parts(found, title, first, second))
    for among, title in (
        (where.documents, "Documents"), (where.spans, "Spans"),
        (where.texts, "All spans of one text together"),
    ):  # fmt: skip
        parts.append(f"<details><summary>{title} with the largest gains and losses</summary>")
        parts.append(_extremes(among, first, second) + "</details>")
    return "".join(parts)


def _parts(found: tuple[Part, ...], title: str, first: str, second: str) -> str:
    whole = sum(part.second - part.first for part in found)
    rows = []
    for one in found:
        share = (one.second - one.first) / whole if whole else 0.0
        cells = (
            one.name, f"{one.bytes:,}", f"{one.first / LN2 / one.bytes:.3f}",
            f"{one.second / LN2 / one.bytes:.3f}", *_both(one.found, 1 / LN2), f"{share:.1%}",
        )  # fmt: skip
        rows.append([_cell(cell) for cell in cells])
    header = (title, "bytes", first, second, "bits per byte", "95% interval", "of the difference")
    return _table(header, rows)


def _extremes(among: Extremes, first: str, second: str) -> str:
    rows = []
    for one in (*among.better, *among.worse):
        if one.text:
            shown = (
                f"{escape(visible(one.before[-24:]))}<mark>{escape(visible(one.text))}</mark>"
                f" <span class='dim'>{_safe(one.name or f'×{one.count:,}')}</span>"
            )
        else:
            shown = _safe(one.name)
        cells = (
            f"{one.first / LN2:,.1f}", f"{one.second / LN2:,.1f}", f"{one.apart / LN2:+,.1f}",
            f"{among.share(one):.1%}",
        )  # fmt: skip
        rows.append([f'<td class="text">{shown}</td>', *map(_cell, cells)])
    return _table(("", f"{first}, bits", f"{second}, bits", "difference", "share"), rows)


def _maps(item: Comparison, where: Where, budget: int) -> str:
    """Draw the texts with the largest differences, the two models side by side."""
    ours = {record.id: record.entry for record in item.first.records if record.entry}
    theirs = {record.id: record.entry for record in item.second.records if record.entry}
    chosen = [*where.documents.worse[:DRAWN], *where.documents.better[:DRAWN]]
    parts = ["<h3>Texts with the largest differences</h3>"]
    each = max(50, budget // (2 * max(1, len(chosen))))
    for one in chosen:
        pair = ours.get(one.name), theirs.get(one.name)
        if pair[0] is None or pair[1] is None:
            continue
        parts.append(f"<h4>{_safe(one.name)}: {one.apart / LN2:+,.1f} bits</h4><div class='two'>")
        upto = min(_reach(entry, each) for entry in (pair[0], pair[1]))
        for side, entry in ((item.first, pair[0]), (item.second, pair[1])):
            parts.append(f"<div><p>{_safe(side.name)}</p>{_heat(entry, upto)}</div>")
        parts.append("</div>")
    return "".join(parts)


def _reach(entry: Mapping[str, Any], most: int) -> int:
    """The character up to which so many tokens go."""
    tokens = entry["tokens"]
    return int(tokens[most]["start"]) if len(tokens) > most else len(entry["text"])


def _heat(entry: Mapping[str, Any], upto: int) -> str:
    shown = [token for token in entry["tokens"] if token["end"] <= upto]
    rest = len(entry["tokens"]) - len(shown)
    more = f"<p class='dim'>{rest:,} further tokens are not drawn.</p>" if rest else ""
    return html.heat(shown, len(shown)) + more
