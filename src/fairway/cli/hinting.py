"""A hint after a long run: what a faster dtype would gain and cost, tried on its own documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fairway.errors import FairwayError

if TYPE_CHECKING:
    from fairway.corpus import Corpus, Document
    from fairway.evaluation import Progress

LONG = 30.0
"""Seconds of scoring from which on a hint is worth its cost."""
DOCUMENTS, CHARACTERS = 16, 8_000
"""Of the first documents, at most so many and so much."""


@dataclass(slots=True)
class Sample:
    """The first documents of a run, and how long it took.

    Attributes:
        documents: the first ones, of moderate length.
        seconds: spent on scoring.
        tokens: scored by the model.
    """

    documents: list[Document] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0

    def watch(self, corpus: Corpus) -> None:
        """Keep the first documents that a corpus gives, where none are kept yet."""
        if self.documents:
            return
        from fairway.corpus import Document

        start = corpus.open

        def opened(which: Corpus) -> Iterator[Any]:
            held = 0
            for item in start(which):
                room = len(self.documents) < DOCUMENTS
                if room and isinstance(item, Document) and held + len(item.text) <= CHARACTERS:
                    held += len(item.text)
                    self.documents.append(item)
                yield item

        corpus.open = opened

    def clock(self, show: Callable[[Progress], None] | None) -> Callable[[Progress], None]:
        """Note how long a run takes, on the way to its progress bar."""

        def noted(state: Progress) -> None:
            self.seconds, self.tokens = state.seconds, state.fresh
            if show is not None:
                show(state)

        return noted


def hint(scorer: Any, sample: Sample) -> str | None:
    """Say what bfloat16 would gain and cost; None where it gains nothing or the run was short.

    Args:
        scorer: of the run; it is spent afterwards.
        sample: of the run's documents.
    """
    tried = getattr(scorer, "trial", None)
    if tried is None or sample.seconds < LONG or not sample.tokens or not sample.documents:
        return None
    try:
        found = tried(sample.documents)
    except FairwayError:
        return None
    if found is None or found.speedup < 1.1:
        return None
    return (
        f"hint: --dtype bfloat16 would be {found.speedup:.1f} times as fast here. On "
        f"{found.documents} of these documents ({found.tokens:,} tokens) it moves the result by "
        f"{found.difference:+.1g} nats per token, and one document by up to {found.worst:.1g}."
    )
