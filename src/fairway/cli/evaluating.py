"""``fairway eval``: models on corpora."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairway.cli import options as o
from fairway.cli.showing import output
from fairway.errors import InputError, ProtocolError

if TYPE_CHECKING:
    from fairway.evaluation import Progress
    from fairway.report import Report


def evaluate(
    model: Annotated[
        list[str] | None, typer.Option(help="KIND:NAME, a hub id or a folder; may be repeated.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="File, folder, glob, name or -; may be repeated.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="lines, paragraphs or wikitext, for text files.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field that holds the text.")] = "text",
    id_field: Annotated[str | None, typer.Option(help="Field that holds the id.")] = None,
    context_field: Annotated[
        str | None, typer.Option(help="Field whose text stands before and is not scored.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Field whose values get a report each.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The first N documents only.")] = None,
    sample: Annotated[int | None, typer.Option(help="N documents drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option(help="Of sampling and the bootstrap.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
    chat: Annotated[
        str | None,
        typer.Option(metavar="ROLES", help="Score these roles of messages, such as assistant."),
    ] = None,
    like: o.Like = "fairway",
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
    trust_remote_code: o.Trust = False,
    precision: Annotated[
        str | None, typer.Option(help="Stop at this half-width of perplexity, such as 0.5%.")
    ] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Keep every token's log-prob.")] = False,
    out: Annotated[Path | None, typer.Option(help="Run directory; a rerun resumes there.")] = None,
    cache: Annotated[bool, typer.Option(help="Use the cache of scores.")] = True,
    json: o.Json = False,
    md: o.Md = False,
    csv: o.Csv = False,
    latex: o.Latex = False,
    html: o.Html = None,
) -> None:
    """Evaluate models on corpora, with intervals and a signature."""
    from fairway.api import load, overlapping
    from fairway.cache import ScoreCache
    from fairway.corpus import read
    from fairway.evaluation import evaluate as run_evaluation
    from fairway.protocol import CONVENTIONS, convention
    from fairway.run import Run

    models = model or ["hf:builtin"]
    corpora = data or ["sample:all"]
    names = list(CONVENTIONS) if like == "all" else [like]
    stop = _precision(precision)
    reports: list[Report] = []
    refused: list[tuple[str, str]] = []
    single = len(models) * len(corpora) * len(names) == 1
    scores = ScoreCache() if cache else None
    for which in models:
        for name in names:
            try:
                scorer = load(
                    which, like=name, prefix=prefix, max_length=max_length, stride=stride,
                    special_tokens=special_tokens, adapter=adapter, revision=revision,
                    dtype=dtype, device=device, device_map=device_map,
                    batch_tokens=batch_tokens, trust_remote_code=trust_remote_code,
                    chat=chat.split(",") if chat else None,
                )  # fmt: skip
            except ProtocolError as problem:
                if like != "all":
                    raise
                refused.append((name, str(problem)))
                continue
            for source in corpora:
                corpus = read(
                    source, text_field=text_field, id_field=id_field,
                    context_field=context_field, split=split, limit=limit, sample=sample,
                    seed=seed, strict=strict, chat=chat is not None, group_by=group_by,
                )  # fmt: skip
                settings = {
                    "signature": str(scorer.signature), "data": corpus.name, "split": split,
                    "text_field": text_field, "context_field": context_field,
                    "group_by": group_by, "limit": limit, "sample": sample, "seed": seed,
                    "texts": texts, "precision": stop, "model": which, "source": source,
                    "speed": {"device": device, "batch_tokens": batch_tokens},
                }  # fmt: skip
                run = None
                if out is not None:
                    folder = out if single else out / _slug(which, source, name)
                    run = Run(folder, settings)
                try:
                    with _bar() as show:
                        report = run_evaluation(
                            scorer, corpus, convention(name), group_by=group_by, texts=texts,
                            run=run, cache=scores, precision=stop, seed=seed,
                            overlapping=overlapping(scorer), progress=show,
                        )  # fmt: skip
                    if run is not None:
                        run.finish(report)
                    reports.append(report)
                except ProtocolError as problem:
                    if like != "all":
                        raise
                    refused.append((name, str(problem)))
                finally:
                    if run is not None:
                        run.close()
    if scores is not None:
        if scores.problem:
            typer.echo(f"note: {scores.problem}", err=True)
        scores.close()
    if like == "all" and not (json or md or csv or latex):
        _conventions(reports, refused)
        return
    for name, reason in refused:
        typer.echo(f"{name}: {reason}", err=True)
    output(reports, json, md, csv, latex, html)


def _precision(value: str | None) -> float | None:
    """Read ``0.5%`` or ``0.005``.

    Raises:
        InputError: when it is not a positive number.
    """
    if value is None:
        return None
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(%?)\s*", value)
    try:
        number = float(match.group(1)) / (100 if match.group(2) else 1) if match else 0.0
    except ValueError:
        number = 0.0
    if number <= 0:
        raise InputError(f"--precision {value!r} is not a positive number such as 0.5%.")
    return number


def _slug(*parts: str) -> str:
    return "__".join(re.sub(r"[^A-Za-z0-9._-]+", "-", part.rstrip("/"))[-60:] for part in parts)


def _bar() -> AbstractContextManager[Callable[[Progress], None] | None]:
    """A progress bar on stderr, only on a terminal."""
    if not sys.stderr.isatty():
        return nullcontext(None)
    from fairway.cli.progress import bar

    return bar()


def _conventions(reports: list[Report], refused: list[tuple[str, str]]) -> None:
    """Print one table: the same model and text under each convention, and what differs."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fairway.protocol import CONVENTIONS
    from fairway.render.visible import figure, plain

    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for label, justify in (
        ("convention", "left"), ("perplexity", "right"), ("bits/byte", "right"),
        ("word ppl", "right"), ("tokens", "right"), ("what makes it differ", "left"),
    ):  # fmt: skip
        kind: Any = justify
        table.add_column(label, justify=kind)
    for report in reports:
        metrics = report.metrics
        table.add_row(
            report.protocol,
            *(figure(metrics[k]) for k in ("perplexity", "bits_per_byte", "word_perplexity")),
            f"{report.totals.tokens:,}",
            CONVENTIONS[report.protocol].summary,
        )
    for name, reason in refused:
        table.add_row(name, "-", "-", "-", "-", plain(reason))
    console.print(table)
    for report in reports:
        console.print(Text(f"signature: {report.signature}", style="dim"), soft_wrap=True)
