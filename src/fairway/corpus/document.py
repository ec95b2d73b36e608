"""A document, a row that could not become one, and the stream of both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fairway.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LISTED = 1000
"""Skipped rows that are listed; further ones are only counted."""


LACKS = "the row lacks the field"
"""How the reason of such a row begins."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text to score.

    Attributes:
        id: names it in reports; need not be unique.
        text: what is scored.
        context: what stands before it and is only read.
        scored: character spans of the text that are scored; None = all of it.
        metadata: the row's other fields; ``messages`` in a chat corpus.
        ids: token ids, where the corpus holds no text.
        byte_count: source bytes of the ids that are scored, where known.
        context_ids: how many of the first ids stand before the text and are only read.
        windows: in characters, first read, first scored, one past the last; None = the protocol's.
    """

    id: str
    text: str
    context: str = ""
    scored: tuple[tuple[int, int], ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ids: NDArray[np.int64] | None = None
    byte_count: int | None = None
    context_ids: int = 0
    windows: tuple[tuple[int, int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row that could not be scored: where it is and why not."""

    source: str
    line: int
    reason: str

    @property
    def lacks(self) -> bool:
        """Whether the row lacks a field that was asked for."""
        return self.reason.startswith(LACKS)


Item = Document | SkippedRow


@dataclass(slots=True)
class Corpus:
    """A stream of documents that counts and hashes what it gives.

    Attributes:
        name: as in the signature; never an absolute path.
        open: starts the stream of documents and skipped rows.
        description: one line.
        licence: of the text, where known.
        split: how a text file was split, or the data set's split.
        normalisation: name of the normaliser, or none.
        strict: stop at the first bad row.
        size: bytes of the source; None = not known.
        position: bytes of it read so far.
        documents: given so far.
        skipped: rows that were skipped, the first `LISTED`.
        skipped_total: all of them.
    """

    name: str
    open: Callable[[Corpus], Iterator[Item]]
    description: str = ""
    licence: str | None = None
    split: str | None = None
    normalisation: str = "none"
    strict: bool = False
    size: int | None = None
    position: int = 0
    documents: int = 0
    skipped: list[SkippedRow] = field(default_factory=list)
    skipped_total: int = 0
    _hash: Any = None

    def __iter__(self) -> Iterator[Document]:
        self.position = self.documents = self.skipped_total = 0
        self.skipped = []
        self._hash = hashlib.sha256()
        lacking: SkippedRow | None = None
        for item in self.open(self):
            if isinstance(item, SkippedRow):
                if item.lacks:
                    lacking = lacking or item
                self._skip(item)
                continue
            self.documents += 1
            self._digest(item)
            yield item
        if lacking is not None and not self.documents:
            raise InputError(
                f"{self.name} holds no document: {lacking.reason}, and no other row can be scored; "
                "name the field with --text-field, or --id-field and --context-field."
            )

    @property
    def digest(self) -> str:
        """SHA-256 over the length-prefixed parts of the documents so far: 12 hexadecimal digits."""
        return (self._hash or hashlib.sha256()).hexdigest()[:12]

    def skip(self, source: str, reason: str, line: int = 0) -> None:
        """Count a document that turned out not to be scorable.

        Raises:
            InputError: where the corpus is strict.
        """
        self._skip(SkippedRow(source, line, reason))

    def _skip(self, row: SkippedRow) -> None:
        if self.strict:
            raise InputError(
                f"{row.source}:{row.line}: {row.reason}. Mend the row, or leave --strict away to "
                "skip such rows."
            )
        self.skipped_total += 1
        if len(self.skipped) < LISTED:
            self.skipped.append(row)

    def _digest(self, document: Document) -> None:
        parts = [document.text.encode("utf-8", "surrogatepass")]
        if document.context:
            parts.append(document.context.encode("utf-8", "surrogatepass"))
        if document.ids is not None:
            parts.append(document.ids.astype("<i8").tobytes())
        if document.byte_count is not None:
            parts.append(f"bytes {document.byte_count}".encode())
        if document.context_ids:
            parts.append(f"context {document.context_ids}".encode())
        if document.scored is not None:
            parts.append(f"scored {document.scored}".encode())
        if document.windows is not None:
            parts.append(f"windows {document.windows}".encode())
        if "messages" in document.metadata:
            parts.append(repr(document.metadata["messages"]).encode("utf-8", "surrogatepass"))
        if len(parts) > 1:
            # Else a context could pass for the next document; no length is as large as this.
            self._hash.update(b"\xff" * 8 + len(parts).to_bytes(8, "little"))
        for part in parts:
            self._hash.update(len(part).to_bytes(8, "little"))
            self._hash.update(part)


def cut(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    """Cut a stream of documents into blocks: a pure function of the documents and a size.

    A context that many documents follow counts once, so that they stay together.

    Args:
        documents: the stream.
        size: UTF-8 bytes after which a block is closed; a token id counts as four.
    """
    block: list[Document] = []
    held = 0
    for document in documents:
        held += len(document.text.encode("utf-8", "surrogatepass"))
        if not block or document.context != block[-1].context:
            held += len(document.context.encode("utf-8", "surrogatepass"))
        held += 0 if document.ids is None else 4 * len(document.ids)
        block.append(document)
        if held >= size:
            yield block
            block, held = [], 0
    if block:
        yield block
