"""``fairway list``: what can be named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from fairway.cli import options as o

if TYPE_CHECKING:
    from fairway.scorer import Kind


def list_(json: o.Json = False) -> None:
    """List kinds of model, built-in models, corpora and conventions."""
    from fairway.corpus import NAMED
    from fairway.protocol import CONVENTIONS
    from fairway.scorer import kinds

    found = {
        "kinds": {name: f"{kind.summary} ({_state(kind)})" for name, kind in kinds().items()},
        "models": {"hf:builtin": "the built-in model, English, a few million parameters"},
        "corpora": {name: str(entry.description) for name, entry in NAMED.items()},
        "conventions": {name: c.summary for name, c in CONVENTIONS.items()},
    }
    if json:
        import json as writer

        typer.echo(writer.dumps(found, ensure_ascii=False, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for heading, entries in found.items():
        table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 2))
        for name, text in entries.items():
            table.add_row(Text(name, style="bold"), Text(text))
        console.print(Text(heading, style="underline"))
        console.print(table)


def _state(kind: Kind) -> str:
    """Say whether a kind can be used, and how to install it where not."""
    if not kind.missing:
        return "installed"
    if kind.extra is None:
        return f"not installed: it lacks {', '.join(kind.missing)}"
    return f"not installed: pip install 'fairway[{kind.extra}]'"
