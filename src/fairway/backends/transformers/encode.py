"""From a document to token ids with character spans, or a sentence that says why not."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.corpus import Document
from fairway.errors import InputError, ModelError
from fairway.protocol import Tokenizing

STEP = 64
"""Tokens after which alignment by decoding starts afresh, so that its cost stays linear."""

UNSET = 1 << 31
"""Above this, transformers means by a tokenizer's model_max_length that none was set."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of one document, its context included.

    Attributes:
        ids: ``(n,)`` vocabulary ids.
        offsets: ``(n, 2)`` character spans in context + text.
        lossy: whether decoding does not give the source back.
    """

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    lossy: bool


def facts(tokenizer: Any, positions: int | None) -> Tokenizing:
    """Find out what a protocol must know of a tokenizer."""
    with_special = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    adds: tuple[int, ...] = ()
    for size in range(len(with_special) - len(bare) + 1):
        if with_special[size : size + len(bare)] == bare:
            adds = tuple(with_special[:size])
            break
    claimed = tokenizer.model_max_length
    return Tokenizing(
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        adds,
        positions,
        int(claimed) if claimed is not None and claimed < UNSET else None,
    )


def encode(tokenizer: Any, text: str, parse_special: bool = False) -> Encoded:
    """Tokenize a text without special tokens around it.

    Args:
        tokenizer: a transformers tokenizer.
        text: what to encode.
        parse_special: read the text of special tokens as those tokens; else it is plain text.

    Raises:
        ModelError: when the tokenizer has no offsets and its output cannot be aligned.
    """
    fast = bool(getattr(tokenizer, "is_fast", False))
    options: dict[str, Any] = {"add_special_tokens": False, "verbose": False}
    if not parse_special:
        options["split_special_tokens"] = True
    if fast:
        options["return_offsets_mapping"] = True
    out = tokenizer(text, **options)
    ids = np.asarray(out["input_ids"], dtype=np.int64)
    decoded = decode(tokenizer, ids.tolist())
    if fast:
        offsets = np.asarray(out["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    elif decoded == text:
        offsets = align(tokenizer, ids.tolist(), text)
    else:
        raise ModelError(
            "This tokenizer gives no character offsets, and decoding its tokens does not give the "
            "text back, so bytes cannot be counted; use a fast tokenizer (tokenizer.json)."
        )
    return Encoded(ids, offsets, decoded != text)


def decode(tokenizer: Any, ids: list[int]) -> str:
    """Decode without leaving out or tidying anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(
            tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )


def align(tokenizer: Any, ids: list[int], text: str) -> NDArray[np.int64]:
    """Find the spans of tokens by decoding ever longer pieces of them.

    Raises:
        ModelError: when the pieces do not add up to the text.
    """
    spans = np.zeros((len(ids), 2), dtype=np.int64)
    start = position = begin = 0
    for index in range(len(ids)):
        piece = decode(tokenizer, ids[begin : index + 1])
        whole = piece.rstrip("�") if not text.startswith(piece, start) else piece
        if not text.startswith(whole, start):
            raise ModelError(
                "This tokenizer gives no character offsets, and its tokens cannot be aligned with "
                "the text; use a fast tokenizer (tokenizer.json)."
            )
        end = start + len(whole)
        partial = whole is not piece
        spans[index] = position, min(len(text), end + 1) if partial else end
        position = max(position, end)
        if index - begin >= STEP and not partial:
            rest = decode(tokenizer, ids[index + 1 : index + 1 + STEP])
            if text.startswith(rest.rstrip("�"), position):
                begin, start = index + 1, position
    if position != len(text):
        raise ModelError(
            "This tokenizer gives no character offsets, and its tokens cannot be aligned with "
            "the text; use a fast tokenizer (tokenizer.json)."
        )
    return spans


def encode_document(tokenizer: Any, document: Document, parse_special: bool) -> Encoded:
    """Tokenize context and text together, or take the ids that the document carries."""
    if document.ids is not None and not document.text:
        ids = np.asarray(document.ids, dtype=np.int64)
        if len(ids) and (ids.min() < 0 or ids.max() >= len(tokenizer)):
            wrong = int(ids.min() if ids.min() < 0 else ids.max())
            raise InputError(
                f"{document.id} holds token id {wrong}, and the tokenizer has "
                f"{len(tokenizer)} tokens; the data was made with another tokenizer."
            )
        return Encoded(ids, np.zeros((len(ids), 2), dtype=np.int64), False)
    return encode(tokenizer, document.context + document.text, parse_special)


def raw_bytes(tokenizer: Any, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the bytes of each token from the vocabulary's own spelling, not by decoding it.

    Byte-level vocabularies spell each byte as one character; SentencePiece ones spell a lone
    byte ``<0xNN>`` and a blank as U+2581.
    """
    special = set(tokenizer.all_special_ids)
    unique, where = np.unique(ids, return_inverse=True)
    spelled = tokenizer.convert_ids_to_tokens(unique.tolist())
    byte_level = _is_byte_level(tokenizer)
    sizes = []
    for token, spelling in zip(unique.tolist(), spelled, strict=True):
        if token in special:
            sizes.append(0)
        elif byte_level:
            sizes.append(len(spelling))
        elif len(spelling) == 6 and spelling.startswith("<0x") and spelling.endswith(">"):
            sizes.append(1)
        else:
            sizes.append(len(spelling.replace("▁", " ").encode("utf-8", "surrogatepass")))
    return np.asarray(sizes, dtype=np.int64)[where]


def _is_byte_level(tokenizer: Any) -> bool:
    """Whether the vocabulary spells bytes as characters: a blank becomes U+0120."""
    ids = tokenizer(" ", add_special_tokens=False)["input_ids"]
    return "Ġ" in "".join(tokenizer.convert_ids_to_tokens(list(ids)))
