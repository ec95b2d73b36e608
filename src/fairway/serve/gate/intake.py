"""What stands around every request: whether there is room, whether its client waits, counting.

Pure ASGI, since Starlette's BaseHTTPMiddleware keeps ``http.disconnect`` from what it wraps.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairway.serve.metrics import Metrics
from fairway.serve.problems import Problem
from fairway.serve.state import State

GONE = 499
"""Status of a request whose client went away, as nginx counts it; nobody receives it."""


LEFT = "fairway.left"
"""Key of a request's scope where its client went away."""


@dataclass(slots=True)
class Count:
    """The outer middleware: counts answers, refusals by what stands between included.

    Attributes:
        app: what answers.
        metrics: where.
    """

    app: ASGIApp
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - start
            self.metrics.request(route, GONE if scope.get(LEFT) else status, seconds)


@dataclass(slots=True)
class Intake:
    """The inner middleware: what costs something is answered where there is room, while its client
    waits.

    Attributes:
        app: what answers.
        state: of the server.
    """

    app: ASGIApp
    state: State

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, refuse it, or give it up."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        traffic = self.state.traffic
        number = traffic.enter()
        if number is None:
            seconds = traffic.wait()
            self.state.metrics.rejected.inc()
            problem = Problem(
                429,
                f"{len(traffic)} requests are waiting, which is as many as this server takes; "
                f"ask again in {seconds} seconds.",
                "rate_limit_exceeded",
                {"Retry-After": str(seconds)},
            )
            await problem.response()(scope, receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        finally:
            traffic.leave(number)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as long as its client waits."""
        task = asyncio.current_task()
        assert task is not None
        client = Client(receive, send, task)
        try:
            await self.app(scope, client.receive, client.send)
        except asyncio.CancelledError:
            if client.gone:
                task.uncancel()
            elif not client.begun:
                # The server stops, and the time for what runs is over.
                problem = Problem(503, "The server stops; ask another one, or later.", "stopping")
                await problem.response()(scope, receive, send)
        finally:
            scope[LEFT] = client.gone
            client.leave()


@dataclass(slots=True)
class Client:
    """The other end of a request; when it goes away the task that answers it is cancelled.

    Attributes:
        begun: whether its answer is.
        gone: whether it went away before the answer's end.
    """

    _receive: Receive
    _send: Send
    _task: asyncio.Task[None]
    begun: bool = False
    gone: bool = False
    _ended: bool = False
    _watcher: asyncio.Task[None] | None = None

    def leave(self) -> None:
        """Watch no more."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def receive(self) -> Message:
        """Give a message of the client's; once its request is whole only its end can follow."""
        if self._watcher is not None:
            await asyncio.shield(self._watcher)
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = not self._ended
        elif not message.get("more_body", False):
            self._watcher = asyncio.create_task(self._wait())
        return message

    async def send(self, message: Message) -> None:
        """Pass a message of the answer on."""
        if message["type"] == "http.response.start":
            self.begun = True
        elif not message.get("more_body", False):
            self._ended = True
        await self._send(message)

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._ended:
            self.gone = True
            self._task.cancel()
