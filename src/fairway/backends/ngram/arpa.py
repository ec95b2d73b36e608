"""ARPA files as arrays, for models that KenLM cannot read, and as its independent twin.

The format and its meaning: SRILM's ``ngram-format`` manual page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairway.backends.ngram.reading import Lines, shown
from fairway.errors import ModelError

COUNT = re.compile(rb"\s*ngram\s+(\d{1,9})\s*=\s*(\d{1,18})\s*", re.IGNORECASE)
DIGITS = b"0123456789+-.eE\n"
UNKNOWN = (b"<unk>", b"<UNK>")
"""Spellings of the unknown word, as KenLM has them; it is word 0."""
PREAMBLE = 1 << 20
"""Bytes that may stand before the data."""
MISSING = -100.0
"""Logarithm to base 10 of an unknown word's probability in a model that lists none: KenLM's."""


@dataclass(frozen=True, slots=True)
class Level:
    """The n-grams of one order.

    Attributes:
        keys: ``(n,)`` sorted: the place of the first n - 1 words in the level below times the
            number of words, plus the last word; for single words their number.
        logprobs: ``(n,)`` logarithms to base 10.
        backoffs: ``(n,)`` logarithms to base 10; 0 where the file has none.
    """

    keys: NDArray[np.int64]
    logprobs: NDArray[np.float64]
    backoffs: NDArray[np.float64]

    def find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the places of keys; -1 where there is none such."""
        if not len(self.keys):
            return np.full(len(keys), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1)


@dataclass(frozen=True, slots=True)
class Tables:
    """A model.

    Attributes:
        words: number of each word; 0 is the unknown one.
        levels: n-grams by order, single words first.
        listed: whether the file lists the unknown word.
    """

    words: dict[bytes, int]
    levels: tuple[Level, ...]
    listed: bool


@dataclass(frozen=True, slots=True)
class _Rows:
    """A section's rows: ``(n, order)`` words, two ``(n,)`` numbers, ``(n,)`` lines of the file."""

    words: list[bytes]
    logprobs: NDArray[np.float64]
    backoffs: NDArray[np.float64]
    lines: NDArray[np.int64]


def read(path: Path) -> Tables:
    """Read a file.

    Whatever stands before ``\\data\\`` is passed over, and any white space parts the fields.

    Raises:
        ModelError: when it is no ARPA file or is wrong: counts, sections, numbers, contexts.
        MissingExtra: for .zst without zstandard.
    """
    lines = Lines(path)
    try:
        return _read(lines)
    finally:
        lines.close()


def counts(lines: Lines) -> list[int]:
    """Read a file's head, to its first section: the number of n-grams of each order."""
    passed = 0
    while (line := lines.line()) is not None and line.strip() != b"\\data\\":
        passed += len(line)
        if passed > PREAMBLE:
            line = None
            break
    if line is None:
        raise ModelError(
            f"{lines.name} is no ARPA file: none of its first lines is \\data\\. (kenlm: loads "
            "KenLM's binaries too.)"
        )
    found: list[int] = []
    while True:
        first, block = lines.rows()
        if not block:
            break
        for number, row in enumerate(block.splitlines(), first):
            if not row.strip():
                continue
            match = COUNT.fullmatch(row)
            if not match or int(match[1]) != len(found) + 1:
                raise lines.wrong(
                    f"expected a line like 'ngram {len(found) + 1}=COUNT', found {shown(row)}.",
                    number,
                )
            found.append(int(match[2]))
    if not found:
        raise lines.wrong("\\data\\ is followed by no line like 'ngram 1=COUNT'.")
    return found


def _read(lines: Lines) -> Tables:
    declared = counts(lines)
    words: dict[bytes, int] = dict.fromkeys(UNKNOWN, 0)
    levels: list[Level] = []
    listed = False
    for order, count in enumerate(declared, 1):
        _heading(lines, b"\\%d-grams:" % order)
        heading = lines.number
        blocks: list[_Rows] = []
        ids: list[NDArray[np.int64]] = []
        while True:
            first, block = lines.rows()
            if not block:
                break
            made = _rows(lines, first, block, order)
            blocks.append(made)
            if order > 1:
                ids.append(_known(lines, words, made, order))
            else:
                numbers, saw = _new(lines, words, made, listed)
                ids.append(numbers)
                listed |= saw
        total = sum(len(one.lines) for one in blocks)
        if total != count:
            raise lines.wrong(
                f"the head promises {count:,} {order}-grams, and this section has {total:,}; the "
                "file is damaged or was edited.",
                heading,
            )
        levels.append(_level(lines, levels, len(words) - 1, order, blocks, ids))
    _heading(lines, b"\\end\\")
    while (line := lines.line()) is not None:
        if line.strip():
            raise lines.wrong(f"found {shown(line)} after \\end\\.")
    return Tables(words, tuple(levels), listed)


def _heading(lines: Lines, expected: bytes) -> None:
    line: bytes | None = b""
    while line is not None and not line.strip():
        line = lines.line()
    if line is None:
        raise lines.wrong(f"the file ends where {expected.decode()} should stand.")
    if line.strip() != expected:
        raise lines.wrong(f"expected {expected.decode()}, found {shown(line)}.")


def _rows(lines: Lines, first: int, block: bytes, order: int) -> _Rows:
    """Part a block of lines in fields."""
    if b"\0" in block:
        raise lines.wrong("a NUL byte.", first + block[: block.index(b"\0")].count(b"\n"))
    for odd in (b"\x0b", b"\x0c"):
        # KenLM takes these as part of a word, which no text then holds; no UTF-8 is like this.
        block = block.replace(odd, b"\xff\xfe")
    codes = np.frombuffer(block, dtype=np.uint8)
    space = np.concatenate(([True], (codes == 32) | ((codes >= 9) & (codes <= 13)), [True]))
    begins = np.flatnonzero(space[:-1] & ~space[1:])
    line = np.searchsorted(np.flatnonzero(codes == 10), begins)
    starts = np.flatnonzero(np.diff(line, prepend=-1))
    sizes = np.diff(starts, append=len(begins))
    number = first + line[starts]
    bad = np.flatnonzero((sizes != order + 1) & (sizes != order + 2))
    if len(bad):
        raise lines.wrong(
            f"a {order}-gram has {order + 1} or {order + 2} fields, this line has {sizes[bad[0]]}.",
            int(number[bad[0]]),
        )
    fields = np.array(block.split(), dtype=object)
    with_backoff = sizes == order + 2
    backoffs = np.zeros(len(starts))
    logprobs = _numbers(lines, fields[starts], number)
    backoffs[with_backoff] = _numbers(
        lines, fields[starts[with_backoff] + order + 1], number[with_backoff]
    )
    for values, wrong in (
        (logprobs, np.isnan(logprobs) | (logprobs > 0)),
        (backoffs, ~np.isfinite(backoffs)),
    ):
        if wrong.any():
            place = int(np.argmax(wrong))
            what = "log-probability" if values is logprobs else "back-off weight"
            raise lines.wrong(f"{values[place]:g} is no {what}.", int(number[place]))
    places = starts[:, None] + np.arange(1, order + 1)
    return _Rows(fields[places.ravel()].tolist(), logprobs, backoffs, number)


def _numbers(
    lines: Lines, fields: NDArray[np.object_], number: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Read numbers; what Python takes beyond digits (``1_0``, ``infinity``) is refused."""
    listed = fields.tolist()
    if not b"\n".join(listed).translate(None, DIGITS):
        try:
            return np.array(list(map(float, listed)), dtype=np.float64)
        except ValueError:
            pass
    out = np.empty(len(listed))
    for place, field in enumerate(listed):
        try:
            if field.translate(None, DIGITS) and field.lower() not in (b"-inf", b"-infinity"):
                raise ValueError
            out[place] = float(field)
        except ValueError:
            raise lines.wrong(f"{shown(field)} is no number.", int(number[place])) from None
    return out


def _new(
    lines: Lines, words: dict[bytes, int], rows: _Rows, listed: bool
) -> tuple[NDArray[np.int64], bool]:
    """Number the words of single-word rows; also whether the unknown one is among them."""
    out = np.empty(len(rows.words), dtype=np.int64)
    saw = False
    for place, word in enumerate(rows.words):
        size = len(words)
        known = words.setdefault(word, size - 1)
        if known == 0 and not saw and not listed:
            saw = True
        elif len(words) == size:
            raise lines.wrong(f"the word {shown(word)} stands twice.", int(rows.lines[place]))
        out[place] = known
    return out, saw


def _known(lines: Lines, words: dict[bytes, int], rows: _Rows, order: int) -> NDArray[np.int64]:
    """Give ``(n, order)`` numbers of the words."""
    out = np.fromiter(map(words.get, rows.words, repeat(-1)), np.int64, len(rows.words))
    if len(out) and out.min() < 0:
        place = int(np.argmax(out < 0))
        raise lines.wrong(
            f"the word {shown(rows.words[place])} is not among the 1-grams.",
            int(rows.lines[place // order]),
        )
    return out.reshape(-1, order)


def _level(
    lines: Lines,
    below: list[Level],
    size: int,
    order: int,
    blocks: list[_Rows],
    ids: list[NDArray[np.int64]],
) -> Level:
    """Sort a section's rows by their keys."""
    nothing = np.empty(0)
    logprobs = np.concatenate([nothing, *(one.logprobs for one in blocks)])
    backoffs = np.concatenate([nothing, *(one.backoffs for one in blocks)])
    number = np.concatenate([np.empty(0, np.int64), *(one.lines for one in blocks)])
    if order == 1:
        keys = np.concatenate([np.empty(0, np.int64), *ids])
        table = Level(np.arange(size), np.full(size, MISSING), np.zeros(size))
        table.logprobs[keys] = logprobs
        table.backoffs[keys] = backoffs
        return table
    found = np.concatenate([np.empty((0, order), np.int64), *ids])
    node = found[:, 0]
    for depth in range(2, order):
        node = below[depth - 1].find(node * size + found[:, depth - 1])
        if len(node) and node.min() < 0:
            raise lines.wrong(
                f"the first {depth} words of this {order}-gram are no {depth}-gram of the file.",
                int(number[np.argmax(node < 0)]),
            )
    keys = node * size + found[:, order - 1]
    rank = np.argsort(keys, kind="stable")
    keys = keys[rank]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        raise lines.wrong(f"this {order}-gram stands twice.", int(number[rank[twice[0] + 1]]))
    return Level(keys, logprobs[rank], backoffs[rank])
