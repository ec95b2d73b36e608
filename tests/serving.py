"""A real server for tests: uvicorn in a thread, on a port of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn

from fairway.scorer import Scorer
from fairway.serve import app, running
from fairway.serve.settings import Settings


@contextmanager
def served(
    models: Mapping[str, tuple[str, Scorer]], settings: Settings | None = None, port: int = 0
) -> Iterator[str]:
    """Serve models by their names, and give the URL.

    Args:
        models: kind and scorer by name.
        settings: of the server.
        port: to listen at; 0 = any free one.
    """
    with serving(app.build(models, settings), settings, port) as url:
        yield url


@contextmanager
def serving(made: object, settings: Settings | None = None, port: int = 0) -> Iterator[str]:
    """Serve any ASGI application, and give the URL."""
    # Listening before the server runs: whoever connects meanwhile waits for it.
    heard = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(running.configure(made, settings or Settings()))  # type: ignore[arg-type]
    server.capture_signals = lambda: _nothing()  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, args=([heard],), name="test-server")
    thread.start()
    try:
        yield f"http://127.0.0.1:{heard.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        heard.close()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


async def answer(
    send: Any, status: int, data: bytes, *headers: tuple[bytes, bytes], cut: bool = False
) -> None:
    length = str(len(data) + 9 * cut).encode()
    lines = [(b"content-type", b"application/json"), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": data, "more_body": cut})
