"""Web archives: the plain text of WET files, a document for each page."""

from __future__ import annotations

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
    try:
        for record in ArchiveIterator(stream):
            if record.rec_type in PAGES:
                number += 1
                yield _page(record, name, number)
    except ArchiveLoadFailed as problem:
        reason = " ".join(str(problem).split())
        yield SkippedRow(name, number + 1, f"the file is damaged from here on: {reason}")


def _page(record: Any, name: str, number: int) -> Item:
    headers = record.http_headers or record.rec_headers
    kind = (headers.get_header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind != "text/plain":
        return SkippedRow(name, number, f"a record of {kind or 'no type'}; give the WET file")
    try:
        text = record.content_stream().read().decode("utf-8")
    except UnicodeDecodeError:
        return SkippedRow(name, number, "not UTF-8 text")
    if not text.strip() or "\0" in text:
        return SkippedRow(name, number, "the text is empty or holds a NUL character")
    metadata = {
        "url": record.rec_headers.get_header("WARC-Target-URI") or "",
        "date": record.rec_headers.get_header("WARC-Date") or "",
    }
    return Document(f"{name}:{number}", text, metadata=metadata)
