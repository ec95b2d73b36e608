"""Tokenizers on a terminal, in Markdown and in CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairway.comparable import Side
from fairway.render.visible import figure, plain, visible
from fairway.scores import exp, real
from fairway.tokenizers import Audit, Marginal, Split
from fairway.tokenizers.fertility import to_json

COLUMNS = (
    ("tokens", "tokens", "{:,}"),
    ("bytes_per_token", "bytes/\ntoken", "{:.2f}"),
    ("chars_per_token", "chars/\ntoken", "{:.2f}"),
    ("tokens_per_word", "tokens/\nword", "{:.2f}"),
    ("premium", "premium", "{:.2f}"),
    ("tokens_over_first", "over\nfirst", "{:.2f}"),
    ("single_share", "single\nbytes", "{:.1%}"),
    ("unknown_share", "un-\nknown", "{:.1%}"),
    ("table_factor", "decode\ntable", "{:.2f}×"),
    ("span_factor", "offset\nspans", "{:.2f}×"),
    ("changed_share", "texts\nchanged", "{:.1%}"),
)
"""Key, heading, and form of the columns that people read."""
OPTIONAL = {"unknown_share", "tokens_over_first", "premium"}
"""Columns that are left out where they say nothing."""
NOTES = {
    "tokens_per_word": "tokens/word: - where most of the writing has no spaces between words",
    "premium": "premium: tokens over those of {reference}, for the same texts in translation",
    "tokens_over_first": "over first: tokens over those of {first}",
    "table_factor": "decode table, offset spans: bytes counted by decoding token by token, or by "
    "adding up spans, over the text's own; bits per byte come out divided by that",
}


def _rows(items: Sequence[Audit], reference: str | None) -> list[dict[str, Any]]:
    """Give each audit as plain data."""
    first = items[0] if len(items) > 1 else None
    return [to_json(item, reference, first) for item in items]


def _parts(entry: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    parts = list(entry["groups"].items())
    return parts + [("all", entry["total"])] if len(parts) > 1 else parts


def _columns(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Choose the columns that say something in any of the tables."""
    rows = [row for entry in entries for _, row in _parts(entry)]
    kept = []
    for key, label, form in COLUMNS:
        values = [row[key] for row in rows]
        dull = all(value is None or value == 0 for value in values)
        if key == "premium":
            # The measure's own is 1.
            dull = all(value is None for value in values if value != 1)
        if not (key in OPTIONAL and dull):
            kept.append((key, label, form))
    return kept


def _cell(value: Any, form: str) -> str:
    number = real(value)
    return "-" if math.isnan(number) else form.format(value)


def audits(console: Console, items: Sequence[Audit], reference: str | None) -> None:
    """Print what tokenizers make of a corpus: a table for each, then what the columns mean."""
    entries = _rows(items, reference)
    columns = _columns(entries)
    for item, entry in zip(items, entries, strict=True):
        console.print(
            Text.assemble(
                (plain(entry["tokenizer"]), "bold"),
                f"  {entry['kind']}, {entry['vocabulary']:,} ids, "
                f"{entry['total']['vocabulary_used']:.1%} of them used here",
            )
        )
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
        table.add_column("group", overflow="fold")
        for _, label, _ in columns:
            table.add_column(label, justify="right", no_wrap=True)
        for name, row in _parts(entry):
            table.add_row(plain(name), *(_cell(row[key], form) for key, _, form in columns))
        console.print(table)
        style, line = round_trip(item)
        console.print(Text(line, style=style))
        console.print()
    shown = {key for key, _, _ in columns}
    for key, line in NOTES.items():
        if key in shown:
            said = line.format(reference=plain(reference or ""), first=entries[0]["tokenizer"])
            console.print(Text(plain(said), style="dim"))


def round_trip(item: Audit) -> tuple[str, str]:
    """Say whether texts come back as they were: a style and a line."""
    total = item.total
    if item.change is None:
        return "green", f"✓ round trip: all {total.texts:,} texts come back as they were"
    one = item.change
    before = f"{visible(one.source)!s}" or "the end"
    after = f"{visible(one.decoded)!s}" or "the end"
    return "yellow", (
        f"! round trip: {total.changed:,} of {total.texts:,} texts change; at least {total.lost:,} "
        f"bytes ({total.lost / total.bytes:.2%}) are lost and {total.added:,} added; first in "
        f"{plain(one.document)}, character {one.position}: {before} becomes {after}"
    )


def audits_markdown(items: Sequence[Audit], reference: str | None) -> str:
    """Give a Markdown table, a row for each tokenizer and group."""
    entries = _rows(items, reference)
    columns = _columns(entries)
    heads = [label.replace("-\n", "").replace("/\n", "/").replace("\n", " ")
             for _, label, _ in columns]  # fmt: skip
    lines = [
        "| tokenizer | group | " + " | ".join(heads) + " |",
        "|---|---|" + "---:|" * len(heads),
    ]
    for entry in entries:
        for name, row in _parts(entry):
            cells = [_escaped(entry["tokenizer"]), _escaped(name)]
            cells += [_cell(row[key], form) for key, _, form in columns]
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {_escaped(e['tokenizer'])}: {_escaped(round_trip(i)[1])}"
                    for i, e in zip(items, entries, strict=True))]  # fmt: skip
    return "\n".join(lines) + "\n"


def audits_csv(items: Sequence[Audit], reference: str | None) -> str:
    """Give CSV with full precision, a row for each tokenizer and group, and one for all."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    entries = _rows(items, reference)
    keys = list(entries[0]["total"])
    writer.writerow(["tokenizer", "kind", "vocabulary", "group", *keys])
    for entry in entries:
        for name, row in (*entry["groups"].items(), ("all", entry["total"])):
            writer.writerow([
                _harmless(entry["tokenizer"]), entry["kind"], entry["vocabulary"],
                _harmless(name), *("" if row[key] is None else row[key] for key in keys),
            ])  # fmt: skip
    return out.getvalue()


def _escaped(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace("|", "\\|")


def _harmless(text: str) -> str:
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def splits(
    console: Console,
    sides: Sequence[Side],
    found: Sequence[tuple[Split, Mapping[str, Split]]],
    notes: Sequence[str],
) -> None:
    """Print how much of the differences from the first run is the tokenizer's.

    Args:
        console: where to.
        sides: the runs, the first is the measure.
        found: for each further run, the split of all documents and of each group.
        notes: what a reader must know.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("run")
    for name in ("perplexity", "bits/byte", "bytes/token", "per token of the first"):
        table.add_column(name, justify="right")
    for place, side in enumerate(sides):
        totals = side.report.totals
        own = exp(totals.per("tokens"))
        as_first = own if place == 0 else found[place - 1][0].as_first
        table.add_row(
            plain(side.name), figure(own), f"{side.bits_per_byte:.4f}",
            f"{totals.bytes / totals.tokens:.3f}", figure(as_first),
        )  # fmt: skip
    console.print(table)
    for side, (one, groups) in zip(sides[1:], found, strict=True):
        console.print(Text(plain(one.sentence(sides[0].name, side.name)), style="bold"))
        if groups:
            table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
            table.add_column("group")
            for name in ("perplexity times", "by the tokenizer", "by the model"):
                table.add_column(name, justify="right")
            for name, part in groups.items():
                factors = (part.loss, part.tokenizer, part.model)
                table.add_row(plain(name), *(f"{exp(value):.3f}" for value in factors))
            console.print(table)
    for line in notes:
        console.print(Text(f"note: {plain(line)}", style="yellow"))


def splits_markdown(
    sides: Sequence[Side], found: Sequence[tuple[Split, Mapping[str, Split]]]
) -> str:
    """Give the splits as a Markdown table, a row for each run and group."""
    lines = [
        "| run | against | group | perplexity | bits/byte | bytes/token | perplexity times "
        "| by the tokenizer | by the model |",
        "|---|---|---|" + "---:|" * 6,
    ]
    for side, (whole, groups) in zip(sides[1:], found, strict=True):
        for name, one in (("all", whole), *groups.items()):
            cells = [
                _escaped(side.name), _escaped(sides[0].name), _escaped(name),
                figure(exp(one.second.per("tokens"))),
                f"{one.second.per('bytes') / math.log(2):.4f}",
                f"{one.second.bytes / one.second.tokens:.3f}",
                *(f"{exp(value):.4f}" for value in (one.loss, one.tokenizer, one.model)),
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def marginals(console: Console, items: Sequence[tuple[str, Marginal]]) -> None:
    """Print the bits of a text over all its tokenizations, by model."""
    for name, one in items:
        console.print(Text(plain(name), style="bold"))
        table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column()
        table.add_column(justify="right")
        table.add_column(style="dim")
        table.add_row("canonical", f"{one.canonical_bits:.5f} bits", "the tokenizer's own")
        table.add_row(
            "marginal", f"{one.bits:.5f} bits",
            f"± {one.standard_error:.5f}, {one.samples:,} samples, {figure(one.effective, 3)} "
            "effective" if one.samples else "",
        )  # fmt: skip
        if one.exact_bits is not None:
            table.add_row("exact", f"{one.exact_bits:.5f} bits", "all tokenizations scored")
        table.add_row("gap", f"{one.gap:.4%}", f"{figure(one.tokenizations, 3)} tokenizations")
        console.print(table)
        if not one.trusted and one.exact_bits is None:
            line = (
                "note: few samples carry the estimate, so the gap may be larger and the error is "
                "no measure of it; give more --samples"
            )
            console.print(Text(line, style="yellow"))
    line = "the canonical bits are an upper bound: the text's own are those over all tokenizations"
    console.print(Text(line, style="dim"))
