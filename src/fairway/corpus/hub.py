"""Data sets of the Hugging Face hub, or local folders in their form, through ``datasets``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairway import hub
from fairway.corpus.document import Corpus, Document, Item, SkippedRow
from fairway.corpus.formats import EMPTY, Fields, article, row
from fairway.errors import InputError, MissingExtra


def open_dataset(spec: str, split: str | None, fields: Fields) -> Corpus:
    """Open ``DATASET[:CONFIG[:SPLIT]]``; rows of WikiText are gathered into articles.

    Raises:
        MissingExtra: when ``datasets`` is not installed.
        InputError: when the data set cannot be opened.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtra("Reading hf: data sets", "data") from None
    name, _, rest = spec.partition(":")
    config, _, part = rest.partition(":")
    try:
        if Path(name).is_dir() and (Path(name) / "state.json").exists():
            data: Any = datasets.load_from_disk(name)
        elif Path(name).is_dir() and (Path(name) / "dataset_dict.json").exists():
            data = datasets.load_from_disk(name)
        elif Path(name).exists() or hub.reachable():
            data = datasets.load_dataset(name, config or None, streaming=True)
        else:
            with _offline():
                data = datasets.load_dataset(name, config or None)
        if hasattr(data, "keys"):
            parts = list(data.keys())
            part = part or ("test" if "test" in parts else parts[0])
            if part not in parts:
                raise InputError(f"{name} has no split {part!r}; it has {', '.join(parts)}.")
            data = data[part]
    except InputError:
        raise
    except Exception as problem:  # the library raises every kind of error here
        if not Path(name).exists() and not hub.reachable():
            raise InputError(
                f"The data set {name} is not in the cache, and the hub cannot be reached; give a "
                "file or folder, or go online once."
            ) from None
        reason = " ".join(str(problem).split())[:240]
        raise InputError(f"The data set {name} cannot be opened: {reason}") from None

    def start(corpus: Corpus) -> Iterator[Item]:
        rows = (row(fields, values, Path(name).name, n) for n, values in enumerate(data, 1))
        if split == "wikitext":
            yield from _articles(rows)
        else:
            yield from rows

    return Corpus(Path(name).name, start, "Hugging Face data set", split=part or None)


@contextmanager
def _offline() -> Iterator[None]:
    """Keep the libraries from asking a hub that is not there, which they do for a minute."""
    import datasets
    import huggingface_hub.constants as constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _articles(rows: Iterator[Item]) -> Iterator[Item]:
    """Join the data set's lines into articles; a blank row is a line of its own."""
    held: list[str] = []
    first: Document | None = None
    for item in rows:
        if isinstance(item, SkippedRow):
            if item.reason != EMPTY:
                yield item
                continue
            line = " \n"
        else:
            line = item.text
        before = held[-1].encode() if held else b""
        if first is not None and article(line.encode(), before):
            yield replace(first, text="".join(held))
            held, first = [], None
        if isinstance(item, Document):
            first = first or item
        held.append(line)
    if first is not None:
        yield replace(first, text="".join(held))
