"""The application under uvicorn: its socket, its signals, its log."""

from __future__ import annotations

import contextlib
import errno
import gc
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from fairway.errors import InputError
from fairway.serve.gate import patience
from fairway.serve.settings import Settings
from fairway.serve.state import State

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def bind(settings: Settings) -> socket.socket:
    """Take the address, before models are loaded: nobody is let in until the server listens.

    Raises:
        InputError: when the host is unknown, or the port is taken or forbidden.
    """
    host, port = settings.host, settings.port
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise InputError(
            f"There is no host {host!r}; --host takes an address of this machine."
        ) from None
    found = socket.socket(family, kind, proto)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as problem:
        found.close()
        if problem.errno == errno.EADDRNOTAVAIL:
            raise InputError(
                f"{host} is no address of this machine; --host takes one that is, and 127.0.0.1 "
                "where nobody else is to come."
            ) from None
        why = os.strerror(problem.errno or 0)
        raise InputError(
            f"The server cannot take port {port} of {host} ({why}); give another --port, or 0 "
            "for a free one."
        ) from None
    return found


def url(sock: socket.socket) -> str:
    """Give the address of a socket as a URL."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    app: Starlette,
    settings: Settings,
    sock: socket.socket | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve until a signal comes; running requests are answered first.

    Args:
        app: what `fairway.serve.app.build` made.
        settings: of the server.
        sock: what `bind` gave.
        started: told the URL when requests are taken in.

    Raises:
        InputError: see `bind`.
    """
    sock = sock or bind(settings)
    # Models and libraries stay; what looks for garbage need not walk through them each time.
    gc.collect()
    gc.freeze()
    Server(configure(app, settings), started, app.state.fairway).run(sockets=[sock])


def configure(app: Starlette, settings: Settings) -> uvicorn.Config:
    """Set uvicorn: no word of requests in its log, a limit of time for what stops."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Nobody's word about who they are or what they speak; see gate/guard.py.
        proxy_headers=False,
        ws="none",
        http=patience.patient(settings.limits.patience),
        h11_max_incomplete_event_size=patience.LARGEST,
        timeout_graceful_shutdown=math.ceil(settings.limits.farewell),
    )


class Server(uvicorn.Server):
    """uvicorn's, which ends well after a signal, and at once after a second one.

    Args:
        config: of uvicorn.
        started: told the URL when requests are taken in.
        state: of the application.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        started: Callable[[str], None] | None = None,
        state: State | None = None,
    ) -> None:
        super().__init__(config)
        self._tell = started
        self._state = state

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        if self.started and self._tell is not None and sockets:
            self._tell(url(sockets[0]))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals, and do not raise them again at the end: a stop that was asked for is none
        of a failure's exit codes."""
        try:
            kept = {one: signal.signal(one, self.handle_exit) for one in SIGNALS}
        except ValueError:
            # Only the main thread can.
            yield
            return
        try:
            yield
        finally:
            for one, handler in kept.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at the second signal at once."""
        if self.should_exit:
            print("fairway: ended at once, running requests are lost", file=sys.stderr, flush=True)
            os._exit(128 + sig)
        self.should_exit = True
        if self._state is not None:
            self._state.traffic.stopping = True
