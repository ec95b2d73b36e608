"""The page that lists runs, and the one that says why there is nothing to see."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from urllib.parse import quote, urlencode

from fairway.render.visible import figure, plain
from fairway.scores import kind_of
from fairway.serve.rundirs.catalogue import RUNS, Found

STYLE = """
.runs { overflow-x: auto; } .runs th, .runs td { text-align: left; }
.runs :is(th, td):is(:nth-child(6), :nth-child(7)) { text-align: right; white-space: nowrap; }
.runs tbody th { min-width: 11rem; max-width: 30rem; } .runs td:nth-child(8) { min-width: 8rem; }
.runs td:nth-child(-n+2) { text-align: center; } main > * { margin-top: .75rem; }
"""
"""Beside the style sheet of the page for texts."""
ALLOW = re.compile(r"--allow ([a-z]+) ")


def link(base: str, name: str) -> str:
    """Give the address of a run's page."""
    return f"{base}/runs/{quote(name, safe='/')}"


def curve_link(base: str, folder: str) -> str:
    """Give the address of a folder's curve."""
    return f"{base}/runs/curve?{urlencode({'folder': folder})}"


def back(base: str) -> str:
    """Give the way back to the list."""
    return f'<p><a href="{escape(base)}/runs">All runs</a></p>'


def listing(found: Sequence[Found], curves: Sequence[str], more: bool, base: str) -> str:
    """Give the page with all runs.

    Args:
        found: the runs.
        curves: folders whose runs make a curve.
        more: whether some are left out.
        base: path under which the application is mounted.
    """
    where = escape(base)
    parts = [f'<header><h1>Runs</h1><nav aria-label="fairway"><a href="{where}/">Try a text</a>']
    parts.append("</nav></header><main>")
    if not found:
        parts.append("<p>There are no runs yet: fairway eval --out FOLDER makes one.</p>")
    else:
        parts.append(
            f'<form action="{where}/runs/compare" method="get">'
            "<p>Choose one run as the measure, and one to hold against it.</p>"
            f'<div class="runs">{_table(found, base)}</div>'
            '<p class="buttons"><button type="submit">Compare</button></p></form>'
        )
    if more:
        parts.append(f"<p>Only {RUNS:,} runs are listed.</p>")
    if curves:
        rows = "".join(
            f'<li><a href="{escape(curve_link(base, one))}">'
            f"{escape(plain(one)) or 'all that lie side by side'}</a></li>"
            for one in curves
        )
        parts.append(f"<h2>Curves over a training's steps</h2><ul>{rows}</ul>")
    parts.append("</main>")
    return _whole("fairway: runs", "".join(parts), base)


def _table(found: Sequence[Found], base: str) -> str:
    heads = ("measure", "against", "run", "model", "data", "perplexity", "bits per byte", "state")
    rows = []
    for one in found:
        name = escape(plain(one.name))
        boxes = ["<td></td>", "<td></td>"]
        if one.state == "finished":
            boxes = [
                f'<td><input type="radio" name="{side}" value="{escape(one.name)}" '
                f'aria-label="{label} {name}"></td>'
                for side, label in (("first", "measure:"), ("second", "against:"))
            ]
        kind = kind_of(one.perplexity).replace("_", " ").strip()
        value = figure(one.value) + (f" ({kind})" if kind else "")
        cells = (
            one.model, one.data, value, figure(one.bits_per_byte),
            one.state + (f": {one.reason}" if one.reason else ""),
        )  # fmt: skip
        rows.append(
            f'<tr>{"".join(boxes)}<th scope="row"><a href="{escape(link(base, one.name))}">{name}'
            "</a></th>" + "".join(f"<td>{escape(plain(cell))}</td>" for cell in cells) + "</tr>"
        )
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def refusal(sentence: str, base: str, again: str = "") -> str:
    """Give a page with one sentence.

    Args:
        sentence: the fact and the way out.
        base: path under which the application is mounted.
        again: address that was asked for, where a comparison may be made all the same.
    """
    parts = [f'<header><h1>Runs</h1><nav aria-label="fairway">{back(base)}</nav></header><main>']
    parts.append(f'<p class="problem">{escape(plain(sentence))}</p>')
    key = ALLOW.search(sentence) if again else None
    if key:
        address = escape(f"{again}&{urlencode({'allow': key[1]})}")
        parts.append(f'<p><a href="{address}">Compare them all the same (allow {key[1]})</a></p>')
    return _whole("fairway: runs", "".join(parts) + "</main>", base)


def _whole(title: str, body: str, base: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="stylesheet" '
        f'href="{escape(base)}/static/style.css"><style>{STYLE}</style></head>\n'
        f"<body>{body}</body></html>\n"
    )
