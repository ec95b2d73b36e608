"""Answers as JSON. One encoder's call holds the interpreter: what is long is written in slices."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from starlette.responses import Response

SLICE = 512
"""Entries of a list that are written in one call."""
SHORT = 16 << 10
"""Characters of text up to which an answer is made where it is asked for."""


async def answer(size: int, make: Callable[[], Any]) -> Response:
    """Make an answer's data and write it; in a thread where it is long.

    Args:
        size: characters of the texts that it tells of.
        make: gives the data.
    """
    if size <= SHORT:
        return plain(make())

    def long() -> bytes:
        with _uncollected():
            return encode(make())

    return Response(await asyncio.to_thread(long), media_type="application/json")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector away: it would walk all of an answer's many objects, again and
    again, and hold every other request up; they are no cycles, and go by themselves."""
    with _lock:
        _making.append(_making[0] if _making else gc.isenabled())
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            if _making.pop() and not _making:
                gc.enable()


_lock = threading.Lock()
_making: list[bool] = []
"""For each answer that is being made, whether the collector is on where none is."""


def plain(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with short data."""
    return Response(_bytes(_write(data)), status, headers, "application/json")


def encode(data: Any) -> bytes:
    """Write JSON so that other threads get their turns."""
    return _bytes("".join(_parts(data)))


_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _bytes(text: str) -> bytes:
    """Encode; of half a surrogate pair, which UTF-8 lacks, this makes JSON's own escape."""
    return text.encode("utf-8", "backslashreplace")


def _parts(data: Any) -> list[str]:
    if isinstance(data, dict) and any(isinstance(one, dict | list) for one in data.values()):
        out = ["{"]
        for key, value in data.items():
            out += [_write(str(key)), ":", *_parts(value), ","]
        return [*out[:-1], "}"]
    if isinstance(data, list) and data:
        out = ["["]
        if any(_deep(one) for one in data[:SLICE]):
            for one in data:
                out += [*_parts(one), ","]
        else:
            for at in range(0, len(data), SLICE):
                out += [_write(data[at : at + SLICE])[1:-1], ","]
        return [*out[:-1], "]"]
    return [_write(data)]


def _deep(data: Any) -> bool:
    """Whether an entry of a list may be long itself."""
    if isinstance(data, dict):
        return any(_deep(one) for one in data.values())
    return isinstance(data, list) and len(data) > 32
