"""Web archives: the plain text of WET files, a document for each page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from fairway.corpus.document import Document, Item, SkippedRow
from fairway.errors import MissingExtra


def records(stream: IO[bytes], name: str, split: str | None, fields: Any) -> Iterator[Item]:
    """Read a WARC or WET file; pages of HTML are skipped rows, since their text is the WET file's.

    Raises:
        MissingExtra: when fastwarc is not installed.
    """
    try:
        from fastwarc.warc import ArchiveIterator, WarcRecordType
    except ImportError:
        raise MissingExtra("Reading WARC and WET files", "data") from None
    kinds = WarcRecordType.conversion | WarcRecordType.response | WarcRecordType.resource
    for number, record in enumerate(ArchiveIterator(stream, record_types=kinds), 1):
        url = record.headers.get("WARC-Target-URI") or ""
        kind = (record.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        if record.http_content_type:
            kind = record.http_content_type
        if kind != "text/plain":
            yield SkippedRow(name, number, f"a record of {kind or 'no type'}; give the WET file")
            continue
        try:
            text = record.reader.read().decode("utf-8")
        except UnicodeDecodeError:
            yield SkippedRow(name, number, "not UTF-8 text")
            continue
        if not text.strip() or "\0" in text:
            yield SkippedRow(name, number, "the text is empty or holds a NUL character")
            continue
        metadata = {"url": url, "date": record.headers.get("WARC-Date") or ""}
        yield Document(f"{name}:{number}", text, metadata=metadata)
