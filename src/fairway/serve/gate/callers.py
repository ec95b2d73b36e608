"""Who may ask: a program with the token, or a browser that has shown it once."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from urllib.parse import parse_qs

from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Scope

from fairway.errors import InputError
from fairway.serve.settings import Settings

SHORTEST = 16
"""Characters of a token where other machines can try it."""
LASTS = 12 * 3600
"""Seconds that a browser's session lasts."""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>fairway</title>
<meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body><h1>This server asks for a token</h1>
<form action="/" method="get"><label>Token <input type="password" name="token" required
autocomplete="off"></label> <button>Open</button></form>
<p>The token is what FAIRWAY_TOKEN was where the server was started. If you have followed a link
from another page and opened this server before, <a href="/">go on to it</a>.</p></body></html>
"""


def check(settings: Settings) -> None:
    """Refuse a server that others can reach and that asks nobody for a token.

    Raises:
        InputError: for that, or when the token is one that no header can carry.
    """
    token = settings.token
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise InputError("The token must be of visible ASCII characters without blanks.")
    if settings.local:
        return
    if token is None:
        raise InputError(
            f"{settings.host or 'An empty host'} can be reached from other machines, so requests "
            "must bring a token: set FAIRWAY_TOKEN or give --token-file, or bind to 127.0.0.1."
        )
    if len(token) < SHORTEST:
        raise InputError(
            f"The token has {len(token)} characters, which can be guessed; give FAIRWAY_TOKEN "
            f"{SHORTEST} or more."
        )


class Callers:
    """Tells those who may ask.

    Args:
        token: that they must bring; None = everybody may.

    A browser's cookie holds no token: a time and its HMAC-SHA256 (RFC 2104) under a key that is
    drawn anew at each start.
    """

    def __init__(self, token: str | None) -> None:
        self.token = None if token is None else token.encode("ascii")
        self._key = secrets.token_bytes(32)

    def known(self, scope: Scope, headers: dict[bytes, list[bytes]]) -> bool:
        """Whether a request brings the token, or a session that is not over."""
        if self.token is None:
            return True
        given = headers.get(b"authorization", [])
        if given:
            scheme, _, value = given[0].partition(b" ")
            return len(given) == 1 and scheme.lower() == b"bearer" and self._is(value.strip())
        cookies = cookie_parser(b"; ".join(headers.get(b"cookie", [])).decode("latin-1"))
        return self._lasts(cookies.get(_name(scope), ""))

    def enter(self, scope: Scope) -> Response | None:
        """Answer ``/?token=...`` by a session and the same page without the token.

        Returns:
            None where the request is another, or its token wrong.
        """
        if self.token is None or scope["method"] != "GET" or scope["path"] != "/":
            return None
        try:
            given = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=16)
        except ValueError:
            return None
        tokens = given.get("token", [])
        if len(tokens) != 1 or not self._is(tokens[0].encode("utf-8", "replace")):
            return None
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            _name(scope), self._session(), max_age=LASTS, path="/", httponly=True,
            samesite="strict", secure=scope["scheme"] == "https",
        )  # fmt: skip
        return answer

    def _is(self, value: bytes) -> bool:
        return self.token is not None and hmac.compare_digest(value, self.token)

    def _session(self) -> str:
        end = str(int(time.time()) + LASTS)
        return f"{end}.{self._sign(end)}"

    def _sign(self, end: str) -> str:
        return hmac.new(self._key, end.encode(), hashlib.sha256).hexdigest()

    def _lasts(self, session: str) -> bool:
        end, _, signed = session.partition(".")
        if not re.fullmatch(r"[0-9]{1,12}", end):
            return False
        genuine = hmac.compare_digest(signed.encode("utf-8", "replace"), self._sign(end).encode())
        return genuine and int(end) > time.time()


def _name(scope: Scope) -> str:
    """Name the cookie by the port, since browsers keep one jar for all ports of a host."""
    server = scope.get("server")
    return f"fairway_{server[1] if server else 0}"


def ask() -> Response:
    """Ask a browser for the token."""
    return HTMLResponse(PAGE, 401, {"WWW-Authenticate": "Bearer"})
