"""Token ids in place of text: rows, NumPy arrays, and the flat files of training code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fairway.corpus.document import Document, Item, SkippedRow
from fairway.errors import InputError

CHUNK = 1 << 20
"""Bytes of a stream of ids that are read at a time."""
LARGEST = (1 << 31) - 1
HEADER = 1024
"""Bytes of the header that llm.c writes before its ids: 256 int32."""
MAGIC = {20240520: "<u2", 20240801: "<u4"}
"""The header's first number, and the type of the ids behind it (llm.c, ``data_common.py``)."""


def row(
    name: str, value: Any, size: Any, metadata: Mapping[str, Any], source: str, line: int
) -> Item:
    """Make a document of a row's ids.

    Args:
        name: the document's id.
        value: a list of integers.
        size: source bytes, None where they are not known.
        metadata: the row's other fields.
        source: for the reason, if it cannot be scored.
        line: likewise.
    """
    if not isinstance(value, list | np.ndarray) or not all(
        isinstance(one, int | np.integer) and not isinstance(one, bool) for one in value
    ):
        return SkippedRow(source, line, "the ids are no list of whole numbers")
    if not len(value):
        return SkippedRow(source, line, "the list of ids is empty")
    if min(value) < 0 or max(value) > LARGEST:
        return SkippedRow(source, line, "an id is negative or too large")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        return SkippedRow(source, line, "the count of bytes is no whole number")
    return Document(
        name, "", metadata=metadata, ids=np.asarray(value, dtype=np.int64), byte_count=size
    )


def npy(stream: IO[bytes], name: str, split_at: int | None) -> Iterator[Item]:
    """Read a NumPy file: each row of a table is a document; a flat array is one, or is cut.

    Raises:
        InputError: when it holds anything but whole numbers in one or two dimensions.
        ValueError: when it is no NumPy file.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(stream)
    except KeyError:
        raise ValueError("it is of an unknown version of NumPy's format") from None
    if dtype.kind not in "iu" or len(shape) not in (1, 2):
        raise InputError(
            f"{name} holds {dtype} in {len(shape)} dimensions; token ids are whole numbers in one "
            "dimension, or in rows."
        )
    if fortran:
        raise InputError(
            f"{name} holds its columns one after another; save numpy.ascontiguousarray of it."
        )
    if len(shape) == 1:
        yield from flat(stream, name, dtype.str, split_at, shape[0])
        return
    width = shape[1] * dtype.itemsize
    for number in range(1, shape[0] + 1):
        data = _exactly(stream, width)
        if len(data) < width:
            yield SkippedRow(name, number, "the file ends within this row")
            return
        if not width:
            yield SkippedRow(name, number, "the list of ids is empty")
            continue
        yield Document(f"{name}:{number}", "", ids=np.frombuffer(data, dtype).astype(np.int64))


def shard(stream: IO[bytes], name: str, split_at: int | None) -> Iterator[Item]:
    """Read a ``.bin`` file of training code: uint16 throughout, or as llm.c's header says.

    Raises:
        InputError: when the ids are plainly wider than uint16.
    """
    head = _exactly(stream, HEADER)
    if len(head) == HEADER:
        magic, _, count = np.frombuffer(head[:12], "<i4").tolist()
        if magic in MAGIC and count >= 0:
            yield from flat(stream, name, MAGIC[magic], split_at, count)
            return
    halves = np.frombuffer(head[: len(head) // 4 * 4], "<u2").reshape(-1, 2)
    # The upper halves of uint32 ids are 0 to 3; no text has such ids in every other place.
    if len(halves) > 8 and halves[:, 1].max() < 4 <= halves[:, 0].max():
        raise InputError(
            f"{name} seems to hold uint32 ids, and .bin is read as uint16; name it bin32:PATH."
        )
    yield from flat(stream, name, "<u2", split_at, head=head)


def flat(
    stream: IO[bytes],
    name: str,
    kind: str,
    split_at: int | None,
    count: int | None = None,
    head: bytes = b"",
) -> Iterator[Item]:
    """Read ids one after another: one document, or one up to each id that ends a document.

    Args:
        stream: the ids.
        name: of the source.
        kind: NumPy's name of their type, such as ``<u2``.
        split_at: the id that ends a document, itself in none; None = all is one.
        count: ids that there must be; None = all up to the end.
        head: bytes that were read before, where there is no count.
    """
    dtype = np.dtype(kind)
    held: list[NDArray[np.int64]] = []
    number = 0
    left = CHUNK if count is None else count * dtype.itemsize
    while data := head + _exactly(stream, min(CHUNK, left) - len(head)):
        head = b""
        left -= 0 if count is None else len(data)
        if len(data) % dtype.itemsize:
            yield SkippedRow(name, number + 1, f"the file does not end with a whole {dtype}")
            data = data[: len(data) - len(data) % dtype.itemsize]
        part = np.frombuffer(data, dtype).astype(np.int64)
        cuts: list[int] = [] if split_at is None else np.flatnonzero(part == split_at).tolist()
        start = 0
        for cut in cuts:
            held.append(part[start:cut])
            start = cut + 1
            number += 1
            whole = np.concatenate(held)
            held = []
            if len(whole):
                yield Document(f"{name}:{number}", "", ids=whole)
        held.append(part[start:])
    whole = np.concatenate(held) if held else np.zeros(0, np.int64)
    if len(whole):
        yield Document(name if split_at is None else f"{name}:{number + 1}", "", ids=whole)
    if count is not None and left:
        missing = -(-left // dtype.itemsize)
        yield SkippedRow(name, number + 1, f"the file lacks {missing} of its {count} ids")


def _exactly(stream: IO[bytes], size: int) -> bytes:
    """Read so many bytes, fewer only at the end; a stream may give less at a time."""
    parts = []
    while size:
        data = stream.read(size)
        if not data:
            break
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
