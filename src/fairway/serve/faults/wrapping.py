"""A server that misbehaves on purpose, to test clients: ``fairway serve --fault NAME[:RATE]``.

It wraps any ASGI application. Bugs of engines change the answers of completions; faults of the way
hold answers up, cut them or put others in their place. Which request is met is drawn from the seed,
the request's bytes and how often these came before, so that the order in which requests arrive
changes nothing, and a request that is sent again is drawn again. ``GET /faults`` tells what was
done.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from fairway.errors import InputError
from fairway.serve.faults import answers
from fairway.serve.faults.bugs import BUGS

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
SLOW = 0.5
"""Seconds by which a slow answer is late."""
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whole."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def of(self, body: bytes, kind: bytes | None = None) -> Reply:
        """Give the same answer with another body, and another type."""
        own = tuple(
            (name, kind if kind is not None and name == b"content-type" else value)
            for name, value in self.headers
            if name != b"content-length"
        )
        return Reply(self.status, (*own, (b"content-length", str(len(body)).encode())), body)


def error(status: int, message: str, **headers: str) -> Reply:
    """Make an answer with an error in OpenAI's form."""
    body = json.dumps({"error": {"message": message, "type": "server_error"}}).encode()
    more = tuple((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items())
    kind = (b"content-type", b"application/json")
    return Reply(status, (kind, *more, (b"content-length", str(len(body)).encode())), body)


def _date() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)


INSTEAD: Mapping[str, Callable[[], Reply]] = {
    "429": lambda: error(429, "Slow down.", retry_after="1"),
    "429-date": lambda: error(429, "Slow down.", retry_after=_date()),
    "429-bare": lambda: error(429, "Slow down."),
    "500": lambda: error(500, "The engine failed."),
    "503": lambda: error(503, "The model is loading."),
    "502-page": lambda: error(502, "").of(PAGE, b"text/html"),
}
"""Answers that are given without asking the application."""

CHANGED: Mapping[str, Callable[[Reply], Reply]] = {
    "truncated": lambda reply: reply.of(reply.body[: len(reply.body) // 2]),
    "page": lambda reply: reply.of(PAGE, b"text/html"),
    "type": lambda reply: reply.of(reply.body, b"text/plain"),
    "empty": lambda reply: reply.of(b""),
    "error-200": lambda reply: reply.of(error(500, "The engine failed.").body),
    "no-choices": lambda reply: _edited(reply, answers.without_choices),
    "twice": lambda reply: reply.of(reply.body + reply.body),
    "choices-twice": lambda reply: _edited(reply, answers.choices_twice),
}
"""What becomes of the application's answer."""

BROKEN = frozenset(CHANGED) - {"type", "choices-twice"}
"""Changes that leave no whole answer."""

HELD = ("slow", "hang", "cut", "cut-body")
"""Faults of the connection."""
WHOLE = ("swapped", "no-logprobs", "plain")
"""Bugs of engines that change an answer as a whole."""
NAMES = (*BUGS, *WHOLE, *INSTEAD, *CHANGED, *HELD)
"""Every fault."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        name: one of `NAMES`.
        rate: share of requests that it meets.
    """

    name: str
    rate: float = 1.0


def parse(text: str) -> Fault:
    """Read ``NAME[:RATE]``.

    Raises:
        InputError: for an unknown name, or a rate that is none.
    """
    name, colon, rate = text.partition(":")
    if name not in NAMES:
        raise InputError(f"There is no fault {name!r}; there are: {', '.join(NAMES)}.")
    try:
        share = float(rate) if colon else 1.0
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"--fault {text}: a rate is a number from 0 to 1, such as {name}:0.1.")
    return Fault(name, share)


def named(path: str, body: bytes) -> str:
    """Give the name under which a request is counted."""
    return hashlib.sha256(path.encode() + b"\0" + body).hexdigest()[:16]


def around(app: Any, names: Sequence[str], seed: int = 0) -> Any:
    """Wrap an application where there are faults, each as ``NAME[:RATE]``."""
    return Faults(app, tuple(parse(one) for one in names), seed) if names else app


@dataclass(slots=True)
class Faults:
    """An application around another, which misbehaves.

    Attributes:
        app: the real one.
        faults: that it has; of those that put another answer in place, the first that is drawn.
        seed: of what is drawn.
        met: requests by what was done to them; ``clean`` = nothing.
        seen: requests by a hash of their path and body.
        whole: the same, of those that were answered whole.
    """

    app: App
    faults: Sequence[Fault] = ()
    seed: int = 0
    met: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    _memory: answers.Memory = field(default_factory=answers.Memory, repr=False)

    @property
    def state(self) -> Any:
        """What the application keeps, for whoever runs it."""
        return getattr(self.app, "state")  # noqa: B009 - not every ASGI application has one

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or let it go wrong."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] == "/faults":
            told = {name: dict(getattr(self, name)) for name in ("met", "seen", "whole")}
            await _give(Reply(200, ((b"content-type", b"application/json"),),
                              json.dumps(told).encode()), send)  # fmt: skip
            return
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body = await _read(receive)
        key = named(scope["path"], body)
        drawn = [one.name for one in self.faults if self._draw(key, one) < one.rate]
        self.seen[key] += 1
        self.met.update(drawn or ("clean",))
        if await self._way(drawn, receive, send):
            return
        reply = await _ask(self.app, scope, body, receive)
        if reply is None:
            return
        out = self._change(reply, body, drawn, scope["path"])
        if "cut-body" in drawn:
            await _give(out, send, len(out.body) // 2)
            await _cut(send, receive)
            return
        await _give(out, send)
        changed = next((name for name in drawn if name in CHANGED), None)
        if reply.status == 200 and changed not in BROKEN:
            self.whole[key] += 1

    def _draw(self, key: str, fault: Fault) -> float:
        """Draw from [0, 1)."""
        told = f"{self.seed}/{fault.name}/{key}/{self.seen[key]}".encode()
        return int.from_bytes(hashlib.sha256(told).digest()[:7], "big") / (1 << 56)

    async def _way(self, drawn: Sequence[str], receive: Receive, send: Send) -> bool:
        """Do what happens before the application is asked; True = there is no more to do."""
        if "slow" in drawn:
            await asyncio.sleep(SLOW)
        if "hang" in drawn:
            while (await receive())["type"] != "http.disconnect":
                pass
            return True
        if "cut" in drawn:
            await _cut(send, receive)
            return True
        for name in drawn:
            if name in INSTEAD:
                await _give(INSTEAD[name](), send)
                return True
        return False

    def _change(self, reply: Reply, body: bytes, drawn: Sequence[str], path: str) -> Reply:
        """Change the application's answer, the engine's bugs first."""
        bugs = [name for name in drawn if name in BUGS or name in WHOLE]
        if path.endswith("/completions") and reply.status == 200:
            out = answers.spoil(reply.body, body, bugs, self._memory)
            if out is not None:
                reply = reply.of(out)
        for name in drawn:
            if name in CHANGED:
                return CHANGED[name](reply)
        return reply


def _edited(reply: Reply, change: Callable[[Any], Any]) -> Reply:
    try:
        return reply.of(json.dumps(change(json.loads(reply.body))).encode())
    except ValueError:
        return reply


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    return b"".join(parts)


async def _ask(
    app: App, scope: MutableMapping[str, Any], body: bytes, receive: Receive
) -> Reply | None:
    """Give the application's whole answer; None where it gave none."""
    told: list[Message] = []
    unread = [True]

    async def again() -> Message:
        if unread:
            unread.clear()
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    async def keep(message: Message) -> None:
        told.append(message)

    await app(scope, again, keep)
    if not told:
        return None
    content = b"".join(one.get("body", b"") for one in told[1:])
    headers = tuple((bytes(k).lower(), bytes(v)) for k, v in told[0].get("headers", ()))
    return Reply(told[0]["status"], headers, content)


async def _give(reply: Reply, send: Send, stop: int | None = None) -> None:
    """Send an answer, or the first bytes of it."""
    await send(
        {"type": "http.response.start", "status": reply.status, "headers": list(reply.headers)}
    )
    body = reply.body if stop is None else reply.body[:stop]
    await send({"type": "http.response.body", "body": body, "more_body": stop is not None})


async def _cut(send: Send, receive: Receive) -> None:
    """Cut the connection.

    uvicorn's ``send`` is a method of the object that holds the connection; another server's or a
    test's sees an error.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionResetError("the connection is cut on purpose")
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
