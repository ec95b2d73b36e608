"""LongPPL: perplexity of the tokens for which an evaluator needs the long context.

Source: Fang et al. 2024, "What is wrong with perplexity for long-context language modeling?",
arXiv 2410.23771. The log-probability of a token given the long context is its LCL; the difference
to that given a short one is its LSD. Key tokens have ``LSD > alpha`` and ``LCL > beta``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.corpus import Document
from fairway.longcontext.spans import owned, touching
from fairway.scorer import Scorer
from fairway.scores import Score, Totals, exp, number
from fairway.statistics import Interval, Moments, absence, intervals

ALPHA, BETA = 2.0, -2.0
"""Thresholds of LSD and LCL, nats, as published."""


@dataclass(frozen=True, slots=True)
class Part:
    """Sums over some of the tokens, with intervals; documents are the clusters."""

    totals: Totals
    intervals: dict[str, Interval]
    documents: int

    def to_json(self) -> dict[str, Any]:
        """Give plain data; perplexity is per token."""
        tokens, size = self.totals.tokens, self.totals.bytes
        out: dict[str, Any] = {"tokens": tokens, "bytes": size, "documents": self.documents}
        out["nll"] = number(self.totals.nll)
        out["bits_per_byte"] = number(self.totals.per("bytes") / math.log(2)) if size else None
        out["perplexity"] = number(exp(self.totals.per("tokens"))) if tokens else None
        for name in ("bits_per_byte", "perplexity"):
            one = self.intervals.get(name)
            out[f"{name}_interval"] = None if one is None else [number(one.low), number(one.high)]
        if not self.intervals:
            out["reason"] = absence(self.documents)
        return out


@dataclass(frozen=True, slots=True)
class LongPPL:
    """What the key tokens cost the model under test.

    Attributes:
        evaluator: its name.
        signature: its line; None = it is the model under test.
        short: tokens of the short context, at least; `step` - 1 more at most.
        step: tokens that share a short context.
        alpha: least LSD, nats.
        beta: least LCL, nats.
        key_tokens: tokens of the evaluator that are key.
        candidates: its scored tokens with at least `short` tokens before them.
        scored: all of its scored tokens.
        key: the model's tokens that touch key spans.
        rest: all its others.
        reason: why there is no LongPPL.
    """

    evaluator: str
    signature: str | None
    short: int
    step: int
    alpha: float
    beta: float
    key_tokens: int
    candidates: int
    scored: int
    key: Part
    rest: Part
    reason: str | None = None

    @property
    def value(self) -> float | None:
        """``exp(nll / tokens)`` over the tokens that touch key spans; None where none does."""
        return None if self.reason else exp(self.key.totals.per("tokens"))

    @property
    def interval(self) -> Interval | None:
        """Its interval; None where there is none."""
        return None if self.reason else self.key.intervals.get("perplexity")

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        one = self.interval
        tokens = self.key.totals.tokens + self.rest.totals.tokens
        return {
            "longppl": None if self.value is None else number(self.value),
            "interval": None if one is None else [number(one.low), number(one.high)],
            "reason": self.reason or (None if one else absence(self.key.documents)),
            "evaluator": self.evaluator,
            "evaluator_signature": self.signature,
            "short": self.short,
            "step": self.step,
            "alpha": self.alpha,
            "beta": self.beta,
            "evaluator_key_tokens": self.key_tokens,
            "evaluator_candidates": self.candidates,
            "evaluator_tokens": self.scored,
            "key_token_share": self.key.totals.tokens / tokens if tokens else None,
            "key": self.key.to_json(),
            "rest": self.rest.to_json(),
        }


def shortened(
    scorer: Scorer, scores: Iterable[Score], short: int, step: int
) -> Iterator[NDArray[np.float64]]:
    """Score texts again with a short context.

    Windows advance by `step` tokens; the first `short` of each are only read, so a token has from
    `short` to ``short + step - 1`` tokens of context, behind the scorer's prefix.

    Yields:
        For each text ``(n,)`` log-probabilities, nats; NaN for its first `short` tokens, whose
        short context is their long one.
    """
    kept = list(scores)

    def windows() -> Iterator[Document]:
        for score in kept:
            for begin in range(0, len(score) - short, step):
                ids = score.ids[begin : begin + short + step]
                yield Document(score.id, "", ids=ids, context_ids=short)

    found = iter(scorer.score(windows()))
    for score in kept:
        values = np.full(len(score), np.nan)
        for begin in range(0, len(score) - short, step):
            part = next(found).logprobs
            values[begin + short : begin + short + len(part)] = part
        yield values


def lsd(long: NDArray[np.float64], short: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Give the long-short difference, nats: 0 for the first k tokens, whose contexts are one."""
    with np.errstate(invalid="ignore"):
        apart = long - short
    apart[:k] = np.where(np.isnan(long[:k]), np.nan, 0.0)
    return apart


@dataclass(slots=True)
class KeySums:
    """Sums over key tokens and over the rest, of the documents so far."""

    short: int
    alpha: float = ALPHA
    beta: float = BETA
    key: tuple[Totals, Moments] = field(default_factory=lambda: (Totals(), Moments()))
    rest: tuple[Totals, Moments] = field(default_factory=lambda: (Totals(), Moments()))
    key_tokens: int = 0
    candidates: int = 0
    scored: int = 0

    def spans(self, long: Score, short: NDArray[np.float64]) -> NDArray[np.int64]:
        """Find the key tokens of one document, count them, and give their ``(m, 2)`` spans."""
        apart = lsd(long.logprobs, short, self.short)
        # The first tokens are no candidates, whatever the thresholds: they have one context.
        candidate = ~np.isnan(apart) & (np.arange(len(apart)) >= self.short)
        is_key = candidate & (apart > self.alpha) & (long.logprobs > self.beta)
        self.key_tokens += int(is_key.sum())
        self.candidates += int(candidate.sum())
        self.scored += int((~np.isnan(long.logprobs)).sum())
        return long.offsets[is_key]

    def add(self, score: Score, spans: NDArray[np.int64]) -> None:
        """Add one document of the model under test, split by the key spans."""
        done = ~np.isnan(score.logprobs)
        is_key = touching(score.offsets, spans, len(score.text)) & done
        sizes = owned(score)
        self.key = _plus(self.key, score, is_key, sizes)
        self.rest = _plus(self.rest, score, done & ~is_key, sizes)

    def finish(self, evaluator: Scorer, step: int, own: bool) -> LongPPL:
        """Give LongPPL with its intervals, or why there is none.

        Args:
            evaluator: what found the key tokens.
            step: tokens that share a short context.
            own: whether it is the model under test.
        """
        reason = None
        if not self.key[0].tokens:
            reason = (
                f"no document has a token with {self.short} tokens before it; give a smaller "
                "--short, or longer documents"
            )
            if self.candidates:
                reason = (
                    f"none of {self.candidates:,} tokens is key: long context gives none of them "
                    f"over {self.alpha:g} nats (--alpha) and a log-probability above "
                    f"{self.beta:g} (--beta)"
                )
            if self.key_tokens:
                reason = "no token of the model touches a key span"
        return LongPPL(
            evaluator.signature.get("model") or "",
            None if own else str(evaluator.signature),
            self.short,
            step,
            self.alpha,
            self.beta,
            self.key_tokens,
            self.candidates,
            self.scored,
            _part(self.key),
            _part(self.rest),
            reason,
        )


def _part(sums: tuple[Totals, Moments]) -> Part:
    return Part(sums[0], intervals(sums[1]), sums[1].documents)


def _plus(
    before: tuple[Totals, Moments], score: Score, which: NDArray[np.bool_], sizes: NDArray[np.int64]
) -> tuple[Totals, Moments]:
    tokens = int(which.sum())
    if not tokens:
        return before
    nll = -math.fsum(score.logprobs[which].tolist()) + 0.0
    totals = Totals(nll, tokens, bytes=int(sizes[which].sum()), documents=1)
    return before[0] + totals, before[1] + Moments.of(totals, 0.0)
