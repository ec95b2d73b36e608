"""``fairway show``: a run again, without its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairway.cli import options as o

if TYPE_CHECKING:
    from fairway.report import Report


def show(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories, or other tools' logs.")
    ],
    explain: Annotated[
        bool, typer.Option("--explain", help="Say in plain words what the number means.")
    ] = False,
    json: o.Json = False,
    md: o.Md = False,
    csv: o.Csv = False,
    latex: o.Latex = False,
    html: o.Html = None,
) -> None:
    """Print reports of finished runs again."""
    from fairway.logs import detect
    from fairway.run import read

    reports = [(detect.read(path) or read(path))[1] for path in runs]
    if explain:
        from fairway.render.explain import explain as words

        for report in reports:
            typer.echo(words(report))
        return
    output(reports, json, md, csv, latex, html)


def output(
    reports: list[Report],
    json: bool,
    md: bool,
    csv: bool,
    latex: bool,
    html: str | None,
    several: bool = False,
) -> None:
    """Print reports in the form that was asked for; several = a list even if it holds one."""
    from fairway.render import tables

    if json:
        from fairway.report import dumps

        typer.echo(dumps(reports, several=several))
    elif md:
        typer.echo(tables.markdown(reports), nl=False)
    elif csv:
        typer.echo(tables.as_csv(reports), nl=False)
    elif latex:
        typer.echo(tables.latex(reports), nl=False)
    else:
        from rich.console import Console
        from rich.text import Text

        from fairway.render import terminal

        console = Console()
        if len(reports) == 1:
            terminal.report(console, reports[0])
            if reports[0].totals.scored:
                line = f"cite as: {tables.citation(reports[0])}"
                console.print(Text(line, style="dim"), soft_wrap=True)
        else:
            terminal.table(console, reports)
            for report in reports:
                if report.groups:
                    console.print(Text(terminal.called(report), style="bold"))
                    terminal.groups(console, report)
                terminal.skipped(console, report)
    if html:
        from fairway.cli.scoring import write
        from fairway.render.html import page

        write(html, page(reports))
