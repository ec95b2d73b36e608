"""Requests to a server: again where it is busy or gone, and a sentence where it answers oddly."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import Any

import httpx2

from fairway import wire
from fairway.errors import FairwayError, InputError, ModelError

BUSY = (429, 502, 503, 504)
"""Statuses after which a request is sent again until patience ends."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds before the second try, and most between two of them."""
FAILURES = 6
"""Tries of a request that the server fails at, or answers with what is no JSON."""
KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""Seconds and probes after which a machine that vanished is noticed."""


class Gone(ModelError):
    """There is no server at the address."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class Caller:
    """Asks one server; from any thread, and in a forked process too.

    Attributes:
        url: of the server, without a slash at its end.
        token: that it asks for.
        patience: seconds that a request is tried again for.
        timeout: seconds that one answer may take.
    """

    url: str
    token: str | None = field(repr=False)
    patience: float
    timeout: float
    _client: tuple[int, httpx2.Client] | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def ask(
        self, path: str, content: Any = None, *, once: bool = False, stop: Any = None
    ) -> dict[str, Any]:
        """Ask, and give the JSON object that comes back; a question changes nothing there.

        Args:
            path: of the route.
            content: what is posted as JSON; None = nothing, the route is only read.
            once: give up at once where nothing listens.
            stop: an event, after which a request that failed is not tried again.

        Raises:
            FairwayError: what the server raised, as it raised it.
            Gone: when nothing listens there, for longer than patience.
            ModelError: when it answers otherwise than a fairway server.
        """
        stop = stop or threading.Event()
        body = None if content is None else _written(content)
        deadline: float | None = None
        wait, failures = FIRST_WAIT, 0
        while True:
            asked: float | None = None
            try:
                response = self._send(path, body)
                if response.status_code not in BUSY and response.status_code < 500:
                    return self._read(response)
                problem: FairwayError = self._failed(response)
                if not isinstance(problem, _Failed):
                    raise problem
                asked = _after(response)
                failures += response.status_code not in BUSY
            except _Malformed as malformed:
                problem, failures = malformed, failures + 1
            except httpx2.ReadTimeout:
                raise ModelError(
                    f"{self.url} has not answered within {self.timeout:g} seconds; give it more "
                    "by --model-arg timeout=SECONDS."
                ) from None
            except httpx2.TransportError as lost:
                problem = self._gone(lost)
                if once and isinstance(lost, httpx2.ConnectError | httpx2.UnsupportedProtocol):
                    raise problem from None
            now = time.monotonic()
            deadline = deadline or now + self.patience
            # Spread, so that requests that were cut off together do not come back together.
            pause = max(asked or 0.0, wait * random.uniform(0.5, 1.0))
            if failures >= FAILURES or now + pause > deadline:
                raise _last(problem) from None
            if stop.wait(pause):
                raise _last(problem) from None
            wait = min(2 * wait, LONGEST_WAIT)

    def _send(self, path: str, body: bytes | None) -> httpx2.Response:
        client = self._open()
        if body is None:
            return client.get(self.url + path)
        return client.post(
            self.url + path, content=body, headers={"Content-Type": "application/json"}
        )

    def _open(self) -> httpx2.Client:
        """Give this process's client: a fork must not share its parent's connections."""
        with self._lock:
            if self._client is None or self._client[0] != os.getpid():
                client = self._made()
                self._client = os.getpid(), client
                weakref.finalize(self, _close, *self._client)
            return self._client[1]

    def _made(self) -> httpx2.Client:
        options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
        headers = {"Accept": "application/json", "User-Agent": "fairway"}
        if self.token is not None:
            if not (self.token.isascii() and self.token.isprintable()) or " " in self.token:
                raise InputError("FAIRWAY_TOKEN holds characters that no token can have.")
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            httpx2.URL(self.url)
            return httpx2.Client(
                transport=httpx2.HTTPTransport(trust_env=False, socket_options=options),
                headers=headers,
                timeout=httpx2.Timeout(self.timeout, connect=10.0),
                follow_redirects=False,
                trust_env=False,
            )
        except httpx2.InvalidURL:
            raise InputError(f"{self.url} is no URL of a server.") from None

    def _read(self, response: httpx2.Response) -> dict[str, Any]:
        """Read an answer that is no failure of the server's."""
        status = response.status_code
        if 300 <= status < 400:
            raise ModelError(
                f"{self.url} sends its visitors elsewhere (status {status}), which is not "
                "followed; name the server's own address."
            )
        if status in (401, 403):
            way = "refuses the token in FAIRWAY_TOKEN" if self.token else "asks for a token"
            told = _error(response)
            more = "" if told is None else f" ({wire.shown(told.get('message'))})"
            raise ModelError(f"{self.url} {way}{more}; put its token into FAIRWAY_TOKEN.")
        if status >= 400:
            told = _error(response)
            if told is None:
                raise Foreign(self.url)
            if status == 413:
                raise InputError(wire.shown(told.get("message")))
            if told.get("code") == "model_not_found" or told.get("code") not in wire.KINDS:
                raise ModelError(f"{self.url}: {wire.shown(told.get('message'))}")
            raise wire.error_from_json({**told, "type": told["code"]})
        try:
            found = wire.loads(response.content)
        except ValueError as problem:
            raise _Malformed(f"{self.url} answers with what is no JSON ({problem})") from None
        if not isinstance(found, dict):
            raise Foreign(self.url)
        return found

    def _failed(self, response: httpx2.Response) -> FairwayError:
        """Say what a busy or failing server said; its model's own error as it was raised there."""
        told = _error(response) or {}
        if response.status_code == 500 and told.get("code") in wire.KINDS:
            return wire.error_from_json({**told, "type": told["code"]})
        said = f": {wire.shown(told['message'])}" if told.get("message") else ""
        return _Failed(f"{self.url} answers with status {response.status_code}{said}")

    def _gone(self, problem: Exception) -> ModelError:
        if isinstance(problem, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
            return Gone(f"{self.url} cannot be asked ({wire.shown(problem)}); look at the URL.")
        reason = wire.shown(re.sub(r"\[Errno -?\d+\] ", "", str(problem)))
        reason = reason or type(problem).__name__
        return Gone(f"There is no answer from {self.url} ({reason}); is fairway serve running?")


def _written(content: Any) -> bytes:
    """Write JSON; half a surrogate pair, which UTF-8 lacks, as JSON's own escape."""
    try:
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace")
    except (TypeError, ValueError, RecursionError):
        raise InputError("Messages of a document hold what JSON cannot; keep to text.") from None


def _close(process: int, client: httpx2.Client) -> None:
    """Close connections whose owner is gone, unless they are a parent process's."""
    if process == os.getpid():
        client.close()


class Foreign(ModelError):
    """What answers is no fairway server.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        super().__init__(
            f"{url} answers, and is no fairway server; an OpenAI-compatible one is "
            f"openai:MODEL@{url}."
        )


class _Failed(ModelError):
    """The server is busy or fails; it may be asked again."""


class _Malformed(ModelError):
    """An answer was damaged on its way."""


def _last(problem: FairwayError) -> FairwayError:
    """Say of what went wrong to the end that nothing is lost by it."""
    text = str(problem).rstrip(".")
    return type(problem)(f"{text}. What was scored is kept where --out was given.")


def _error(response: httpx2.Response) -> dict[str, Any] | None:
    try:
        found = wire.loads(response.content)["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def _after(response: httpx2.Response) -> float | None:
    """Read ``Retry-After``; a date, or none, is as if it were not there."""
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:
        return None
