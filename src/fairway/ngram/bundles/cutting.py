"""From a text to sentences of words: normalised, cut, tokenised, each word with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from fairway.backends.ngram.lines import Line, encode
from fairway.ngram.bundles.tokenisers import Pieces, Tokeniser, apart
from fairway.ngram.normalisers import Mapped

SEGMENTERS = ("document", "lines", "pieces")
"""document: a text is one sentence; lines: each line of the normalised text; pieces: the tokeniser
reads all of the text, and sentences end at line breaks in its pieces, as data-juicer has it."""
BREAK = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
"""Where `str.splitlines` splits."""
PARTS = re.compile(f"({BREAK.pattern})|[^\t-\r\x1c-\x1e \x85\u2028\u2029]+")
"""Line breaks, and the words between them."""


def cutter(
    normalise: Callable[[str], Mapped], tokenise: Tokeniser, segmenter: str
) -> Callable[[str], list[Line]]:
    """Give the function that cuts texts for an n-gram model.

    Args:
        normalise: the normaliser.
        tokenise: the tokeniser.
        segmenter: one of `SEGMENTERS`.

    Returns:
        A function from a text to its sentences. An empty text has none; a text of which the
        normaliser leaves nothing is one sentence without words, as the tools score it.
    """

    def cut(text: str) -> list[Line]:
        if not text:
            return []
        encode(text)
        given = normalise(text)
        if segmenter == "pieces":
            made = _by_pieces(given, tokenise(given.text), len(text))
        else:
            made = [
                _sentence(given, tokenise, begin, stop, end)
                for begin, stop, end in _bounds(given, segmenter, len(text))
            ]
        return made if given.text == text else [replace(line, changed=True) for line in made]

    return cut


def _bounds(
    given: Mapped, segmenter: str, length: int
) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Give each sentence's first character, one past its last, and its end in the source."""
    size = len(given.codes)
    begin = 0
    if segmenter == "lines":
        for stop in np.flatnonzero(given.codes == 10).tolist():
            yield begin, stop, (int(given.starts[stop]), int(given.ends[stop]))
            begin = stop + 1
        if begin == size and begin:
            return
    yield begin, size, (length, length)


def _sentence(
    given: Mapped, tokenise: Tokeniser, begin: int, stop: int, end: tuple[int, int]
) -> Line:
    whole = begin == 0 and stop == len(given.codes)
    part = given if whole else given.take(slice(begin, stop))
    pieces = tokenise(part.text)
    if _spaced(pieces):
        pieces = apart(pieces)
    places = given.spans(pieces.begins + begin, pieces.stops + begin)
    return Line(tuple(pieces.words), places, end)


def _spaced(pieces: Pieces) -> bool:
    """Whether a word is empty or holds white space."""
    return " ".join(pieces.words).split() != pieces.words


def _by_pieces(given: Mapped, pieces: Pieces, length: int) -> list[Line]:
    """Cut at the line breaks that a tokeniser left in its pieces."""
    if not _spaced(pieces):
        if not pieces.words:
            return []
        places = given.spans(pieces.begins, pieces.stops)
        return [Line(tuple(pieces.words), places, (length, length))]
    parts = apart(pieces, PARTS)
    places = given.spans(parts.begins, parts.stops)
    breaks = [bool(BREAK.fullmatch(word)) for word in parts.words]
    made = []
    begin = 0
    for stop in [number for number, one in enumerate(breaks) if one]:
        end = (int(places[stop, 0]), int(places[stop, 1]))
        made.append(Line(tuple(parts.words[begin:stop]), places[begin:stop], end))
        begin = stop + 1
    if begin < len(parts.words) or not BREAK.search(pieces.words[-1][-1:]):
        made.append(Line(tuple(parts.words[begin:]), places[begin:], (length, length)))
    return made
