"""A corpus in blocks: each is begun ahead, scored, and committed as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fairway import record
from fairway.cache import ScoreCache
from fairway.companions import WANT
from fairway.errors import InputError
from fairway.protocol import Convention
from fairway.record import Record
from fairway.scorer import Scorer

if TYPE_CHECKING:
    from fairway.corpus import Corpus, Document
    from fairway.scores import Score

BLOCK_BYTES = 64 << 10
"""Source bytes after which a block is closed, scored and committed."""
REMEMBERED = 1 << 15
"""Texts whose records a run remembers, so that a repeated text is not scored again."""


@dataclass(slots=True)
class Work:
    """What every block of an evaluation needs.

    Attributes:
        scorer: any scorer.
        like: the convention.
        texts: keep the tokens of every document.
        cache: records of earlier runs.
        overlapping: whether windows overlap.
        corpus: where rows that cannot be scored are counted.
        signature: the scorer's part of it.
        companions: also sum what is reported beside perplexity.
        seen: records of this run by text, the latest `REMEMBERED`.
    """

    scorer: Scorer
    like: Convention
    texts: bool
    cache: ScoreCache | None
    overlapping: bool
    corpus: Corpus
    signature: str
    companions: bool = False
    seen: dict[str, Record] = field(default_factory=dict)

    def remember(self, kept: Record) -> None:
        """Remember a text's record, and forget the oldest."""
        if kept.key not in self.seen:
            if len(self.seen) >= REMEMBERED:
                del self.seen[next(iter(self.seen))]
            self.seen[kept.key] = kept


@dataclass(slots=True)
class Begun:
    """A block that is on its way.

    Attributes:
        documents: of the block.
        known: their records, where the block was committed before.
        keys: hashes of the texts.
        found: records by place in the block that need no scoring.
        missing: places that are scored.
        scores: of those, in order; the scorer is at work on them.
    """

    documents: list[Document]
    known: list[Record] | None = None
    keys: list[str] = field(default_factory=list)
    found: dict[int, Record] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    scores: Iterator[Score] = field(default_factory=lambda: iter(()))


def begin_block(work: Work, block: list[Document]) -> Begun:
    """Find what is known of a block, and set the scorer to work on the rest."""
    keys = [record.key(document) for document in block]
    found = {
        place: replace(hit, id=block[place].id)
        for place, key in enumerate(keys)
        if (hit := _known(work, key)) is not None
    }
    missing = [place for place in range(len(block)) if place not in found]
    scores = work.scorer.score([block[place] for place in missing], _want(work))
    return Begun(block, None, keys, found, missing, scores)


def finish_block(work: Work, begun: Begun) -> tuple[list[Document], list[Record], int]:
    """Wait for a block's scores.

    Returns:
        The documents that could be scored, their records, and the tokens scored afresh.
    """
    block, missing = begun.documents, begun.missing
    made: dict[int, Record] = {}

    def keep(places: Iterable[int], scores: Iterable[Score]) -> None:
        for place, score in zip(places, scores, strict=True):
            made[place] = record.make(
                block[place], score, work.like, work.texts, work.overlapping, begun.keys[place]
            )

    try:
        keep(missing, begun.scores)
    except InputError:
        # One bad row must not lose the others: each is tried by itself.
        made.clear()
        for place in missing:
            try:
                keep([place], work.scorer.score([block[place]], _want(work)))
            except InputError as problem:
                work.corpus.skip(block[place].id, str(problem))
    if work.cache is not None:
        work.cache.put((_name(work, kept.key), kept) for kept in made.values())
    both = {**begun.found, **made}
    places = sorted(both)
    fresh = sum(kept.totals.tokens for kept in made.values())
    return [block[place] for place in places], [both[place] for place in places], fresh


def _want(work: Work) -> tuple[str, ...]:
    window = ("window",) if work.like.aggregate == "published" else ()
    return (*window, *WANT) if work.companions else window


def _name(work: Work, key: str) -> str:
    return ScoreCache.name(work.signature, key, work.texts, work.companions)


def _known(work: Work, key: str) -> Record | None:
    hit = work.seen.get(key)
    if hit is None and work.cache is not None:
        hit = work.cache.get(_name(work, key))
    return hit
