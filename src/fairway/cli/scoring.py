"""``fairway score``: a text typed, piped or in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairway.cli import options as o
from fairway.errors import InputError

if TYPE_CHECKING:
    from fairway.report import Report


def score(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts; - reads stdin.")
    ] = None,
    file: Annotated[
        list[Path] | None, typer.Option(help="A text file, as one text; may be repeated.")
    ] = None,
    model: Annotated[str, typer.Option(help="KIND:NAME, a hub id or a folder.")] = "hf:builtin",
    context: Annotated[str, typer.Option(help="Text before it, read and not scored.")] = "",
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Show each token's surprisal as a heat map.")
    ] = False,
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
    threads: o.Threads = None,
    trust_remote_code: o.Trust = False,
    json: o.Json = False,
    html: o.Html = None,
) -> None:
    """Print the perplexity of a text, with units, a rule of thumb and the signature."""
    given = _texts(texts or [], file or [])
    from fairway.api import load
    from fairway.companions import WANT
    from fairway.corpus import Document, read
    from fairway.report import dumps, summarize
    from fairway.scorer import fills

    scorer = load(
        model, like=like, prefix=prefix, max_length=max_length, stride=stride,
        special_tokens=special_tokens, adapter=adapter, revision=revision, dtype=dtype,
        device=device, device_map=device_map, threads=threads, trust_remote_code=trust_remote_code,
    )  # fmt: skip
    corpus = read([Document(name, text, context) for name, text in given])
    want = WANT if fills(scorer, WANT) else ()
    scores = list(scorer.score(corpus, want))
    report = summarize(scores, scorer.signature.with_(digest=corpus.digest))
    if json:
        typer.echo(dumps([report]))
    else:
        _show(report, tokens)
    # Last, so that a file that cannot be written does not hide the number.
    if html:
        from fairway.render.html import page

        write(html, page([report]))


def _show(report: Report, tokens: bool) -> None:
    """Print a report, and its texts as heat maps where that was asked for."""
    from rich.console import Console
    from rich.text import Text

    from fairway.render import terminal
    from fairway.render.visible import figure, plain
    from fairway.scores import real

    console = Console()
    if tokens:
        for entry in report.texts:
            if len(report.texts) > 1:
                value = figure(real(entry["metrics"]["perplexity"]))
                console.print(Text(f"{plain(str(entry['id']))}: perplexity {value}", style="bold"))
            terminal.heat_map(console, entry["tokens"])
            console.print()
    terminal.report(console, report)


def _texts(texts: list[str], files: list[Path]) -> list[tuple[str, str]]:
    """Gather what is to be scored.

    Raises:
        InputError: for an empty text, a missing or binary file, or nothing at all.
    """
    given: list[tuple[str, str]] = []
    if not texts and not files and not sys.stdin.isatty():
        texts = ["-"]
    for number, text in enumerate(texts, 1):
        if text == "-":
            given.append(("stdin", _decode(sys.stdin.buffer.read(), "stdin")))
        else:
            given.append((f"text {number}", text))
    for path in files:
        try:
            given.append((path.name, _decode(path.read_bytes(), str(path))))
        except OSError as problem:
            raise InputError(f"{path} cannot be read: {problem.strerror}.") from None
    if not given:
        raise InputError("There is no text: give one, or --file FILE, or pipe one into -.")
    for name, text in given:
        if not text:
            raise InputError(f"{name} is empty; there is nothing to score.")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise InputError(f"{name} is not valid UTF-8; convert it first.")
    return given


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise InputError(
            f"{name} is not UTF-8 text (byte {problem.start}); convert it, for instance with iconv."
        ) from None


def write(path: str, text: str) -> None:
    """Write a file that the user named.

    Raises:
        InputError: when it cannot be written.
    """
    try:
        Path(path).write_text(text, "utf-8", "replace")
    except OSError as problem:
        raise InputError(f"{path} cannot be written: {problem.strerror}.") from None
