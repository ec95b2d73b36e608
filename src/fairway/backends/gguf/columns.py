"""From rows of logits to log-probabilities and what else is wanted, a few rows at a time."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.errors import InputError, ModelError

NAMES = re.compile(r"entropy|rank|window|top([1-9]\d*)?")
HELD = 1 << 17
"""Float32 logits that are worked on at a time: what a processor's caches hold."""


def check(want: Collection[str]) -> None:
    """Refuse names that no column has.

    Raises:
        InputError: naming the first of them.
    """
    for name in want:
        if not NAMES.fullmatch(name):
            raise InputError(
                f"There is no column {name!r}; want takes entropy, rank, top, top5, window."
            )


def tops(want: Collection[str]) -> dict[str, int]:
    """Of what is wanted, the most likely tokens: ``top`` is one of them, ``top5`` are five."""
    found = {name: NAMES.fullmatch(name) for name in want if name.startswith("top")}
    return {name: int(match.group(1) or 1) for name, match in found.items() if match}


def blank(size: int, want: Collection[str]) -> dict[str, NDArray[Any]]:
    """Give the columns of a document of which nothing is scored."""
    out: dict[str, NDArray[Any]] = {}
    if "window" in want:
        out["window"] = np.full(size, -1, np.int64)
    for name in {"entropy", "rank", "top"} & set(want):
        out[name] = np.full(size, np.nan)
    for name, count in tops(set(want) - {"top"}).items():
        out[name] = np.full((size, count), np.nan)
        out[f"{name}_logprob"] = np.full((size, count), np.nan)
    return out


def log_sums(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Give the ``(rows,)`` logarithms of the sums of exponentials, summed in float64."""
    step = max(1, HELD // logits.shape[1])
    room = np.empty((min(step, len(logits)), logits.shape[1]), np.float32)
    out = np.empty(len(logits))
    for at in range(0, len(logits), step):
        part = logits[at : at + step]
        held = room[: len(part)]
        top = part.max(1)
        np.subtract(part, top[:, None], out=held)
        np.exp(held, out=held)
        out[at : at + step] = top + np.log(held.sum(1, dtype=np.float64))
    return out


def score(
    logits: NDArray[np.float32], targets: NDArray[np.int64], want: Collection[str] = ()
) -> dict[str, NDArray[Any]]:
    """Score ``(rows, vocabulary)`` logits against ``(rows,)`` targets.

    Returns:
        ``logprob`` (nats, float64) and, where wanted, ``entropy`` (nats), ``rank`` (tokens that
        are more likely), ``top`` (id of the most likely token; of several the lowest), ``top5``
        with ``top5_logprob`` (``(rows, 5)``; any number will do).

    Raises:
        ModelError: when a log-probability is not a number.
    """
    rows = np.arange(len(targets))
    own = logits[rows, targets]
    sums = _entropies(logits) if "entropy" in want else (log_sums(logits), None)
    # A certain token may end above 0 by the rounding of the last digit.
    out: dict[str, NDArray[Any]] = {"logprob": np.minimum(own - sums[0], 0.0)}
    if np.isnan(out["logprob"]).any():
        raise ModelError(
            "A log-probability is not a number: the model overflows; try --dtype float32."
        )
    if sums[1] is not None:
        out["entropy"] = sums[1]
    if "rank" in want:
        out["rank"] = _above(logits, own)
    for name, count in tops(want).items():
        if name == "top":
            out[name] = logits.argmax(1)
            continue
        ids = _best(logits, min(count, logits.shape[1]))
        out[name] = ids
        best = np.take_along_axis(logits, ids, 1) - sums[0][:, None]
        out[f"{name}_logprob"] = np.minimum(best, 0.0)
    return out


def _entropies(logits: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give log-sums and entropies in the same passes: ``H = ln s - sum(e d) / s``.

    Here ``d`` is a logit less the largest, ``e = exp(d)`` and ``s`` their sum.
    """
    step = max(1, HELD // logits.shape[1])
    shape = min(step, len(logits)), logits.shape[1]
    room, other = np.empty(shape, np.float32), np.empty(shape, np.float32)
    out = np.empty(len(logits)), np.empty(len(logits))
    for at in range(0, len(logits), step):
        part = logits[at : at + step]
        below, mass = room[: len(part)], other[: len(part)]
        top = part.max(1)
        np.subtract(part, top[:, None], out=below)
        np.exp(below, out=mass)
        total = mass.sum(1, dtype=np.float64)
        if not np.isfinite(below).all():
            # An impossible token adds nothing, and not zero times infinity.
            below[mass == 0] = 0
        np.multiply(below, mass, out=below)
        inside = below.sum(1, dtype=np.float64)
        log = np.log(total)
        out[0][at : at + step] = top + log
        out[1][at : at + step] = np.maximum(log - inside / total, 0.0)
    return out


def _above(logits: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.int64]:
    """Count the logits above each row's own."""
    step = max(1, HELD // logits.shape[1])
    out = np.empty(len(own), np.int64)
    for at in range(0, len(own), step):
        more = logits[at : at + step] > own[at : at + step, None]
        out[at : at + step] = np.count_nonzero(more, axis=1)
    return out


def _best(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Give the ids of the largest logits, the largest first; of equal ones the lower id first."""
    some = np.argpartition(logits, -count, axis=1)[:, -count:]
    some.sort(axis=1)
    order = np.argsort(-np.take_along_axis(logits, some, 1), axis=1, kind="stable")
    return np.take_along_axis(some, order, 1)
