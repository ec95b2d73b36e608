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

    local = Path(name).exists()
    called = Path(name).name if local else ":".join(("hf", name, config, part)).rstrip(":")

    def start(corpus: Corpus) -> Iterator[Item]:
        rows = _rows(data, fields, Path(name).name)
        if split == "wikitext":
            yield from _articles(rows)
        else:
            yield from rows

    how = "wikitext" if split == "wikitext" else part or None
    return Corpus(called, start, "Hugging Face data set", split=how)


def _rows(data: Any, fields: Fields, name: str) -> Iterator[Item]:
    """Give the rows; what goes wrong on the way is no skipped row, since the text is there.

    Raises:
        InputError: when the data set breaks off.
    """
    number = 0
    waiting = iter(data)
    while True:
        try:
            values = next(waiting)
        except StopIteration:
            return
        except Exception as problem:  # of the network and of every file format
            reason = " ".join(str(problem).split())[:240]
            raise InputError(
                f"The data set {name} broke off behind row {number}: {reason}. Give the same "
                "command again."
            ) from None
        number += 1
        yield row(fields, values, name, number)


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
