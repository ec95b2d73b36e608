"""How much of a difference in perplexity is the tokenizer's, and how much the model's.

Nats per token are ``l = b f``: b nats per byte times f bytes per token. Two models of the same
``l`` have the same perplexity, and the one with longer tokens needs fewer bits for the text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fairway.errors import InputError
from fairway.scores import Totals, exp, number

LN2 = math.log(2)
TINY = 1e-9
"""Nats per token below which a difference has no shares."""


def reference_perplexity(totals: Totals, tokens: int, size: int | None = None) -> float:
    """Give the perplexity as if the text were cut into another tokenizer's tokens.

    It is ``exp(nll / tokens)``: bits per byte on the scale of a perplexity, so it may be compared
    across tokenizers as those may (Taylor and McCoy 2025 rescale by the ratio of counts, which is
    the same).

    Args:
        totals: what a model gave for the text.
        tokens: tokens of the other tokenizer.
        size: bytes that those tokens stand for; None = the bytes that were scored.

    Returns:
        NaN where nothing was counted.
    """
    if not tokens or not totals.bytes:
        return math.nan
    return exp(totals.nll / tokens * ((totals.bytes if size is None else size) / totals.bytes))


@dataclass(frozen=True, slots=True)
class Split:
    """The difference of two models' nats per token, in two parts that add up to it.

    Attributes:
        first: sums of the model that is the measure.
        second: sums of the other, on the same text.
        tokenizer: nats per token from other bytes per token, at the mean bits per byte.
        model: nats per token from other bits per byte, at the mean bytes per token.
    """

    first: Totals
    second: Totals
    tokenizer: float
    model: float

    @property
    def loss(self) -> float:
        """The difference of nats per token, which is that of ln perplexity."""
        return self.second.per("tokens") - self.first.per("tokens")

    @property
    def share(self) -> float:
        """The tokenizer's share; NaN where nothing differs, outside [0, 1] where parts oppose."""
        return self.tokenizer / self.loss if abs(self.loss) > TINY else math.nan

    @property
    def as_first(self) -> float:
        """The second model's perplexity as if tokenized by the first."""
        return reference_perplexity(self.second, self.first.tokens, self.first.bytes)

    def sentence(self, first: str, second: str) -> str:
        """Say it in plain words.

        Args:
            first: what the measure is called.
            second: what the other is called.
        """
        before, after = (exp(side.per("tokens")) for side in (self.first, self.second))
        lengths, bits = (
            f"{self.second.bytes / self.second.tokens:.4g} against "
            f"{self.first.bytes / self.first.tokens:.4g} bytes per token",
            f"{self.second.per('bytes') / LN2:.4g} against "
            f"{self.first.per('bytes') / LN2:.4g} bits per byte",
        )
        lead = f"perplexity {after:.4g} of {second} against {before:.4g} of {first}"
        if self.tokenizer * self.model >= 0 and abs(self.loss) > TINY:
            return (
                f"{lead}: of the difference of {abs(after - before):.4g}, {self.share:.0%} is the "
                f"tokenizer's ({lengths}) and {1 - self.share:.0%} the model's ({bits})."
            )
        if abs(self.tokenizer) + abs(self.model) <= TINY:
            return f"{lead}: no difference, in bits per byte neither."
        same = " the same" if abs(self.loss) < 0.01 else ""
        return (
            f"{lead}:{same and ' nearly' + same + ', since'} two opposed parts"
            f"{' cancel' if same else ''}: the tokenizer alone would make it "
            f"{exp(self.tokenizer):.4g} times ({lengths}), the model alone {exp(self.model):.4g} "
            f"times ({bits})."
        )

    def to_json(self) -> dict[str, Any]:
        """Give plain data; parts in nats per token."""
        return {
            "perplexity": [number(exp(s.per("tokens"))) for s in (self.first, self.second)],
            "bits_per_byte": [number(s.per("bytes") / LN2) for s in (self.first, self.second)],
            "bytes_per_token": [s.bytes / s.tokens for s in (self.first, self.second)],
            "perplexity_as_first": number(self.as_first),
            "nats_per_token": {
                "difference": number(self.loss),
                "tokenizer": number(self.tokenizer),
                "model": number(self.model),
            },
            "tokenizer_share": number(self.share),
        }


def split(first: Totals, second: Totals) -> Split:
    """Split the difference of two models' ln perplexity into the tokenizer's and the model's part.

    With b nats per byte and f bytes per token, ``b2 f2 - b1 f1`` is
    ``(b1 + b2)/2 (f2 - f1) + (f1 + f2)/2 (b2 - b1)``: the Shapley values of two factors, which
    do not depend on the order in which they are changed.

    Raises:
        InputError: when one of them scored no token or no byte, or holds an infinite nll.
    """
    for side in (first, second):
        if not side.tokens or not side.bytes or not math.isfinite(side.nll):
            raise InputError(
                "A perplexity can be split only where tokens and bytes were scored and no token "
                "has probability zero."
            )
    b1, b2 = first.per("bytes"), second.per("bytes")
    f1, f2 = first.bytes / first.tokens, second.bytes / second.tokens
    return Split(first, second, (b1 + b2) / 2 * (f2 - f1), (f1 + f2) / 2 * (b2 - b1))
