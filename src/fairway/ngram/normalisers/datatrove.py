"""The normaliser of datatrove 0.10.0 before it asks a model of edugp/kenlm.

Source: ``utils/perplexity.py`` and ``simplify_text`` in ``utils/text.py`` of huggingface/datatrove,
a649de7. It writes a whole number as one zero, small letters, and no accents, where those models
were trained with a zero for each digit, capitals and accents.
"""

from __future__ import annotations

import functools
import re

import numpy as np

from fairway.ngram.normalisers.ccnet import PUNCTUATION, UNPRINTABLE, without_marks
from fairway.ngram.normalisers.characters import Mapped, Table, settle_marks, settle_sigmas

DIGIT = (
    r"[\d\U00010D40-\U00010D49\U000116D0-\U000116E3\U00011BF0-\U00011BF9"
    r"\U00011DE0-\U00011DE9\U00011F50-\U00011F59\U00016130-\U00016139\U00016D70-\U00016D79"
    r"\U0001CCF0-\U0001CCF9\U0001E4F0-\U0001E4F9\U0001E5F1-\U0001E5FA]"
)
"""Digits of Python's Unicode, and those that came with Unicode 15 to 17, which datatrove's engine
(the package regex) has already."""
NUMBER = re.compile(rf"{DIGIT}+(?:[.,\u060C\u066B\u2396\u2397\u2398]{DIGIT}+)?")
ZERO = 48


@functools.cache
def letters() -> Table:
    """Give small letters without accents."""
    return Table(lambda char: without_marks(char.lower()))


@functools.cache
def rest() -> Table:
    """Give Latin punctuation, and no control characters."""

    def replace(char: str) -> str:
        return "".join(one for one in PUNCTUATION.get(char, char) if one not in UNPRINTABLE)

    return Table(replace)


def datatrove(text: str) -> Mapped:
    """Normalise a document."""
    given = settle_marks(numbers(settle_sigmas(Mapped.of(text)), text))
    return rest().apply(letters().apply(given).strip())


def numbers(given: Mapped, text: str) -> Mapped:
    """Write each number as one zero that stands for all of it."""
    found = [match.span() for match in NUMBER.finditer(text)]
    if not found:
        return given
    begins, stops = np.array(found).T
    edges = np.zeros(len(text) + 1, dtype=np.int64)
    edges[begins + 1] += 1
    edges[stops] -= 1
    codes, ends = given.codes.copy(), given.ends.copy()
    codes[begins], ends[begins] = ZERO, stops
    kept = np.cumsum(edges[:-1]) == 0
    return Mapped(codes[kept], given.starts[kept], ends[kept], given.length)
