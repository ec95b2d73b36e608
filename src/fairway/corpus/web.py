"""Files of the web, fetched once into the cache folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from fairway import store
from fairway.errors import InputError

TIMEOUT = 60
"""Seconds without an answer."""


def fetch(url: str) -> Path:
    """Give a local copy of a file; it is fetched where it is not there yet.

    Raises:
        InputError: when the address is no http address, or cannot be read or kept.
    """
    parts = urlsplit(url)
    name = PurePosixPath(parts.path).name
    if parts.scheme not in ("http", "https") or not name:
        raise InputError(f"{url} is no address of a file; give http://… or https://….")
    # One host has many files of the same name.
    path = store.folder() / "corpora" / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    if path.is_file():
        return path
    part = path.with_name(f"{name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, part.open("wb") as out:
            shutil.copyfileobj(answer, out, 1 << 20)
            expected = answer.headers.get("Content-Length")
        if expected is not None and part.stat().st_size != int(expected):
            raise InputError(f"{url} broke off half-way; give the same command again.")
        part.replace(path)
    except urllib.error.URLError as problem:
        raise InputError(f"{url} cannot be fetched: {problem.reason}.") from None
    except (OSError, http.client.HTTPException) as problem:
        raise InputError(f"{url} cannot be fetched into {path.parent}: {problem}.") from None
    finally:
        part.unlink(missing_ok=True)
    return path
