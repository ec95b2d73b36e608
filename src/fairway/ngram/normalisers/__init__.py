"""What other tools do to a text before a model reads it, bit for bit, with places in the source."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fairway.errors import InputError
from fairway.ngram.normalisers import ccnet
from fairway.ngram.normalisers.characters import Mapped
from fairway.ngram.normalisers.datatrove import datatrove

__all__ = ["NORMALISERS", "Mapped", "named"]

NORMALISERS: dict[str, Callable[..., Mapped]] = {
    "none": Mapped.of,
    "ccnet": ccnet.whole,
    "ccnet-fixed": ccnet.lines,
    "edugp": ccnet.edugp,
    "datatrove": datatrove,
    "data-juicer": Mapped.of,
}
"""By name; data-juicer changes nothing."""


def named(name: str, settings: Mapping[str, Any] | None = None) -> Callable[[str], Mapped]:
    """Give a normaliser with its settings.

    Raises:
        InputError: when there is none of that name, or no such setting.
    """
    if name not in NORMALISERS:
        raise InputError(f"{name!r} is no normaliser; there are {', '.join(NORMALISERS)}.")
    function = NORMALISERS[name]
    known = [key for key in inspect.signature(function).parameters if key != "text"]
    for key, value in (settings or {}).items():
        if key not in known:
            taken = ", ".join(known) or "none"
            raise InputError(f"The normaliser {name} has no setting {key!r}; it takes: {taken}.")
        if not isinstance(value, bool):
            raise InputError(f"The normaliser's setting {key} is yes or no, and not {value!r}.")
    return functools.partial(function, **settings) if settings else function
