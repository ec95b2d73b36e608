"""JSON that somebody else wrote: parsed within bounds, and every value's type looked at."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from fairway.errors import InputError

MOST = 1 << 30
"""Bytes of a file, or of a part of an archive once unpacked, that is read as one piece of JSON."""
LINE = 1 << 28
"""Bytes of one line."""
POSITIVE = 1e-3
"""Nats above zero that rounding may give a log-probability."""


def refuse(where: str, what: str, way: str) -> NoReturn:
    """Say what is wrong in a log and the way out.

    Raises:
        InputError: always.
    """
    raise InputError(f"{where}: {what}; {way}.")


def brief(value: Any) -> str:
    """Give a value as it may stand in a message: short, and without control characters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def parse(data: bytes, where: str) -> Any:
    """Parse JSON.

    Raises:
        InputError: when it is none, is nested too deeply, or is too long.
    """
    way = "write the log again, or take a whole copy of it"
    if len(data) > MOST:
        refuse(where, f"it has {len(data):,} bytes, and at most {MOST:,} are read", "cut it up")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        refuse(where, "it is not UTF-8", way)
    except RecursionError:
        refuse(where, "it is nested too deeply to be a log", way)
    except ValueError as problem:
        refuse(where, f"it is not JSON ({_reason(problem)})", way)


def _reason(problem: ValueError) -> str:
    if isinstance(problem, json.JSONDecodeError):
        return f"{problem.msg}, character {problem.pos + 1}"
    return "a number has too many digits"


def whole(path: Path) -> Any:
    """Parse a file.

    Raises:
        InputError: as `parse`, or when it cannot be read.
    """
    try:
        if path.stat().st_size > MOST:
            refuse(str(path), f"it has more than {MOST:,} bytes", "cut it up")
        return parse(path.read_bytes(), str(path))
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror}.") from None


def rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Give what a file of JSON lines holds, or of one JSON list or object, with its place.

    Raises:
        InputError: as `parse`, or when it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(LINE + 1), b""), 1):
                where = f"{path}, line {number}"
                if len(line) > LINE:
                    refuse(where, f"it has more than {LINE:,} bytes", "cut the log up")
                if number == 1 and spread(line, path):
                    break
                if line.strip():
                    yield where, parse(line, where)
            else:
                return
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror}.") from None
    value = whole(path)
    for number, one in enumerate(value if isinstance(value, list) else [value], 1):
        yield f"{path}, entry {number}", one


def spread(line: bytes, path: Path) -> bool:
    """Whether a first line opens a list, or an object that goes on in the lines that follow."""
    bare = line.removeprefix(b"\xef\xbb\xbf").strip()
    if path.suffix == ".json" and bare[:1] == b"{" and bare[-1:] != b"}":
        return True
    return bare[:1] == b"[" or bare == b"{"


def mapping(value: Any, where: str, name: str) -> dict[str, Any]:
    """Take a value for an object.

    Raises:
        InputError: when it is none.
    """
    if not isinstance(value, dict):
        refuse(where, f"{name} is {brief(value)} and not an object", "is it a log of this kind?")
    return value


def sequence(value: Any, where: str, name: str) -> list[Any]:
    """Take a value for a list.

    Raises:
        InputError: when it is none.
    """
    if not isinstance(value, list):
        refuse(where, f"{name} is {brief(value)} and not a list", "is it a log of this kind?")
    return value


def logprob(value: Any, where: str, name: str) -> float:
    """Take a number, or its text, for a natural logarithm of a probability.

    Raises:
        InputError: when it is none, is infinite, or is above zero.
    """
    way = "leave that entry out, or score it again"
    if isinstance(value, str) and re.fullmatch(r"[-+0-9.eEinfa]{1,40}", value):
        try:
            value = float(value)
        except ValueError:
            pass
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(where, f"{name} is {brief(value)} and not a number", way)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        refuse(where, f"{name} is {number}, of which no finite perplexity can be made", way)
    if number > POSITIVE:
        refuse(where, f"{name} is {number:.6g}, and no log-probability is above 0", way)
    return number


def count(value: Any, where: str, name: str) -> int:
    """Take a value for a count.

    Raises:
        InputError: when it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        refuse(where, f"{name} is {brief(value)} and not a count", "is it a log of this kind?")
    return value


def dig(value: Any, *keys: str | int) -> Any:
    """Follow keys and places into nested data; None where they lead nowhere."""
    for key in keys:
        if isinstance(value, dict) and isinstance(key, str):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def named(value: Any) -> str | None:
    """Take a value for a model's name: a path is cut to its last part; None where it is none."""
    if not isinstance(value, str) or not value.strip():
        return None
    if value[0] in "/.~" or "\\" in value:
        value = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return label(value) or None


def label(value: Any) -> str:
    """Give a value as a name: short, on one line, of printable characters."""
    return "".join(char if char.isprintable() else "?" for char in str(value)[:200])
