"""From documents to windows that are ready to run, and from their log-probabilities to scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairway import windows
from fairway.backends.gguf.tokens import Encoded, Tokenizer
from fairway.corpus import Document
from fairway.errors import InputError, ProtocolError
from fairway.protocol import Plan
from fairway.scores import Score


class Row(NamedTuple):
    """One window of one document, ready to run.

    Attributes:
        document: index of the document among those given.
        window: index of the window in the document.
        inputs: ``(n,)`` ids that the model reads, prefix first.
        targets: ``(m,)`` ids to be predicted.
        first: position in inputs whose output predicts the first target.
        at: index of the first target among the document's tokens.
    """

    document: int
    window: int
    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    first: int
    at: int


@dataclass(frozen=True, slots=True)
class Reader:
    """What decides how a text becomes windows.

    Attributes:
        tokenizer: the model's.
        plan: the protocol, fitted to the model.
        parse_special: read the text of special tokens as those tokens.
    """

    tokenizer: Tokenizer
    plan: Plan
    parse_special: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document on its way through the model.

    Attributes:
        document: the text.
        ids: ``(n,)`` its tokens: those that lead, then those of context and text.
        offsets: ``(n, 2)`` character spans in context + text; empty for those that lead.
        lead: how many lead.
        read: how many of the document's own ids are context.
        lossy: whether the tokens do not spell the text.
        rows: its windows.
    """

    document: Document
    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    lead: int
    read: int
    lossy: bool
    rows: tuple[Row, ...]

    @property
    def spelled(self) -> bool:
        """Whether there are ids and no text."""
        return self.document.ids is not None and not self.document.text


def prepare(reader: Reader, documents: Sequence[Document]) -> list[Prepared]:
    """Tokenize documents and cut them into windows.

    Raises:
        InputError: when a document cannot be tokenized, or holds ids of another vocabulary.
        ProtocolError: when the convention cannot cut a text.
    """
    return [_prepare(reader, index, document) for index, document in enumerate(documents)]


def _prepare(reader: Reader, index: int, document: Document) -> Prepared:
    plan = reader.plan
    if plan.convention.windowing == "pairs":
        return _pair(reader, index, document)
    own, read = _encode(reader, document)
    leading = plan.leading
    if plan.doubled and tuple(own.ids[:1].tolist()) == plan.prefix:
        # lm-eval lets no BOS be added to a text that begins with one.
        leading = ()
    item = _joined(document, own, leading, read)
    return replace(item, rows=tuple(_rows(reader, index, item)))


def _encode(reader: Reader, document: Document) -> tuple[Encoded, int]:
    """Give a document's tokens, and how many of them are context that has no text."""
    if document.ids is None or document.text:
        text = document.context + document.text
        return reader.tokenizer.encode_text(text, reader.parse_special), 0
    ids = np.asarray(document.ids, np.int64)
    size = len(reader.tokenizer)
    if len(ids) and (ids.min() < 0 or ids.max() >= size):
        wrong = int(ids.min() if ids.min() < 0 else ids.max())
        raise InputError(
            f"{document.id} holds token id {wrong}, and the tokenizer has {size} tokens; the data "
            "was made with another tokenizer."
        )
    front = reader.plan.leading or reader.plan.prefix
    read = document.context_ids
    if front and tuple(ids[: len(front)].tolist()) == front:
        # A prefix that the ids bring along stands in front anyway.
        ids, read = ids[len(front) :], max(0, read - len(front))
    return Encoded(ids, np.zeros((len(ids), 2), np.int64), False), read


def _pair(reader: Reader, index: int, document: Document) -> Prepared:
    """Split a context from its continuation by a count of tokens, as lm-eval does.

    Source: ``loglikelihood``, ``_encode_pair`` and ``tok_encode``, lm-eval 0.4.13: both are encoded
    as one, with the tokenizer's own special tokens; without a context, the prefix stands for it,
    or the continuation's own first token where that is the prefix.
    """
    if document.ids is not None:
        raise InputError(f"{document.id} holds token ids, and a pair is text.")
    own, _ = _encode(reader, document)
    plan = reader.plan
    prefix = plan.prefix
    if document.context:
        context = document.context.rstrip()
        leading = _added(reader, document.context + document.text)
        bare = reader.tokenizer.encode_text(context, reader.parse_special)
        count = len(_added(reader, context)) + len(bare.ids)
    elif prefix and tuple(own.ids[:1].tolist()) != prefix:
        leading, count = prefix, len(prefix)
    else:
        leading, count = (), 1
    item = _joined(document, own, leading, 0)
    begin, end, start, _ = windows.pair(len(item.ids), count, plan.max_length or len(item.ids))
    inputs, targets = item.ids[begin : end - 1], item.ids[start:end]
    return replace(item, rows=(Row(index, 0, inputs, targets, start - begin - 1, start),))


def _added(reader: Reader, text: str) -> tuple[int, ...]:
    """What the tokenizer puts first; lm-eval lets it add nothing to the spelling of the prefix."""
    written = b"".join(reader.tokenizer.piece(token) for token in reader.plan.prefix)
    return () if written and text.encode().startswith(written) else reader.plan.leading


def _joined(document: Document, own: Encoded, leading: tuple[int, ...], read: int) -> Prepared:
    ids = np.concatenate((np.asarray(leading, np.int64), own.ids))
    offsets = np.concatenate((np.zeros((len(leading), 2), np.int64), own.offsets))
    return Prepared(document, ids, offsets, len(leading), read, own.lossy, ())


def _touched(item: Prepared) -> NDArray[np.bool_]:
    """Which tokens are to be scored: those that lead, and of the rest those that are wanted."""
    document = item.document
    out = np.ones(len(item.ids), bool)
    if item.spelled:
        out[item.lead : item.lead + item.read] = False
        return out
    cut = len(document.context)
    if document.scored is not None:
        spans = tuple((start + cut, end + cut) for start, end in document.scored)
    elif cut:
        spans = ((cut, cut + len(document.text)),)
    else:
        return out
    offsets, ids = item.offsets[item.lead :], item.ids[item.lead :]
    text = document.context + document.text
    out[item.lead :] = Score(document.id, text, offsets, np.zeros(len(ids)), ids, spans).wanted
    return out


def _rows(reader: Reader, index: int, item: Prepared) -> Iterator[Row]:
    plan, document, ids = reader.plan, item.document, item.ids
    prefix = np.asarray(plan.prefix, np.int64)
    begins = len(prefix) > 0 and np.array_equal(ids[: len(prefix)], prefix)
    plain = document.ids is None and plan.convention.special == "text"
    if begins and plain and not plan.leading and reader.parse_special:
        raise ProtocolError(
            f"{document.id} begins with the prefix token already; a doubled BOS gives a wrong "
            "number: use --prefix none, or leave --special-tokens at text."
        )
    touched = _touched(item)
    given = document.windows is not None
    for number, window in enumerate(_given(item, len(prefix) > 0) if given else plan.cut(len(ids))):
        front = prefix if window.prefix else prefix[:0]
        begin, end, start = window.begin, window.end, window.score_from
        if not len(front) and start == begin:
            start += 1
        hit = np.flatnonzero(touched[start:end])
        if not len(hit):
            continue
        start, end = start + int(hit[0]), start + int(hit[-1]) + 1
        inputs = np.concatenate((front, ids[begin : end - 1]))
        yield Row(index, number, inputs, ids[start:end], len(front) + start - begin - 1, start)


def _given(item: Prepared, prefix: bool) -> list[windows.Window]:
    """Find the tokens of windows that are given in characters, by where tokens begin."""
    document = item.document
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
    reader: Reader,
    item: Prepared,
    values: NDArray[np.float64],
    extras: Mapping[str, NDArray[Any]],
) -> Score:
    """Cut off the context and what leads without being scored; offsets in the text alone.

    Args:
        reader: how the text became windows.
        item: the document.
        values: log-probabilities of its tokens; NaN = not scored.
        extras: further columns of that length.
    """
    document = item.document
    lead = item.lead
    kept = np.ones(len(item.ids), bool)
    if lead and np.isnan(values[:lead]).all():
        kept[:lead] = False
    offsets = item.offsets
    sizes = None
    if item.spelled:
        kept[lead : lead + item.read] = False
        spelled = [0 if n < lead else len(reader.tokenizer.piece(t)) for n, t in _numbered(item)]
        sizes = np.asarray(spelled, np.int64)[kept]
    elif document.context:
        cut = len(document.context)
        # A pair split by a count of tokens may score some that lie in the context.
        kept[lead:] &= (offsets[lead:, 1] > cut) | ~np.isnan(values[lead:])
        offsets = np.maximum(offsets - cut, 0)
    score = Score(
        document.id, document.text, offsets[kept], values[kept], item.ids[kept], document.scored,
        sizes, item.lossy, {key: column[kept] for key, column in extras.items()},
        document.metadata, byte_count=document.byte_count,
    )  # fmt: skip
    if document.scored is not None:
        score = replace(score, logprobs=np.where(score.wanted, score.logprobs, np.nan))
    return score


def _numbered(item: Prepared) -> Iterator[tuple[int, int]]:
    return enumerate(item.ids.tolist())
