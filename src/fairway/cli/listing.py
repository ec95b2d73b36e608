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

    known = kinds()
    found = {
        "models": {"hf:builtin": "the built-in model, English, a few million parameters"},
        "corpora": {name: str(entry.description) for name, entry in NAMED.items()},
        "conventions": {name: c.summary for name, c in CONVENTIONS.items()},
    }
    if json:
        import json as writer

        every = {
            name: {
                "summary": kind.summary,
                "installed": not kind.missing,
                "missing": list(kind.missing),
                "install": _install(kind),
            }
            for name, kind in known.items()
        }
        typer.echo(writer.dumps({"kinds": every, **found}, ensure_ascii=False, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fairway.render.visible import plain

    console = Console()
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, kind in known.items():
        said = Text(plain(kind.summary))
        if kind.missing:
            said.append(f"\nlacks {', '.join(kind.missing)}", style="dim")
            if _install(kind):
                said.append(f": {_install(kind)}")
        mark = Text("- absent", style="dim") if kind.missing else Text("✓ ready", style="green")
        table.add_row(mark, Text(plain(f"{name}:NAME"), style="bold"), said)
    console.print(Text("kinds", style="underline"))
    console.print(table)
    for heading, entries in found.items():
        table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 2))
        for name, text in entries.items():
            table.add_row(Text(name, style="bold"), Text(text))
        console.print(Text(heading, style="underline"))
        console.print(table)


def _install(kind: Kind) -> str | None:
    """Give the line that installs a kind; None where it can be used, or none is known."""
    if not kind.missing or kind.extra is None:
        return None
    return f"pip install 'fairway[{kind.extra}]'"
