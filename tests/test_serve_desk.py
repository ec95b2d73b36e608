"""Where runs are read: beside the event loop, a bounded number at a time."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from fairway.serve import app
from fairway.serve.problems import Problem
from fairway.serve.rundirs import runs
from fairway.serve.rundirs.catalogue import Catalogue
from fairway.serve.settings import Settings


def test_waiting_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SECONDS", 0.05)
    hold = threading.Event()

    async def try_it() -> list[int]:
        desk = runs.Desk(Catalogue(tmp_path))
        most = runs.THREADS + runs.WAITING
        asked = [desk.read(hold.wait) for _ in range(most + 3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        # Those whose askers have left still hold the threads.
        assert desk.busy >= runs.THREADS
        hold.set()
        while desk.busy:
            await asyncio.sleep(0.001)
        assert await desk.read(lambda: 1) == 1
        return [one.status for one in found if isinstance(one, Problem)]

    found = asyncio.run(try_it())
    assert sorted(found) == [429] * 3 + [503] * (runs.THREADS + runs.WAITING)


def test_a_server_that_stops_begins_no_reading(tmp_path: Path) -> None:
    built = app.build({}, Settings(runs=str(tmp_path)))
    begun = []

    async def try_it() -> None:
        async with built.router.lifespan_context(built):
            built.state.fairway_desk = desk = runs.Desk(Catalogue(tmp_path))
            held = [desk.threads.submit(hold.wait) for _ in range(runs.THREADS)]
            waiting = desk.threads.submit(begun.append, 1)
        assert waiting.cancelled() and not any(one.cancelled() for one in held)

    hold = threading.Event()
    asyncio.run(try_it())
    hold.set()
    assert not begun
