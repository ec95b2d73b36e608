"""``GET /``: the page on which a text is tried, and the files that it is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairway import __version__
from fairway.render.visible import COLOURS, LEVELS
from fairway.serve import detail
from fairway.serve.problems import Problem
from fairway.serve.state import state

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""What a browser may load for the page: only what this server has."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
RANKS = (1, 2, 5, 10, 100, 1000, 10000)
"""Upper edges of all but the last colour where a token's place among all tokens is drawn."""
UNDERLINES = (0, 1, 1, 2, 2, 3, 3, 4)
"""Pixels under a token by level, so that colour says nothing alone."""
TYPES = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml",
}  # fmt: skip


@cache
def files() -> Mapping[str, bytes]:
    """Read the page's files, by name; nothing else is ever served."""
    folder = Path(__file__).parent / "page"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in TYPES}


def scale() -> str:
    """Give the colours of levels as style rules, the ones of every other picture of fairway."""
    rows = zip(COLOURS, UNDERLINES, strict=True)
    return "".join(
        f".l{level}{{background:{back};color:{front};--under:{under}px}}\n"
        for level, ((back, front), under) in enumerate(rows)
    )


def facts(request: Request) -> str:
    """Give what the page must know of the server, as a module."""
    settings = state(request).settings
    known = {
        "VERSION": __version__,
        "LEVELS": LEVELS,
        "RANKS": RANKS,
        "RUNS": settings.runs is not None,
        "DOCS": any(getattr(one, "path", "") == "/docs" for one in request.app.routes),
        "BODY": settings.limits.body,
        "LENGTH": settings.limits.text,
        "DETAILED": detail.MOST,
    }
    return "".join(f"export const {name} = {json.dumps(value)};\n" for name, value in known.items())


async def index(request: Request) -> Response:
    """Give the page."""
    return _answer(request, files()["index.html"], "text/html")


async def static(request: Request) -> Response:
    """Give one of its files."""
    name = request.path_params["name"]
    if name == "scale.css":
        return _answer(request, scale().encode(), TYPES[".css"])
    if name == "server.js":
        return _answer(request, facts(request).encode(), TYPES[".js"])
    if name not in files() or name == "index.html":
        raise Problem(404, "The page has no such file.", "not_found")
    return _answer(request, files()[name], TYPES[Path(name).suffix])


def _answer(request: Request, body: bytes, kind: str) -> Response:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**HEADERS, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=f"{kind}; charset=utf-8")


ROUTES = (Route("/", index), Route("/static/{name}", static))
