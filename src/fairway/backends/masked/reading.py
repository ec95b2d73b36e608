"""From documents to rows with masks, and from their log-probabilities to scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.backends.masked.rows import Rows, blank_words, lay
from fairway.backends.transformers import encode, reading
from fairway.backends.transformers.encode import Encoded
from fairway.backends.transformers.loading import Loaded
from fairway.backends.transformers.reading import Prepared
from fairway.corpus import Document
from fairway.errors import ModelError, ProtocolError
from fairway.scores import PSEUDO, Score

LENGTH = 512
"""Tokens in a window unless more are asked for: a token costs a pass over its window."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model's texts become rows.

    Attributes:
        tokenizer: the model's.
        front: ids of the special tokens before a window.
        back: those behind it.
        mask: id of the mask token.
        length: tokens in a window, special ones counted; None = any number.
        pll: ``within-word-l2r`` or ``original``.
        words: whose words are masked, ``tokenizer`` or ``whitespace``; None = no words.
        parse_special: read the text of special tokens as those tokens.
    """

    tokenizer: Any
    front: tuple[int, ...]
    back: tuple[int, ...]
    mask: int
    length: int | None
    pll: str
    words: str | None
    parse_special: bool = False

    @property
    def around(self) -> int:
        """Special tokens of a window."""
        return len(self.front) + len(self.back)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A document on its way through the model.

    Attributes:
        document: the text.
        encoded: its tokens, context included.
        rows: one for each token that is scored.
    """

    document: Document
    encoded: Encoded
    rows: Rows


def plan(
    loaded: Loaded,
    pll: str,
    words: str | None,
    max_length: int | None,
    stride: int | None,
    parse_special: bool,
) -> Plan:
    """Fit the settings to a model.

    Raises:
        ModelError: when the model or its tokenizer is none of a masked language model.
        ProtocolError: when settings contradict the model.
    """
    tokenizer, name = loaded.tokenizer, loaded.name
    if getattr(loaded.model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name} has an encoder and a decoder and is no masked language model; put seq2seq: "
            "before its name."
        )
    if tokenizer.mask_token_id is None:
        raise ModelError(
            f"{name}'s tokenizer has no mask token, so it is no masked language model; if it is a "
            "causal one, put hf: before its name."
        )
    if stride not in (None, 1):
        raise ProtocolError(
            "A masked model's windows have stride 1, one around each token; leave --stride away."
        )
    front, back = encode.around(tokenizer)
    least = len(front) + len(back) + 1
    most = positions(loaded)
    length = min(LENGTH, most or LENGTH) if max_length is None else max_length or most
    if length is not None and most is not None and length > most:
        raise ProtocolError(
            f"max_length {length} was asked for, and the model reads at most {most} positions; "
            f"give --max-length {most} or less."
        )
    if length is not None and length < least:
        raise ProtocolError(
            f"max_length {length} leaves no room for a token beside the {least - 1} special ones; "
            f"use at least {least}."
        )
    if pll == "original":
        words = None
    elif words != "whitespace":
        told = tells_words(tokenizer)
        if words == "tokenizer" and not told:
            raise ModelError(
                f"{name}'s tokenizer does not tell which tokens are of one word; use --model-arg "
                "words=whitespace."
            )
        words = "tokenizer" if told else "whitespace"
    return Plan(tokenizer, front, back, tokenizer.mask_token_id, length, pll, words, parse_special)


def positions(loaded: Loaded) -> int | None:
    """Give the tokens that a model can read; None = no limit.

    RoBERTa and its kin count positions from behind the one that stands for padding, so that of
    514 only 512 can be had.
    """
    limits = [loaded.positions] if loaded.positions is not None else []
    for name, module in loaded.model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            limits.append(module.num_embeddings - padding - 1)
    claimed = loaded.tokenizer.model_max_length
    if claimed is not None and claimed < encode.UNSET:
        limits.append(int(claimed))
    return min(limits, default=None)


def tells_words(tokenizer: Any) -> bool:
    """Whether a tokenizer tells which tokens are of one word."""
    if not getattr(tokenizer, "is_fast", False):
        return False
    found = tokenizer("a a", add_special_tokens=False).word_ids(0)
    return len(set(found)) > 1


def prepare(plan: Plan, documents: Sequence[Document]) -> list[Sheet]:
    """Tokenize documents and lay out the rows of the tokens that are scored.

    Raises:
        InputError: for documents that are not text, or whose tokens cannot be aligned with it.
    """
    for document in documents:
        encode.refuse(document, "masked")
    with encode.a_rows_fault(documents):
        encoded = encode.encode_documents(plan.tokenizer, documents, plan.parse_special)
    numbers = _words(plan, documents, encoded)
    special = np.asarray(_special(plan.tokenizer) if plan.parse_special else (), np.int64)
    sheets = []
    for document, item, words in zip(documents, encoded, numbers, strict=True):
        wanted = reading.touched(document, item) & ~np.isin(item.ids, special)
        size = len(item.ids)
        room = size if plan.length is None else plan.length - plan.around
        rows = lay(np.flatnonzero(wanted), words, size, max(1, room))
        sheets.append(Sheet(document, item, rows))
    return sheets


def _words(
    plan: Plan, documents: Sequence[Document], encoded: Sequence[Encoded]
) -> list[NDArray[np.int64] | None]:
    """Number each token's word; None where words are not asked for."""
    if plan.words is None:
        return [None] * len(documents)
    texts = [document.context + document.text for document in documents]
    if plan.words == "whitespace":
        pairs = zip(texts, encoded, strict=True)
        return [blank_words(text, item.offsets) for text, item in pairs]
    out = plan.tokenizer(
        texts, add_special_tokens=False, verbose=False,
        split_special_tokens=not plan.parse_special,
    )  # fmt: skip
    return [_numbered(out.word_ids(index)) for index in range(len(texts))]


def _numbered(words: Sequence[int | None]) -> NDArray[np.int64]:
    """Make word ids rise; a token of no word is one by itself."""
    numbers: list[int] = []
    before: int | None = None
    for word in words:
        new = not numbers or word is None or word != before
        numbers.append((numbers[-1] if numbers else 0) + new)
        before = word
    return np.asarray(numbers, np.int64)


def _special(tokenizer: Any) -> list[int]:
    """Ids of special tokens; that of unknown text stands for text."""
    return [one for one in tokenizer.all_special_ids if one != tokenizer.unk_token_id]


def fill(plan: Plan, sheet: Sheet, row: int) -> tuple[NDArray[np.int64], int, int]:
    """Write a row out.

    Returns:
        What the model reads, the place of the token that is predicted, and that token.
    """
    at, begin, end, stop = (int(column[row]) for column in sheet.rows)
    ids = sheet.encoded.ids
    inside = ids[begin:end].copy()
    inside[at - begin : stop - begin] = plan.mask
    whole = np.concatenate((plan.front, inside, plan.back)).astype(np.int64)
    return whole, len(plan.front) + at - begin, int(ids[at])


def finish(sheet: Sheet, values: NDArray[np.float64], extras: Mapping[str, NDArray[Any]]) -> Score:
    """Cut the context off, and give offsets in the text alone.

    Args:
        sheet: the document.
        values: ``(n,)`` log-probabilities of its tokens; NaN = not scored.
        extras: further columns of that length.
    """
    prepared = Prepared(sheet.document, sheet.encoded, (), ())
    return replace(reading.finish(prepared, values, extras), perplexity=PSEUDO)
