"""Web archives: the plain text of WET files, a document for each page."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, Any

from fairway.corpus.document import Document, Item, SkippedRow
from fairway.errors import MissingExtra

PAGES = ("conversion", "response", "resource")
"""Kinds of records that hold a page."""


def records(stream: IO[bytes], name: str, split: str | None, fields: Any) -> Iterator[Item]:
    """Read a WARC or WET file; pages of HTML are skipped rows, since their text is the WET file's.

    Raises:
        MissingExtra: when warcio is not installed.
    """
    try:
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError:
        raise MissingExtra("Reading WARC and WET files", "data") from None
    number = 0
    watched = _Watched(stream)
    try:
        for record in ArchiveIterator(watched):
            if record.rec_headers.get_header("Content-Length") is None:
                yield SkippedRow(name, number + 1, "the file ends within a record's header")
            elif record.rec_type in PAGES:
                number += 1
                yield _page(record, name, number)
    except ArchiveLoadFailed as problem:
        reason = " ".join(str(problem).split())
        yield SkippedRow(name, number + 1, f"the file is damaged from here on: {reason}")
    if watched.problem is not None:
        raise watched.problem


class _Watched:
    """A stream that keeps what went wrong in it, which warcio takes as the end of the file."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.problem: OSError | EOFError | zlib.error | None = None

    def read(self, size: int = -1) -> bytes:
        if self.problem is not None:
            return b""
        try:
            return self.stream.read(size)
        except (OSError, EOFError, zlib.error) as problem:
            self.problem = problem
            return b""


def _page(record: Any, name: str, number: int) -> Item:
    headers = record.http_headers or record.rec_headers
    kind = (headers.get_header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind != "text/plain":
        return SkippedRow(name, number, f"a record of {kind or 'no type'}; give the WET file")
    body = record.content_stream().read()
    claimed = record.rec_headers.get_header("Content-Length") or ""
    if not record.http_headers and claimed != str(len(body)):
        return SkippedRow(name, number, "the file ends within this record")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return SkippedRow(name, number, "not UTF-8 text")
    if not text.strip() or "\0" in text:
        return SkippedRow(name, number, "the text is empty or holds a NUL character")
    metadata = {
        "url": record.rec_headers.get_header("WARC-Target-URI") or "",
        "date": record.rec_headers.get_header("WARC-Date") or "",
    }
    return Document(f"{name}:{number}", text, metadata=metadata)
