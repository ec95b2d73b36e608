"""What tokenizers make of texts: how many tokens, of which kind, and whether the text comes back.

Only sums are kept, for each tokenizer and group; ratios are properties of the sums.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.corpus import Document
from fairway.errors import InputError
from fairway.scores import number
from fairway.text import byte_lengths, measure
from fairway.tokenizers.vocabulary import Coded, Vocabulary

BLOCK = 1 << 18
"""Characters that are tokenized at once."""
SHOWN = 24
"""Characters of an example of a changed text."""
UNSPACED = np.array([
    (0x0E00, 0x0E7F), (0x0E80, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF),
    (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF),
])  # fmt: skip
"""Thai, Lao, Tibetan, Burmese, Khmer, kana and Han: scripts without spaces between words."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over texts that one tokenizer has read: additive.

    Attributes:
        texts: read.
        tokens: they became, without special tokens around them.
        bytes: UTF-8 bytes of the texts.
        chars: their Unicode characters.
        words: whitespace-separated words of texts that mostly have spaces between words.
        word_tokens: tokens of those texts.
        single: tokens of one byte.
        fragments: tokens that are no whole characters.
        unknown: tokens that stand for what the vocabulary lacks.
        table: bytes of all tokens, each decoded by itself and encoded again: the wrong count.
        spans: bytes of all tokens' character spans, added up: the other wrong count.
        raw: bytes of all tokens by the vocabulary's own spelling.
        changed: texts that do not come back as they were.
        lost: bytes of characters that are missing in the text that comes back: at least so many
            changed.
        added: bytes of characters that it has beyond the source's.
        written: characters that are no blanks.
        unspaced: of these, those of scripts without spaces.
    """

    texts: int = 0
    tokens: int = 0
    bytes: int = 0
    chars: int = 0
    words: int = 0
    word_tokens: int = 0
    single: int = 0
    fragments: int = 0
    unknown: int = 0
    table: int = 0
    spans: int = 0
    raw: int = 0
    changed: int = 0
    lost: int = 0
    added: int = 0
    written: int = 0
    unspaced: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def ratios(self) -> dict[str, float]:
        """Every ratio of the sums; NaN where it has no meaning.

        ``tokens_per_word`` is of texts that mostly have spaces between words, NaN where at least
        half of the writing has none. ``table_factor`` and ``span_factor`` are the wrong counts of
        bytes over the true one: bits per byte computed with them are divided by that factor.
        """
        spaced = 2 * self.unspaced < self.written
        return {
            "bytes_per_token": _over(self.bytes, self.tokens),
            "chars_per_token": _over(self.chars, self.tokens),
            "tokens_per_word": _over(self.word_tokens, self.words) if spaced else math.nan,
            "single_share": _over(self.single, self.tokens),
            "fragment_share": _over(self.fragments, self.tokens),
            "unknown_share": _over(self.unknown, self.tokens),
            "table_factor": _over(self.table, self.bytes),
            "span_factor": _over(self.spans, self.bytes),
            "raw_factor": _over(self.raw, self.bytes),
            "changed_share": _over(self.changed, self.texts),
            "lost_share": _over(self.lost, self.bytes),
        }


def _over(above: int, below: int) -> float:
    return above / below if below else math.nan


@dataclass(frozen=True, slots=True)
class Change:
    """The first text that does not come back: where, and what became of it there.

    Attributes:
        document: its id.
        position: first character that differs.
        source: characters from there on.
        decoded: likewise of what came back.
    """

    document: str
    position: int
    source: str
    decoded: str


@dataclass(slots=True)
class Audit:
    """What one tokenizer makes of a corpus.

    Attributes:
        vocabulary: the tokenizer.
        groups: sums by group, in the order of their first text.
        used: ids that occur, by group.
        change: the first text that does not come back.
    """

    vocabulary: Vocabulary
    groups: dict[str, Tally] = field(default_factory=dict)
    used: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    change: Change | None = None

    @property
    def total(self) -> Tally:
        """The sums of all groups."""
        return sum(self.groups.values(), start=Tally())

    @property
    def size(self) -> int:
        """Ids of the vocabulary."""
        return len(self.vocabulary.pieces)

    def used_share(self, group: str | None = None) -> float:
        """Give the share of the vocabulary that occurs, in a group or in all."""
        if group is not None:
            return float(self.used[group].mean())
        seen = np.zeros(self.size, dtype=bool)
        for one in self.used.values():
            seen |= one
        return float(seen.mean())

    def premium(self, group: str, reference: str) -> float:
        """Give tokens of a group over those of a reference group: its tokenizer premium.

        Source: Petrov et al. 2023 (arXiv 2305.15425), for texts that are each other's translation.

        Returns:
            NaN where the groups do not hold as many texts, so cannot be translations.
        """
        one, other = self.groups[group], self.groups[reference]
        return _over(one.tokens, other.tokens) if one.texts == other.texts else math.nan


def reference_group(groups: Sequence[str]) -> str:
    """Choose what premiums are measured against: English where a name says so, else the first."""
    for name in groups:
        if {"en", "eng", "english"} & set(
            name.lower().replace("_", ".").replace("-", ".").split(".")
        ):
            return name
    return groups[0]


def audit(
    vocabularies: Sequence[Vocabulary], documents: Iterable[tuple[str, Document]]
) -> list[Audit]:
    """Tokenize a corpus with each of several tokenizers and count.

    Args:
        vocabularies: the tokenizers.
        documents: group and document, read once.

    Raises:
        InputError: when a document holds token ids in place of text, or there is none.
    """
    found = [Audit(one) for one in vocabularies]
    tables = [_Table(one) for one in vocabularies]
    for group, block in _blocks(documents):
        texts = [document.text for document in block]
        sizes = [_sizes(text) for text in texts]
        for item, table in zip(found, tables, strict=True):
            seen = item.used.setdefault(group, np.zeros(item.size, dtype=bool))
            coded = item.vocabulary.encode(texts)
            for document, size, one in zip(block, sizes, coded, strict=True):
                made = size + table.tally(document.text, one, size.words > 0)
                item.groups[group] = item.groups.get(group, Tally()) + made
                seen[one.ids] = True
                if made.changed and item.change is None:
                    item.change = _change(document, one.decoded)
    if not found or not found[0].groups:
        raise InputError("The data hold no text, so there is nothing to tokenize; see --data.")
    return found


def _blocks(documents: Iterable[tuple[str, Document]]) -> Iterable[tuple[str, list[Document]]]:
    """Cut a stream into blocks of one group each."""
    for group, pairs in groupby(documents, key=lambda pair: pair[0]):
        block: list[Document] = []
        held = 0
        for _, document in pairs:
            if document.ids is not None or not document.text:
                raise InputError(
                    f"{document.id} holds no text; what a tokenizer makes of text can only be "
                    "counted where the text is there."
                )
            block.append(document)
            held += len(document.text)
            if held >= BLOCK:
                yield group, block
                block, held = [], 0
        if block:
            yield group, block


def _sizes(text: str) -> Tally:
    """Count what does not depend on a tokenizer."""
    extent = measure(text)
    written = "".join(text.split())
    points = np.frombuffer(written.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    place = np.searchsorted(UNSPACED[:, 0], points, side="right") - 1
    unspaced = int(((place >= 0) & (points <= UNSPACED[place, 1])).sum())
    words = extent.words if 2 * unspaced < len(points) else 0
    return Tally(
        texts=1, bytes=extent.bytes, chars=extent.chars, words=words,
        written=len(points), unspaced=unspaced,
    )  # fmt: skip


class _Table:
    """Facts of single ids, looked up once for each id that occurs."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.known = np.zeros(len(vocabulary.pieces), dtype=bool)
        self.raw = np.array([len(piece) for piece in vocabulary.pieces], dtype=np.int64)
        self.decoded = np.zeros_like(self.raw)
        self.fragment = np.zeros_like(self.known)

    def tally(self, text: str, coded: Coded, spaced: bool) -> Tally:
        """Count the tokens of one text, which has words or not."""
        ids = coded.ids
        for index in np.unique(ids[~self.known[ids]]).tolist():
            self.known[index] = True
            self.decoded[index] = _length(self.vocabulary.decode([index]))
            self.fragment[index] = not _whole(self.vocabulary.pieces[index])
        ends = np.concatenate(([0], np.cumsum(byte_lengths(text))))
        spans = np.clip(coded.offsets, 0, len(text))
        unknown = self.vocabulary.unknown
        lost = added = 0
        if coded.decoded != text:
            before, after = Counter(text), Counter(coded.decoded)
            lost, added = _weight(before - after), _weight(after - before)
        return Tally(
            tokens=len(ids),
            word_tokens=len(ids) if spaced else 0,
            single=int((self.raw[ids] == 1).sum()),
            fragments=int(self.fragment[ids].sum()),
            unknown=0 if unknown is None else int((ids == unknown).sum()),
            table=int(self.decoded[ids].sum()),
            spans=int((ends[spans[:, 1]] - ends[spans[:, 0]]).sum()),
            raw=int(self.raw[ids].sum()),
            changed=int(coded.decoded != text),
            lost=lost,
            added=added,
        )


def _whole(piece: bytes) -> bool:
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _weight(counts: Counter[str]) -> int:
    return sum(_length(char) * count for char, count in counts.items())


def _change(document: Document, decoded: str) -> Change:
    text = document.text
    place = next(
        (i for i, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b),
        min(len(text), len(decoded)),
    )
    return Change(document.id, place, text[place : place + SHOWN], decoded[place : place + SHOWN])


def to_json(
    item: Audit, reference: str | None = None, first: Audit | None = None
) -> dict[str, Any]:
    """Give an audit as plain data.

    Args:
        item: the audit.
        reference: the group that premiums are measured against.
        first: the audit of the tokenizer that the others are measured against.
    """
    parts = [(name, tally, item.used_share(name)) for name, tally in item.groups.items()]
    return {
        "tokenizer": item.vocabulary.name,
        "kind": item.vocabulary.kind,
        "vocabulary": item.size,
        "reference": reference,
        "change": None if item.change is None else {
            f: getattr(item.change, f) for f in ("document", "position", "source", "decoded")
        },
        "total": _plain(item.total, item.used_share(), math.nan, math.nan if first is None
                        else _over(item.total.tokens, first.total.tokens)),
        "groups": {
            name: _plain(
                tally, used,
                math.nan if reference is None else item.premium(name, reference),
                math.nan if first is None else _over(tally.tokens, first.groups[name].tokens),
            )
            for name, tally, used in parts
        },
    }  # fmt: skip


def _plain(tally: Tally, used: float, premium: float, against: float) -> dict[str, Any]:
    return {
        **{f.name: getattr(tally, f.name) for f in fields(tally)},
        **{key: number(value) for key, value in tally.ratios.items()},
        "vocabulary_used": used,
        "premium": number(premium),
        "tokens_over_first": number(against),
    }
