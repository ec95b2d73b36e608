"""From whatever the user names to a corpus."""

from __future__ import annotations

import glob
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairway.corpus import formats
from fairway.corpus.document import Corpus, Document, Item, SkippedRow
from fairway.corpus.formats import Fields
from fairway.corpus.named import NAMED
from fairway.errors import InputError
from fairway.normalise import NORMALISERS

SAMPLES = Path(__file__).parent.parent / "data" / "samples"
UNGROUPED = 64
"""Documents without the grouping field after which a corpus is refused."""
SPLITS = ("lines", "paragraphs", "wikitext")


def read(
    source: str | os.PathLike[str] | Iterable[Any],
    *,
    text_field: str = "text",
    id_field: str | None = None,
    context_field: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    strict: bool = False,
    chat: bool = False,
    messages_field: str = "messages",
    ids_field: str | None = None,
    bytes_field: str | None = None,
    split_at: int | None = None,
    normalise: str | None = None,
    group_by: str | None = None,
) -> Corpus:
    """Open a corpus; nothing is read before it is iterated.

    Args:
        source: a file, folder, glob, ``-`` (standard input), ``FORMAT:PATH``, a named corpus,
            ``sample:NAME``, ``hf:DATASET[:CONFIG[:SPLIT]]``, or texts and documents in Python.
        text_field: field of rows that holds the text.
        id_field: field that holds the id.
        context_field: field whose text stands before the text and is only read.
        split: lines, paragraphs or wikitext, for text files.
        limit: the first so many documents.
        sample: so many documents, drawn by the seed, in the corpus' order.
        seed: of the sample.
        strict: stop at the first bad row.
        chat: rows hold messages.
        messages_field: field that holds them.
        ids_field: field that holds token ids; the text's bytes are counted where it is there, too.
        bytes_field: field that holds the source bytes of token ids.
        split_at: token id that ends a document in a flat stream of ids.
        normalise: name of a normaliser of `fairway.normalise.NORMALISERS`.
        group_by: field that must be there.

    Raises:
        InputError: when there is no such source, or the settings are wrong.
    """
    if normalise not in (None, "none", *NORMALISERS):
        raise InputError(f"--normalise {normalise!r} is not one of none, {', '.join(NORMALISERS)}.")
    if split is not None and split not in SPLITS:
        raise InputError(f"--split {split!r} is not one of {', '.join(SPLITS)}.")
    for option, number in (("--limit", limit), ("--sample", sample)):
        if number is not None and number < 0:
            raise InputError(f"{option} {number} is negative; give a count of documents.")
    fields = Fields(
        text_field, id_field, context_field, messages_field if chat else None,
        ids_field, bytes_field, split_at,
    )  # fmt: skip
    if not isinstance(source, str | os.PathLike):
        corpus = _in_memory(source)
    else:
        corpus = _named(os.fspath(source), split, fields)
    corpus.strict = strict
    if normalise is not None and normalise != "none":
        corpus = _normalised(corpus, normalise)
    if limit is not None or sample is not None:
        corpus = _part(corpus, limit, sample, seed)
    if group_by is not None:
        corpus = _grouped(corpus, group_by)
    return corpus


def _in_memory(source: Iterable[Any]) -> Corpus:
    kept = list(source)

    def start(corpus: Corpus) -> Iterator[Item]:
        for number, item in enumerate(kept, 1):
            if isinstance(item, Document):
                yield item
            else:
                problem = formats.unusable(item)
                if problem:
                    yield SkippedRow("texts", number, problem)
                else:
                    yield Document(str(number), item)

    return Corpus("texts", start, "texts in memory")


def _named(source: str, split: str | None, fields: Fields) -> Corpus:
    if source in NAMED:
        entry = NAMED[source]
        place = entry.source
        folder = os.environ.get("FAIRWAY_ASSETS")
        if entry.asset and folder and (Path(folder) / entry.asset).is_file():
            from fairway import hub

            if not hub.reachable():
                place = os.path.join(folder, entry.asset)
        corpus = _named(place, split or entry.split, replace(fields, text=entry.text_field))
        corpus.name, corpus.description, corpus.licence = source, entry.description, entry.licence
        return corpus
    kind, colon, rest = source.partition(":")
    if kind == "sample" and colon:
        return _sample(rest, fields)
    if kind == "hf" and colon:
        from fairway.corpus.hub import open_dataset

        return open_dataset(rest, split, fields)
    format_ = ""
    if kind in ("http", "https") and rest.startswith("//"):
        from fairway.corpus.web import fetch

        source, colon = str(fetch(source)), ""
    if colon and kind in formats.READERS:
        format_, source = kind, rest
    if source == "-":
        return Corpus(
            "stdin",
            lambda corpus: formats.read_stdin(format_, split, fields),
            split=split,
        )
    paths, name = files(source)
    size = sum(path.stat().st_size for path in paths)
    # Two folders may hold files of the same name.
    common = os.path.commonpath([path.parent for path in paths])

    def start(corpus: Corpus) -> Iterator[Item]:
        for path in paths:
            called = path.relative_to(common).as_posix()
            yield from formats.read_file(corpus, path, called, format_, split, fields)

    return Corpus(name, start, split=split, size=size or None)


def files(source: str) -> tuple[list[Path], str]:
    """Find the files that a path, folder or glob means, sorted, and what to call them.

    Raises:
        InputError: when there is none.
    """
    path = Path(source)
    if path.is_file() or path.is_fifo():
        return [path], path.name
    if path.is_dir():
        found = sorted(
            p
            for p in path.rglob("*")
            if p.is_file() and not any(part[0] == "." for part in p.relative_to(path).parts)
        )
        if not found:
            raise InputError(f"The folder {source} holds no files, hidden ones aside.")
        return found, path.resolve().name
    matches = sorted(Path(p) for p in glob.glob(source, recursive=True) if os.path.isfile(p))
    if matches:
        return matches, Path(source).name
    raise InputError(
        f"{source} is no file, folder or glob that matches, and no named corpus; those are "
        f"{', '.join(sorted(NAMED))} and sample:NAME."
    )


def _sample(name: str, fields: Fields) -> Corpus:
    present = sorted(path.stem for path in SAMPLES.glob("*.jsonl"))
    if name != "all" and name not in present:
        raise InputError(f"There is no sample {name!r}; there are {', '.join(present)} and all.")
    paths = [SAMPLES / f"{one}.jsonl" for one in (present if name == "all" else [name])]

    def start(corpus: Corpus) -> Iterator[Item]:
        for path in paths:
            yield from formats.read_file(corpus, path, path.name, "jsonl", None, fields)

    size = sum(path.stat().st_size for path in paths)
    return Corpus(f"sample:{name}", start, "shipped sample", size=size)


def _normalised(corpus: Corpus, name: str) -> Corpus:
    whole, change = corpus.open, NORMALISERS[name]
    corpus.normalisation = name

    def start(now: Corpus) -> Iterator[Item]:
        for number, item in enumerate(whole(now), 1):
            if not isinstance(item, Document) or not item.text:
                yield item
                continue
            text = change(item.text)
            if text:
                yield replace(item, text=text)
            else:
                yield SkippedRow(item.id, number, f"the text is empty after {name}")

    corpus.open = start
    return corpus


def _grouped(corpus: Corpus, field: str) -> Corpus:
    """See to it that the field is there; a corpus without it is refused early on."""
    whole = corpus.open

    def start(now: Corpus) -> Iterator[Item]:
        missing = 0
        for item in whole(now):
            if isinstance(item, Document) and missing >= 0:
                if field in item.metadata:
                    missing = -1
                else:
                    missing += 1
                    held = ", ".join(item.metadata) or "none"
                    if missing == UNGROUPED:
                        first = f"The first {UNGROUPED} documents of {now.name}"
                        raise InputError(_no_group(first, field, held))
            yield item
        if missing > 0:
            raise InputError(_no_group(f"The documents of {now.name}", field, held))

    corpus.open = start
    return corpus


def _no_group(which: str, field: str, held: str) -> str:
    return f"{which} have no field {field!r} to group by; their other fields are: {held}."


def _part(corpus: Corpus, limit: int | None, sample: int | None, seed: int) -> Corpus:
    """Take the first documents, or a sample (Vitter's algorithm R) in the corpus' order."""
    whole = corpus.open

    def start(now: Corpus) -> Iterator[Item]:
        given = 0
        kept: list[tuple[int, Document]] = []
        draw = random.Random(seed)
        for item in whole(now):
            if isinstance(item, SkippedRow):
                yield item
                continue
            if limit is not None and given >= limit:
                break
            given += 1
            if sample is None:
                yield item
                if given == limit:
                    break
            elif len(kept) < sample:
                kept.append((given, item))
            else:
                place = draw.randrange(given)
                if place < sample:
                    kept[place] = given, item
        for _, document in sorted(kept, key=lambda pair: pair[0]):
            yield document

    corpus.open = start
    return corpus
