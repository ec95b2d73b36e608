"""Where fairway keeps what it can make again: hashes of weights, verdicts of probes, scores."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def folder() -> Path:
    """Give the cache folder: ``FAIRWAY_CACHE``, else ``fairway`` in the user's cache folder."""
    chosen = os.environ.get("FAIRWAY_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairway"


def recall(table: str, key: str) -> Any:
    """Read what was noted under a key; None where nothing readable is."""
    try:
        return json.loads((folder() / table / f"{key}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None


def note(table: str, key: str, value: Any) -> None:
    """Note a small value under a key; a folder that cannot be written only costs time later."""
    path = folder() / table / f"{key}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(value), "utf-8")
        part.replace(path)
    except OSError:
        return
