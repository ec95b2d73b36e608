"""What stands before every route: whose request it is, how large, and what an answer forbids.

A request passes these in turn: size of its head, Host, Origin, Sec-Fetch-Site, token, media type,
size of its body. The body is read here, whole, so that no route waits for a slow one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairway.serve.gate import callers
from fairway.serve.problems import Problem, answer_crash, where
from fairway.serve.settings import Settings

FREE = "/health"
"""The one path that asks for no token."""
HEAD, LINES = 32 << 10, 100
"""Bytes and number of a request's headers."""
HELD, ROOM = 8, 64 << 20
"""Bodies of the largest size that are held at once, and bytes of smaller ones."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
READS = ("GET", "HEAD", "OPTIONS")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Of pages that set none of their own. Trusted types: no script can make elements of a string."""
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
"""Of every answer that does not set them itself."""

LOG = logging.getLogger("fairway.serve")
_AUTHORITY = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9_.-]{1,253}))(?::([0-9]{1,5}))?")


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: what it guards.
        settings: of the server.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.limits = settings.limits
        self.callers = callers.Callers(settings.token)
        self.names = {_address(one) for one in (*LOOPBACK, settings.host, *settings.hosts)}
        self.names.discard("")
        self.held, self.room = 0, max(HELD * settings.limits.body, ROOM)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            # Before it is accepted, this refuses the handshake with 403.
            await send({"type": "websocket.close", "code": 1008})
            return
        started = False

        async def sealed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": _seal(message.get("headers", []))}
            await send(message)

        body = bytearray()
        try:
            answer = self._answer(scope)
            if answer is not None:
                await answer(scope, receive, sealed)
                return
            if await self._read(scope, receive, body):
                await self.app(scope, _again(bytes(body), receive), sealed)
        except Problem as problem:
            await problem.response()(scope, receive, sealed)
        except Exception as problem:
            # Neither the log nor the answer repeats its words: they may hold a user's text.
            LOG.error("A request failed: %s", where(problem))
            if not started:
                crash = await answer_crash(Request(scope), problem)
                await crash(scope, receive, sealed)
        finally:
            self.held -= len(body)

    def _answer(self, scope: Scope) -> Response | None:
        """Answer what is not for a route; None = it is.

        Raises:
            Problem: where a check fails.
        """
        headers = _headers(scope)
        host = _host(headers)
        server = scope.get("server")
        # A name there would be the asker's own word; an address is the socket's.
        names = self.names | ({_address(server[0])} if server and _is_address(server[0]) else set())
        if host[0] not in names:
            raise Problem(
                421, "This server does not answer to the name in the Host header; start it with "
                "--allow-host NAME to have it do so.", "wrong_host",
            )  # fmt: skip
        _same_origin(headers, host, scope["scheme"])
        _same_site(headers, scope["method"])
        entered = self.callers.enter(scope)
        if entered is not None:
            return entered
        free = scope["path"] == FREE and scope.get("raw_path") in (None, FREE.encode())
        if not (free and scope["method"] in READS) and not self.callers.known(scope, headers):
            if _navigates(headers, scope["method"]):
                return callers.ask()
            raise Problem(
                401, "This server asks for its token: Authorization: Bearer TOKEN.",
                "invalid_api_key", {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        if scope["method"] not in READS:
            _json(headers)
        length = headers.get(b"content-length", [b"0"])
        if b"content-length" in headers and b"transfer-encoding" in headers:
            # What stands before this server may have read it by the other one (RFC 9112, 6.3).
            raise Problem(
                400, "The request has two lengths.", "invalid_http", {"Connection": "close"}
            )
        if length[0].isdigit() and int(length[0][:20]) > self.limits.body:
            raise self._too_large()
        return None

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> bool:
        """Read a body into `body`; False where the asker has gone meanwhile.

        Raises:
            Problem: where it is too large, by itself or with the others, or the server stops.
        """
        while True:
            try:
                message = await receive()
            except asyncio.CancelledError:
                # The server stops, and the time for what runs is over.
                raise Problem(
                    503, "The server stops; ask another one, or later.", "stopping"
                ) from None
            if message["type"] == "http.disconnect":
                return False
            part = message.get("body", b"")
            if len(body) + len(part) > self.limits.body:
                raise self._too_large()
            if self.held + len(part) > self.room:
                raise Problem(
                    429, "The server holds as much text as it may; ask again in a moment.",
                    "busy", {"Retry-After": "1"},
                )  # fmt: skip
            body += part
            self.held += len(part)
            if not message.get("more_body", False):
                return True

    def _too_large(self) -> Problem:
        most = self.limits.body
        return Problem(
            413, f"The body has more than {most:,} bytes; send less at a time.", "too_large"
        )


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read, then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _headers(scope: Scope) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    pairs = scope["headers"]
    if len(pairs) > LINES or sum(len(key) + len(value) for key, value in pairs) > HEAD:
        raise Problem(431, "The request's headers are too large; send fewer.", "too_large")
    for key, value in pairs:
        found.setdefault(key.lower(), []).append(value)
    return found


def _host(headers: dict[bytes, list[bytes]]) -> tuple[str, int | None]:
    given = headers.get(b"host", [])
    found = _authority(given[0]) if len(given) == 1 else None
    if found is None:
        raise Problem(400, "The request's Host header is absent or malformed.", "wrong_host")
    return found


def _authority(value: bytes) -> tuple[str, int | None] | None:
    match = _AUTHORITY.fullmatch(value)
    if match is None:
        return None
    six, name, port = match.groups()
    if port is not None and int(port) > 65535:
        return None
    return _address((six or name).decode("ascii")), None if port is None else int(port)


def _address(name: str) -> str:
    """Write an address or a name in the one way that it is compared in."""
    try:
        found = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name.lower()
    # A socket of both families calls an IPv4 address so.
    return str(getattr(found, "ipv4_mapped", None) or found)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same_origin(
    headers: dict[bytes, list[bytes]], host: tuple[str, int | None], scheme: str
) -> None:
    """Refuse what a page of another origin asks.

    Raises:
        Problem: for that.
    """
    given = headers.get(b"origin", [])
    if not given:
        return
    before, _, rest = given[0].partition(b"://")
    # What ends TLS before this server speaks plain HTTP to it.
    usual = {b"https": 443, **({b"http": 80} if scheme == "http" else {})}.get(before)
    found = _authority(rest)
    if len(given) > 1 or usual is None or found is None:
        raise _foreign()
    if (found[0], found[1] or usual) != (host[0], host[1] or usual):
        raise _foreign()


def _same_site(headers: dict[bytes, list[bytes]], method: str) -> None:
    """Refuse what a browser says another site's page asks; its links may lead here.

    Raises:
        Problem: for that.
    """
    given = headers.get(b"sec-fetch-site", [])
    if all(one in (b"same-origin", b"none") for one in given):
        return
    if not _navigates(headers, method) or headers.get(b"sec-fetch-dest") != [b"document"]:
        raise _foreign()


def _navigates(headers: dict[bytes, list[bytes]], method: str) -> bool:
    """Whether a person opens a page."""
    return method in ("GET", "HEAD") and headers.get(b"sec-fetch-mode") == [b"navigate"]


def _foreign() -> Problem:
    return Problem(
        403, "This server answers pages of its own only, and no other site's.", "wrong_origin"
    )


def _json(headers: dict[bytes, list[bytes]]) -> None:
    """Refuse a body that a form or another site's script can send without asking first.

    Raises:
        Problem: for that.
    """
    given = headers.get(b"content-type", [b""])
    kind, _, rest = given[0].partition(b";")
    charset = rest.strip().lower().replace(b'"', b"")
    if len(given) > 1 or kind.strip().lower() != b"application/json":
        raise Problem(415, "Send JSON, with Content-Type: application/json.", "wrong_type")
    if charset not in (b"", b"charset=utf-8"):
        raise Problem(415, "Send JSON as UTF-8.", "wrong_type")


def _seal(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Add what every answer says to browsers, and take away leave for other sites."""
    kept = [
        (key, value) for key, value in headers if not key.lower().startswith(b"access-control-")
    ]
    there = {key.lower() for key, _ in kept}
    return kept + [(key, value) for key, value in HEADERS.items() if key not in there]
