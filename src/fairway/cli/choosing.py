"""``fairway choose``: multiple choice, minimal pairs and last words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairway.cli import options as o
from fairway.errors import InputError

if TYPE_CHECKING:
    from fairway.accuracy import ChoiceReport


def choose(
    data: Annotated[
        str, typer.Option(help="File, folder or glob of JSONL, or HellaSwag's .txt; - is stdin.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(help="KIND:NAME, a hub id or a folder; repeated: later ones against it."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="blimp, lambada, hellaswag, arc or jsonl; told by the fields if absent."),
    ] = None,
    like: Annotated[
        str, typer.Option(help="fairway or lm-eval: how context and choice are joined and read.")
    ] = "fairway",
    limit: Annotated[int | None, typer.Option(min=1, help="The first N items only.")] = None,
    per_group: Annotated[
        int | None, typer.Option(min=1, help="The first N items of each group only.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Field whose values get accuracies each; BLiMP's is UID.")
    ] = None,
    delimiter: Annotated[str, typer.Option(help="What stands between context and choice.")] = " ",
    unconditional: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Score the choices behind this, too, for mutual information."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
    prefix: o.Prefix = None,
    max_length: o.MaxLength = None,
    stride: o.Stride = None,
    special_tokens: o.Special = None,
    adapter: o.Adapter = None,
    revision: o.Revision = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    device_map: o.DeviceMap = None,
    batch_tokens: o.Batch = None,
    threads: o.Threads = None,
    trust_remote_code: o.Trust = False,
    model_arg: o.Arg = None,
    out: Annotated[
        Path | None, typer.Option(help="JSONL file for every item's log-probs and choices.")
    ] = None,
    json: o.Json = False,
    md: o.Md = False,
    csv: o.Csv = False,
) -> None:
    """Let models choose: accuracies from log-probs, with intervals and a signature."""
    from fairway import flips
    from fairway.api import choose as run
    from fairway.corpus.choices import read

    items = read(data, task, group_by=group_by, limit=limit, per_group=per_group, strict=strict)
    if out is not None:
        _write(out, [])  # before the work, so that it is not lost to a wrong name
    reports: list[ChoiceReport] = []
    for name in model or ["hf:builtin"]:
        with _bar(len(items.items)) as show:
            report = run(
                name, items, like=like, delimiter=delimiter, unconditional=unconditional,
                strict=strict, progress=show, prefix=prefix, max_length=max_length, stride=stride,
                special_tokens=special_tokens, adapter=adapter, revision=revision, dtype=dtype,
                device=device, device_map=device_map, batch_tokens=batch_tokens, threads=threads,
                trust_remote_code=trust_remote_code, **o.arguments(model_arg),
            )  # fmt: skip
        if any(report.model == other.model for other in reports):
            report = replace(report, model=name)
        reports.append(report)
    if out is not None:
        _write(out, reports)
    contests = [flips.compare(reports[0], other) for other in reports[1:]]
    if json:
        import json as encoder

        plain: object = reports[0].to_json()
        if len(reports) > 1:
            plain = {
                "reports": [one.to_json() for one in reports],
                "contests": [one.to_json() for one in contests],
            }
        typer.echo(encoder.dumps(plain, ensure_ascii=False, indent=2))
        return
    from fairway.render import choices as render

    if md:
        typer.echo(render.markdown(reports, contests), nl=False)
    elif csv:
        typer.echo(render.as_csv(reports), nl=False)
    else:
        from rich.console import Console

        console = Console()
        for one in reports:
            render.report(console, one)
        for both in contests:
            render.contest(console, both)


def _write(path: Path, reports: list[ChoiceReport]) -> None:
    """Write a line for each model and item.

    Raises:
        InputError: when the file cannot be written.
    """
    import json

    try:
        with path.open("w", encoding="utf-8") as stream:
            for report in reports:
                for one in report.decisions:
                    line = {"model": report.model, **one.to_json()}
                    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as problem:
        raise InputError(f"{path} cannot be written: {problem.strerror}.") from None


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None] | None]:
    """Show items done on stderr, only on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("choosing", total=total)
        yield lambda done: progress.update(task, completed=done)
