"""Surprisal by word, on a terminal and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairway.render.tables import harmless
from fairway.render.visible import BARS, COLOURS, figure, level, visible
from fairway.words import LN2, Words

HEADER = (
    "id", "word", "start", "end", "bits", "uncorrected_bits", "tokens", "words"
)  # fmt: skip


def table(console: Console, item: Words) -> None:
    """Print a text's words, a row for each, and what the figures are."""
    colour = console.color_system is not None and not console.no_color
    out = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    out.add_column("word", overflow="fold")
    out.add_column("")
    out.add_column("bits", justify="right")
    if item.corrected:
        out.add_column("uncorrected", justify="right", style="dim")
    out.add_column("tokens", justify="right")
    out.add_column("")
    rows = zip(
        item.texts, item.bits.tolist(), (item.plain / LN2).tolist(), item.tokens.tolist(),
        item.words.tolist(), strict=True,
    )  # fmt: skip
    for text, bits, plain, tokens, words in rows:
        cells = [Text(visible(text)), _bar(bits, colour), _bits(bits)]
        if item.corrected:
            cells.append(_bits(plain))
        joined = f"{words} words that the tokens do not part" if words > 1 else ""
        out.add_row(*cells, str(tokens), Text(joined, style="yellow"))
    console.print(out)
    if item.rest_tokens:
        count = f"{item.rest_tokens} token{'s' * (item.rest_tokens != 1)}"
        line = f"behind the last word: {figure(item.rest / LN2)} bits, {count}"
        console.print(Text(line, style="dim"))
    console.print(Text(_basis(item), style="dim"))


def _bar(bits: float, colour: bool) -> Text:
    if bits != bits:
        return Text("")
    place = level(bits)
    back = COLOURS[place][0] if colour else ""
    return Text(BARS[place], style=back)


def _bits(bits: float) -> Text:
    return Text(f"{bits:.2f}" if bits == bits else "-")


def _basis(item: Words) -> str:
    if not item.corrected:
        return "sums of the tokens' surprisal, without correction"
    if len(item) and (item.surprisal == item.plain).all():
        return "nothing was to be corrected: the tokenizer marks where words end"
    return (
        "corrected for tokens that begin with a blank (Pimentel and Meister 2024, Oh and Schuler "
        "2024)"
    )


def as_csv(items: Sequence[Words]) -> str:
    """Give CSV with full precision, a row per row of words; nothing where one is not scored."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for item in items:
        for row in item.to_json()["words"]:
            writer.writerow(
                [
                    harmless(item.id), harmless(row["text"]), row["start"], row["end"],
                    row["bits"], row["uncorrected_bits"], row["tokens"], row["words"],
                ]
            )  # fmt: skip
    return out.getvalue()
