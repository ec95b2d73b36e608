"""What a server itself writes behind each text, scored by its own log-probabilities.

That is no perplexity of the text: it says how sure the model is of its own words.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fairway import __version__
from fairway.backends.openai import align, checking, reading, routes
from fairway.backends.openai.answer import Answer
from fairway.backends.openai.choose import NoPrompt
from fairway.backends.openai.crew import Crew
from fairway.backends.openai.routes import Strange
from fairway.backends.openai.scoring import bare, foretell, spent
from fairway.backends.openai.server import Server
from fairway.backends.openai.transport import Link, Refused, Reply
from fairway.corpus import Document
from fairway.errors import InputError
from fairway.scores import OWN_OUTPUT, Score, Totals
from fairway.signature import UNKNOWN, Signature

NOTE = (
    "own output: the numbers are of what the server wrote behind each text, by its own "
    "log-probabilities, and not of the text; they say how sure it is of itself"
)


@dataclass(frozen=True, slots=True)
class Writing:
    """How the server is let write.

    Attributes:
        max_tokens: at most.
        temperature: 0 = always the most likely token.
        seed: of the drawing, where the server heeds it.
    """

    max_tokens: int
    temperature: float
    seed: int


def _completions(model: str, text: str, how: Writing) -> dict[str, Any]:
    return {"model": model, "prompt": text, "logprobs": 1, **_common(how)}


def _chat(model: str, text: str, how: Writing) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {
        "model": model, "messages": messages, "logprobs": True, "top_logprobs": 1, **_common(how)
    }  # fmt: skip


def _common(how: Writing) -> dict[str, Any]:
    return {
        "max_tokens": how.max_tokens, "temperature": how.temperature, "seed": how.seed, "n": 1,
        "stream": False,
    }  # fmt: skip


WAYS: Mapping[str, tuple[str, Callable[[str, str, Writing], dict[str, Any]]]] = {
    "completions": ("/v1/completions", _completions),
    "chat": ("/v1/chat/completions", _chat),
}
"""Paths and bodies by name."""


def read(reply: Reply) -> tuple[str, Answer]:
    """Give what was written, and its tokens.

    Raises:
        Strange: when the answer has no text or no log-probabilities.
    """
    choice, answer = routes.written(reply)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, Mapping) else choice.get("text")
    if not isinstance(text, str):
        raise Strange("The answer has no text.")
    if text and not answer.entries:
        raise Strange("The answer has no log-probabilities of what was written.")
    return text, answer


def load(
    link: Link,
    server: Server,
    concurrency: int,
    how: Writing,
    price: float | None,
) -> OwnOutputScorer:
    """Find the path on which a server writes with log-probabilities.

    Raises:
        NoPrompt: when there is none.
    """
    said = []
    for name, (path, body) in WAYS.items():
        try:
            short = Writing(4, how.temperature, how.seed)
            text, answer = read(link.post(path, body(server.model, "One and one is", short)))
            _spans(text, answer)
        except (Refused, Strange, align.Lossy) as problem:
            if isinstance(problem, Refused) and problem.status in (401, 403):
                raise
            said.append(f"{name}: {problem}")
            continue
        return OwnOutputScorer(link, server, name, how, concurrency, price)
    raise NoPrompt(
        f"{link.address.host} ({server.shown}) returns no log-probs of what it writes either. "
        f"[{' | '.join(said)}]"
    )


@dataclass(slots=True)
class OwnOutputScorer:
    """Lets a server write behind each document, and scores that.

    Attributes:
        link: to the server.
        server: what it is.
        route: completions or chat.
        how: it is let write.
        concurrency: requests at a time.
        price: US dollars for a million tokens; None = not told.
        notes: what the run must say.
    """

    link: Link
    server: Server
    route: str
    how: Writing
    concurrency: int
    price: float | None = None
    notes: list[str] = field(default_factory=lambda: [NOTE])

    perplexity = OWN_OUTPUT
    columns = ()
    cacheable = False
    block_bytes = 2 << 10

    @property
    def signature(self) -> Signature:
        """The scorer's part; the weights behind a server are not known."""
        return Signature.of(
            {
                "kind": "openai", "model": bare(self.server.model) or self.server.name,
                "weights": UNKNOWN, "dtype": UNKNOWN,
                **self.server.identity, "protocol": "own-output", "unit": "token",
                "agg": "ratio", "version": __version__,
                "server": self.server.shown, "route": self.route,
                "written": self.how.max_tokens, "temperature": self.how.temperature,
                "drawn": self.how.seed if self.how.temperature else None,
            }
        )  # fmt: skip

    @property
    def engine(self) -> dict[str, Any]:
        """What only changes speed, and what was sent so far, for a run's record."""
        counts = self.link.counts
        return {
            "concurrency": self.concurrency, "host": self.link.address.host,
            "requests": counts.requests, "repeated": counts.repeated, "tokens": counts.tokens,
        }  # fmt: skip

    def estimate(self, size: int | None, documents: int | None) -> str | None:
        """Say what so much text will cost; None where no price was told."""
        return foretell(self.price, size, documents, 1.0, self.how.max_tokens)

    def remarks(self, totals: Totals, unknown: int | None) -> list[str]:
        """Say what was sent, and what it cost."""
        return [spent(self.link, self.price)]

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        """Let the server write behind each document; each score's text is what it wrote.

        Raises:
            InputError: for a column, or a document that is no plain text.
            ModelError: when no answer came, or it is wrong.
        """
        for name in want:
            raise InputError(f"A server's own output has no column {name!r}.")
        return Crew(self._one, self.concurrency).score(documents, ())

    def _one(self, document: Document, want: Collection[str]) -> Score:
        reading.check(document)
        if document.scored is not None:
            raise InputError(f"{document.id} says what of it is scored, and none of it is.")
        path, body = WAYS[self.route]
        text = document.context + document.text
        wrote, answer = read(self.link.post(path, body(self.server.model, text, self.how)))
        kept, offsets = _spans(wrote, answer)
        checking.sound(kept, self.server, 0)
        values = np.asarray([min(0.0, e.logprob or 0.0) for e in kept.entries], np.float64)
        ids = np.asarray([-1 if e.id is None else e.id for e in kept.entries], np.int64)
        return Score(
            document.id, wrote, offsets, values, ids.reshape(-1), None, None, False, {},
            document.metadata, perplexity=OWN_OUTPUT,
        )  # fmt: skip


def _spans(text: str, answer: Answer) -> tuple[Answer, Any]:
    """Lay tokens over what was written; one that ended it is none of it.

    Raises:
        Lossy: when they do not fit.
    """
    if not text:
        return Answer(()), np.zeros((0, 2), np.int64)
    try:
        return answer, align.spans(answer.entries, text)
    except align.Lossy:
        if len(answer.entries) < 2:
            raise
        ended = Answer(answer.entries[:-1], 0, answer.prompt_tokens, None, answer.odd)
        return ended, align.spans(ended.entries, text)
