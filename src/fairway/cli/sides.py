"""What ``fairway compare`` compares: runs that are there, or models evaluated now."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fairway.errors import InputError

if TYPE_CHECKING:
    from fairway.comparable import Side
    from fairway.corpus import Corpus, Document
    from fairway.scorer import Scorer

TEMPLATED = ("digest", "special", "chat")
"""Keys that differ between templates by their nature."""


def of_runs(paths: list[Path]) -> list[Side]:
    """Read run directories, called by their folder, or by their path where two are alike."""
    from fairway.comparable import read

    short = [path.name for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    return [read(path, name) for path, name in zip(paths, names, strict=True)]


def of_models(
    models: list[str],
    data: str,
    loading: dict[str, Any],
    reading: dict[str, Any],
    group_by: str | None,
    texts: bool,
    out: Path | None,
) -> list[Side]:
    """Evaluate models on one corpus and read their runs."""
    from fairway.cli.evaluating import run_models
    from fairway.comparable import read

    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        named = run_models(models, data, loading, reading, group_by, folder, texts)
        return [read(path, name) for path, name in named]


def of_fair(
    models: list[str],
    data: str,
    loading: dict[str, Any],
    reading: dict[str, Any],
    group_by: str | None,
    texts: bool,
    out: Path | None,
) -> list[Side]:
    """Evaluate models that all read the same bytes before the same bytes.

    Raises:
        InputError: when a model cannot tell how its tokens lie in a text.
        ProtocolError: under another convention than fairway's own.
    """
    from fairway import fair
    from fairway.api import load
    from fairway.cli.evaluating import short_names
    from fairway.corpus import read
    from fairway.errors import ProtocolError

    if loading["like"] != "fairway":
        raise ProtocolError(
            f"--fair cuts windows by itself, and {loading['like']} has its own; leave --like away."
        )
    corpus = read(data, group_by=group_by, **reading)
    documents = list(corpus)
    if any(one.context or one.ids is not None for one in documents):
        raise InputError("--fair takes plain text, and the data hold contexts or token ids.")
    spans, rooms = [], []
    for name in models:
        scorer: Any = load(name, **loading)
        if not hasattr(scorer, "spans"):
            raise InputError(f"{name} does not tell where its tokens lie; --fair needs that.")
        spans.append(scorer.spans([one.text for one in documents]))
        rooms.append(scorer.room or 1 << 40)
    cuts = [
        fair.windows(len(one.text), [each[place] for each in spans], rooms)
        for place, one in enumerate(documents)
    ]
    cut = [replace(one, windows=found) for one, found in zip(documents, cuts, strict=True)]
    widest = max(
        (
            len(one.text[begin:end].encode("utf-8", "surrogatepass"))
            for one in cut
            for begin, _, end in one.windows or ()
        ),
        default=0,
    )
    note = f"every model read the same windows, of at most {widest:,} bytes"

    def prepare(scorer: Any) -> None:
        scorer.fair = True
        scorer.notes.append(note)

    return [
        _evaluated(name, shown, (corpus, cut), loading, group_by, texts,
                   _inside(out, name), prepare)
        for name, shown in zip(models, short_names(models), strict=True)
    ]  # fmt: skip


def of_templates(
    model: str,
    templates: list[str],
    data: str,
    loading: dict[str, Any],
    reading: dict[str, Any],
    group_by: str | None,
    texts: bool,
    out: Path | None,
) -> list[Side]:
    """Evaluate one model on the same targets under several templates."""
    from fairway import templates as prompts
    from fairway.corpus import read

    made = [prompts.read(_source(one)) for one in templates]
    corpus = read(data, group_by=group_by, **reading)
    documents = list(corpus)
    sides = []
    for one in made:
        filled = [one.fill(document) for document in documents]
        more = {**loading, "chat": ["assistant"]} if one.messages is not None else loading
        side = _evaluated(model, one.name, (corpus, filled), more, group_by, texts,
                          _inside(out, one.source))  # fmt: skip
        if len(side.records) != len(documents):
            raise InputError(
                f"Under {one.name} {len(documents) - len(side.records)} texts could not be scored, "
                "so that templates cannot be paired; see eval for the reasons."
            )
        records = tuple(
            replace(record, key=f"{place} {document.id}")
            for place, (record, document) in enumerate(zip(side.records, documents, strict=True))
        )
        sides.append(replace(side, records=records))
    return sides


def _source(text: str) -> str:
    """Read a template from a file where it is ``@FILE``."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"The template {text[1:]} cannot be read: {problem}.") from None


def _inside(out: Path | None, what: str) -> Path | None:
    return None if out is None else out / hashlib.sha256(what.encode()).hexdigest()[:12]


def _evaluated(
    model: str,
    name: str,
    texts: tuple[Corpus, list[Document]],
    loading: dict[str, Any],
    group_by: str | None,
    keep: bool,
    folder: Path | None,
    prepare: Callable[[Scorer], None] | None = None,
) -> Side:
    """Evaluate a model on documents that were made from a corpus."""
    from fairway.api import load, perform
    from fairway.cli.evaluating import progress_bar
    from fairway.comparable import read as read_side
    from fairway.corpus import read
    from fairway.request import Request

    scorer = load(model, **loading)
    if prepare is not None:
        prepare(scorer)
    source, documents = texts
    corpus = read(documents)
    corpus.name = source.name
    request = Request(model, source.name, loading, {}, group_by, keep)
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with progress_bar() as show:
            report = perform(request, scorer, corpus, out=place, progress=show)
        for line in report.notes:
            typer.echo(f"{name}: {line}", err=True)
        return read_side(place, name)
