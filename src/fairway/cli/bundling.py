"""``fairway ngram bundle``: a language model with all that its numbers hang on."""

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
    from fairway.ngram.bundles.manifest import Manifest


def bundle(
    lm: Annotated[Path, typer.Option(help="An ARPA file or a binary of KenLM's.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    normaliser: Annotated[
        str, typer.Option(help="none, ccnet, ccnet-fixed, edugp, datatrove or data-juicer.")
    ] = "none",
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of the normaliser, as lower=no; may be repeated."),
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(help="none, whitespace, a SentencePiece model or a tokenizer.json.")
    ] = "none",
    segment: Annotated[
        str | None,
        typer.Option(help="document, lines or pieces; as the normaliser's tool by default."),
    ] = None,
    bos: Annotated[bool, typer.Option(help="Begin each sentence with <s>.")] = True,
    eos: Annotated[bool, typer.Option(help="Score </s> at each sentence's end.")] = True,
    reference: Annotated[
        str | None, typer.Option(help="Text that the model is for: what eval's --data takes.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="lines, paragraphs or wikitext, for a text file.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field that holds the text.")] = "text",
    limit: Annotated[int | None, typer.Option(min=1, help="The first N documents only.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the bundle; the folder's if absent.")] = None,
    licence: Annotated[str, typer.Option(help="Of the model.")] = "",
    notes: Annotated[str, typer.Option(help="Anything that its users must know.")] = "",
    json: o.Json = False,
) -> None:
    """Bundle a language model with its normaliser, tokeniser, golden scores and calibration."""
    for one in setting or ():
        if "=" not in one:
            raise InputError(f"--setting takes KEY=VALUE, such as lower=no, and not {one!r}.")
    settings = o.arguments(setting)
    from fairway.corpus import read
    from fairway.ngram.bundles.making import Plan, make

    if reference is None and (split is not None or limit is not None):
        raise InputError("--split and --limit go with --reference.")
    corpus = None
    if reference is not None:
        corpus = read(reference, split=split, text_field=text_field, limit=limit)
    plan = Plan(
        lm, normaliser, settings, tokenizer, segment, bos, eos, name, licence, notes
    )  # fmt: skip
    with _bar(corpus) as progress:
        made = make(plan, out, corpus, progress)
    if json:
        import json as writer

        typer.echo(writer.dumps({"folder": str(out), **made.to_json()}, ensure_ascii=False))
        return
    _show(out, made)


@contextmanager
def _bar(corpus: Corpus | None) -> Iterator[Callable[[Corpus], None] | None]:
    """Show how much of the reference is scored, on a terminal."""
    if corpus is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("calibrating", total=None)

        def show(state: Corpus) -> None:
            progress.update(task, total=state.size, completed=state.position if state.size else 0)

        yield show


def _show(out: Path, made: Manifest) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fairway.render.visible import plain

    file = made.tokeniser_file
    settings = ", ".join(f"{key} {'yes' if on else 'no'}" for key, on in made.settings.items())
    rows = {
        "model": f"{made.lm.file}  sha256 {made.lm.sha256[:12]}",
        "normaliser": f"{made.normaliser}{f' ({settings})' if settings else ''}",
        "tokeniser": made.tokeniser + (f"  {file.file}  sha256 {file.sha256[:12]}" if file else ""),
        "sentences": f"{made.segmenter}; <s> {'before each' if made.bos else 'not read'}, "
        f"</s> {'scored' if made.eos else 'not scored'}",
        "golden": f"{len(made.golden)} texts, checked whenever it is loaded",
    }
    known = made.calibration
    if known is None:
        rows["calibration"] = "none: give --reference, and texts that do not fit will be told"
    else:
        rows["calibration"] = (
            f"{known.reference}: {known.documents:,} documents, {known.bytes:,} bytes"
        )
        oov, bits, tokens = (
            known.figures[key] for key in ("oov", "bits_per_byte", "tokens_per_byte")
        )
        rows["  OOV"] = f"{oov.value:.2%} ± {oov.spread:.2%}"
        rows["  bits/byte"] = f"{bits.value:.3f} ± {bits.spread:.3f}"
        rows["  tokens/byte"] = f"{tokens.value:.3f} ± {tokens.spread:.3f}"
    console = Console()
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for key, value in rows.items():
        table.add_row(Text(key, style="bold"), Text(plain(value)))
    console.print(table)
    console.print(Text(plain(f"Use it as --model ngram:{out}")), soft_wrap=True)
