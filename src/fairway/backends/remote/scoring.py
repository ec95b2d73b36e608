"""The scorer of a model that a server has: documents go there in batches, scores come back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from fairway import wire
from fairway.backends.remote.calling import Caller, Foreign
from fairway.backends.remote.tokenizing import RemoteVocabulary, read
from fairway.corpus import Document
from fairway.errors import FairwayError, InputError, ModelError
from fairway.scores import Score, Totals
from fairway.signature import Signature, diff, parse

BATCH_BYTES = 32 << 10
"""Bytes of documents that one request brings."""
BATCH_DOCUMENTS = 256
"""Documents that it brings at most."""
REQUEST_BYTES = 1 << 20
"""Bytes of several documents that it brings at most, what they share counted each time."""


@dataclass(slots=True)
class RemoteScorer:
    """Scores documents by a server's model, under its signature.

    Attributes:
        caller: asks the server.
        model: its name there.
        facts: what the server says of it.
        settings: that its protocol is made of; none = it is as the server has it.
        parallel: requests that are under way at a time in a call of `score`.
        notes: what the run must say.
    """

    caller: Caller
    model: str
    facts: Mapping[str, Any]
    settings: dict[str, Any]
    parallel: int
    notes: list[str] = field(default_factory=list)

    ahead = 1
    """Calls of `score` that should be begun before an earlier one is read to its end."""

    @property
    def signature(self) -> Signature:
        """The model's and the protocol's part, as if it were loaded here."""
        return parse(self.facts["signature"])

    @property
    def kind(self) -> str:
        """Of the model, as the server loaded it."""
        return str(self.facts["kind"])

    @property
    def columns(self) -> tuple[str, ...]:
        """What `score` can be asked for besides log-probabilities."""
        return tuple(self.facts["columns"])

    @property
    def perplexity(self) -> str:
        """What exp(nll / tokens) is called."""
        return str(self.facts["perplexity"])

    @property
    def needs_context(self) -> bool:
        """Whether a document without a context is refused."""
        return bool(self.facts["needs_context"])

    @property
    def contextual(self) -> bool:
        """Whether what stands before a text can change its numbers."""
        return bool(self.facts["contextual"])

    @property
    def limits(self) -> Mapping[str, Any]:
        """What a request may bring."""
        told = self.facts.get("limits")
        kept = told.items() if isinstance(told, Mapping) else ()
        return {key: value for key, value in kept if type(value) is int and value > 0}

    @property
    def engine(self) -> dict[str, Any]:
        """What only changes speed and rounding at the server, for a run's record."""
        told = self.facts.get("engine")
        kept = dict(told) if isinstance(told, Mapping) else {}
        kept.pop("budget", None)
        return {**kept, "served": True}

    @property
    def fair(self) -> bool:
        """Whether documents bring windows of their own, the same for all models compared."""
        return bool(self.settings.get("fair"))

    @fair.setter
    def fair(self, value: bool) -> None:
        if value != self.fair:
            self.settings = {**self.settings, "fair": value}
            self.facts = describe(self.caller, self.model, self.settings)

    def __getattr__(self, name: str) -> Any:
        # There only where the server's model has it: an evaluation asks by hasattr.
        offered = {
            "vocabulary": ("tokenizes", RemoteScorer._vocabulary),
            "spans": ("spans", lambda one: one._spans),
            "room": ("spans", lambda one: one.facts["room"]),
            "remarks": ("remarks", lambda one: one._remarks),
        }
        if name not in offered or not self.facts.get(offered[name][0]):
            raise AttributeError(f"this server's model has no {name}")
        return offered[name][1](self)

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        """Score documents in their order; the first requests are sent at once.

        Args:
            documents: what to score.
            want: names of extra columns, as the server's kind of model has them.

        Raises:
            InputError: for a document that cannot be scored, or a column that there is none of.
            ModelError: when the server has gone, or has another model now.
        """
        stop = threading.Event()
        pieces = batches(documents, self.limits)
        begun = deque(self._begin(one, want, stop) for one in islice(pieces, self.parallel))
        return self._flow(begun, pieces, want, stop)

    def _flow(
        self,
        begun: deque[Future[list[Score | FairwayError]]],
        pieces: Iterator[list[Document]],
        want: Collection[str],
        stop: threading.Event,
    ) -> Iterator[Score]:
        try:
            while begun:
                found = begun.popleft().result()
                for piece in islice(pieces, 1):
                    begun.append(self._begin(piece, want, stop))
                for one in found:
                    if isinstance(one, FairwayError):
                        raise one
                    yield one
        finally:
            stop.set()

    def _begin(
        self, documents: list[Document], want: Collection[str], stop: threading.Event
    ) -> Future[list[Score | FairwayError]]:
        """Send a request, in a thread of its own that nothing waits for at the end."""
        future: Future[list[Score | FairwayError]] = Future()

        def work() -> None:
            try:
                future.set_result(self._request(documents, want, stop))
            except BaseException as problem:  # for whoever reads the result
                future.set_exception(problem)

        threading.Thread(target=work, name="fairway-request", daemon=True).start()
        return future

    def _request(
        self, documents: list[Document], want: Collection[str], stop: threading.Event
    ) -> list[Score | FairwayError]:
        answer = self.caller.ask(
            "/v1/documents",
            {
                "model": self.model,
                "settings": self.settings,
                "want": sorted(want),
                "documents": [wire.document_to_json(one) for one in documents],
            },
            stop=stop,
        )
        self._hold(answer.get("signature"))
        entries = answer.get("scores")
        if not isinstance(entries, list) or len(entries) != len(documents):
            raise ModelError(
                f"{self.caller.url} was sent {len(documents)} documents and has not answered with "
                "as many scores; is it of another version of fairway?"
            )
        return [
            wire.error_from_json(entry["error"])
            if isinstance(entry, dict) and "error" in entry
            else wire.score_from_json(entry, document)
            for entry, document in zip(entries, documents, strict=True)
        ]

    def _hold(self, signature: Any) -> None:
        """Refuse an answer of another model than the one that was asked for.

        Raises:
            ModelError: naming what differs.
        """
        own = self.facts["signature"]
        if signature == own:
            return
        try:
            changes = diff(parse(own), parse(str(signature)))
        except InputError:
            raise ModelError(
                f"{self.caller.url} does not say which model it scored with; is it of another "
                "version of fairway?"
            ) from None
        said = ", ".join(f"{key} {a or '-'}, now {b or '-'}" for key, (a, b) in changes.items())
        raise ModelError(
            f"{self.caller.url} has another model or protocol now than when this began "
            f"({wire.shown(said)}); its scores are not mixed with the earlier ones. Start the "
            "server as it was, or begin anew."
        )

    def _vocabulary(self) -> RemoteVocabulary:
        return read(self.caller, self.model)

    def _spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Give the character spans of texts' tokens, ``(n, 2)`` each."""
        found: list[NDArray[np.int64]] = []
        for piece in batches((Document("", text) for text in texts), self.limits):
            asked = {"model": self.model, "settings": self.settings}
            part = [one.text for one in piece]
            answer = self.caller.ask("/v1/spans", {**asked, "texts": part})
            self._hold(answer.get("signature"))
            found += wire.spans_from_json(answer.get("spans"), part)
        return found

    def _remarks(self, totals: Totals, unknown: int | None) -> list[str]:
        """Ask what the model says of a run's sums."""
        asked = {"model": self.model, "settings": self.settings}
        sums = {"totals": totals.to_json(), "unknown": unknown}
        said = self.caller.ask("/v1/remarks", {**asked, **sums}).get("remarks")
        return [wire.shown(one) for one in said] if isinstance(said, list) else []


def batches(documents: Iterable[Document], limits: Mapping[str, Any]) -> Iterator[list[Document]]:
    """Cut documents into what one request brings.

    A context that many documents follow counts once, so that they stay together.

    Args:
        documents: in their order.
        limits: of a request, as the server told them.
    """
    most = min(BATCH_DOCUMENTS, limits.get("documents", BATCH_DOCUMENTS))
    room = min(
        REQUEST_BYTES, limits.get("text", REQUEST_BYTES), limits.get("body", 4 * REQUEST_BYTES) // 4
    )
    batch: list[Document] = []
    held = sent = 0
    for one in documents:
        text, context = _bytes(one.text), _bytes(one.context)
        more = 0 if one.ids is None else 4 * len(one.ids)
        same = bool(batch) and one.context == batch[-1].context
        if batch and (
            held >= BATCH_BYTES or len(batch) >= most or sent + text + context + 3 * more > room
        ):
            yield batch
            batch, held, sent, same = [], 0, 0, False
        batch.append(one)
        held += text + more + (0 if same else context)
        sent += text + context + 3 * more
    if batch:
        yield batch


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def listed(caller: Caller) -> list[Mapping[str, Any]]:
    """Give what a server says of each of its models.

    Raises:
        ModelError: when there is no server, or it is no fairway server.
    """
    data = caller.ask("/v1/models", once=True).get("data")
    if not isinstance(data, list) or not data:
        raise Foreign(caller.url)
    return [_facts(caller, one) for one in data]


def find(caller: Caller, model: str | None) -> Mapping[str, Any]:
    """Find a model at a server.

    Args:
        caller: asks it.
        model: its name there; None = the first.

    Returns:
        What the server says of it, its name as ``id`` among this.

    Raises:
        ModelError: when there is no server, it is no fairway server, or it has no such model.
    """
    known = listed(caller)
    for one in known:
        if model in (None, one["id"]):
            return one
    names = ", ".join(wire.shown(one["id"]) for one in known)
    raise ModelError(f"{caller.url} has no model {model!r}; it has: {names}.")


def describe(caller: Caller, model: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ask what a model is under settings."""
    return _facts(caller, caller.ask("/v1/model", {"model": model, "settings": settings}))


def build(
    caller: Caller, facts: Mapping[str, Any], settings: dict[str, Any], parallel: int
) -> RemoteScorer:
    """Make a scorer of a model that was found."""
    model = str(facts["id"])
    if settings:
        facts = describe(caller, model, settings)
    notes = [wire.shown(one) for one in facts["notes"]]
    notes += sent(caller.url, caller.token is not None)
    return RemoteScorer(caller, model, facts, settings, parallel, notes)


def sent(url: str, token: bool) -> list[str]:
    """Say where texts went, unless that is this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        here = ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost" or host.endswith(".localhost")
    if here:
        return []
    what = "texts and the token were" if token and parts.scheme == "http" else "texts were"
    how = " unencrypted" if parts.scheme == "http" else ""
    return [f"{what} sent to {host}{how}"]


FACTS = {
    "signature": str, "kind": str, "perplexity": str, "columns": list, "notes": list,
    "needs_context": bool, "contextual": bool, "settings": bool,
}  # fmt: skip
"""What is read of a server's word on a model, and its types."""


def _facts(caller: Caller, entry: Any) -> Mapping[str, Any]:
    told = entry.get("fairway") if isinstance(entry, dict) else None
    if not isinstance(told, dict) or not isinstance(entry.get("id"), str):
        raise Foreign(caller.url)
    if told.get("wire") != wire.VERSION:
        raise ModelError(
            f"{caller.url} is of another version of fairway ({wire.shown(told.get('version'))}) "
            "and speaks otherwise; use the same version at both ends."
        )
    for key, kind in FACTS.items():
        if not isinstance(told.get(key), kind):
            raise Foreign(caller.url)
    if not all(isinstance(one, str) for one in (*told["columns"], *told["notes"])):
        raise Foreign(caller.url)
    if not isinstance(told.get("room"), int | None):
        raise Foreign(caller.url)
    try:
        signature = str(parse(told["signature"]))
    except InputError:
        raise Foreign(caller.url) from None
    return {**told, "id": entry["id"], "signature": signature}
