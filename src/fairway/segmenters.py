"""Where the words of a text are, also in scripts that put no spaces between them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairway.errors import InputError, MissingExtra

Segmenter: TypeAlias = Callable[[str], Iterable[str] | Iterable[tuple[int, int]]]
"""From a text to its words: character spans, or pieces of it in their order."""

SPACELESS = {
    "Thai": ((0x0E00, 0x0E7F),),
    "Lao": ((0x0E80, 0x0EFF),),
    "Tibetan": ((0x0F00, 0x0FFF),),
    "Myanmar": ((0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)),
    "Khmer": ((0x1780, 0x17FF), (0x19E0, 0x19FF)),
    "Kana": ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F)),
    "Han": ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
            (0x20000, 0x3FFFF)),
}  # fmt: skip
"""Scripts without spaces between words, and their blocks (Unicode, Blocks.txt)."""


def spans(text: str, segment: Segmenter | None = None) -> NDArray[np.int64]:
    """Find the words of a text.

    Args:
        text: the text.
        segment: gives its words; None = what stands between white space.

    Returns:
        ``(n, 2)`` character spans, in order, without white space at their ends.

    Raises:
        InputError: when most of the text is in a script without spaces and segment is None, or
            when the segmenter's words are not in the text in their order.
    """
    if segment is None:
        script = spaceless(text)
        if script is not None:
            raise InputError(
                f"The text is mostly in a script without spaces between words ({script}), so words "
                "between white space mean nothing; give a segmenter: icu, character, or your own "
                "as MODULE:FUNCTION (such as jieba:lcut)."
            )
        words = [match.span() for match in re.finditer(r"\S+", text)]
        return np.asarray(words, np.int64).reshape(-1, 2)
    found = []
    reached = 0
    for piece in segment(text):
        if isinstance(piece, str):
            start = text.find(piece, reached)
            if start < 0:
                raise InputError(
                    f"The segmenter gave {piece!r}, which does not follow in the text; it must "
                    "leave the text as it is."
                )
            end = start + len(piece)
        else:
            try:
                start, end = piece
            except (TypeError, ValueError):
                raise InputError(
                    f"The segmenter gave {piece!r}, which is neither a string nor a span (start, "
                    "end)."
                ) from None
            if not reached <= start <= end <= len(text):
                raise InputError(
                    f"The segmenter gave the span ({start}, {end}) behind {reached} in a text of "
                    f"{len(text)} characters; spans come in order and do not overlap."
                )
        reached = end
        inner = text[start:end]
        start, end = end - len(inner.lstrip()), start + len(inner.rstrip())
        if start < end:
            found.append((start, end))
    return np.asarray(found, np.int64).reshape(-1, 2)


def spaceless(text: str) -> str | None:
    """Name the commonest script without spaces, where more than half of the letters have none."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    inside = {
        name: np.any([(points >= low) & (points <= high) for low, high in blocks], axis=0)
        for name, blocks in SPACELESS.items()
    }
    without = np.any(list(inside.values()), axis=0)
    if not without.any():
        return None
    letter = np.fromiter((char.isalpha() for char in text), dtype=bool, count=len(text))
    if without.sum() <= (letter & ~without).sum():
        return None
    return max(inside, key=lambda name: int(inside[name].sum()))


def named(name: str) -> Segmenter:
    """Find a segmenter: ``icu``, ``character``, or ``MODULE:FUNCTION``.

    Raises:
        InputError: when there is none of that name.
        MissingExtra: when ICU is not installed.
    """
    if name == "character":
        return list
    if name == "icu":
        return _icu()
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise InputError(
            f"There is no segmenter {name!r}; give icu, character, or MODULE:FUNCTION, such as "
            "jieba:lcut."
        )
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as problem:
        raise InputError(f"The segmenter {name} cannot be loaded: {problem}.") from None
    if not callable(found):
        raise InputError(f"The segmenter {name} is no function.")

    def segment(text: str) -> Iterable[str] | Iterable[tuple[int, int]]:
        try:
            return list(found(text))
        except Exception as problem:  # whatever somebody else's code raises
            raise InputError(f"The segmenter {name} fails on a text: {problem!r}.") from problem

    return segment


def _icu() -> Segmenter:
    """Give ICU's word breaks, which come with dictionaries for all of `SPACELESS` but Tibetan."""
    try:
        from icu4py.breakers import WordBreaker
    except ImportError:
        raise MissingExtra("Finding words with ICU", "words") from None

    def segment(text: str) -> Iterable[str]:
        # Its spans count UTF-16 units; the strings that it gives are right.
        return list(WordBreaker(text, "und"))

    return segment
