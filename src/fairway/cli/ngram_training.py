"""``fairway ngram train``: an n-gram model from a corpus."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairway.cli import options as o
from fairway.errors import InputError

if TYPE_CHECKING:
    from fairway.corpus import Corpus
    from fairway.ngram.training import Trained


def train(
    data: Annotated[
        list[str], typer.Option(help="As eval takes it; several are read one after the other.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The ARPA file; compressed where it ends with .gz.")
    ],
    order: Annotated[int, typer.Option(help="Words in the longest n-gram, 1 to 6.")] = 5,
    prune: Annotated[
        str,
        typer.Option(
            metavar="COUNTS",
            help="0,0,1 leaves out n-grams of three words and more that occur once.",
        ),
    ] = "0",
    discount_fallback: Annotated[
        bool,
        typer.Option(
            "--discount-fallback", help="Take --discounts for orders that allow no estimate."
        ),
    ] = False,
    discounts: Annotated[
        str, typer.Option(metavar="D1,D2,D3", help="For --discount-fallback.")
    ] = "0.5,1,1.5",
    interpolate_unigrams: Annotated[
        bool, typer.Option(help="no-: <unk> gets all that the discounts leave, as SRILM.")
    ] = True,
    special_words: Annotated[
        str, typer.Option(help="<s>, </s>, <unk> in the text: error, skip, unk (count as <unk>).")
    ] = "error",
    split: Annotated[
        str, typer.Option(help="lines, paragraphs or wikitext, for text files.")
    ] = "lines",
    text_field: Annotated[str, typer.Option(help="Field that holds the text.")] = "text",
    normalise: Annotated[str | None, typer.Option(help="A normaliser, as eval takes it.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The first N documents of each --data.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
    memory: Annotated[str, typer.Option(help="Beyond it the disk is used.")] = "2G",
    threads: o.Threads = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For what is kept meanwhile; beside --out by default."),
    ] = None,
    counter: Annotated[
        str, typer.Option(help="fairway, or lmplz where that is installed.")
    ] = "fairway",
    lmplz: Annotated[
        str | None, typer.Option(metavar="PATH", help="The program; from PATH by default.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Train an interpolated modified Kneser-Ney model; write it as ARPA.

    A line is a sentence. The same command goes on after an interruption.
    """
    from fairway.corpus import read
    from fairway.ngram import training

    corpora = [
        read(
            source, split=split, text_field=text_field, normalise=normalise, limit=limit,
            strict=strict,
        )
        for source in data
    ]  # fmt: skip
    with _bar() as show:
        made = training.train(
            corpora, out, order=order, prune=_counts(prune),
            discount_fallback=_discounts(discounts) if discount_fallback else None,
            interpolate_unigrams=interpolate_unigrams, special_words=special_words,
            memory=memory, threads=threads, work=work, counter=counter, lmplz_path=lmplz,
            show=show,
        )  # fmt: skip
    _skipped(corpora)
    if json:
        import json as writer

        typer.echo(writer.dumps(made.to_json(), ensure_ascii=False, indent=2))
    else:
        _print(made)


def _counts(text: str) -> list[int]:
    try:
        return [int(one) for one in text.replace(",", " ").split()]
    except ValueError:
        raise InputError(f"--prune {text!r} is no list of counts such as 0,0,1.") from None


def _discounts(text: str) -> list[float]:
    try:
        return [float(one) for one in text.replace(",", " ").split()]
    except ValueError:
        raise InputError(f"--discounts {text!r} is no list of numbers such as 0.5,1,1.5.") from None


@contextmanager
def _bar() -> Iterator[Callable[[str, float | None], None] | None]:
    """Show the stage and how much of it is done, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<16}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def show(stage: str, share: float | None) -> None:
            total = None if share is None else 1.0
            bar.update(task, description=stage, total=total, completed=share or 0.0)

        yield show


def _skipped(corpora: list[Corpus]) -> None:
    from fairway.render.visible import plain

    for corpus in corpora:
        if corpus.skipped_total:
            one = corpus.skipped[0]
            typer.echo(
                f"fairway: {corpus.skipped_total:,} rows of {plain(corpus.name)} were skipped "
                f"({plain(one.source)}:{one.line}: {plain(one.reason)}).",
                err=True,
            )


def _print(made: Trained) -> None:
    from rich.console import Console

    from fairway.render.training import trained

    trained(Console(), made)
