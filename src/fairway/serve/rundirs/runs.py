"""Run directories in a browser: ``GET /runs``, reports, comparisons, curves; ``GET /v1/runs``.

Pages are written here and hold no script. Those of `fairway.render` bring their own style sheet,
which a browser takes by its hash.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from fairway.errors import FairwayError, InputError
from fairway.render.visible import plain
from fairway.scores import number
from fairway.serve.problems import Problem
from fairway.serve.rundirs import runs_page
from fairway.serve.rundirs.catalogue import Absent, Catalogue, Found
from fairway.serve.state import state

T = TypeVar("T")

SECONDS = 30.0
"""That an answer may take; the work itself ends by the bounds of what is read."""
THREADS, WAITING = 2, 8
"""Runs read at a time, and requests for them that wait."""


@dataclass(slots=True)
class Desk:
    """Where runs are read, away from the event loop.

    Attributes:
        catalogue: of the folder.
        threads: that read.
        busy: requests that are not answered.
    """

    catalogue: Catalogue
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, "fairway-runs"), repr=False
    )
    busy: int = 0

    async def read(self, function: Callable[[], T]) -> T:
        """Do something in a thread.

        Raises:
            Problem: when too many wait, or it takes too long.
        """
        if self.busy >= THREADS + WAITING:
            raise Problem(
                429, "Too many runs are being read; ask again in a moment.", "busy",
                {"Retry-After": "2"},
            )  # fmt: skip
        work = self.threads.submit(function)
        self.busy += 1
        loop = asyncio.get_running_loop()
        # Counted until the thread is done with it, which may be after its asker was told to wait.
        work.add_done_callback(partial(self._less, loop))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work), SECONDS)
        except TimeoutError:
            raise Problem(
                503, f"Reading these runs takes more than {SECONDS:.0f} seconds; use fairway show, "
                "compare or curve.", "too_slow",
            ) from None  # fmt: skip

    def _less(self, loop: asyncio.AbstractEventLoop, _: object) -> None:
        def less() -> None:
            self.busy -= 1

        # The server may have stopped meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(less)


def desk(request: Request) -> Desk:
    """Give the desk of the server that answers a request.

    Raises:
        Problem: when it opens no runs.
    """
    folder = state(request).settings.runs
    if folder is None:
        raise Problem(404, "This server opens no runs; start it with --runs FOLDER.", "no_runs")
    there: Desk | None = getattr(request.app.state, "fairway_desk", None)
    if there is None:
        there = Desk(Catalogue(Path(os.path.realpath(folder))))
        request.app.state.fairway_desk = there
    return there


def close(app: Starlette) -> None:
    """Begin no more of what waits to be read."""
    there: Desk | None = getattr(app.state, "fairway_desk", None)
    if there is not None:
        there.threads.shutdown(wait=False, cancel_futures=True)


async def index(request: Request) -> Response:
    """List the runs as JSON."""
    at = desk(request)
    try:
        found, curves, more = await at.read(at.catalogue.list)
    except FairwayError as problem:
        raise Problem(500, str(problem), "runs") from None
    return JSONResponse({
        "object": "list",
        "data": [_entry(one) for one in found],
        "curves": [{"name": one, "url": runs_page.curve_link("", one)} for one in curves],
        "truncated": more,
    })  # fmt: skip


def _entry(one: Found) -> dict[str, object]:
    return {
        "name": one.name,
        "model": one.model,
        "data": one.data,
        "state": one.state,
        "perplexity_name": one.perplexity or None,
        "perplexity": number(one.value),
        "bits_per_byte": number(one.bits_per_byte),
        "documents": one.documents or None,
        "reason": one.reason or None,
        "url": runs_page.link("", one.name),
    }


async def listing(request: Request) -> Response:
    """List the runs on a page."""
    at = desk(request)

    def made() -> str:
        found, curves, more = at.catalogue.list()
        return runs_page.listing(found, curves, more, _base(request))

    return await _page(request, at, made, own=True)


async def opened(request: Request) -> Response:
    """Show a run's report."""
    at, name = desk(request), request.path_params["name"]

    def made() -> str:
        from fairway.render import html

        report = at.catalogue.report(name)
        with at.catalogue.telling(name):
            return html.page([report], plain(name))

    return await _page(request, at, made)


async def compared(request: Request) -> Response:
    """Show the verdict over two runs."""
    if not request.query_params:
        # A run may be called so.
        return await opened_as(request, "compare")
    at = desk(request)
    first, second = (request.query_params.get(key, "") for key in ("first", "second"))
    allow = request.query_params.getlist("allow")

    def made() -> str:
        from fairway.render import verdict

        if not first or not second:
            raise InputError("Choose two runs: one in each column.")
        found = at.catalogue.compare(first, second, allow)
        with at.catalogue.telling(f"{first} or {second}"):
            return verdict.page([found])

    query = request.scope["query_string"].decode("latin-1")
    again = f"{_base(request)}/runs/compare?{query}"
    return await _page(request, at, made, again=again)


async def curve(request: Request) -> Response:
    """Show the curve of a folder's runs."""
    if not request.query_params:
        return await opened_as(request, "curve")
    at = desk(request)
    folder = request.query_params.get("folder", "")

    def made() -> str:
        from fairway.render import curve_page

        found = at.catalogue.curve(folder)
        with at.catalogue.telling("One of these runs"):
            return curve_page.page(found)

    return await _page(request, at, made)


async def opened_as(request: Request, name: str) -> Response:
    """Show the report of a run whose name is also a page's."""
    request.path_params["name"] = name
    return await opened(request)


async def _page(
    request: Request, at: Desk, made: Callable[[], str], own: bool = False, again: str = ""
) -> Response:
    """Make a page in a thread; what is refused is a sentence on a page.

    Args:
        request: that is answered.
        at: where it is made.
        made: gives the page.
        own: whether it is the list, which has a way on, and takes its style from the server too.
        again: see `runs_page.refusal`.
    """
    base = _base(request)
    status, headers = 200, {}
    try:
        text = await at.read(partial(_utf8, made))
    except FairwayError as problem:
        status = 404 if isinstance(problem, Absent) else 422
        text, own = runs_page.refusal(str(problem), base, again), True
    except Problem as problem:
        status, headers = problem.status, problem.headers
        text, own = runs_page.refusal(problem.message, base), True
    if not own:
        text = text.replace("<body>", f"<body>{runs_page.back(base)}", 1)
    headers = {**headers, "content-security-policy": policy(text, own)}
    return HTMLResponse(text, status, headers)


def _utf8(made: Callable[[], str]) -> str:
    """Make a page, with a mark in place of halves of characters, which UTF-8 cannot hold."""
    return made().encode("utf-8", "replace").decode("utf-8")


def policy(page: str, own: bool = False) -> str:
    """Give the content security policy of a page with one style sheet: that one, by its hash.

    Args:
        page: HTML.
        own: whether it has a form, and style from the server too.
    """
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    more, form = (" 'self'", "'self'") if own else ("", "'none'")
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'{more}; base-uri 'none'; "
        f"form-action {form}; frame-ancestors 'none'"
    )


def _base(request: Request) -> str:
    """Give the path under which the application is mounted."""
    return str(request.scope.get("root_path", ""))


ROUTES = (
    Route("/v1/runs", index),
    Route("/runs", listing),
    Route("/runs/compare", compared),
    Route("/runs/curve", curve),
    Route("/runs/{name:path}", opened),
)
