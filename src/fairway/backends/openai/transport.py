"""Requests to a server: signed, bounded, repeated only where there was no whole answer."""

from __future__ import annotations

import json
import math
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from fairway import __version__
from fairway.backends.openai.address import Address
from fairway.errors import ModelError

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)
"""Answers after which a request is sent again."""
LONGEST = 120.0
"""Seconds that are waited before a repetition, at most."""
ANSWER = 256 << 20
"""Bytes of an answer, at most."""


class Refused(ModelError):
    """The server answered, and will not do it.

    Args:
        message: the fact and the way out.
        status: of HTTP.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Spent(ModelError):
    """The requests that were allowed are sent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer.

    Attributes:
        data: its JSON.
        odd: numbers in it that JSON has not.
        headers: of the answer, names in lower case.
    """

    data: Any
    odd: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """What was sent, and what the server counted."""

    requests: int = 0
    answered: int = 0
    repeated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that were read and written."""
        return self.prompt_tokens + self.completion_tokens


def loads(raw: bytes) -> Reply:
    """Read JSON that may hold NaN and Infinity.

    Raises:
        ValueError: where it is none.
    """
    odd: list[str] = []

    def constant(name: str) -> float:
        odd.append(name)
        return float(name)

    def real(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            odd.append(text[:32])
        return value

    try:
        data = json.loads(raw, parse_constant=constant, parse_float=real)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return Reply(data, tuple(odd))


class Link:
    """A connection to one server, for several threads.

    Args:
        address: of the server.
        timeout: seconds without a byte after which a request is given up; there is no total one.
        retries: repetitions of one request, at most.
        max_requests: that are sent in all; None = any number.
        transport: another than the network's, for tests.
        wait: sleeps.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout: float = 300.0,
        retries: int = 8,
        max_requests: int | None = None,
        transport: httpx2.BaseTransport | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"User-Agent": f"fairway/{__version__}", "Accept": "application/json"}
        if address.key:
            headers["Authorization"] = f"Bearer {address.key}"
        self.address = address
        self.counts = Counts()
        self._retries = retries
        self._most = max_requests
        self._wait = wait
        self._lock = threading.Lock()
        self._draw = random.Random()
        self._client = httpx2.Client(
            headers=headers,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 20.0)),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )
        # Nobody closes a scorer: its connections go with it.
        weakref.finalize(self, self._client.close)

    def __repr__(self) -> str:
        return f"Link({self.address.host})"

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def get(self, path: str) -> Reply:
        """Ask for what a path holds; once, since it is only asked to learn what the server is."""
        return self._send("GET", path, None, 1)

    def post(self, path: str, body: Mapping[str, Any], retries: int | None = None) -> Reply:
        """Send an object and give the whole answer.

        Args:
            path: behind the server's root.
            body: the request.
            retries: another number of repetitions.

        Raises:
            Refused: when the server will not do it.
            Spent: when no further request is allowed.
            ModelError: when no whole answer came.
        """
        return self._send("POST", path, body, self._retries if retries is None else retries)

    def note(self, prompt: int | None, completion: int | None) -> None:
        """Add tokens of a server that counts none in its answers; others' are added by `post`."""
        with self._lock:
            self.counts.prompt_tokens += prompt or 0
            self.counts.completion_tokens += completion or 0

    def _count(self, again: bool) -> None:
        with self._lock:
            if self._most is not None and self.counts.requests >= self._most:
                raise Spent(
                    f"max_requests={self._most} requests were sent to {self.address.host}, and "
                    "the rest is not scored. A run directory (eval --out) keeps what is done: "
                    "the same command with a larger --max-requests goes on there."
                )
            self.counts.requests += 1
            self.counts.repeated += again

    def _send(self, method: str, path: str, body: Any, retries: int) -> Reply:
        problem = ""
        for attempt in range(retries + 1):
            self._count(attempt > 0)
            asked: float | None = None
            try:
                status, headers, raw = self._once(method, path, body)
                if 200 <= status < 300:
                    reply = loads(raw)
                    _whole(reply.data)
                    with self._lock:
                        self.counts.answered += 1
                    self.note(*usage(reply.data))
                    return Reply(reply.data, reply.odd, headers)
                problem = f"HTTP {status}{self._said(raw)}"
                if status not in AGAIN:
                    raise Refused(self._refusal(status, problem, headers), status)
                asked = after(headers.get("retry-after"))
            except httpx2.RequestError as caught:
                problem = self._hidden(f"{type(caught).__name__}: {caught}".rstrip(": "))
            except ValueError as caught:
                problem = f"an answer that is none ({_shape(raw)}; {self._hidden(str(caught))})"
            if attempt < retries:
                pause = self._pause(attempt, asked)
                if asked is not None and asked > LONGEST:
                    raise ModelError(
                        f"{self.address.host} asks to wait {asked:.0f} seconds ({problem}); run "
                        "the same command again then."
                    )
                self._wait(pause)
        tries = f" {retries + 1} times" if retries else ""
        raise ModelError(
            f"No whole answer came from {self.address.host}{tries}: {problem}. Is it running, and "
            "is the address right?"
        )

    def _once(self, method: str, path: str, body: Any) -> tuple[int, dict[str, str], bytes]:
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        url = self.address.root + path
        with self._client.stream(method, url, content=content, headers=headers) as answer:
            kept = bytearray()
            for piece in answer.iter_bytes():
                kept += piece
                if len(kept) > ANSWER:
                    raise ModelError(
                        f"{self.address.host} answers with more than {ANSWER >> 20} MB; lower "
                        "--max-length."
                    )
            return answer.status_code, dict(answer.headers), bytes(kept)

    def _pause(self, attempt: int, asked: float | None) -> float:
        """Exponential, drawn between a half and the whole of it; at least what was asked for."""
        base = min(30.0, 0.25 * 2.0**attempt)
        pause = base * self._draw.uniform(0.5, 1.0)
        return max(pause, asked or 0.0)

    def _refusal(self, status: int, problem: str, headers: Mapping[str, str]) -> str:
        host = self.address.host
        if 300 <= status < 400:
            return f"{host} sends requests elsewhere (HTTP {status}); give the address it names."
        if status in (401, 403):
            named = self.address.key_name
            if named is None:
                return (
                    f"{host} asks for a key ({problem}); put it into an environment variable and "
                    "name that with --model-arg key=NAME."
                )
            state = "is refused" if self.address.key else "is not set"
            return f"{host} asks for a key, and the one in {named} {state} ({problem})."
        return f"{host} refuses the request ({problem})."

    def _said(self, raw: bytes) -> str:
        """Give the sentence of an error's body, short and of plain characters."""
        try:
            found: Any = loads(raw).data
        except ValueError:
            return f", {_shape(raw)}" if raw else ""
        for key in ("error", "message", "detail"):
            if isinstance(found, Mapping) and key in found:
                found = found[key]
        text = found if isinstance(found, str) else json.dumps(found)
        return f": {self._hidden(text)}"

    def _hidden(self, text: str) -> str:
        """Leave a key out, and what no terminal should be given."""
        if self.address.key:
            text = text.replace(self.address.key, "(key)")
        text = re.sub(r"\s+", " ", text)
        return "".join(char if char.isprintable() else "?" for char in text)[:300]


def _whole(data: Any) -> None:
    """Hold an answer of 200 to be one: servers and proxies send errors so, and empty lists.

    Raises:
        ValueError: where it is none.
    """
    if isinstance(data, Mapping):
        if data.get("choices") == []:
            raise ValueError("it has no choices")
        if data.get("error") and "choices" not in data:
            raise ValueError("it is an error")


def usage(data: Any) -> tuple[int | None, int | None]:
    """Give the tokens that were read and written, as servers count them in an answer."""
    held = data if isinstance(data, Mapping) else {}
    for key in ("usage", "meta_info"):
        told = held.get(key)
        if isinstance(told, Mapping):
            found = [told.get("prompt_tokens"), told.get("completion_tokens")]
            read, written = (one if type(one) is int and one >= 0 else None for one in found)
            return read, written
    return None, None


def after(value: str | None) -> float | None:
    """Read ``Retry-After``: seconds, or a date; None where it is neither (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
        return seconds if 0 <= seconds < math.inf else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _shape(raw: bytes) -> str:
    start = raw.lstrip()[:1]
    if not start:
        return "empty"
    return "a page of HTML" if start == b"<" else f"{len(raw):,} bytes"
