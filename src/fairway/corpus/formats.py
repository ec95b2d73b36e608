"""Readers by format: each gives documents and skipped rows, and never stops at a bad row."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from fairway.corpus import ids, warc
from fairway.corpus.compressed import COMPRESSED, opened, random_access, standard_input
from fairway.corpus.document import LACKS, Corpus, Document, Item, SkippedRow
from fairway.errors import MissingExtra

EMPTY = "the text is empty"
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a row hold what.

    Attributes:
        text: the text, or token ids.
        id: the document's id; None = source and line.
        context: text that stands before and is only read.
        messages: role-marked messages, in a chat corpus.
        ids: token ids, with the text or a count of bytes beside them.
        bytes: source bytes of the token ids.
        split_at: token id that ends a document in a stream of ids.
    """

    text: str = "text"
    id: str | None = None
    context: str | None = None
    messages: str | None = None
    ids: str | None = None
    bytes: str | None = None
    split_at: int | None = None


def unusable(text: Any) -> str | None:
    """Say why a value cannot be scored; None where it can."""
    if not isinstance(text, str):
        return f"the text is {type(text).__name__}, and not a string"
    if not text:
        return EMPTY
    if "\0" in text:
        return "the text holds a NUL character"
    if any("\ud800" <= char <= "\udfff" for char in text):
        return "the text holds a lone surrogate"
    return None


def row(fields: Fields, values: Mapping[str, Any], source: str, line: int) -> Item:
    """Make a document of one row."""
    for field in (fields.id, fields.context, fields.messages, fields.ids, fields.bytes):
        if field is not None and field not in values:
            return _lacking(field, values, source, line)
    metadata = {
        key: value
        for key, value in values.items()
        if key not in (fields.text, fields.context)
        and (value is None or isinstance(value, str | int | float | bool))
    }
    name = f"{source}:{line}"
    if fields.id is not None and values[fields.id] is not None:
        name = str(values[fields.id])
    if fields.messages is not None:
        messages = values[fields.messages]
        if not isinstance(messages, list) or not all(
            isinstance(m, dict)
            and isinstance(m.get("role"), str)
            and isinstance(m.get("content"), str)
            for m in messages
        ):
            return SkippedRow(source, line, f"{fields.messages!r} is no list of role and content")
        return Document(name, "", metadata={**metadata, "messages": messages})
    column = fields.ids or fields.text
    if column not in values:
        return _lacking(column, values, source, line)
    value = values[column]
    if fields.ids is not None or isinstance(value, list):
        if fields.context is not None and values[fields.context]:
            return SkippedRow(source, line, "token ids take no context; put it into the ids")
        return ids.row(name, value, _bytes(fields, values), metadata, source, line)
    problem = unusable(value)
    if problem:
        return SkippedRow(source, line, problem)
    context = values[fields.context] if fields.context else ""
    context = "" if context is None else context
    if not isinstance(context, str) or (context and unusable(context)):
        return SkippedRow(source, line, f"the context {fields.context!r} is no usable string")
    return Document(name, value, context, metadata=metadata)


def _lacking(field: str, values: Mapping[str, Any], source: str, line: int) -> SkippedRow:
    found = ", ".join(map(str, values)) or "none"
    return SkippedRow(source, line, f"{LACKS} {field!r} (it has: {found})")


def _bytes(fields: Fields, values: Mapping[str, Any]) -> Any:
    """Find the source bytes of token ids: given, or those of the text beside them."""
    if fields.bytes is not None:
        return values[fields.bytes]
    text = values.get(fields.text) if fields.ids is not None else None
    return len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else None


def read_file(
    corpus: Corpus, path: Path, name: str, format_: str, split: str | None, fields: Fields
) -> Iterator[Item]:
    """Read one file; damage in it ends the file with a skipped row, what came before is kept.

    Args:
        corpus: whose position moves on.
        path: of the file.
        name: what its documents and rows are called by.
        format_: a key of `READERS`; empty = by the ending.
        split: of text.
        fields: of rows.
    """
    plain = path.with_suffix("") if path.suffix in COMPRESSED else path
    reader = READERS.get(format_ or plain.suffix.lstrip(".").lower(), text)
    with opened(path, corpus) as stream:
        yield from guarded(reader(stream, name, split, fields), name)


def read_stdin(format_: str, split: str | None, fields: Fields) -> Iterator[Item]:
    """Read standard input.

    Raises:
        InputError: when it was read before.
    """
    reader = READERS.get(format_, text)
    yield from guarded(reader(standard_input(), "stdin", split, fields), "stdin")


def guarded(items: Iterator[Row | SkippedRow], name: str) -> Iterator[Row | SkippedRow]:
    """Give a reader's items; where it fails, a skipped row says so."""
    given = 0
    try:
        for item in items:
            yield item
            given += 1
    except (OSError, EOFError, zlib.error) as problem:
        # A checksum stands behind what it is of, so rows that were given may be damaged, too.
        reason = f"the file is damaged here or before, and not read further: {problem}"
        yield SkippedRow(name, given + 1, reason)
    except (ValueError, OverflowError) as problem:
        reason = f"the file cannot be read: {problem}"
        if isinstance(problem, UnicodeError):
            reason = "not UTF-8 text"
        yield SkippedRow(name, given + 1, reason)


def text(stream: IO[bytes], name: str, split: str | None, fields: Fields) -> Iterator[Item]:
    """Read UTF-8 text: one document, or one for each line, paragraph or article."""
    if split is None:
        pieces: Iterator[bytes] = iter([stream.read()])
    elif split == "lines":
        pieces = iter(stream)
    else:
        pieces = _gathered(stream, _paragraph if split == "paragraphs" else article)
    number = 0
    for piece in pieces:
        number += 1
        if number == 1:
            piece = piece.removeprefix(b"\xef\xbb\xbf")
        try:
            value = piece.decode("utf-8")
        except UnicodeDecodeError:
            yield SkippedRow(name, number, "not UTF-8 text")
            continue
        if split == "lines":
            value = value.rstrip("\r\n")
        if split is not None and not value.strip():
            continue
        problem = unusable(value)
        if problem:
            yield SkippedRow(name, number, problem)
        else:
            yield Document(name if split is None else f"{name}:{number}", value)


def _paragraph(line: bytes, before: bytes) -> bool:
    return bool(line.strip()) and not before.strip()


def article(line: bytes, before: bytes) -> bool:
    """Whether a line of WikiText begins an article: a top-level heading after a blank line."""
    return not before.strip() and re.match(rb" = [^=].*[^=] = \s*$", line) is not None


def _gathered(stream: IO[bytes], starts: Callable[[bytes, bytes], bool]) -> Iterator[bytes]:
    held: list[bytes] = []
    before = b""
    for line in stream:
        if held and any(one.strip() for one in held) and starts(line, before):
            yield b"".join(held)
            held = []
        held.append(line)
        before = line
    if held:
        yield b"".join(held)


def objects(stream: IO[bytes], name: str) -> Iterator[tuple[int, dict[str, Any]] | SkippedRow]:
    """Read a JSON object a line; give each with the number of its line."""
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line.removeprefix(b"\xef\xbb\xbf").decode("utf-8"))
        except UnicodeDecodeError:
            yield SkippedRow(name, number, "not UTF-8 text")
            continue
        except (ValueError, RecursionError):
            yield SkippedRow(name, number, "broken JSON")
            continue
        if isinstance(values, dict):
            yield number, values
        else:
            yield SkippedRow(name, number, "not a JSON object")


def jsonl(stream: IO[bytes], name: str, split: str | None, fields: Fields) -> Iterator[Item]:
    """Read a JSON object a line as a document."""
    for found in objects(stream, name):
        if isinstance(found, SkippedRow):
            yield found
        else:
            yield row(fields, found[1], name, found[0])


def _csv(delimiter: str) -> Callable[..., Iterator[Item]]:
    def table(stream: IO[bytes], name: str, split: str | None, fields: Fields) -> Iterator[Item]:
        csv.field_size_limit(min(sys.maxsize, 1 << 31 - 1))
        lines = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
        # Unless strict, an open quotation mark makes one text of the rest of the file.
        reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
        try:
            reader.fieldnames  # noqa: B018 - this reads the first line
        except csv.Error as problem:
            yield SkippedRow(name, 1, f"broken header: {problem}")
            return
        while True:
            first = reader.reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as problem:
                yield SkippedRow(name, first, f"broken row: {problem}")
                continue
            named = {str(k): v for k, v in values.items() if k is not None}
            if len(named) < len(values):
                yield SkippedRow(name, reader.line_num, "the row has more fields than the header")
            elif any(
                isinstance(v, str) and any("\udc80" <= c <= "\udcff" for c in v)
                for v in named.values()
            ):
                yield SkippedRow(name, reader.line_num, "not UTF-8 text")
            else:
                yield row(fields, named, name, reader.line_num)

    return table


def _arrow(stream: IO[bytes], name: str, split: str | None, fields: Fields) -> Iterator[Item]:
    arrow = _pyarrow()
    data = random_access(stream)
    head = data.read(6)
    data.seek(0)
    if head == b"ARROW1":
        reader = arrow.ipc.open_file(data)
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        batches = iter(arrow.ipc.open_stream(data))
    yield from _batches(batches, name, fields)


def _parquet(stream: IO[bytes], name: str, split: str | None, fields: Fields) -> Iterator[Item]:
    _pyarrow()
    import pyarrow.parquet

    data = random_access(stream)
    # Buffering ahead would hold every row group.
    table = pyarrow.parquet.ParquetFile(data, pre_buffer=False)
    yield from _batches(table.iter_batches(batch_size=1024), name, fields)


def _batches(batches: Iterator[Any], name: str, fields: Fields) -> Iterator[Item]:
    types = _pyarrow().types
    simple = (
        types.is_string, types.is_large_string, types.is_integer, types.is_floating,
        types.is_boolean, types.is_null, types.is_dictionary,
    )  # fmt: skip
    asked = {
        fields.text, fields.id, fields.context, fields.messages, fields.ids, fields.bytes
    }  # fmt: skip
    number = 0
    for batch in batches:
        # Images, dates and the like are no metadata, and some have no value in Python.
        kept = [f.name for f in batch.schema if f.name in asked or any(i(f.type) for i in simple)]
        for values in batch.select(kept).to_pylist():
            number += 1
            yield row(fields, values, name, number)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise MissingExtra("Reading parquet and arrow files", "data") from None
    return pyarrow


def _npy(stream: IO[bytes], name: str, split: str | None, fields: Fields) -> Iterator[Item]:
    return ids.npy(stream, name, fields.split_at)


def _bin(stream: IO[bytes], name: str, split: str | None, fields: Fields) -> Iterator[Item]:
    return ids.shard(stream, name, fields.split_at)


def _bin32(stream: IO[bytes], name: str, split: str | None, fields: Fields) -> Iterator[Item]:
    return ids.flat(stream, name, "<u4", fields.split_at)


READERS: dict[str, Callable[..., Iterator[Item]]] = {
    "txt": text, "jsonl": jsonl, "ndjson": jsonl, "csv": _csv(","), "tsv": _csv("\t"),
    "parquet": _parquet, "arrow": _arrow, "warc": warc.records, "wet": warc.records,
    "npy": _npy, "bin": _bin, "bin32": _bin32,
}  # fmt: skip
"""Readers by ending; any other ending is UTF-8 text."""
