"""The scorer of n-gram models: a row for each word, and one for each sentence's end."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fairway.backends.ngram.lines import Cut, Line, cut, encode, join, spell
from fairway.corpus import Document
from fairway.corpus import cut as groups
from fairway.errors import InputError, ModelError
from fairway.scores import Score
from fairway.signature import Signature
from fairway.text import mark

GROUP_BYTES = 64 << 10
"""Bytes of documents that are scored together."""
LN10 = math.log(10)
SEGMENTS = ("lines", "document")
BLANKS = ("scored", "skip")
UNLISTED = "the model lists no <unk>: an unknown word has the log-probability -100 to base 10"
HIGHEST = 0.05
"""A log10 above which a number is no probability, however its parts were rounded."""


class Model(Protocol):
    """What gives probabilities of words.

    Attributes:
        order: words in the longest n-gram.
    """

    @property
    def order(self) -> int: ...

    def score_lines(
        self, lines: Sequence[bytes], bos: bool, eos: bool, before: bytes | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Score sentences.

        Args:
            lines: UTF-8 words, ASCII white space between them, no NUL.
            bos: each sentence has ``<s>`` before it.
            eos: each sentence has ``</s>`` behind it, which is scored.
            before: words that stand before the first sentence's, in the same sentence, and are
                not scored.

        Returns:
            For all words of all sentences in order, and each sentence's ``</s>`` where it is
            scored: ``(n,)`` logarithms to base 10, and whether the vocabulary lacks the word.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rule:
    """What is a sentence, and what of it is scored.

    Attributes:
        bos: ``<s>`` stands before each sentence, as context.
        eos: ``</s>`` is scored at each sentence's end.
        segment: ``lines`` or ``document``.
        blank: ``scored`` or ``skip``: what becomes of lines without words.
    """

    bos: bool = True
    eos: bool = True
    segment: str = "lines"
    blank: str = "scored"

    def fields(self) -> dict[str, str | None]:
        """Give what a signature says of it."""
        return {
            "eos": "scored" if self.eos else "no",
            "segment": self.segment,
            "bos": None if self.bos else "no",
            "blank": None if self.blank == "scored" or not self.eos else self.blank,
        }


def rule(bos: bool | str, eos: bool | str, segment: str, blank: str) -> Rule:
    """Read settings as the command line gives them.

    Raises:
        InputError: for a value that there is none of.
    """
    if segment not in SEGMENTS:
        raise InputError(f"segment={segment} is neither lines nor document.")
    if blank not in BLANKS:
        raise InputError(f"blank={blank} is neither scored nor skip.")
    return Rule(_flag("bos", bos), _flag("eos", eos), segment, blank)


def _flag(name: str, value: bool | str) -> bool:
    if isinstance(value, bool):
        return value
    if value not in ("yes", "no"):
        raise InputError(f"{name}={value} is neither yes nor no.")
    return value == "yes"


@dataclass(slots=True)
class NgramScorer:
    """Scores documents with an n-gram model.

    Attributes:
        model: what gives probabilities.
        signature: the model's and the rule's part.
        rule: what is a sentence, and what of it is scored.
        cut: makes sentences of a text; None = as KenLM does, by the rule.
        notes: what the run must say.
    """

    model: Model
    signature: Signature
    rule: Rule = field(default_factory=Rule)
    cut: Callable[[str], list[Line]] | None = None
    notes: list[str] = field(default_factory=list)

    columns = ("oov",)
    """Filled in any case."""

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        """Score documents in their order; see `fairway.scorer.Scorer`.

        Raises:
            InputError: for a document of token ids, chat messages or windows of its own, for a
                text with half of a surrogate pair, and for a wanted column that there is none of.
        """
        for name in want:
            if name not in self.columns:
                raise InputError(f"There is no column {name!r}; n-gram models fill oov.")
        for group in groups(documents, GROUP_BYTES):
            try:
                scores = self._group(group)
            except InputError:
                # One text that cannot be read must not hide those before it.
                for document in group:
                    yield from self._group([document])
            else:
                yield from scores

    def _group(self, documents: Sequence[Document]) -> list[Score]:
        befores = []
        for document in documents:
            _check(document)
            befores.append(self._before(document.context))
        if len(documents) > 1 and any(befores):
            return [score for document in documents for score in self._group([document])]
        before = befores[0]
        made = self._cut([document.text for document in documents])
        lines, offsets, bounds = made.lines, made.offsets, made.bounds
        kept = self._kept(made, before)
        if kept is not None:
            if self.rule.eos:
                first = bool(before and lines)
                lines = lines[:first] + [line for line in lines[first:] if line.split()]
            offsets = offsets[kept]
            bounds = np.concatenate(([0], np.cumsum(kept)))[bounds]
        log10, oov = self.model.score_lines(lines, self.rule.bos, self.rule.eos, before)
        self._sound(log10)
        logprobs, ids, unknown = log10 * LN10, np.full(len(log10), -1), oov.astype(np.float64)
        scores = []
        edges = bounds.tolist()
        for number, document in enumerate(documents):
            span = slice(edges[number], edges[number + 1])
            scored = document.scored
            if kept is not None:
                rows = slice(made.bounds[number], made.bounds[number + 1])
                dropped = made.offsets[rows][~kept[rows]]
                scored = _without(scored, dropped, len(document.text))
            score = Score(
                document.id,
                document.text,
                offsets[span],
                logprobs[span],
                ids[span],
                scored,
                lossy=made.lossy[number],
                extras={"oov": unknown[span]},
                metadata=document.metadata,
                unit="word",
            )
            if document.scored is not None:
                score.logprobs[~score.wanted] = np.nan
            scores.append(score)
        return scores

    def _kept(self, made: Cut, before: bytes | None) -> NDArray[np.bool_] | None:
        """Say which rows are scored; None = all."""
        if not self.rule.eos:
            return ~made.ends
        if self.rule.blank == "scored":
            return None
        # A sentence's end right behind another's, or at the start, ends no word.
        return ~(made.ends & np.concatenate(([not before], made.ends[:-1]))[: len(made.ends)])

    def _sound(self, log10: NDArray[np.float64]) -> None:
        """Refuse what is no probability.

        Raises:
            ModelError: for a number above 1, or none.
        """
        if len(log10) and not log10.max() <= HIGHEST:
            raise ModelError(
                f"{self.signature.get('model')} gives a word the log-probability "
                f"{log10.max():.3g} to base 10, which is none; its file is damaged."
            )

    def _cut(self, texts: Sequence[str]) -> Cut:
        if self.cut is None:
            return cut(texts, self.rule.segment)
        return join([self.cut(text) for text in texts])

    def _before(self, context: str) -> bytes | None:
        """Give the words of the sentence that a context leaves open."""
        if not context or (self.rule.segment == "lines" and context.endswith("\n")):
            return None
        if self.cut is not None:
            made = self.cut(context)
            return b" ".join(spell(encode(word)) for word in made[-1].words) if made else None
        line = context if self.rule.segment == "document" else context.rpartition("\n")[2]
        return b" ".join(spell(word) for word in encode(line).split())


def _without(
    scored: tuple[tuple[int, int], ...] | None, dropped: NDArray[np.int64], length: int
) -> tuple[tuple[int, int], ...]:
    """Take characters away from those that are scored."""
    inside = mark(((0, length),) if scored is None else scored, length) & ~mark(dropped, length)
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False)).reshape(-1, 2)
    return tuple((int(a), int(b)) for a, b in edges)


def _check(document: Document) -> None:
    """Refuse what an n-gram model cannot read."""
    problem: Any = None
    if document.ids is not None:
        problem = "token ids, and an n-gram model reads words"
    elif document.windows is not None:
        problem = "windows of its own, and an n-gram model has none"
    elif "messages" in document.metadata and not document.text:
        problem = "chat messages, and an n-gram model has no template for them"
    if problem:
        raise InputError(f"The document holds {problem}; give its text.")
