"""An answer as it grows: whole characters, texts that end it, tokens; and its events on the wire.

What is sent at once and what is sent bit by bit is put together from the same parts.
"""

from __future__ import annotations

import codecs
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.responses import Response, StreamingResponse

from fairway.errors import FairwayError
from fairway.generation import Sampling, Step
from fairway.serve.problems import Problem, of, where
from fairway.serve.state import Served

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
SHORT = (",", ":")
T = TypeVar("T")
LOG = logging.getLogger("fairway.serve")
DONE = "data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer.

    Attributes:
        id: in the vocabulary.
        raw: its bytes in the text.
        start: characters of the text before it; those before the character that it lies in.
        logprob: nats; None = not scored.
        top: ids and logprobs of the most likely tokens, the likeliest first.
        ends: whether it ends the text, and is none of it.
    """

    id: int
    raw: bytes
    start: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """What an answer has grown by.

    Attributes:
        text: whole characters.
        tokens: those whose characters are now told.
        finish: why it ends: ``stop`` or ``length``; None = it does not yet.
        written: tokens that the model wrote for it, in the last part of an answer, one that ends
            it included.
    """

    text: str = ""
    tokens: tuple[Token, ...] = ()
    finish: str | None = None
    written: int = 0


def joined(parts: Sequence[Part]) -> Part:
    """Put an answer together."""
    return Part(
        "".join(one.text for one in parts),
        tuple(token for one in parts for token in one.tokens),
        parts[-1].finish,
        parts[-1].written,
    )


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


@dataclass(slots=True)
class Growing:
    """Turns steps into parts.

    Attributes:
        stops: texts that end it, as bytes.
        start: characters that stand before it.
    """

    stops: Sequence[bytes] = ()
    start: int = 0
    _raw: bytearray = field(default_factory=bytearray)
    _told: int = 0
    _written: int = 0
    _waiting: list[tuple[Token, int, int]] = field(default_factory=list)
    _out: codecs.IncrementalDecoder = field(default_factory=_decoder)
    _places: codecs.IncrementalDecoder = field(default_factory=_decoder)

    def add(self, step: Step) -> Part | None:
        """Take a token; give what it completes, None where that is nothing yet."""
        begin = len(self._raw)
        self._raw += step.piece
        self._written += 1
        token = self._token(step)
        self._waiting.append((token, begin, len(self._raw)))
        self.start += len(self._places.decode(step.piece))
        cut = self._stop(begin)
        if cut is not None:
            text = self._out.decode(bytes(self._raw[self._told : cut]), True)
            tokens = tuple(one for one, first, _ in self._waiting if first < cut)
            return Part(text, tokens, "stop", self._written)
        safe = len(self._raw) - self._held()
        text = self._out.decode(bytes(self._raw[self._told : safe]))
        self._told = safe
        whole = safe - len(self._out.getstate()[0])
        ready = [one for one, _, end in self._waiting if end <= whole]
        if not text and not ready:
            return None
        self._waiting = self._waiting[len(ready) :]
        return Part(text, tuple(ready))

    def close(self, finish: str, last: Step | None = None) -> Part:
        """End it; give what was held back.

        Args:
            finish: why.
            last: the token that ends it, where there is one.
        """
        text = self._out.decode(bytes(self._raw[self._told :]), True)
        tokens = tuple(one for one, _, _ in self._waiting)
        if last is None:
            return Part(text, tokens, finish, self._written)
        return Part(text, (*tokens, self._token(last)), finish, self._written + 1)

    def _token(self, step: Step) -> Token:
        top = tuple(zip(step.top_ids, step.top_logprobs, strict=True))
        return Token(step.id, step.piece, self.start, step.logprob, top, step.ends)

    def _stop(self, begin: int) -> int | None:
        """Find where the first stop begins that the bytes from begin complete."""
        places = (self._raw.find(one, max(0, begin - len(one) + 1)) for one in self.stops)
        return min((place for place in places if place >= 0), default=None)

    def _held(self) -> int:
        """Count the last bytes that may begin a stop."""
        return max(
            (
                size
                for one in self.stops
                for size in range(1, len(one))
                if self._raw.endswith(one[:size])
            ),
            default=0,
        )


async def grow(
    served: Served,
    ids: Sequence[int],
    sampling: Sampling,
    stops: Sequence[bytes],
    start: int = 0,
    known: Step | None = None,
) -> AsyncIterator[Part]:
    """Write behind ids, a step at a time, between which the model does other work.

    Whoever leaves has the request's task cancelled, and with it what would be written next.

    Args:
        served: a model that writes.
        ids: what stands there.
        sampling: how tokens are drawn.
        stops: texts that end the answer.
        start: characters that stand before what is written.
        known: the one token that is asked for, where scoring told it already.

    Raises:
        FairwayError: when the model cannot go on.
    """
    growing = Growing(stops, start)
    if not sampling.max_tokens:
        yield growing.close("length")
        return
    scorer: Any = served.scorer
    steps: Iterator[Step] = iter(() if known is None else (known,))
    if known is None:
        steps = await _turn(served, lambda: scorer.generate(ids, sampling))
    while True:
        step = next(steps, None) if known else await _turn(served, lambda: next(steps, None))
        if step is None or step.ends:
            yield growing.close("length" if step is None else "stop", step)
            return
        part = growing.add(step)
        if part is not None:
            yield part
            if part.finish:
                return


async def _turn(served: Served, function: Callable[[], T]) -> T:
    """Do something with a model; of what nobody foresaw the log says where, and the asker that.

    Raises:
        Problem: for such a failure.
        FairwayError: for one that was foreseen.
    """
    try:
        return await served.lane.call(function)
    except FairwayError:
        raise
    except Exception as problem:
        LOG.error("A model failed: %s", where(problem))
        raise Problem(
            500, "The model failed at this request; the server's log says where.", "crash"
        ) from None


def event(data: Any) -> str:
    """Write an event of a stream."""
    return f"data: {json.dumps(data, ensure_ascii=False, allow_nan=False, separators=SHORT)}\n\n"


async def respond(events: AsyncIterator[str]) -> Response:
    """Send events. What goes wrong before the first is an answer of its own, later an event."""
    first = await anext(events, None)

    async def rest() -> AsyncIterator[str]:
        try:
            if first is not None:
                yield first
            async for one in events:
                yield one
            yield DONE
        except (Problem, FairwayError) as problem:
            shown = problem if isinstance(problem, Problem) else of(problem)
            yield f"data: {bytes(shown.response().body).decode()}\n\n"

    return StreamingResponse(rest(), media_type="text/event-stream", headers=HEADERS)
