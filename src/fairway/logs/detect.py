"""Which tool wrote a log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairway.errors import InputError
from fairway.logs import inspect_ai, lm_eval, vllm
from fairway.logs.reporting import Read
from fairway.logs.untrusted import LINE, spread, whole
from fairway.run import SETTINGS


def read(path: Path) -> Read | None:
    """Read a log of another tool.

    Args:
        path: a file, or a folder that lm-eval wrote into.

    Returns:
        Settings, report and records; None where the path is no such log, but perhaps a run.

    Raises:
        InputError: when it is one, and damaged or without log-likelihoods.
    """
    try:
        if (path / SETTINGS).exists() or not path.exists():
            return None
        samples = lm_eval.find(path)
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror}.") from None
    if samples is not None:
        return lm_eval.read(samples)
    if path.is_dir():
        return None
    reader = _reader(path)
    return None if reader is None else reader(path)


def _reader(path: Path) -> Callable[[Path], Read] | None:
    """Tell by the first bytes, and by the first line or the whole, who can read a file."""
    try:
        with path.open("rb") as stream:
            start = stream.readline(LINE)
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror}.") from None
    if start.startswith(b"PK") or path.suffix == ".eval":
        return inspect_ai.read
    value: Any
    if spread(start, path):
        value = whole(path)
    else:
        try:
            value = json.loads(start)
        except (ValueError, RecursionError):
            # A line that broke off is told by its reader, which counts lines.
            if path.suffix == ".jsonl":
                return _broken(path)
            return None
    first = value[0] if isinstance(value, list) and value else value
    for kind in (inspect_ai, lm_eval, vllm):
        if kind.recognise(first):
            reader: Callable[[Path], Read] = kind.read
            return reader
    if path.suffix == ".jsonl":
        raise InputError(
            f"{path} is neither a run nor a log that is known: lm-eval's samples, or responses "
            "with prompt_logprobs or echoed logprobs. Give a run directory or such a log."
        )
    return None


def _broken(path: Path) -> Callable[[Path], Read]:
    """Give the reader whose words a broken first line holds."""
    return lm_eval.read if lm_eval.SAMPLES.fullmatch(path.name) else vllm.read
