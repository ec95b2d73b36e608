"""Where the difference of two models sits: kinds of text, places, rare words, single documents."""

from __future__ import annotations

import heapq
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.comparable import Side, match
from fairway.errors import InputError
from fairway.pairs import Difference, Paired, difference
from fairway.record import Record
from fairway.scores import number
from fairway.segments import Segments, align, of_entry
from fairway.statistics import LEVEL

MOST = 12
"""Documents, spans and texts that are named on either side."""
AROUND = 40
"""Characters shown before a span."""
PLACES = (0, 64, 256, 1024, 4096, 16384, 65536)
"""First bytes of the stretches of a document."""
STRETCHES = (
    *(f"{start:,} to {end - 1:,}" for start, end in pairwise(PLACES)), f"{PLACES[-1]:,} and on",
)  # fmt: skip
"""What they are called."""
OFTEN = ((1, "once"), (9, "2 to 9 times"), (99, "10 to 99 times"), (999, "100 to 999 times"))
"""How often a word stands in all the texts, up to."""
RARITIES = (*(name for _, name in OFTEN), "1,000 times and more", "no word")
"""All there are: above the last, and no word at all."""
LN2 = math.log(2)


@dataclass(frozen=True, slots=True)
class Part:
    """The pieces of one kind in all documents.

    Attributes:
        name: of the kind.
        bytes: UTF-8 bytes.
        first: nll under the first model, nats.
        second: nll under the second.
        found: the paired difference in nats per byte, over the documents that have such pieces.
    """

    name: str
    bytes: int
    first: float
    second: float
    found: Difference


@dataclass(frozen=True, slots=True)
class Gain:
    """A document, a span or all spans of one text, and what the second model gains there.

    Attributes:
        name: the document's id.
        text: the span; empty for a document.
        before: what stands before the span.
        count: how often it occurs.
        first: nll under the first model, nats.
        second: nll under the second.
    """

    name: str
    text: str
    before: str
    count: int
    first: float
    second: float

    @property
    def apart(self) -> float:
        """Second minus first, nats."""
        return self.second - self.first


@dataclass(frozen=True, slots=True)
class Extremes:
    """The largest gains and losses of one sort.

    Attributes:
        better: where the second model needs fewest nats more, the best first.
        worse: where it needs most more, the worst first.
        gained: all nats gained by things of this sort; negative.
        lost: all nats lost.
    """

    better: tuple[Gain, ...]
    worse: tuple[Gain, ...]
    gained: float
    lost: float

    def share(self, one: Gain) -> float:
        """Give a gain's share of all gains, or a loss' of all losses."""
        whole = self.gained if one.apart < 0 else self.lost
        return one.apart / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class Where:
    """Where the difference sits.

    Attributes:
        kinds: by what the pieces consist of.
        places: by where in the document they begin, bytes.
        words: by how often the word stands in all the texts.
        documents: documents by gain.
        spans: single spans by gain.
        texts: all spans of a text together.
    """

    kinds: tuple[Part, ...]
    places: tuple[Part, ...]
    words: tuple[Part, ...]
    documents: Extremes
    spans: Extremes
    texts: Extremes

    def to_json(self) -> dict[str, Any]:
        """Give plain data, in bits."""
        out: dict[str, Any] = {
            name: [_part(one) for one in getattr(self, name)]
            for name in ("kinds", "places", "words")
        }
        for name in ("documents", "spans", "texts"):
            found: Extremes = getattr(self, name)
            out[name] = {
                "gained_bits": found.gained / LN2,
                "lost_bits": found.lost / LN2,
                "better": [_gain(one, found) for one in found.better],
                "worse": [_gain(one, found) for one in found.worse],
            }
        return out


def _part(one: Part) -> dict[str, Any]:
    return {
        "name": one.name,
        "bytes": one.bytes,
        "first_bits": one.first / LN2,
        "second_bits": one.second / LN2,
        "documents": one.found.documents,
        "bits_per_byte": number(one.found.value / LN2),
        "low": number(one.found.low / LN2),
        "high": number(one.found.high / LN2),
    }


def _gain(one: Gain, among: Extremes) -> dict[str, Any]:
    return {
        "id": one.name,
        "text": one.text,
        "before": one.before,
        "count": one.count,
        "first_bits": one.first / LN2,
        "second_bits": one.second / LN2,
        "difference_bits": one.apart / LN2,
        "share": among.share(one),
    }


@lru_cache(1 << 16)
def kind(piece: str) -> str:
    """Name what a piece consists of, the white space before and behind it left aside."""
    bare = piece.strip()
    if not bare:
        return "line breaks" if "\n" in piece or "\r" in piece else "blanks"
    found = {_class(char) for char in bare if not unicodedata.combining(char)}
    return found.pop() if len(found) == 1 else "mixed"


@lru_cache(1 << 12)
def _class(char: str) -> str:
    if char.isdigit():
        return "digits"
    if char.isalpha():
        # Unicode names of letters begin with their script.
        script = unicodedata.name(char, "other").split()[0].split("-")[0]
        return f"{script.capitalize() if script != 'CJK' else script} letters"
    category = unicodedata.category(char)
    if category.startswith("P") or char in "$+<=>^`|~":
        return "punctuation"
    if char.isspace():
        return "blanks"
    return "symbols" if category.startswith("S") else "other characters"


@dataclass(slots=True)
class _Tally:
    """Sums by kind, a row for each document that has it."""

    rows: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)

    def add(self, names: Sequence[str], which: NDArray[np.int64], pieces: Segments) -> None:
        """Add a document whose pieces are of the kinds ``names[which]``."""
        size = len(names)
        first = np.bincount(which, pieces.first, size)
        second = np.bincount(which, pieces.second, size)
        counts = np.bincount(which, pieces.bytes, size)
        for place in np.unique(which).tolist():
            row = float(first[place]), float(second[place]), int(counts[place])
            self.rows.setdefault(names[place], []).append(row)

    def parts(self, level: float, seed: int, order: Sequence[str] = ()) -> tuple[Part, ...]:
        """Give the kinds in an order, or those with most bytes first."""
        out = []
        for name, rows in self.rows.items():
            table = np.array(rows)
            counts = table[:, 2].astype(np.int64)
            if not counts.sum():
                continue
            pairs = Paired(table[:, 0], table[:, 1], counts)
            nats = math.fsum(table[:, 0]), math.fsum(table[:, 1])
            out.append(Part(name, int(counts.sum()), *nats, difference(pairs, level, seed)))
        if order:
            return tuple(sorted(out, key=lambda one: order.index(one.name)))
        return tuple(sorted(out, key=lambda one: -one.bytes))


@dataclass(slots=True)
class _Best:
    """The largest gains and losses among many."""

    better: list[tuple[float, int, Gain]] = field(default_factory=list)
    worse: list[tuple[float, int, Gain]] = field(default_factory=list)
    gained: float = 0.0
    lost: float = 0.0
    seen: int = 0

    def offer(self, apart: NDArray[np.float64], make: Callable[[int], Gain]) -> None:
        """Offer differences, and what makes the gain at a place."""
        self.gained += float(apart[apart < 0].sum())
        self.lost += float(apart[apart > 0].sum())
        for heap, order in ((self.better, np.argsort(apart)), (self.worse, np.argsort(-apart))):
            sign = -1 if heap is self.better else 1
            for place in order[:MOST].tolist():
                value = sign * float(apart[place])
                if value <= 0 or (len(heap) == MOST and value <= heap[0][0]):
                    break
                self.seen += 1
                item = value, -self.seen, make(place)
                (heapq.heappush if len(heap) < MOST else heapq.heapreplace)(heap, item)

    def extremes(self) -> Extremes:
        """Order them."""
        return Extremes(
            tuple(gain for *_, gain in sorted(self.better, reverse=True)),
            tuple(gain for *_, gain in sorted(self.worse, reverse=True)),
            self.gained,
            self.lost,
        )


def locate(first: Side, second: Side, level: float = LEVEL, seed: int = 0) -> Where:
    """Say where two runs differ.

    Args:
        first: the run that is the measure, with its tokens (``eval --texts``).
        second: the one that is held against it, likewise.
        level: of the intervals.
        seed: of the bootstrap and the sign flips.

    Raises:
        InputError: when a run has not kept its tokens, or not the same documents.
    """
    for side in (first, second):
        if not any(record.entry for record in side.records):
            raise InputError(
                f"{side.name} has not kept its tokens, which say where models differ; evaluate it "
                "with --texts."
            )
    pairs = [(a, b) for a, b in match(first, second) if a.entry and b.entry]
    counts = Counter(word for a, _ in pairs for word in _words(str((a.entry or {})["text"])))
    kinds, places, words = _Tally(), _Tally(), _Tally()
    documents, spans = _Best(), _Best()
    texts: dict[str, list[float]] = {}
    for a, b in pairs:
        pieces = pair(a, b)
        if not len(pieces):
            continue
        kinds.add(*_named([kind(piece) for piece in pieces.pieces()]), pieces)
        places.add(*_stretches(pieces.places), pieces)
        words.add(*_named(_rarity(pieces, counts)), pieces)
        whole = Gain(a.id, "", "", 1, float(pieces.first.sum()), float(pieces.second.sum()))
        documents.offer(np.array([whole.apart]), [whole].__getitem__)
        spans.offer(pieces.second - pieces.first, partial(_span, a.id, pieces))
        for piece, x, y in zip(pieces.pieces(), pieces.first, pieces.second, strict=True):
            row = texts.setdefault(piece.strip() or piece, [0, 0.0, 0.0])
            row[0] += 1
            row[1] += float(x)
            row[2] += float(y)
    alike = _Best()
    rows = [Gain("", text, "", int(n), x, y) for text, (n, x, y) in texts.items()]
    alike.offer(np.array([row.apart for row in rows]), rows.__getitem__)
    return Where(
        kinds.parts(level, seed),
        places.parts(level, seed, STRETCHES),
        words.parts(level, seed, RARITIES),
        documents.extremes(),
        spans.extremes(),
        alike.extremes(),
    )


def pair(a: Record, b: Record) -> Segments:
    """Cut one document's text where both models' tokens can be cut.

    Raises:
        InputError: when the two kept other texts.
    """
    text, ours = of_entry(a.entry)
    other, theirs = of_entry(b.entry)
    if text != other:
        raise InputError(f"{a.id}: the two runs kept other texts; evaluate both on the same data.")
    return align(text, ours, theirs)


def _named(names: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return list(places), np.array([places[name] for name in names], dtype=np.int64)


def _stretches(places: NDArray[np.int64]) -> tuple[Sequence[str], NDArray[np.int64]]:
    return STRETCHES, np.searchsorted(PLACES, places, side="right") - 1


def _words(text: str) -> Iterable[str]:
    return (found.group().casefold() for found in re.finditer(r"\w+", text))


def _rarity(pieces: Segments, counts: Counter[str]) -> list[str]:
    """Say for each piece how often the word that its first visible character is in occurs."""
    text = pieces.text
    owner = np.full(len(text) + 1, -1, dtype=np.int64)
    found: list[str] = []
    for one in re.finditer(r"\w+", text):
        owner[one.start() : one.end()] = len(found)
        found.append(_often(counts[one.group().casefold()]))
    out = []
    for start, piece in zip(pieces.starts.tolist(), pieces.pieces(), strict=True):
        word = int(owner[start + len(piece) - len(piece.lstrip())]) if piece.strip() else -1
        out.append(found[word] if word >= 0 else RARITIES[-1])
    return out


def _often(count: int) -> str:
    return next((name for most, name in OFTEN if count <= most), RARITIES[-2])


def _span(name: str, pieces: Segments, at: int) -> Gain:
    start, end = int(pieces.starts[at]), int(pieces.ends[at])
    before = pieces.text[max(0, start - AROUND) : start]
    nats = float(pieces.first[at]), float(pieces.second[at])
    return Gain(name, pieces.text[start:end], before, 1, *nats)
