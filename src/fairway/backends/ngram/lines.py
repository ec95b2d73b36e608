"""Sentences and words of a text, as KenLM cuts them, with their places in the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairway.errors import InputError

NEWLINE, BLANK = 10, 32
UNKNOWN = b"<unk>"


@dataclass(frozen=True, slots=True)
class Line:
    """One sentence.

    Attributes:
        words: as the model's vocabulary spells them.
        offsets: ``(n, 2)`` character spans of the words in the source text.
        end: the span that ``</s>`` covers; empty where the text has nothing for it.
        changed: whether the words are of another text than the source.
    """

    words: tuple[str, ...]
    offsets: NDArray[np.int64]
    end: tuple[int, int]
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """The sentences of some texts, ready for a model.

    Attributes:
        lines: UTF-8 words of each sentence, ASCII white space between them.
        offsets: ``(n, 2)`` character spans of the rows, each in its own text: each sentence's
            words, then its ``</s>``.
        ends: ``(n,)`` booleans, which rows are ``</s>``.
        bounds: ``(texts + 1,)`` where each text's rows begin, and the last one's end.
        lossy: for each text whether the words do not give it back; None = not known.
    """

    lines: list[bytes]
    offsets: NDArray[np.int64]
    ends: NDArray[np.bool_]
    bounds: NDArray[np.int64]
    lossy: list[bool | None]


def encode(text: str) -> bytes:
    """Give a text's UTF-8.

    Raises:
        InputError: when half of a surrogate pair stands alone, which no UTF-8 can hold.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise InputError(
            f"The text has a lone surrogate, U+{ord(text[problem.start]):04X}, at character "
            f"{problem.start}; no UTF-8 can hold it, so mend the text."
        ) from None


def spell(word: bytes) -> bytes:
    """Give a word as a model may be asked for it.

    A word that holds a NUL, where the binding would cut it, or white space, where it would split
    it, or nothing at all, can be in no vocabulary.
    """
    return UNKNOWN if b"\0" in word or word.split() != [word] else word


def cut(texts: Sequence[str], segment: str = "lines") -> Cut:
    """Cut texts as KenLM does.

    A line ends at a newline, and a text that does not end in one ends its last line; so an empty
    text has no line, and a line without words is a sentence without words. ``</s>`` covers what
    stands behind the sentence's last word, its newline included.

    Args:
        texts: the source texts, at least one.
        segment: ``lines``, or ``document``: all of a text is one sentence.

    Raises:
        InputError: when half of a surrogate pair stands alone.
    """
    encoded = [encode(text) for text in texts]
    # Each text is given a newline at its end, so that all of them are cut at once.
    data = b"".join([one if one[-1:] in (b"", b"\n") else one + b"\n" for one in encoded])
    sizes = np.array([len(one) for one in encoded], dtype=np.int64)
    given = np.array([one[-1:] not in (b"", b"\n") for one in encoded], dtype=bool)
    stops = np.cumsum(sizes + given)
    codes = np.frombuffer(data, dtype=np.uint8)
    # Bytes 9 to 13 and 32, as C's isspace has them, and no space of Unicode's.
    bounded = np.ones(len(codes) + 1, dtype=bool)
    space = bounded[1:]
    np.less(codes - np.uint8(9), 5, out=space)
    space |= codes == BLANK
    spans = np.flatnonzero(space != bounded[:-1]).reshape(-1, 2)
    begins, closes = spans[:, 0], spans[:, 1]
    in_lines = segment == "lines"
    closing = np.flatnonzero(codes == NEWLINE) if in_lines else stops[sizes > 0] - 1
    starts = np.concatenate(([0], closing + 1))[: len(closing)]
    lines = [data[a:b] for a, b in zip(starts.tolist(), closing.tolist(), strict=True)]
    # Words of the lines up to each one's end, and before it.
    through = np.searchsorted(begins, closing)
    blank = np.diff(through, prepend=0) == 0
    ends = np.zeros(len(begins) + len(closing), dtype=bool)
    places = through + np.arange(len(closing))
    ends[places] = True
    offsets = np.empty((len(ends), 2), dtype=np.int64)
    offsets[~ends] = spans
    offsets[places, 0] = np.where(blank, starts, np.append(closes, 0)[through - 1])
    offsets[places, 1] = closing + 1
    last = np.searchsorted(closing, stops)
    bounds = np.concatenate(([0], np.append(places, -1)[last - 1] + 1))
    bounds = np.maximum.accumulate(bounds)
    # The newline that was given to a text is none of its characters.
    offsets[bounds[1:][given] - 1, 1] -= 1
    odd = _odd(codes, space, len(begins) - int(np.count_nonzero(~blank)), closing, stops)
    if len(data) != sum(map(len, texts)) + int(given.sum()):
        inside = np.concatenate(([0], np.cumsum((codes & 0xC0) != 0x80)))
        offsets, stops = inside[offsets], inside[stops]
    offsets -= np.repeat(np.concatenate(([0], stops[:-1])), np.diff(bounds))[:, None]
    if b"\0" in data:
        lines = [b" ".join(spell(word) for word in line.split()) for line in lines]
    return Cut(lines, offsets, ends, bounds, odd)


def _odd(
    codes: NDArray[np.uint8],
    space: NDArray[np.bool_],
    separators: int,
    closing: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> list[bool | None]:
    """Say of each text whether it has more than single spaces between a sentence's words."""
    blanks = int(np.count_nonzero(space)) - len(closing)
    if blanks == separators and int(np.count_nonzero(codes == BLANK)) == blanks:
        return [False] * len(stops)
    beside = np.concatenate(([True], space[:-1])) | np.concatenate((space[1:], [True]))
    wrong = space & (beside | (codes != BLANK))
    wrong[closing] = False
    found = np.zeros(len(stops), dtype=bool)
    found[np.searchsorted(stops, np.flatnonzero(wrong), side="right")] = True
    return list(found.tolist())


def _spelled(words: Sequence[str]) -> bytes:
    """Spell a sentence's words; where none is odd, all at once."""
    data = encode(" ".join(words))
    parts = data.split(b" ")
    if len(parts) == len(words) and data.split() == parts and b"\0" not in data:
        return data
    return b" ".join(spell(encode(word)) for word in words)


def join(texts: Sequence[Sequence[Line]]) -> Cut:
    """Lay sentences that another cutter made of texts in rows."""
    offsets, ends = [np.empty((0, 2), np.int64)], []
    bounds, made = [0], []
    for lines in texts:
        for line in lines:
            made.append(_spelled(line.words))
            offsets.append(np.asarray(line.offsets, dtype=np.int64).reshape(-1, 2))
            offsets.append(np.asarray([line.end], dtype=np.int64))
            ends += [False] * len(line.words) + [True]
        bounds.append(len(ends))
    return Cut(
        made,
        np.concatenate(offsets),
        np.asarray(ends, dtype=bool),
        np.asarray(bounds, dtype=np.int64),
        [True if any(line.changed for line in lines) else None for lines in texts],
    )
