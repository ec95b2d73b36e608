"""A trained n-gram model on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairway.render.visible import plain

if TYPE_CHECKING:
    from fairway.ngram.training import Trained


def trained(console: Console, made: Trained) -> None:
    """Print what was read, and for each order its n-grams, discounts and threshold."""
    text = made.text
    console.print(Text(plain(str(made.path)), style="bold"), soft_wrap=True)
    ends = "s" * (text.sentences != 1)
    read = f"{text.sentences:,} sentence{ends}, {text.tokens:,} words, {text.types:,} types"
    if made.resumed:
        read += "; went on where an earlier training stopped"
    console.print(Text(read), soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_edge=False)
    pruned = any(made.settings.prune)
    names = ["order", "n-grams", *(["D1", "D2", "D3+"] if made.discounts else [])]
    for name in [*names, *(["pruned"] if pruned else [])]:
        table.add_column(name, justify="right")
    for place, size in enumerate(made.ngrams):
        row = [str(place + 1), f"{size:,}"]
        if made.discounts:
            one = made.discounts[place]
            row += [f"{value:.4f}" for value in (one.one, one.two, one.more)]
        if pruned:
            threshold = made.settings.prune[place]
            row.append(f"count ≤ {threshold}" if threshold else "-")
        table.add_row(*row)
    console.print(table)
    fallen = [str(k) for k, one in enumerate(made.discounts, 1) if not one.estimated]
    if fallen:
        console.print(
            Text(
                f"orders {', '.join(fallen)}: the text allows no estimate of discounts; these are "
                "the fallback's"
            ),
            soft_wrap=True,
        )
