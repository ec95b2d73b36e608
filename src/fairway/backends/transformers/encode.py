"""From a document to token ids with character spans, or a sentence that says why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.backends.transformers import vocabulary
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
    """Tokenize a text without special tokens around it; see `encode_many`."""
    return encode_many(tokenizer, [text], parse_special)[0]


def encode_many(
    tokenizer: Any, texts: Sequence[str], parse_special: bool = False, target: bool = False
) -> list[Encoded]:
    """Tokenize texts without special tokens around them.

    Args:
        tokenizer: a transformers tokenizer.
        texts: what to encode.
        parse_special: read the text of special tokens as those tokens; else it is plain text.
        target: texts are targets of translations, which some tokenizers read otherwise.

    Raises:
        InputError: when a text holds half of a surrogate pair.
        ModelError: when the tokenizer has no offsets and its output cannot be aligned.
    """
    if not texts:
        return []
    fast = bool(getattr(tokenizer, "is_fast", False))
    options: dict[str, Any] = {
        "add_special_tokens": False, "verbose": False, "return_attention_mask": False,
        "return_token_type_ids": False,
    }  # fmt: skip
    if not parse_special:
        options["split_special_tokens"] = True
    if fast:
        options["return_offsets_mapping"] = True
    try:
        out = tokenizer(**{"text_target" if target else "text": list(texts)}, **options)
    except (TypeError, UnicodeEncodeError):
        # What the library raises for text that has no UTF-8 form.
        for text in texts:
            if any("\ud800" <= char <= "\udfff" for char in text):
                raise InputError(
                    "The text holds half of a surrogate pair, which is no character; decode the "
                    "file as what it is, or replace such characters."
                ) from None
        raise
    found = []
    for index, text in enumerate(texts):
        ids: list[int] = out["input_ids"][index]
        decoded = decode(tokenizer, ids)
        if fast:
            offsets = np.asarray(out["offset_mapping"][index], dtype=np.int64).reshape(-1, 2)
        elif decoded == text:
            offsets = align(tokenizer, ids, text)
        else:
            raise ModelError(
                "This tokenizer gives no character offsets, and decoding its tokens does not give "
                "the text back, so bytes cannot be counted; use a fast tokenizer (tokenizer.json)."
            )
        found.append(Encoded(np.asarray(ids, dtype=np.int64), offsets, decoded != text))
    return found


def decode(tokenizer: Any, ids: list[int]) -> str:
    """Decode without leaving out or tidying anything."""
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


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


def encode_documents(
    tokenizer: Any, documents: Sequence[Document], parse_special: bool
) -> list[Encoded]:
    """Tokenize contexts and texts together, or take the ids that documents carry.

    Raises:
        InputError: when an id lies outside the vocabulary.
        ModelError: as `encode_many`.
    """
    plain = [d for d in documents if d.ids is None or d.text]
    made = iter(encode_many(tokenizer, [d.context + d.text for d in plain], parse_special))
    size = len(tokenizer) if len(plain) < len(documents) else 0
    return [next(made) if d.ids is None or d.text else _given(d, size) for d in documents]


def _given(document: Document, size: int) -> Encoded:
    ids = np.asarray(document.ids, dtype=np.int64)
    if len(ids) and (ids.min() < 0 or ids.max() >= size):
        wrong = int(ids.min() if ids.min() < 0 else ids.max())
        raise InputError(
            f"{document.id} holds token id {wrong}, and the tokenizer has {size} tokens; the data "
            "was made with another tokenizer."
        )
    return Encoded(ids, np.zeros((len(ids), 2), dtype=np.int64), False)


def around(tokenizer: Any, target: bool = False) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Find the special tokens that a tokenizer puts before and behind a text, or a target.

    Raises:
        ModelError: when what it gives with them is not what it gives without, with more around it.
    """
    name = "text_target" if target else "text"
    whole, bare = (
        list(tokenizer(**{name: "a"}, add_special_tokens=special)["input_ids"])
        for special in (True, False)
    )
    for size in range(len(whole) - len(bare) + 1):
        if whole[size : size + len(bare)] == bare:
            return tuple(whole[:size]), tuple(whole[size + len(bare) :])
    raise ModelError(
        "This tokenizer reads a text otherwise where it puts special tokens around it; use one "
        "that does not."
    )


@contextmanager
def a_rows_fault(documents: Sequence[Document]) -> Iterator[None]:
    """Let what a tokenizer cannot do to a text be a fault of its row, without which a run goes on.

    Raises:
        InputError: in place of a ModelError.
    """
    try:
        yield
    except ModelError as problem:
        name = documents[0].id if len(documents) == 1 else f"One of {len(documents)} documents"
        raise InputError(f"{name} cannot be scored. {problem}") from None


def refuse(document: Document, kind: str) -> None:
    """Refuse documents that are not text, or bring what only causal models can use.

    Raises:
        InputError: for token ids, windows of the document's own, and text with lone surrogates.
    """
    if document.ids is not None:
        raise InputError(
            f"{document.id} holds token ids, and a {kind} model reads text: it puts special tokens "
            "of its own around it."
        )
    if document.windows is not None:
        raise InputError(
            f"{document.id} has windows of its own, as causal models have, which a {kind} model "
            "cannot take."
        )
    if any("\ud800" <= char <= "\udfff" for char in document.context + document.text):
        raise InputError(f"{document.id} holds a lone surrogate, which is no text; mend it first.")


def raw_bytes(tokenizer: Any, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the bytes of each token from the vocabulary's own spelling, not by decoding it."""
    unique, where = np.unique(ids, return_inverse=True)
    spelled = vocabulary.spell(tokenizer, unique.tolist())
    return np.asarray([len(one) for one in spelled], dtype=np.int64)[where]
