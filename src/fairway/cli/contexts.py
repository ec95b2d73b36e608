"""``fairway context``: does a model use its context, and how far back."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from fairway.cli import options as o
from fairway.errors import InputError


def context(
    model: Annotated[str, typer.Option(help="KIND:NAME, a hub id or a folder.")] = "hf:builtin",
    evaluator: Annotated[
        str | None,
        typer.Option(help="The model that finds LongPPL's key tokens; by default the model."),
    ] = None,
    data: Annotated[
        str, typer.Option(help="File, folder, glob, name or -, as eval takes it.")
    ] = "sample:all",
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="K,K,...",
            help="Tokens of context to hold all of it against; 16,64,256,... by default.",
        ),
    ] = None,
    per_document: Annotated[
        int,
        typer.Option(min=0, help="Tokens drawn from each document for the gains; 0 = all of them."),
    ] = 16,
    by: Annotated[str, typer.Option(help="What positions count: bytes or tokens.")] = "bytes",
    longppl: Annotated[
        bool, typer.Option(help="LongPPL; it reads the data about five times more.")
    ] = True,
    short: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of LongPPL's short context; a quarter of the window."),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Nats by which the long context must help a key token.")
    ] = 2.0,
    beta: Annotated[
        float, typer.Option(help="Its log-probability must be above this, nats.")
    ] = -2.0,
    text_field: Annotated[str, typer.Option(help="Field that holds the text.")] = "text",
    split: Annotated[
        str | None, typer.Option(help="lines, paragraphs or wikitext, for text files.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first N documents only.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="N documents, by the seed.")] = None,
    seed: Annotated[int, typer.Option(help="Of the tokens and documents drawn.")] = 0,
    prefix: o.Prefix = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens in a window; all that the model reads by default."),
    ] = None,
    stride: o.Stride = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    batch_tokens: o.Batch = None,
    threads: o.Threads = None,
    trust_remote_code: o.Trust = False,
    json: o.Json = False,
    md: o.Md = False,
    csv: o.Csv = False,
) -> None:
    """Examine how far back a model uses its context: bits by position, gains, LongPPL."""
    ks = _lengths(lengths)
    if evaluator is not None and not longppl:
        raise InputError("--evaluator finds LongPPL's key tokens; leave --no-longppl away.")
    from fairway.api import load
    from fairway.corpus import read
    from fairway.longcontext import examine

    options: dict[str, Any] = {
        "prefix": prefix, "max_length": max_length or 0, "stride": stride, "dtype": dtype,
        "device": device, "batch_tokens": batch_tokens, "threads": threads,
        "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    scorer = load(model, **options)
    # Prefix and windows are each model's own: only text is shared between them.
    own = {**options, "prefix": None, "max_length": 0, "stride": None}
    judge = None if evaluator is None else load(evaluator, **own)
    corpus = read(
        data, text_field=text_field, split=split, limit=limit, sample=sample, seed=seed
    )  # fmt: skip
    with _bar() as show:
        report = examine(
            scorer, corpus, evaluator=judge, lengths=ks, per_document=per_document or None,
            unit=by, longppl=longppl, short=short, alpha=alpha, beta=beta, seed=seed,
            progress=show,
        )  # fmt: skip
    if json:
        import json as encoder

        typer.echo(encoder.dumps(report.to_json(), ensure_ascii=False, indent=2))
        return
    from fairway.render import context as render

    if md or csv:
        typer.echo((render.markdown if md else render.as_csv)(report), nl=False)
        return
    from rich.console import Console

    render.context(Console(), report)


def _lengths(text: str | None) -> list[int] | None:
    """Read ``16,64,256``.

    Raises:
        InputError: when it is no list of numbers.
    """
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--lengths {text!r} is no list of whole numbers such as 16,64,256."
        ) from None


def _bar() -> Any:
    """A progress bar on stderr, only on a terminal."""
    if not sys.stderr.isatty():
        return nullcontext(None)
    from fairway.cli.progress import bar

    return bar()
