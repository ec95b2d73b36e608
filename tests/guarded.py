"""A real server in a thread, and requests written byte by byte."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fairway.scorer import Scorer
from fairway.serve import app, running
from fairway.serve.settings import Limits, Settings

LIMITS = Limits(body=4096, patience=0.5)
WIDE = 8 << 20
BODY = b'{"text": "words"}'


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def crash(request: Request) -> Response:
    raise RuntimeError((await request.body()).decode())


async def wide(_: Request) -> Response:
    return PlainTextResponse("x" * WIDE, headers={"Access-Control-Allow-Origin": "*"})


ROUTES = [
    Route("/echo", echo, methods=["GET", "POST"]), Route("/crash", crash, methods=["POST"]),
    Route("/wide", wide), Route("/", echo),
]  # fmt: skip
"""Added to the service's own: what counts, what fails, and what is long."""


@contextlib.contextmanager
def serving(
    models: dict[str, tuple[str, Scorer]], settings: Settings, routes: Any = ()
) -> Iterator[int]:
    """Serve on a free port of the loopback, which is given."""
    built = app.build(models, settings)
    built.router.routes.extend(routes)
    server = uvicorn.Server(running.configure(built, replace(settings, port=0)))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def dial(port: int, timeout: float = 20.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout)


def raw(port: int, data: bytes, timeout: float = 20.0) -> bytes:
    """Send bytes, and give all that comes until the other side closes."""
    with dial(port, timeout) as line:
        line.sendall(data)
        return rest(line)


def rest(line: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while part := line.recv(65536):
            got += part
    return got


def ask(
    port: int, path: str, method: str = "GET", body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send one request on a connection of its own; underscores in names of headers are hyphens."""
    given = {"host": f"127.0.0.1:{port}", "connection": "close"}
    if body:
        given |= {"content-length": str(len(body)), "content-type": "application/json"}
    given |= {key.replace("_", "-").lower(): value for key, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in given.items() if v)]
    return parse(raw(port, "\r\n".join([*lines, "", ""]).encode("latin-1") + body))


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Give status, headers and body of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body
