"""Columns of windows, at their places among a document's tokens."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from fairway.backends.transformers import head as heads
from fairway.backends.transformers.tree import Row
from fairway.errors import InputError


def check(want: Collection[str]) -> None:
    """Refuse names that no column has.

    Raises:
        InputError: naming the first of them.
    """
    for name in want:
        match = heads.NAMES.fullmatch(name)
        if name != "window" and (not match or match.group(1) == "0"):
            raise InputError(
                f"There is no column {name!r}; want takes entropy, rank, top, top5, window, "
                "boundary."
            )


def blank(extras: dict[str, Any], size: int, want: Collection[str]) -> None:
    """Give a document of which nothing is scored the columns that the others have."""
    if "window" in want:
        extras["window"] = np.full(size, -1, dtype=np.int64)
    for name in {"entropy", "rank", "top"} & set(want):
        extras[name] = np.full(size, np.nan)
    for name, count in heads.tops(set(want) - {"top"}).items():
        for column in (name, f"{name}_logprob"):
            extras[column] = np.full((size, count), np.nan)


def fill(
    row: Row,
    columns: dict[str, torch.Tensor],
    logprobs: Any,
    extras: dict[str, Any],
    want: Collection[str],
) -> None:
    """Write a window's columns to their places among the document's tokens."""
    span = slice(row.at, row.at + len(row.targets))
    logprobs[span] = columns["logprob"].numpy()
    if "window" in want:
        if "window" not in extras:
            extras["window"] = np.full(len(logprobs), -1, dtype=np.int64)
        extras["window"][span] = row.window
    for key, values in columns.items():
        if key == "logprob":
            continue
        if key not in extras:
            extras[key] = np.full((len(logprobs), *values.shape[1:]), np.nan)
        extras[key][span] = values.numpy()
