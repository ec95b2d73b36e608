"""Words that a model's vocabulary lacks: how many, what they cost, and perplexity without them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.scores import Score, exp, number, real

COLUMN = "oov"
"""The scorer's column: 1 where the vocabulary lacks the word, else 0."""


@dataclass(frozen=True, slots=True)
class Oov:
    """Sums over scored tokens; additive.

    Attributes:
        tokens: scored tokens that the vocabulary lacks.
        nll: minus the sum of their log-probabilities, nats.
        known: scored tokens that it has.
        known_nll: minus the sum of theirs.
    """

    tokens: int = 0
    nll: float = 0.0
    known: int = 0
    known_nll: float = 0.0

    def __add__(self, other: Oov) -> Oov:
        return Oov(
            self.tokens + other.tokens,
            self.nll + other.nll,
            self.known + other.known,
            self.known_nll + other.known_nll,
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Give the ratios: ``oov_rate`` of tokens, ``perplexity_without_oov`` of the others."""
        both = self.tokens + self.known
        return {
            "oov_rate": self.tokens / both if both else math.nan,
            "perplexity_without_oov": exp(self.known_nll / self.known) if self.known else math.nan,
        }

    def to_json(self) -> dict[str, Any]:
        """Give the sums as plain data; an infinite nll as text."""
        return {
            "tokens": self.tokens, "nll": number(self.nll),
            "known": self.known, "known_nll": number(self.known_nll),
        }  # fmt: skip


def from_json(data: Mapping[str, Any] | None) -> Oov | None:
    """Read back what `Oov.to_json` gave, among other things; None where nothing was written."""
    if data is None:
        return None
    return Oov(data["tokens"], real(data["nll"]), data["known"], real(data["known_nll"]))


def of(score: Score) -> Oov | None:
    """Sum a score's tokens; None where its scorer does not say which are unknown."""
    column = score.extras.get(COLUMN)
    if column is None:
        return None
    done = ~np.isnan(score.logprobs)
    unknown = done & (column > 0)
    known = done & ~unknown
    return Oov(
        int(unknown.sum()),
        -math.fsum(score.logprobs[unknown].tolist()) + 0.0,
        int(known.sum()),
        -math.fsum(score.logprobs[known].tolist()) + 0.0,
    )


def plus(a: Oov | None, b: Oov | None) -> Oov | None:
    """Add what is known."""
    return b if a is None else a if b is None else a + b


def note(item: Oov | None) -> list[str]:
    """Say what unknown words mean for a report's numbers; nothing where there are none."""
    if item is None or not item.tokens:
        return []
    return [
        f"{item.tokens:,} of {item.tokens + item.known:,} tokens ({item.metrics['oov_rate']:.2%}) "
        "are words unknown to the model: <unk> does not spell them, so bits per byte are no length "
        "of a code, and perplexity compares only with that of models of the same vocabulary"
    ]
