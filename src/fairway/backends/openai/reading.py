"""One document by way of a server: what is sent, and what of the answer is the text's."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fairway.backends.openai import align, checking, choose, columns, stepwise
from fairway.backends.openai.answer import Answer, Asked, Entry
from fairway.backends.openai.choose import Chosen
from fairway.backends.openai.routes import Wish
from fairway.backends.openai.server import Server
from fairway.backends.openai.tokens import Coder
from fairway.backends.openai.transport import Link, Refused
from fairway.corpus import Document
from fairway.errors import InputError, ModelError
from fairway.protocol import Plan
from fairway.scores import Score


@dataclass(frozen=True, slots=True)
class Way:
    """All that is needed to ask for a text.

    Attributes:
        link: to the server.
        server: what it is.
        chosen: the route, and what the probe learnt.
        coder: what makes token ids; None = nothing does.
        plan: windows of ids; None = a text is sent as a whole.
        longest: tokens that a text may have without windows; None = not known.
        spelled: whether texts are sent as text where they fit, and not as ids.
    """

    link: Link
    server: Server
    chosen: Chosen
    coder: Coder | None = None
    plan: Plan | None = None
    longest: int | None = None
    spelled: bool = True

    def wish(self, want: Collection[str] = (), since: int = 0) -> Wish:
        """Give what is asked for beside the prompt, from one of its tokens on."""
        counts = [int(m.group(1) or 1) for name in want if (m := columns.TOPS.fullmatch(name))]
        return Wish(self.server.model, max(counts, default=0), self.chosen.write, since=since)


@dataclass(frozen=True, slots=True)
class Read:
    """Tokens of a context and a text.

    Attributes:
        entries: as the server told them; None = in no window that was asked for.
        offsets: ``(n, 2)`` character spans.
        ids: ``(n,)``, -1 where they are not known.
        logprobs: ``(n,)`` nats; NaN = not scored.
        lossy: whether the tokenizer changes the text; None = not known.
    """

    entries: tuple[Entry | None, ...]
    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    logprobs: NDArray[np.float64]
    lossy: bool | None


def score(way: Way, document: Document, want: Collection[str] = ()) -> Score:
    """Score one document.

    Raises:
        InputError: for what no server takes, or a text that is too long.
        ModelError: when no answer came, it is wrong, or its tokens cannot be found in the text.
    """
    check(document)
    if not document.text:
        return _empty(document, want)
    text = document.context + document.text
    try:
        read = _read(way, document, text, want)
    except align.Lossy as problem:
        raise align.Lossy(f"{document.id}: {problem}") from None
    except Refused as problem:
        if problem.status in (400, 413, 422):
            raise InputError(
                f"{document.id} ({len(text):,} characters) is not taken: {problem}"
            ) from None
        raise
    return _finish(document, read, want)


def check(document: Document) -> None:
    """Refuse what cannot be sent as a text.

    Raises:
        InputError: for token ids, windows, and half a surrogate pair.
    """
    if document.ids is not None:
        raise InputError(
            f"{document.id} holds token ids, and whether they are of the server's vocabulary "
            "cannot be known; give text."
        )
    if document.windows is not None:
        raise InputError(f"{document.id} has windows of its own, which no server takes.")
    try:
        (document.context + document.text).encode()
    except UnicodeEncodeError as problem:
        raise InputError(
            f"{document.id}: character {problem.start} is half of a surrogate pair, which no UTF-8 "
            "text has; mend the text."
        ) from None


def _read(way: Way, document: Document, text: str, want: Collection[str]) -> Read:
    if way.plan is None or way.coder is None:
        return _whole(way, document, text, want)
    room = (way.plan.max_length or 0) - len(way.plan.prefix)
    if way.spelled and len(text.encode()) + 2 <= room:
        # No token has less than a byte: it fits.
        return _whole(way, document, text, want)
    return _by_ids(way, document, text, want)


def _whole(way: Way, document: Document, text: str, want: Collection[str]) -> Read:
    """Send a text as it is."""
    asked = Asked(text, None, way.chosen.route.name, way.chosen.hidden)
    answer = checking.recounted(_answer(way, asked, want), way.chosen.uncounted)
    lead = way.chosen.lead
    if [one.token for one in answer.entries[: len(lead)]] != [one.token for one in lead]:
        raise ModelError(
            f"{document.id}: the answer begins otherwise than the probe's did, which had "
            f"{len(lead)} special tokens in front."
        )
    entries = _without_trail(way, document, answer.entries[len(lead) :])
    checking.counted(document.id, asked, answer, way.chosen.uncounted)
    if way.longest is not None and len(entries) + len(lead) > way.longest:
        raise InputError(
            f"{document.id} has {len(entries):,} tokens, more than the {way.longest:,} that are "
            "read at once. Windows need token ids: give --model-arg tokenizer=FILE where the "
            "server takes ids, or cut the text into documents."
        )
    lossy: bool | None = False
    if way.coder is not None and way.coder.here:
        coded = way.coder.encode(text)
        offsets = checking.same(coded, entries, text)
        ids, lossy = np.asarray(coded.ids, np.int64), coded.lossy
    else:
        offsets = _placed(way, document, asked, answer, entries, text)
        ids = np.asarray([-1 if one.id is None else one.id for one in entries], np.int64)
    checking.refuse(asked, answer, document.id, checking.PLACED)
    values = _values(entries, not way.chosen.first)
    return Read(entries, offsets, ids.reshape(-1), values, lossy)


def _without_trail(way: Way, document: Document, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Cut off the tokens of a template behind a text, which must be those of the probe."""
    trail = way.chosen.trail
    if not trail:
        return entries
    kept, cut = entries[: -len(trail)], entries[-len(trail) :]
    if [one.token for one in cut] != [one.token for one in trail]:
        raise ModelError(
            f"{document.id}: the chat template ends otherwise behind this text than behind the "
            "probe's, so where the text ends is not known."
        )
    return kept


def _placed(
    way: Way,
    document: Document,
    asked: Asked,
    answer: Answer,
    entries: Sequence[Entry],
    text: str,
) -> NDArray[np.int64]:
    """Lay an answer's tokens over the text; where spelling does not do, by the server's tokenizer.

    Raises:
        Lossy: when neither does.
        ModelError: when a known defect is why.
    """
    try:
        return align.spans(entries, text)
    except align.Lossy:
        coded = None if way.coder is None else way.coder.encode(text)
        if coded is not None and [one.id for one in entries] == list(coded.ids):
            if coded.offsets is not None:
                return coded.offsets
            if (told := coded.entries()) is not None:
                return align.spans(told, text)
        checking.refuse(asked, answer, document.id)
        raise


def _by_ids(way: Way, document: Document, text: str, want: Collection[str]) -> Read:
    """Send windows of token ids."""
    assert way.plan is not None and way.coder is not None
    coded = way.coder.encode(text)
    size = len(coded.ids)
    prefix = way.plan.prefix
    if prefix and coded.ids[: len(prefix)] == prefix:
        raise InputError(
            f"{document.id} begins with the prefix token already; a doubled BOS gives a wrong "
            "number: use --prefix none."
        )
    touched = np.ones(size, bool)
    if coded.offsets is not None:
        touched = _touched(document, coded.offsets)
    entries: list[Entry | None] = [None] * size
    values = np.full(size, np.nan)
    for begin, end, start, led in way.plan.cut(size):
        if coded.offsets is not None and not touched[start:end].any():
            continue
        front = prefix if led else ()
        sent = (*front, *coded.ids[begin:end])
        since = len(front) + start - begin
        asked = Asked(None, sent, way.chosen.route.name)
        answer = _answer(way, asked, want, since)
        found = answer.entries
        checking.match(sent, found, document.id)
        if way.chosen.route.name != stepwise.ROUTE.name:
            checking.refuse(asked, answer, document.id, checking.PLACED)
        own = found[len(front) :]
        fresh = _values(own[start - begin :], not front and start == begin)
        values[start:end] = fresh
        for place in range(begin, end):
            if entries[place] is None or place >= start:
                entries[place] = own[place - begin]
    offsets = coded.offsets
    if offsets is None:
        told = coded.entries() or tuple(one or Entry() for one in entries)
        offsets = align.spans(told, text)
    return Read(
        tuple(entries), offsets, np.asarray(coded.ids, np.int64).reshape(-1), values, coded.lossy
    )


def _answer(way: Way, asked: Asked, want: Collection[str], since: int = 0) -> Answer:
    answer = choose.ask(way.link, way.chosen.route, asked, way.wish(want, since))
    checking.sound(answer, way.server, max(1, since))
    if any(columns.TOPS.fullmatch(name) for name in want):
        checking.lists(asked, answer)
    return answer


def _values(entries: Sequence[Entry], open_: bool) -> NDArray[np.float64]:
    """Take the log-probabilities; the first token's may be absent where nothing stands before."""
    values = [math.nan if one.logprob is None else min(0.0, one.logprob) for one in entries]
    missing = [n for n, value in enumerate(values) if math.isnan(value) and not (open_ and n == 0)]
    if missing:
        raise ModelError(f"The answer has no log-probability of its token {missing[0] + 1}.")
    return np.asarray(values, np.float64)


def _touched(document: Document, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which tokens of context and text touch what is to be scored."""
    cut = len(document.context)
    scored = document.scored or ((0, len(document.text)),)
    spans = tuple((start + cut, end + cut) for start, end in scored)
    none = np.zeros(len(offsets))
    text = document.context + document.text
    return Score(document.id, text, offsets, none, none.astype(np.int64), spans).wanted


def _finish(document: Document, read: Read, want: Collection[str]) -> Score:
    """Cut the context off; offsets in the text alone."""
    cut = len(document.context)
    kept = np.ones(len(read.logprobs), bool)
    offsets = read.offsets
    if cut:
        kept = offsets[:, 1] > cut
        offsets = np.maximum(offsets - cut, 0)
    beside = columns.extras([one for one, k in zip(read.entries, kept, strict=True) if k], want)
    found = Score(
        document.id, document.text, offsets[kept], read.logprobs[kept], read.ids[kept],
        document.scored, None, read.lossy, beside, document.metadata,
    )  # fmt: skip
    if document.scored is not None:
        found = replace(found, logprobs=np.where(found.wanted, found.logprobs, np.nan))
    return found


def _empty(document: Document, want: Collection[str]) -> Score:
    none = np.zeros(0)
    beside = columns.extras((), want)
    return Score(
        document.id, "", np.zeros((0, 2), np.int64), none, none.astype(np.int64), document.scored,
        None, False, beside, document.metadata,
    )  # fmt: skip
