"""From documents to windows that are ready to run, and from their log-probabilities to scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway import windows
from fairway.backends.transformers import chat, encode
from fairway.backends.transformers.encode import Encoded
from fairway.backends.transformers.tree import Row
from fairway.corpus import Document
from fairway.errors import InputError, ProtocolError
from fairway.protocol import Plan
from fairway.scores import Score


@dataclass(frozen=True, slots=True)
class Reader:
    """What decides how a text becomes windows.

    Attributes:
        tokenizer: the model's.
        plan: the protocol, fitted to the model.
        parse_special: read the text of special tokens as those tokens.
        roles: chat roles whose words are scored.
    """

    tokenizer: Any
    plan: Plan
    parse_special: bool = False
    roles: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document on its way through the model.

    Attributes:
        document: the text, messages written out.
        encoded: its tokens, context included.
        leading: ids before the text's own that are part of it.
        rows: its windows.
        token_bytes: bytes of each token, leading ones included, where no source text exists.
    """

    document: Document
    encoded: Encoded
    leading: tuple[int, ...]
    rows: tuple[Row, ...]
    token_bytes: NDArray[np.int64] | None = None

    @property
    def size(self) -> int:
        """Tokens with those that lead."""
        return len(self.leading) + len(self.encoded.ids)

    @property
    def ids(self) -> NDArray[np.int64]:
        """``(size,)`` tokens, those included that lead."""
        return np.concatenate((np.asarray(self.leading, np.int64), self.encoded.ids))


def prepare(reader: Reader, documents: Sequence[Document]) -> list[Prepared]:
    """Tokenize documents and cut them into windows.

    Raises:
        InputError: when a document cannot be tokenized.
        ModelError: when the tokenizer's output cannot be aligned with the text.
        ProtocolError: when the convention cannot cut a text.
    """
    rendered = [
        chat.render(reader.tokenizer, d, reader.roles)
        if reader.roles and "messages" in d.metadata
        else d
        for d in documents
    ]
    special = reader.parse_special or reader.roles is not None
    encoded = encode.encode_documents(reader.tokenizer, rendered, special)
    if reader.plan.convention.windowing == "pairs":
        counts = _context_tokens(reader, rendered)
        return [
            _pair(reader, index, document, item, counts[document.context])
            for index, (document, item) in enumerate(zip(rendered, encoded, strict=True))
        ]
    return [
        _prepare(reader, index, document, item)
        for index, (document, item) in enumerate(zip(rendered, encoded, strict=True))
    ]


def _prepare(reader: Reader, index: int, document: Document, item: Encoded) -> Prepared:
    item = _without_prefix(reader.plan, document, item)
    leading = _leading(reader.plan, item)
    ids = np.concatenate((np.asarray(leading, np.int64), item.ids))
    reached = np.concatenate((np.ones(len(leading), bool), touched(document, item)))
    spelled = document.ids is not None and not document.text
    return Prepared(
        document,
        item,
        leading,
        tuple(_rows(reader, index, ids, reached, document, item)),
        encode.raw_bytes(reader.tokenizer, ids) if spelled else None,
    )


def _context_tokens(reader: Reader, documents: Sequence[Document]) -> dict[str, int]:
    """Count the tokens of each context by itself, white space at its end left out."""
    contexts = list({document.context: None for document in documents})
    stripped = [context.rstrip() for context in contexts]
    made = encode.encode_many(reader.tokenizer, stripped, reader.parse_special)
    return {
        context: len(_added(reader, bare)) + len(one.ids)
        for context, bare, one in zip(contexts, stripped, made, strict=True)
    }


def _added(reader: Reader, text: str) -> tuple[int, ...]:
    """What the tokenizer puts first; lm-eval lets it add nothing to the spelling of the prefix."""
    plan = reader.plan
    written = encode.decode(reader.tokenizer, list(plan.prefix)) if plan.prefix else ""
    return () if written and text.startswith(written) else plan.leading


def _pair(reader: Reader, index: int, document: Document, item: Encoded, count: int) -> Prepared:
    """Split a context from its continuation by a count of tokens, as lm-eval does.

    Source: ``loglikelihood``, ``_encode_pair`` and ``tok_encode``, lm-eval 0.4.13: both are encoded
    as one, with the tokenizer's own special tokens; without a context, the prefix stands for it,
    or the continuation's own first token where that is the prefix.
    """
    if document.ids is not None:
        raise InputError(f"{document.id} holds token ids, and a pair is text.")
    prefix = reader.plan.prefix
    if document.context:
        leading = _added(reader, document.context + document.text)
    elif prefix and tuple(item.ids[:1].tolist()) != prefix:
        leading, count = prefix, len(prefix)
    else:
        leading, count = (), 1
    ids = np.concatenate((np.asarray(leading, np.int64), item.ids))
    length = reader.plan.max_length or len(ids)
    begin, end, start, _ = windows.pair(len(ids), count, length)
    row = Row(index, 0, ids[begin : end - 1], ids[start:end], start - begin - 1, start)
    return Prepared(document, item, leading, (row,))


def _without_prefix(plan: Plan, document: Document, item: Encoded) -> Encoded:
    """Take away a prefix that a document's ids bring along: it stands in front anyway."""
    front = plan.leading or plan.prefix
    if document.ids is None or not front or tuple(item.ids[: len(front)].tolist()) != front:
        return item
    return replace(item, ids=item.ids[len(front) :], offsets=item.offsets[len(front) :])


def _leading(plan: Plan, item: Encoded) -> tuple[int, ...]:
    """The ids before a text's own; lm-eval lets no BOS be added to a text that begins so."""
    if plan.doubled and tuple(item.ids[:1].tolist()) == plan.prefix:
        return ()
    return plan.leading


def touched(document: Document, item: Encoded) -> NDArray[np.bool_]:
    """Which tokens are to be scored: those that touch such a character, or all behind a context."""
    spans = _shifted(document)
    if spans is None or (document.ids is not None and not document.text):
        return np.arange(len(item.ids)) >= _context(document, item)
    nothing = np.zeros(len(item.ids))
    text = document.context + document.text
    return Score(document.id, text, item.offsets, nothing, item.ids, spans).wanted


def _context(document: Document, item: Encoded) -> int:
    """How many of the ids are only read; a prefix that was taken away does not count any more."""
    if document.ids is None or document.text:
        return 0
    return max(0, document.context_ids - (len(document.ids) - len(item.ids)))


def _shifted(document: Document) -> tuple[tuple[int, int], ...] | None:
    """Scored spans in context + text."""
    cut = len(document.context)
    if document.scored is not None:
        return tuple((start + cut, end + cut) for start, end in document.scored)
    return ((cut, cut + len(document.text)),) if cut else None


def _rows(
    reader: Reader,
    index: int,
    ids: NDArray[np.int64],
    reached: NDArray[np.bool_],
    document: Document,
    item: Encoded,
) -> Iterator[Row]:
    plan = reader.plan
    prefix = np.asarray(plan.prefix, np.int64)
    begins = len(prefix) > 0 and np.array_equal(ids[: len(prefix)], prefix)
    if reader.roles and begins:
        # The template wrote the BOS itself; a second one would be an error.
        prefix = prefix[:0]
    elif (
        begins
        and not plan.leading
        and document.ids is None
        and reader.parse_special
        and plan.convention.special == "text"
    ):
        raise ProtocolError(
            f"{document.id} begins with the prefix token already; a doubled BOS gives a wrong "
            "number: use --prefix none, or leave --special-tokens at text."
        )
    if document.windows is not None:
        if plan.max_length is None and plan.convention.windowing == "rolling":
            raise InputError(
                f"{document.id} has windows of its own, and state=carried reads it whole; leave "
                "state=carried away."
            )
        cut = _given(document, item, len(plan.prefix) > 0)
    else:
        cut = plan.cut(len(ids))
    for number, window in enumerate(cut):
        front = prefix if window.prefix else prefix[:0]
        begin, end, start = window.begin, window.end, window.score_from
        if not len(front) and start == begin:
            start += 1
        hit = np.flatnonzero(reached[start:end])
        if not len(hit):
            continue
        start, end = start + int(hit[0]), start + int(hit[-1]) + 1
        yield Row(
            index,
            number,
            np.concatenate((front, ids[begin : end - 1])),
            ids[start:end],
            len(front) + start - begin - 1,
            start,
        )


def _given(document: Document, item: Encoded, prefix: bool) -> list[windows.Window]:
    """Find the tokens of windows that are given in characters, by where tokens begin."""
    if document.context or document.ids is not None:
        raise InputError(f"{document.id} has windows of its own, which go with plain text only.")
    starts = np.maximum.accumulate(item.offsets[:, 0])
    found = []
    for begin, score_from, end in document.windows or ():
        first, scored, last = np.searchsorted(starts, (begin, score_from, end)).tolist()
        if end >= len(document.text):
            last = len(starts)
        if scored < last:
            found.append(windows.Window(first, last, scored, prefix))
    return found


def finish(
    prepared: Prepared, values: NDArray[np.float64], extras: Mapping[str, NDArray[Any]]
) -> Score:
    """Cut context and unscored leading tokens off, and give offsets in the text alone.

    Args:
        prepared: the document.
        values: log-probabilities of its tokens, leading ones included; NaN = not scored.
        extras: further columns of that length.
    """
    document, item, leading = prepared.document, prepared.encoded, prepared.leading
    lead = len(leading)
    kept = lead if lead and not np.isnan(values[:lead]).all() else 0
    values = values[lead - kept :]
    more = {key: column[lead - kept :] for key, column in extras.items()}
    ids = np.concatenate((np.asarray(leading[lead - kept :], np.int64), item.ids))
    offsets = np.concatenate((np.zeros((kept, 2), np.int64), item.offsets))
    token_bytes = None if prepared.token_bytes is None else prepared.token_bytes[lead - kept :]
    text = document.text
    read = _context(document, item)
    if read:
        begin = kept + read
        values, ids, offsets = values[begin:], ids[begin:], offsets[begin:]
        more = {key: column[begin:] for key, column in more.items()}
        token_bytes = None if token_bytes is None else token_bytes[begin:]
    if token_bytes is None and document.context:
        cut = len(document.context)
        # A pair split by a count of tokens may score some that lie in the context.
        inside = (offsets[:, 1] > cut) | ~np.isnan(values)
        values, ids = values[inside], ids[inside]
        more = {key: column[inside] for key, column in more.items()}
        offsets = np.maximum(offsets[inside] - cut, 0)
    score = Score(
        document.id, text, offsets, values, ids, document.scored, token_bytes,
        item.lossy, more, document.metadata, byte_count=document.byte_count,
    )  # fmt: skip
    if document.scored is not None:
        unwanted = ~score.wanted
        if (unwanted & ~np.isnan(values)).any():
            score = replace(score, logprobs=np.where(unwanted, np.nan, values))
    return score
