"""What a GGUF file says of itself, read within bounds: nothing of it is believed unchecked.

llama.cpp trusts much of a header: a wrong count may end the process. Here every count is held
against the bytes that are there before it is used.

Source: ``docs/gguf.md`` of ggml-org/ggml (format, versions 2 and 3), and the block sizes of
``ggml-common.h``.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairway.errors import ModelError

SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
"""How values are packed, by type."""
STRING, ARRAY = 8, 9
VERSIONS = (2, 3)
MOST_DIMENSIONS = 4
LONGEST_NAME = 63
"""Bytes of a tensor's name (``GGML_MAX_NAME`` less one)."""

TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
"""Of each tensor type its name, the numbers in a block, and the bytes of a block."""

FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
"""Types of weights that are no quantisation."""

UNHASHED = ("tokenizer.chat_template", "tokenizer.ggml.padding_token_id")
"""Keys of a tokenizer that change no token of a text."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the header describes it.

    Attributes:
        name: such as ``token_embd.weight``.
        shape: fastest dimension first.
        kind: name of its type, or the type's number where it is not known here.
        elements: numbers in it.
        size: bytes; 0 where the type is not known.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    elements: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """A GGUF file's header.

    Attributes:
        fields: values by key; of an array its number of elements.
        tensors: in the file's order.
        tokenizer: hash of all that decides how text becomes tokens, 12 hexadecimal digits.
    """

    fields: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    tokenizer: str

    @property
    def architecture(self) -> str:
        """Such as ``llama``."""
        return str(self.fields.get("general.architecture", ""))

    def own(self, key: str) -> Any:
        """Give the value of an architecture's key, such as ``context_length``; None = absent."""
        return self.fields.get(f"{self.architecture}.{key}")

    def refuse(self, name: str) -> None:
        """Refuse what the header itself says is no causal language model.

        Raises:
            ModelError: saying why.
        """
        general = self.fields.get("general.type", "model")
        if general not in ("model", ""):
            raise ModelError(f"{name} is of the type {general!r}, and no model by itself.")
        if self.fields.get("tokenizer.ggml.model") in (None, "none", "no_vocab"):
            raise ModelError(f"{name} holds no tokenizer, so it reads no text; convert it anew.")
        if self.own("attention.causal") is False or self.own("pooling_type"):
            raise ModelError(
                f"{name} ({self.architecture}) is an encoder or gives embeddings: it is no causal "
                "language model."
            )

    def main_type(self) -> str:
        """Name the type of most weights that are matrices."""
        counts: dict[str, int] = {}
        for one in self.tensors:
            if len(one.shape) > 1:
                counts[one.kind] = counts.get(one.kind, 0) + one.elements
        return max(counts, key=lambda kind: counts[kind], default="F32")


class _Damaged(Exception):
    """What is wrong with a header."""


class _Cursor:
    """A place in the file that never leaves it."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0
        self.size = len(data)

    def skip(self, count: int) -> int:
        """Go on by so many bytes; give where they began."""
        if count > self.size - self.at:
            raise _Damaged(
                f"at byte {self.at} it announces {count:,} bytes, and {self.size - self.at:,} are "
                "left: it is cut off or damaged"
            )
        begun = self.at
        self.at += count
        return begun

    def scalar(self, form: str) -> Any:
        return struct.unpack_from(form, self.data, self.skip(struct.calcsize(form)))[0]

    def string(self) -> bytes:
        size = self.scalar("<Q")
        begun = self.skip(size)
        return self.data[begun : begun + size]

    def text(self, what: str) -> str:
        raw = self.string()
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise _Damaged(f"{what} is no UTF-8") from None

    def count(self, what: str, least: int) -> int:
        """Read a count of things of at least so many bytes each."""
        value: int = self.scalar("<Q")
        if value * least > self.size - self.at:
            raise _Damaged(f"it announces {value:,} {what}, more than its bytes can hold")
        return value


def read(path: Path) -> Header:
    """Read and check a file's header.

    Raises:
        ModelError: when it cannot be read, is no GGUF file, or contradicts itself.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise ModelError(f"{path} is no GGUF file: it does not begin with the word GGUF.")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(data)
    except _Damaged as problem:
        raise ModelError(
            f"{path} cannot be read as GGUF: {problem}. Fetch or convert it again."
        ) from None
    except (OSError, ValueError) as problem:
        raise ModelError(f"{path} cannot be read: {problem}") from None


def _read(data: mmap.mmap) -> Header:
    cursor = _Cursor(data)
    cursor.skip(4)
    version = cursor.scalar("<I")
    if version not in VERSIONS:
        if not version & 0xFFFF:
            raise _Damaged("it was written for big-endian machines")
        raise _Damaged(f"its version is {version}, and versions 2 and 3 are known")
    tensors = cursor.count("tensors", 24)
    pairs = cursor.count("keys", 13)
    fields: dict[str, Any] = {}
    tokenizer: dict[str, bytes] = {}
    for _ in range(pairs):
        key = cursor.text("a key")
        if key in fields:
            raise _Damaged(f"the key {key!r} stands twice")
        begun = cursor.at
        fields[key] = _value(cursor, key)
        if key.startswith("tokenizer.") and not key.startswith(UNHASHED):
            tokenizer[key] = hashlib.sha256(data[begun : cursor.at]).digest()
    whole = hashlib.sha256()
    for key in sorted(tokenizer):
        whole.update(key.encode() + b"\0" + tokenizer[key])
    found = _tensors(cursor, tensors, fields)
    return Header(fields, found, whole.hexdigest()[:12])


def _value(cursor: _Cursor, key: str) -> Any:
    kind = cursor.scalar("<I")
    if kind == STRING:
        return cursor.string().decode("utf-8", "replace")
    if kind == ARRAY:
        inner = cursor.scalar("<I")
        if inner == STRING:
            count = cursor.count(f"strings of {key}", 8)
            for _ in range(count):
                cursor.string()
        elif inner in SCALARS:
            width = struct.calcsize(SCALARS[inner])
            count = cursor.count(f"values of {key}", width)
            cursor.skip(count * width)
        else:
            raise _Damaged(f"{key!r} is an array of type {inner}, which there is none of")
        return count
    if kind not in SCALARS:
        raise _Damaged(f"{key!r} has type {kind}, which there is none of")
    return cursor.scalar(SCALARS[kind])


def _tensors(cursor: _Cursor, count: int, fields: Mapping[str, Any]) -> tuple[Tensor, ...]:
    alignment = fields.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise _Damaged(f"its alignment is {alignment!r}, and no power of two")
    found: list[Tensor] = []
    ends: list[int] = []
    names: set[str] = set()
    for _ in range(count):
        name = cursor.text("a tensor's name")
        if len(name.encode()) > LONGEST_NAME or name in names:
            raise _Damaged(f"the tensor name {name[:80]!r} is too long or stands twice")
        names.add(name)
        dimensions = cursor.scalar("<I")
        if dimensions > MOST_DIMENSIONS:
            raise _Damaged(f"{name!r} has {dimensions} dimensions, more than {MOST_DIMENSIONS}")
        shape = tuple(cursor.scalar("<Q") for _ in range(dimensions))
        kind = cursor.scalar("<I")
        offset = cursor.scalar("<Q")
        elements = 1
        for length in shape:
            elements *= length
        label, block, width = TYPES.get(kind, (str(kind), 1, 0))
        if elements < 1 or (shape and shape[0] % block):
            raise _Damaged(f"{name!r} has the shape {list(shape)}, which {label} cannot have")
        if offset % alignment:
            raise _Damaged(f"{name!r} does not lie on a multiple of {alignment} bytes")
        size = elements // block * width
        found.append(Tensor(name, shape, label, elements, size))
        ends.append(offset + size)
    begun = -(-cursor.at // alignment) * alignment
    for one, end in zip(found, ends, strict=True):
        if begun + end > cursor.size:
            raise _Damaged(
                f"{one.name!r} would end at byte {begun + end:,}, and the file has "
                f"{cursor.size:,}: it is cut off or damaged"
            )
    return tuple(found)
