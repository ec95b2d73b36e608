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
    from fairway.words import Words


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
    by: Annotated[
        str | None, typer.Option(metavar="word", help="Show the surprisal of each word.")
    ] = None,
    uncorrected: Annotated[
        bool,
        typer.Option("--uncorrected", help="With --by word: plain sums of the tokens' surprisal."),
    ] = False,
    segmenter: Annotated[
        str | None,
        typer.Option(help="With --by word: what finds words: icu, character, MODULE:FUNCTION."),
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
    threads: o.Threads = None,
    trust_remote_code: o.Trust = False,
    model_arg: o.Arg = None,
    generated: o.Generated = False,
    max_requests: o.MaxRequests = None,
    json: o.Json = False,
    csv: o.Csv = False,
    html: o.Html = None,
) -> None:
    """Print the perplexity of a text, with units, a rule of thumb and the signature."""
    _agree(by, uncorrected, segmenter, tokens, csv, json)
    given = _texts(texts or [], file or [])
    from fairway.api import load, report_of
    from fairway.companions import WANT
    from fairway.corpus import Document, read
    from fairway.report import dumps
    from fairway.scorer import fills

    want: tuple[str, ...] = ()
    cut = None
    if by is not None:
        from fairway import segmenters, words

        cut = segmenters.named(segmenter) if segmenter is not None else None
        for _, text in given:
            # Before the model is loaded, which takes longer.
            segmenters.spans(text, cut)
        want = (words.COLUMN,) if not uncorrected and cut is None else ()
    scorer = load(
        model, like=like, prefix=prefix, max_length=max_length, stride=stride,
        special_tokens=special_tokens, adapter=adapter, revision=revision, dtype=dtype,
        device=device, device_map=device_map, threads=threads, trust_remote_code=trust_remote_code,
        **o.arguments(model_arg, generated, max_requests),
    )  # fmt: skip
    corpus = read([Document(name, text, context) for name, text in given])
    if want and scorer.signature.get("unit") == "word":
        # Where each word is a token there is nothing to correct.
        uncorrected, want = True, ()
    want = (*want, *WANT) if fills(scorer, WANT) else want
    scores = list(scorer.score(corpus, want))
    report = report_of(scorer, corpus, scores)
    if by is not None:
        _show_words([words.by_word(one, not uncorrected, cut) for one in scores], report, json, csv)
    elif json:
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
                name = report.perplexity
                line = f"{name.replace('_', ' ')} {figure(real(entry['metrics'][name]))}"
                console.print(Text(f"{plain(str(entry['id']))}: {line}", style="bold"))
            terminal.heat_map(console, entry["tokens"])
            console.print()
    terminal.report(console, report)


def _agree(
    by: str | None, uncorrected: bool, segmenter: str | None, tokens: bool, csv: bool, json: bool
) -> None:
    """Refuse options that do not go together.

    Raises:
        InputError: for those.
    """
    if by not in (None, "word"):
        raise InputError(f"--by {by!r} is not known; it takes word.")
    if by is None and (uncorrected or segmenter is not None or csv):
        raise InputError("--uncorrected, --segmenter and --csv go with --by word.")
    if by is not None and tokens:
        raise InputError("Give --tokens or --by word, and not both.")
    if json and csv:
        raise InputError("Give --json or --csv, and not both.")
    if uncorrected and segmenter is not None:
        raise InputError(
            "--segmenter gives plain sums already, since its words have no mark; leave "
            "--uncorrected away."
        )


def _show_words(items: list[Words], report: Report, json: bool, csv: bool) -> None:
    """Print words in the form that was asked for."""
    from fairway.render import words as render

    if csv:
        typer.echo(render.as_csv(items), nl=False)
        return
    if json:
        import json as encoder

        data = {
            "model": report.model,
            "signature": str(report.signature),
            "texts": [item.to_json() for item in items],
        }
        typer.echo(encoder.dumps(data, ensure_ascii=False, indent=2, allow_nan=False))
        return
    from rich.console import Console
    from rich.text import Text

    from fairway.render.visible import plain

    console = Console()
    for item in items:
        if len(items) > 1:
            console.print(Text(plain(item.id), style="bold"))
        render.table(console, item)
        console.print()
    console.print(Text(f"signature: {report.signature}", style="dim"), soft_wrap=True)


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
