"""What a training is asked for, checked once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fairway.errors import InputError

ORDERS = (1, 6)
"""Lowest and highest order; KenLM as it is packaged loads no higher one."""
SPECIAL_WORDS = ("error", "skip", "unk")
COUNTERS = ("fairway", "lmplz")
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts of counts 1, 2, and 3 and more, where none can be estimated: lmplz's."""
LEAST_MEMORY = 512 << 20
_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class Settings:
    """All that decides which numbers are trained.

    Attributes:
        order: words in the longest n-gram.
        prune: one threshold an order; n-grams that occur so often or less are left out.
        fallback: discounts for orders that allow no estimate; None = such a text is refused.
        interpolate_unigrams: ``<unk>`` gets its share as every word does; else the whole rest.
        special_words: what happens to ``<s>``, ``</s>`` and ``<unk>`` in the text.
    """

    order: int
    prune: tuple[int, ...]
    fallback: tuple[float, float, float] | None
    interpolate_unigrams: bool
    special_words: str


def settings(
    order: int,
    prune: Sequence[int] = (),
    fallback: Sequence[float] | None = None,
    interpolate_unigrams: bool = True,
    special_words: str = "error",
) -> Settings:
    """Check what was asked for, and fill in what was left out as lmplz does.

    Args:
        order: 1 to 6.
        prune: non-decreasing thresholds; the last one holds for the orders left.
        fallback: up to three discounts, the last one for the counts left; None = none.
        interpolate_unigrams: as in `Settings`.
        special_words: error, skip or unk.

    Raises:
        InputError: for what cannot be.
    """
    if not ORDERS[0] <= order <= ORDERS[1]:
        raise InputError(f"--order {order} is not within {ORDERS[0]} to {ORDERS[1]}.")
    if len(prune) > order:
        raise InputError(f"--prune has {len(prune)} thresholds, and the model only {order} orders.")
    if any(one < 0 for one in prune):
        raise InputError("--prune takes counts, such as 0,0,1, and none below 0.")
    if any(b < a for a, b in zip(prune, prune[1:], strict=False)):
        raise InputError(
            "--prune must not decrease from order to order: an n-gram's own parts would be missing."
        )
    if special_words not in SPECIAL_WORDS:
        raise InputError(
            f"--special-words {special_words!r} is not one of {', '.join(SPECIAL_WORDS)}."
        )
    last = prune[-1] if prune else 0
    return Settings(
        order,
        (*prune, *[last] * (order - len(prune))),
        None if fallback is None else _discounts(fallback),
        interpolate_unigrams,
        special_words,
    )


def _discounts(given: Sequence[float]) -> tuple[float, float, float]:
    if not 1 <= len(given) <= 3:
        raise InputError("--discount-fallback takes one to three discounts, such as 0.5,1,1.5.")
    out = [float(given[min(place, len(given) - 1)]) for place in range(3)]
    for count, one in enumerate(out, 1):
        if not 0 <= one <= count:
            raise InputError(f"The discount {one} for count {count} is not within 0 to {count}.")
    return out[0], out[1], out[2]


def size(text: str) -> int:
    """Read a size such as ``2G``, ``500M`` or ``1.5GiB`` in bytes; units are powers of 1,024.

    Raises:
        InputError: for what is no size, or less than a training can do with.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([BKMGT]?)(?:iB|B)?\s*", text, re.IGNORECASE)
    if not match:
        raise InputError(f"--memory {text!r} is no size; give one such as 2G or 500M.")
    found = int(float(match[1]) * _UNITS[match[2].upper()])
    if found < LEAST_MEMORY:
        raise InputError(f"--memory {text} is too little; give {LEAST_MEMORY >> 20}M or more.")
    return found
