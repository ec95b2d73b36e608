"""What checks found, in the terminal: a line each, the way out below a defect."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairway.finding import Finding
from fairway.render.visible import plain

MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "defect": ("✗", "red"),
         "skipped": ("-", "dim")}  # fmt: skip


def show(findings: Sequence[Finding], title: str) -> None:
    """Print findings below a title, and how many there are of which."""
    console = Console()
    console.print(Text(plain(title), style="bold"), soft_wrap=True)
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark, style = MARKS[finding.outcome]
        said = Text(plain(finding.evidence), style="dim" if finding.outcome == "skipped" else "")
        if finding.fix:
            said.append(f"\n→ {plain(finding.fix)}", style="bold")
        table.add_row(Text(f"{mark} {finding.outcome}", style=style), Text(finding.check), said)
    console.print(table)
    defects = sum(finding.outcome == "defect" for finding in findings)
    notes = sum(finding.outcome == "note" for finding in findings)
    skipped = sum(finding.outcome == "skipped" for finding in findings)
    console.print(
        Text(
            f"{defects} defect{'s' * (defects != 1)}, {notes} note{'s' * (notes != 1)}; "
            f"{len(findings) - skipped} checks run, {skipped} not applicable",
            style="bold",
        )
    )
