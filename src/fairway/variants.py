"""What variants of a model lose against it: the figures that people publish, with their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairway.distributions import Distributions
from fairway.divergence import Divergences, diverge
from fairway.errors import InputError, ModelError
from fairway.evaluation import is_wikitext
from fairway.pairs import Difference, Paired, difference
from fairway.protocol import Convention, prepare
from fairway.scorer import Scorer
from fairway.scores import exp, number
from fairway.statistics import LEVEL, Mean, mean

if TYPE_CHECKING:
    from fairway.corpus import Corpus

KLD_AT = (0.001, 0.01, 0.05, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
DELTA_AT = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
"""Quantiles, as llama.cpp prints them."""
NEAR = 0.01
"""Mean divergence in nats below which a variant counts as near its base: a rule of thumb, between
q6_K (0.0055) and q4_K_M (0.031) in llama.cpp's table for Llama 3 8B."""
CAUTION = (
    "Divergence says how far a variant is from its base, not whether it is worse. Across variants "
    "of all qualities it goes with benchmarks; among near-lossless ones it does not (arXiv "
    "2606.19558: rho 0.00 and -0.24, not significant), so do not rank those by it."
)


@dataclass(frozen=True, slots=True)
class Model:
    """A row of the table, as far as it concerns one model alone.

    Attributes:
        name: what it is called.
        signature: how its log-probabilities were made.
        nll: minus the mean log-probability, nats per token.
        size: bytes of its weights; None = not known.
        bits_per_weight: ``8 size`` over the base's number of weights; NaN = not known.
        tokens_per_second: scored in this run, on this machine.
    """

    name: str
    signature: str
    nll: float
    size: int | None
    bits_per_weight: float
    tokens_per_second: float

    @property
    def perplexity(self) -> float:
        """``exp(nll)``, the ratio of sums whatever the convention's own average is."""
        return exp(self.nll)

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        return {
            "name": self.name,
            "signature": self.signature,
            "perplexity": number(self.perplexity),
            "nll_per_token": number(self.nll),
            "bytes": self.size,
            "bits_per_weight": number(self.bits_per_weight),
            "tokens_per_second": number(self.tokens_per_second),
        }


@dataclass(frozen=True, slots=True)
class Variant:
    """A model against its base.

    Attributes:
        model: the variant.
        base: name of the base.
        ratio: the difference of nats per token, paired by document; its exponential is the ratio
            of the perplexities.
        kld: mean divergence from the base, nats per token.
        kld_at: its quantiles over tokens.
        same_top: share of tokens at which both find the same token likeliest.
        delta_p: mean change of the probability of the text's token.
        delta_p_at: its quantiles over tokens.
        rms_delta_p: root of its mean square.
        outside: largest probability of ids that the other model does not have.
        notes: what must be known.
    """

    model: Model
    base: str
    ratio: Difference
    kld: Mean
    kld_at: Mapping[float, float]
    same_top: Mean
    delta_p: Mean
    delta_p_at: Mapping[float, float]
    rms_delta_p: Mean
    outside: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def near(self) -> bool:
        """Whether it is so near to its base that divergence ranks it no more."""
        return self.kld.value < NEAR

    def sentence(self) -> str:
        """Say what was found, in plain words."""
        one, name = self.ratio, self.model.name
        change = math.expm1(one.value)
        if self.kld.value == 0:
            return f"{name} computes the same distributions as {self.base}."
        top = f"It finds another token likeliest at {1 - self.same_top.value:.2%} of the tokens"
        if math.isnan(one.low):
            return (
                f"{name} has a perplexity {change:+.2%} from {self.base}'s on one document, from "
                f"which nothing follows for others. {top}."
            )
        span = f"{one.level:.0%} {math.expm1(one.low):+.2%} to {math.expm1(one.high):+.2%}"
        if not one.real and min(one.p_t, one.p_flip) < 1 - one.level:
            said = (
                f"{name}'s perplexity is {change:+.2%} from {self.base}'s ({span}), and the two "
                f"tests disagree on {one.documents:,} documents (paired t p = {one.p_t:.2g}, sign "
                f"flips p = {one.p_flip:.2g})."
            )
        elif not one.real:
            said = (
                f"{name}'s perplexity cannot be told apart from {self.base}'s ({change:+.2%}, "
                f"{span})."
            )
        else:
            said = (
                f"{name} has a {'higher' if change > 0 else 'lower'} perplexity than {self.base}: "
                f"{change:+.2%} ({span})."
            )
        near = ", and is so near that divergence does not rank it" if self.near else ""
        return f"{said} {top}{near}."

    def to_json(self) -> dict[str, Any]:
        """Give plain data; probabilities as shares, not percent."""
        one = self.ratio
        return {
            **self.model.to_json(),
            "perplexity_ratio": number(exp(one.value)),
            "perplexity_ratio_low": number(exp(one.low)),
            "perplexity_ratio_high": number(exp(one.high)),
            "ln_perplexity_ratio": number(one.value),
            "ln_perplexity_ratio_standard_error": number(one.error),
            "p_t": one.p_t,
            "p_sign_flip": one.p_flip,
            "kld": _plain(self.kld) | {"quantiles": _quantiles(self.kld_at)},
            "same_top": _plain(self.same_top),
            "delta_p": _plain(self.delta_p) | {"quantiles": _quantiles(self.delta_p_at)},
            "rms_delta_p": _plain(self.rms_delta_p),
            "outside_vocabulary": number(self.outside),
            "near_lossless": self.near,
            "sentence": self.sentence(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Table:
    """Variants against one base, on the same tokens.

    Attributes:
        base: the model that is the measure.
        variants: in the order in which they were given.
        data: name of the corpus.
        digest: of the corpus.
        documents: with scored tokens.
        tokens: scored.
        level: of intervals.
        notes: what must be known.
    """

    base: Model
    variants: tuple[Variant, ...]
    data: str
    digest: str
    documents: int
    tokens: int
    level: float = LEVEL
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        return {
            "base": self.base.to_json(),
            "variants": [one.to_json() for one in self.variants],
            "data": self.data,
            "digest": self.digest,
            "documents": self.documents,
            "tokens": self.tokens,
            "level": self.level,
            "caution": CAUTION,
            "notes": list(self.notes),
        }


def _plain(one: Mean) -> dict[str, Any]:
    return {
        "value": number(one.value),
        "standard_error": number(one.error),
        "low": number(one.low),
        "high": number(one.high),
    }


def _quantiles(values: Mapping[float, float]) -> dict[str, Any]:
    return {f"{at:g}": number(value) for at, value in values.items()}


def quantiles(values: NDArray[np.float64], at: Sequence[float]) -> dict[float, float]:
    """Give quantiles with linear interpolation, as numpy and llama.cpp do; infinity allowed."""
    ordered = np.sort(values)
    out = {}
    for share in at:
        place = share * (len(ordered) - 1)
        low = int(place)
        rest = place - low
        lower = float(ordered[low])
        out[share] = lower + rest * (float(ordered[low + 1]) - lower) if rest else lower
    return out


def summarize(
    found: Divergences, model: Model, base: str, level: float = LEVEL, seed: int = 0
) -> Variant:
    """Compute a variant's figures, with the document as the sampling unit.

    The error of the root mean square is the mean square's over twice the root (the delta method,
    as llama.cpp has it).

    Args:
        found: both models at each token.
        model: the variant.
        base: name of the base.
        level: of intervals.
        seed: of random sign flips.
    """
    _, which = np.unique(found.document, return_inverse=True)
    counts = np.bincount(which)

    def sums(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(which, values, len(counts)).astype(np.float64)

    delta = np.exp(found.variant) - np.exp(found.base)
    square = mean(sums(delta * delta), counts, level)
    rms = math.sqrt(square.value)
    half = 0.5 / rms if rms else math.nan
    error = half * square.error
    reach = half * (square.high - square.value)
    paired = Paired(sums(-found.base), sums(-found.variant), counts)
    return Variant(
        model,
        base,
        difference(paired, level, seed),
        _within(mean(sums(found.kld), counts, level), 0.0, math.inf),
        quantiles(found.kld, KLD_AT),
        _within(mean(sums(found.same), counts, level), 0.0, 1.0),
        mean(sums(delta), counts, level),
        quantiles(delta, DELTA_AT),
        _within(Mean(rms, error, rms - reach, rms + reach), 0.0, 1.0),
        found.outside,
    )


def _within(one: Mean, least: float, most: float) -> Mean:
    """Keep an interval to what the figure can be; NaN stays."""
    if math.isnan(one.low):
        return one
    return one._replace(low=max(least, one.low), high=min(most, one.high))


def describe(
    scorer: Scorer, name: str, nll: float, tokens: int, seconds: float, weights: int | None
) -> Model:
    """Describe a model that has been walked.

    Args:
        scorer: the model.
        name: what it is called.
        nll: nats per token.
        tokens: scored.
        seconds: it took.
        weights: the base's number of weights; None = not known.
    """
    stored = getattr(scorer, "stored", None)
    size = stored[0] if stored else None
    bits = 8 * size / weights if size and weights else math.nan
    speed = tokens / seconds if seconds else math.nan
    return Model(name, str(scorer.signature), nll, size, bits, speed)


def tabulate(
    base: tuple[str, Scorer],
    variants: Sequence[tuple[str, Callable[[], Scorer]]],
    read: Callable[[], Corpus],
    like: Convention,
    *,
    level: float = LEVEL,
    seed: int = 0,
    progress: Callable[[Distributions, float], None] | None = None,
) -> Table:
    """Hold any number of variants against a base, one after the other.

    The base is walked again with each variant, so that two models are in memory at a time.

    Args:
        base: name and scorer of the measure.
        variants: of each the name, and what loads it.
        read: opens the corpus; called for each variant.
        like: the convention that the scorers were loaded with.
        level: of intervals.
        seed: of random sign flips.
        progress: called with each block, and the seconds that both models took for it.

    Raises:
        InputError: when tokenizers or the scored tokens differ, or nothing is scored.
        ProtocolError: when windows or prefix differ.
        ModelError: when a model cannot be loaded, or gives what is no number; it names the model.
    """
    name, measure = base
    weights = (getattr(measure, "stored", None) or (0, 0))[1] or None
    notes = [f"{name}: {note}" for note in getattr(measure, "notes", ())]
    if like.aggregate != "ratio":
        notes.append(f"perplexities are ratios of sums, and not the average that {like.name} has")
    rows: list[Variant] = []
    seconds = tokens = 0.0
    first: tuple[Divergences, Corpus] | None = None
    for called, load in variants:
        try:
            scorer = load()
        except ModelError as problem:
            raise ModelError(f"{called}: {problem}") from None
        corpus = read()
        documents = prepare(like, corpus, is_wikitext(corpus))
        found = diverge(measure, scorer, documents, names=(name, called), progress=progress)
        if first is not None and first[1].digest != corpus.digest:
            raise InputError("The data changed between two variants; give the command again.")
        first = first or (found, corpus)
        seconds, tokens = seconds + found.seconds[0], tokens + len(found)
        nll = -float(np.mean(found.variant))
        model = describe(scorer, called, nll, len(found), found.seconds[1], weights)
        more = tuple(getattr(scorer, "notes", ()))
        rows.append(replace(summarize(found, model, name, level, seed), notes=more))
        del scorer
    assert first is not None
    kept, corpus = first
    nll = -float(np.mean(kept.base))
    return Table(
        describe(measure, name, nll, int(tokens), seconds, weights),
        tuple(rows),
        corpus.name,
        corpus.digest,
        len(np.unique(kept.document)),
        len(kept),
        level,
        tuple(notes),
    )
