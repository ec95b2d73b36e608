"""``fairway eval``: models on corpora."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairway.cli import options as o
from fairway.cli.hinting import Sample, hint
from fairway.cli.showing import output
from fairway.errors import FairwayError, InputError, ModelError, ProtocolError
from fairway.request import Request

if TYPE_CHECKING:
    from fairway.evaluation import Progress
    from fairway.report import Report

READING: dict[str, Any] = {
    "text_field": "text", "id_field": None, "context_field": None, "split": None, "limit": None,
    "sample": None, "strict": False, "chat": False, "ids_field": None, "bytes_field": None,
    "split_at": None, "normalise": None,
}  # fmt: skip
"""What a run directory keeps of how the corpus is read, where no option says otherwise."""


def evaluate(
    context: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="KIND:NAME, a hub id, a folder, or 'DIR/checkpoint-*' in quotes; may be repeated."
        ),
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
    ids_field: Annotated[
        str | None, typer.Option(help="Field that holds token ids in place of text.")
    ] = None,
    bytes_field: Annotated[
        str | None, typer.Option(help="Field that holds the source bytes of token ids.")
    ] = None,
    split_at: Annotated[
        int | None, typer.Option(help="Token id that ends a document in .npy and .bin files.")
    ] = None,
    normalise: Annotated[
        str | None, typer.Option(help="readable-wikitext or lm-eval-wikitext.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Field whose values get a report each.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first N documents only.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="N documents, by the seed.")] = None,
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
    threads: o.Threads = None,
    trust_remote_code: o.Trust = False,
    model_arg: o.Arg = None,
    generated: o.Generated = False,
    max_requests: o.MaxRequests = None,
    precision: Annotated[
        str | None, typer.Option(help="Stop at this half-width of perplexity, such as 0.5%.")
    ] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Keep every token's log-prob.")] = False,
    out: Annotated[Path | None, typer.Option(help="Run directory; a rerun resumes there.")] = None,
    repeat: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|SIGNATURE", help="Evaluate again and say whether the number is confirmed."
        ),
    ] = None,
    companions: Annotated[
        bool, typer.Option(help="Report accuracy, entropy, calibration and percentiles too.")
    ] = True,
    cache: Annotated[bool, typer.Option(help="Use the cache of scores.")] = True,
    json: o.Json = False,
    md: o.Md = False,
    csv: o.Csv = False,
    latex: o.Latex = False,
    html: o.Html = None,
) -> None:
    """Evaluate models on corpora, with intervals and a signature."""
    from fairway.protocol import CONVENTIONS

    if context.args:
        raise InputError(
            f"{context.args[0]} belongs to no option. Put a pattern into quotes, so that the shell "
            "leaves it alone: --model 'DIR/checkpoint-*'."
        )
    if repeat is not None:
        _repeat(repeat, model or [], data or [], out, (json, md, csv, latex, html))
        return
    names = list(CONVENTIONS) if like == "all" else [like]
    loading = {
        "prefix": prefix, "max_length": max_length, "stride": stride,
        "special_tokens": special_tokens, "adapter": adapter, "revision": revision,
        "dtype": dtype, "device": device, "device_map": device_map,
        "batch_tokens": batch_tokens, "threads": threads, "trust_remote_code": trust_remote_code,
        "chat": chat.split(",") if chat else None,
        **o.arguments(model_arg, generated, max_requests),
    }  # fmt: skip
    reading = {
        "text_field": text_field, "id_field": id_field, "context_field": context_field,
        "split": split, "limit": limit, "sample": sample, "strict": strict,
        "chat": chat is not None, "ids_field": ids_field, "bytes_field": bytes_field,
        "split_at": split_at, "normalise": normalise,
    }  # fmt: skip
    stop = _precision(precision)
    models, damaged = _expand(model or ["hf:builtin"])
    requests = [
        Request(
            which,
            source,
            {"like": name, **loading},
            reading,
            group_by,
            texts,
            stop,
            seed,
            companions,
        )
        for which in models
        for name in names
        for source in data or ["sample:all"]
    ]  # fmt: skip
    reports: list[Report] = []
    refused: list[tuple[str, str]] = []
    try:
        _perform(requests, out, cache, reports, refused if like == "all" else None, damaged)
    except FairwayError:
        # What was computed before the mistake is not lost with it.
        if reports:
            output(reports, json, md, csv, latex, html)
        raise
    if like == "all" and not (json or md or csv or latex or html):
        from rich.console import Console

        from fairway.render.conventions import conventions

        conventions(Console(), reports, refused)
        _say_damaged(damaged)
        return
    for name, reason in refused:
        typer.echo(f"{name}: {reason}", err=True)
    if reports or not damaged:
        output(reports, json, md, csv, latex, html, several=like == "all")
    _say_damaged(damaged)


def _perform(
    requests: list[Request],
    out: Path | None,
    cache: bool,
    reports: list[Report],
    refused: list[tuple[str, str]] | None,
    damaged: list[tuple[str, str]] | None = None,
) -> None:
    """Evaluate requests in order, a model being loaded once for those that share it.

    Args:
        requests: what to evaluate.
        out: run directory of a single request, or the folder of several.
        cache: use the cache of scores.
        reports: results are appended here, so that a failure does not lose them.
        refused: conventions that do not fit are appended here; None = they are an error.
        damaged: checkpoints of a pattern that cannot be loaded are appended here, and out is a
            folder of runs even of one; None = no pattern was given.
    """
    from fairway.api import load, perform
    from fairway.cache import ScoreCache
    from fairway.corpus import read

    scores = ScoreCache() if cache else None
    loaded: tuple[Request, Any] | None = None
    sample = Sample()
    several = len({request.model for request in requests}) > 1
    try:
        for request in requests:
            name = request.load["like"]
            try:
                if loaded and (loaded[0].model, loaded[0].load) == (request.model, request.load):
                    scorer = loaded[1]
                else:
                    scorer = load(request.model, **request.load)
                    loaded = request, scorer
                corpus = read(
                    request.data, seed=request.seed, group_by=request.group_by, **request.read
                )
                sample.watch(corpus)
                estimate = getattr(scorer, "estimate", None)
                if estimate and (line := estimate(corpus.size, request.read.get("limit"))):
                    typer.echo(line, err=True)
                folder = out
                if out is not None and (damaged is not None or len(requests) > 1):
                    folder = out / run_name(request)
                with progress_bar() as show:
                    reports.append(
                        perform(
                            request, scorer, corpus, out=folder, cache=scores,
                            progress=sample.clock(show),
                        )
                    )  # fmt: skip
            except ProtocolError as problem:
                if refused is None:
                    raise
                who = f"{name} ({request.model})" if several else name
                if (who, str(problem)) not in refused:
                    refused.append((who, str(problem)))
            except ModelError as problem:
                if damaged is None:
                    raise
                if (request.model, str(problem)) not in damaged:
                    damaged.append((request.model, str(problem)))
        if loaded is not None and (line := hint(loaded[1], sample)):
            typer.echo(line, err=True)
    finally:
        if scores is not None:
            if scores.problem:
                typer.echo(f"note: {scores.problem}", err=True)
            scores.close()


def run_models(
    models: list[str],
    data: str,
    loading: dict[str, Any],
    reading: dict[str, Any],
    group_by: str | None,
    folder: Path,
    texts: bool = False,
) -> list[tuple[Path, str]]:
    """Evaluate models on one corpus, each into a run directory of its own.

    Returns:
        For each its run directory and a name that the others do not have.
    """
    requests = [Request(which, data, loading, reading, group_by, texts) for which in models]
    _perform(requests, folder, True, [], None)
    names = short_names(models)
    return [
        (folder / run_name(request), shown) for request, shown in zip(requests, names, strict=True)
    ]


def short_names(models: list[str]) -> list[str]:
    """Call models by the last part of their names, and wholly where two would be called alike."""
    short = [Path(which.rstrip("/").removeprefix("hf:")).name for which in models]
    return short if len(set(short)) == len(short) else models


def _repeat(
    what: str,
    models: list[str],
    data: list[str],
    out: Path | None,
    form: tuple[bool, bool, bool, bool, str | None],
) -> None:
    """Evaluate again what a run directory, report or signature says, and compare.

    Raises:
        InputError: when more than one model or corpus is named, or the run cannot be read.
    """
    from fairway import run
    from fairway.repeat import judge
    from fairway.request import of_settings, of_signature
    from fairway.signature import parse

    if len(models) > 1 or len(data) > 1:
        raise InputError("--repeat takes at most one --model and one --data.")
    model = models[0] if models else None
    source = data[0] if data else None
    then: Any
    if Path(what).is_dir():
        settings, then = run.read(Path(what))
        if model is None or source is None:
            request = of_settings(settings)
        else:
            request = of_signature(then.signature, model, source)
            request = replace(request, read=settings.get("read") or {})
        request = replace(
            request, model=model or request.model, data=source or request.data, texts=False
        )
    elif Path(what).is_file():
        then = run.read(Path(what))[1]
        request = of_signature(then.signature, model, source)
    else:
        then = parse(what)
        request = of_signature(then, model, source)
    reports: list[Report] = []
    # The cache would confirm a number by itself.
    _perform([request], out, False, reports, None)
    output(reports, *form)
    verdict = judge(then, reports[0])
    typer.echo(verdict.sentence(), err=form[0] or form[1] or form[2] or form[3])
    if not verdict.confirmed:
        raise typer.Exit(1)


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


def _expand(models: list[str]) -> tuple[list[str], list[tuple[str, str]] | None]:
    """Give the checkpoints that patterns stand for, and where to note damaged ones, if any."""
    from fairway.checkpoints import expand, several

    found = [one.model for spec in models for one in expand(spec)]
    return found, [] if any(several(spec) for spec in models) else None


def _say_damaged(damaged: list[tuple[str, str]] | None) -> None:
    """Name the checkpoints that could not be loaded, and exit with the code of a mistake."""
    for name, reason in damaged or ():
        typer.echo(f"fairway: {name} is left out: {reason}", err=True)
    if damaged:
        raise typer.Exit(2)


def run_name(request: Request) -> str:
    """Name a request's run directory in a folder of several."""
    parts = request.model, request.data, str(request.load["like"])
    return "__".join(re.sub(r"[^A-Za-z0-9._-]+", "-", part.rstrip("/"))[-60:] for part in parts)


def progress_bar() -> AbstractContextManager[Callable[[Progress], None] | None]:
    """A progress bar on stderr, only on a terminal."""
    if not sys.stderr.isatty():
        return nullcontext(None)
    from fairway.cli.progress import bar

    return bar()
