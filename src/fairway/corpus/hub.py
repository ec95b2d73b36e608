"""Data sets of the Hugging Face hub, or local folders in their form, through ``datasets``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairway.corpus.document import Corpus, Document, Item, SkippedRow
from fairway.corpus.formats import Fields, row
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
        else:
            data = datasets.load_dataset(name, config or None, streaming=True)
        if hasattr(data, "keys"):
            parts = list(data.keys())
            part = part or ("test" if "test" in parts else parts[0])
            if part not in parts:
                raise InputError(f"{name} has no split {part!r}; it has {', '.join(parts)}.")
            data = data[part]
    except InputError:
        raise
    except Exception as problem:  # the library raises every kind of error here
        reason = " ".join(str(problem).split())[:240]
        raise InputError(f"The data set {name} cannot be opened: {reason}") from None

    def start(corpus: Corpus) -> Iterator[Item]:
        rows = (row(fields, values, Path(name).name, n) for n, values in enumerate(data, 1))
        if split == "wikitext":
            yield from _articles(rows)
        else:
            yield from rows

    return Corpus(Path(name).name, start, "Hugging Face data set", split=part or None)


def _articles(rows: Iterator[Item]) -> Iterator[Item]:
    """Join lines up to the next top-level heading; a blank row is a line of its own."""
    held: list[str] = []
    first: Document | None = None
    for item in rows:
        if isinstance(item, SkippedRow):
            if item.reason == "the text is empty":
                held.append(" \n")
            else:
                yield item
            continue
        line = item.text
        if line.startswith(" = ") and not line.startswith(" = =") and first is not None:
            yield replace(first, text="".join(held))
            held, first = [], None
        first = first or item
        held.append(line)
    if first is not None:
        yield replace(first, text="".join(held))
