"""Columns that a server can tell beside log-probabilities."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from fairway.backends.openai.answer import Entry
from fairway.errors import InputError

TOPS = re.compile(r"top([1-9]\d*)?")


def extras(
    entries: Sequence[Entry | None], want: Collection[str]
) -> dict[str, NDArray[np.float64]]:
    """Fill the columns that a server can tell: rank, and the most likely tokens by id."""
    out: dict[str, NDArray[np.float64]] = {}
    for name in want:
        tops = TOPS.fullmatch(name)
        if name == "rank":
            ranks = [math.nan if e is None or e.rank is None else e.rank - 1 for e in entries]
            out[name] = np.asarray(ranks, np.float64)
        elif tops is not None:
            size = int(tops.group(1) or 1)
            ids, values = np.full((2, len(entries), size), np.nan)
            for place, entry in enumerate(entries):
                best = sorted((entry.top if entry else {}).items(), key=lambda one: -one[1])[:size]
                if len(best) == size and all(key.isdecimal() for key, _ in best):
                    ids[place] = [int(key) for key, _ in best]
                    values[place] = [value for _, value in best]
            out[name] = ids[:, 0] if name == "top" else ids
            if name != "top":
                out[f"{name}_logprob"] = values
        else:
            raise InputError(f"There is no column {name!r} of a server's; it may tell rank or top.")
    return out
