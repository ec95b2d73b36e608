"""What the checks look at: a scorer, some plain documents, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.corpus import Document
from fairway.errors import FairwayError
from fairway.scorer import Scorer
from fairway.scores import Score
from fairway.signature import Signature
from fairway.text import mark

SENTENCES = (
    "Two boats came back before the storm, and the third was towed in at noon.",
    "Heat the milk slowly; when it steams, stir in the oats and a pinch of salt.",
    "x",
    "  The clerk wrote: \"No. 17, paid in full.\"\n\nThen she closed the book. ",
    "Das Mädchen aß 3 Äpfel für 2,50 €.",
    "Кошка спит на окне, а за окном идёт снег.",
    "明日は朝から雨が降るでしょう。",
    "The well was dry. The well was dry. The well was dry, and nobody said so.",
)  # fmt: skip
"""Plain text of several scripts and lengths: what any scorer must take."""
LONG = " ".join(SENTENCES[i % 2] for i in range(8)) + " The last of them left at nine."
FEWEST = 3
"""Of these texts any kind must take so many."""
SOURCE = "The harbour, the kitchen and the office in the morning."
"""What stands before each text where a kind cannot do without."""
HALF = ("bfloat16", "float16", "bf16", "f16", "half")
EXACT = 1e-9
FLOAT_MAX, FLOAT_MEAN = 1e-4, 2e-5
HALF_MAX, HALF_MEAN = 1.0, 0.05
"""Nats per token by which two computations of the same thing may differ, the largest and on
average: rounding of a whole forward pass in that dtype. A kind that names no dtype computes in
float64."""


@dataclass(frozen=True, slots=True)
class Case:
    """A scorer under examination.

    Attributes:
        scorer: it.
        again: loads it afresh; None = that is not possible.
        kind: the name under which it was asked for; None = not known.
        source: whether each document needs a context (``needs_context``, or found out).
        documents: plain ones.
        scores: of these, scored in one call; none where that failed.
        problem: what went wrong then; empty where nothing did.
        refused: why texts were left out.
    """

    scorer: Scorer
    again: Callable[[], Scorer] | None
    kind: str | None
    source: bool
    documents: tuple[Document, ...]
    scores: tuple[Score, ...]
    problem: str = ""
    refused: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """A text of several words that the scorer takes, the first of them."""
        words = [d.text for d in self.documents if len(d.text.split()) > 3]
        return words[0] if words else self.documents[0].text

    def document(self, text: str, name: str = "text", **more: Any) -> Document:
        """Make a document that the scorer's kind can take."""
        if self.source:
            more.setdefault("context", SOURCE)
        return Document(name, text, **more)

    def score(self, *documents: Document, want: Sequence[str] = ()) -> list[Score]:
        """Score documents in one call."""
        return list(self.scorer.score(documents, want))


def prepare(
    scorer: Scorer, again: Callable[[], Scorer] | None = None, kind: str | None = None
) -> Case:
    """Find out whether a context is needed, and score the plain documents.

    Texts that the kind refuses in words, as being too long for it, are left out.
    """
    source = _source(scorer)
    context = SOURCE if source else ""
    texts = (*SENTENCES, LONG)
    documents = tuple(Document(f"plain {i + 1}", t, context) for i, t in enumerate(texts))
    refused: tuple[str, ...] = ()
    try:
        try:
            scores, problem = tuple(scorer.score(documents)), ""
        except FairwayError:
            documents, refused = _taken(scorer, documents)
            if len(documents) < FEWEST:
                raise
            scores, problem = tuple(scorer.score(documents)), ""
    except Exception as caught:  # a scorer under test raises whatever it likes
        scores, problem = (), f"{type(caught).__name__}: {caught}"
    return Case(scorer, again, kind, source, documents, scores, problem, refused)


def _taken(
    scorer: Scorer, documents: Sequence[Document]
) -> tuple[tuple[Document, ...], tuple[str, ...]]:
    """Give the documents that a scorer takes, and why it refuses the others."""
    kept, refused = [], []
    for document in documents:
        try:
            list(scorer.score([document]))
            kept.append(document)
        except FairwayError as problem:
            refused.append(str(problem))
    return tuple(kept), tuple(refused)


def _source(scorer: Scorer) -> bool:
    if getattr(scorer, "needs_context", False):
        return True
    (short,) = (text for text in SENTENCES if len(text) == 1)
    try:
        list(scorer.score([Document("plain", short)]))
    except FairwayError:
        try:
            return bool(list(scorer.score([Document("plain", short, SOURCE)])))
        except Exception:  # then prepare says what is wrong
            return False
    except Exception:  # as above
        return False
    return False


def slack(signature: Signature) -> tuple[float, float]:
    """Give what two computations may differ by, nats per token: the largest and the mean."""
    dtype = signature.get("dtype")
    if signature.get("quant") or dtype in HALF:
        return HALF_MAX, HALF_MEAN
    if dtype in (None, "float64"):
        return EXACT, EXACT
    return FLOAT_MAX, FLOAT_MEAN


def gap(one: Score, other: Score) -> tuple[float, float]:
    """Give the largest and the mean absolute difference of two scores of a text, nats.

    Infinite where they differ in their tokens, or in which of them are scored.
    """
    a, b = one.logprobs, other.logprobs
    if len(a) != len(b) or not np.array_equal(np.isnan(a), np.isnan(b)):
        return float("inf"), float("inf")
    if not np.array_equal(one.offsets, other.offsets):
        return float("inf"), float("inf")
    done = ~np.isnan(a) & ~(a == b)
    if not done.any():
        return 0.0, 0.0
    apart = np.abs(a[done] - b[done])
    return float(apart.max()), float(apart.sum() / len(a))


def far(case: Case, pairs: Sequence[tuple[Score, Score]]) -> tuple[bool, float, str]:
    """Compare scores of the same texts.

    Returns:
        Whether one pair differs by more than rounding, the largest difference (nats), and its
        text.
    """
    largest, mean = slack(case.scorer.signature)
    beyond, worst, text = False, 0.0, ""
    for one, other in pairs:
        high, average = gap(one, other)
        if high > largest or average > mean:
            beyond = True
        if high >= worst:
            worst, text = high, shown(one.text)
    return beyond, worst, text


def nats(value: float) -> str:
    """Say how far two scores are apart."""
    if value == float("inf"):
        return "in their tokens, or in which of them are scored"
    return f"by up to {value:.2g} nats per token"


def shown(text: str) -> str:
    """Give the beginning of a text as a literal that any terminal can print."""
    return ascii(text[:30] + ("..." if len(text) > 30 else ""))


def kept(document: Document, score: Score) -> bool:
    """Whether a score leaves nothing away that was to be scored, but for white space.

    A kind that has no token for the ends of lines may say so by its score's spans.
    """
    if score.scored == document.scored:
        return True
    size = len(document.text)
    asked = mark(((0, size),) if document.scored is None else document.scored, size)
    given = mark(((0, size),) if score.scored is None else score.scored, size)
    left = np.flatnonzero(asked & ~given).tolist()
    return not (given & ~asked).any() and all(document.text[at].isspace() for at in left)
