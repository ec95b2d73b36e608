"""The probability of a text over all its tokenizations, by importance sampling.

A model gives a probability to each way of cutting a text into tokens; the text's own is their sum,
and the canonical tokenization's alone is a lower bound of it, so its bits are an upper bound.
Sources: Cao and Rimell 2021 (EMNLP); Chirkova et al. 2023 (arXiv 2306.17757).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairway.corpus import Document
from fairway.errors import InputError, ProtocolError
from fairway.scorer import Scorer
from fairway.scores import number
from fairway.tokenizers.lattice import (
    Lattice,
    Proposal,
    Tokenization,
    Weights,
    build,
    flat,
    propose,
)
from fairway.tokenizers.vocabulary import Vocabulary

LN2 = math.log(2)
PENALTY = 2.0
"""Nats by which the part of the proposal that does not ask the model weighs each further token."""
SHARPNESS = (1.0, 0.5)
"""Powers of the model's own probabilities in the other parts of the proposal."""
ENUMERATED = 1000
"""Tokenizations up to which all of them are scored."""
FEW = 10.0
"""Effective samples below which the error cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Marginal:
    """Bits of a text over all its tokenizations.

    Attributes:
        text: the text.
        canonical_bits: of the tokenizer's own tokenization: an upper bound.
        bits: estimate of ``-log2`` of the sum over all; never above the canonical bits.
        standard_error: Monte Carlo error of it, bits.
        samples: tokenizations drawn beside the canonical one; 0 where there is no other.
        effective: effective number of them, ``(sum w)^2 / sum w^2``; NaN without samples.
        tokenizations: how many there are.
        exact_bits: by scoring all of them, where they are few.
        seed: of the draws.
    """

    text: str
    canonical_bits: float
    bits: float
    standard_error: float
    samples: int
    effective: float
    tokenizations: int
    exact_bits: float | None
    seed: int

    @property
    def gap(self) -> float:
        """Canonical bits above the marginal's, as a share of these; NaN where they are zero."""
        return self.canonical_bits / self.bits - 1 if self.bits else math.nan

    @property
    def trusted(self) -> bool:
        """Whether enough samples carry the estimate for its error to mean something."""
        return not self.samples or self.effective >= FEW

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        size = len(self.text.encode("utf-8", "surrogatepass"))
        return {
            "text": self.text,
            "bytes": size,
            "canonical_bits": number(self.canonical_bits),
            "marginal_bits": number(self.bits),
            "standard_error_bits": number(self.standard_error),
            "gap": number(self.gap),
            "samples": self.samples,
            "effective_samples": number(self.effective),
            "tokenizations": self.tokenizations if self.tokenizations < 1 << 53 else None,
            "log10_tokenizations": math.log10(self.tokenizations),
            "exact_bits": None if self.exact_bits is None else number(self.exact_bits),
            "seed": self.seed,
        }


def marginal(
    scorer: Scorer, text: str, samples: int = 256, seed: int = 0, enumerated: int = ENUMERATED
) -> Marginal:
    """Estimate the probability of a short text over all its tokenizations.

    The canonical tokenization is scored as it is; the sum of all others is estimated with draws
    from a mixture of lattice proposals (see `mixture`), each weighed by the model's probability
    over the mixture's. The error is the delta method's: ``SE(mean w) / (p ln 2)``.

    Args:
        scorer: a model whose vocabulary is known, with a prefix, so that every token is scored.
        text: the text; every one of its tokenizations must fit into one window.
        samples: draws.
        seed: of the draws.
        enumerated: tokenizations up to which all are scored, for the exact value.

    Raises:
        InputError: when the text is empty, the tokenizer changes it, or the scorer has no
            vocabulary.
        ProtocolError: when the text does not fit into a window, or its first token is not scored.
    """
    if not text:
        raise InputError("The text is empty; give one with at least a character.")
    if samples < 2:
        raise InputError(f"--samples {samples} is too few for an error; give 2 or more.")
    vocabulary: Vocabulary | None = getattr(scorer, "vocabulary", None)
    if vocabulary is None:
        raise InputError("This kind of model does not tell its vocabulary; use an hf: model.")
    lattice = lay(vocabulary, text)
    length = scorer.signature.get("length")
    if length is not None and length.isdigit() and lattice.size + 1 > int(length):
        raise ProtocolError(
            f"The text has {lattice.size} bytes, and as many tokens in its longest tokenization; "
            f"with the prefix that exceeds a window of {length} tokens. Give a shorter text."
        )
    count = lattice.count()
    wanted = {lattice.canonical}
    drawn: list[Tokenization] = []
    parts: list[Proposal] = []
    if count > 1:
        parts = mixture(lattice, guide(scorer, lattice))
        generator = np.random.default_rng(seed)
        drawn = [parts[int(generator.integers(len(parts)))].draw(generator) for _ in range(samples)]
        wanted.update(drawn)
    if count <= enumerated:
        wanted.update(lattice.all())
    scored = score(scorer, vocabulary, text, wanted)
    own = scored[lattice.canonical]
    if not math.isfinite(own):
        raise ProtocolError("The model gives the text's own tokenization no probability.")
    weights = np.zeros(len(drawn))
    known: dict[Tokenization, float] = {}
    for place, ids in enumerate(drawn):
        if ids not in known:
            known[ids] = math.exp(scored[ids] - own - density(parts, ids))
        weights[place] = known[ids]
    others, error, effective = 0.0, 0.0, math.nan
    if len(drawn):
        others = math.fsum(weights) / len(weights)
        error = float(np.std(weights, ddof=1)) / math.sqrt(len(weights))
        squares = float((weights**2).sum())
        effective = float(weights.sum()) ** 2 / squares if squares else 0.0
    exact = None
    if count <= enumerated:
        kept = [value for value in scored.values() if value > -math.inf]
        count = len(kept)
        top = max(kept)
        exact = -(top + math.log(math.fsum(math.exp(value - top) for value in kept))) / LN2
    return Marginal(
        text,
        -own / LN2,
        -(own + math.log1p(others)) / LN2,
        error / ((1 + others) * LN2),
        len(drawn),
        effective,
        count,
        exact,
        seed,
    )


def lay(vocabulary: Vocabulary, text: str) -> Lattice:
    """Lay out the tokenizations that may decode to a text.

    Raises:
        InputError: when the tokenizer changes the text.
    """
    coded = vocabulary.encode([text])[0]
    canonical = coded.ids.tolist()
    pieces = vocabulary.pieces
    spelled = b"".join(pieces[index] for index in canonical)
    plain = text.encode("utf-8", "surrogatepass")
    if coded.decoded != text or spelled not in (plain, b" " + plain):
        raise InputError(
            f"{vocabulary.name} does not give this text back from its tokens byte for byte, so the "
            "tokenizations of it cannot be told; try another text or tokenizer."
        )
    # Where the tokenizer writes a blank in front, tokens without it decode to the text as well.
    dummy = spelled != plain and not text.startswith(" ")
    return build(spelled, pieces, canonical, (0, 1) if dummy else (0,))


def guide(scorer: Scorer, lattice: Lattice) -> Weights:
    """Weigh each token by the model, after the likeliest tokenization of what stands before it.

    One call of the model for each position.

    Returns:
        ln of its conditional probabilities.

    Raises:
        ProtocolError: when a first token is not scored.
    """
    best: list[Tokenization] = [()] * (lattice.size + 1)
    reached = np.full(lattice.size + 1, -math.inf)
    reached[list(lattice.starts)] = 0.0
    out = []
    for place in range(lattice.size):
        found = [(*best[place], index) for index in lattice.ids[place].tolist()]
        logs = np.array([one[-1] for one in logprobs(scorer, found)])
        out.append(logs)
        for end, ids, log in zip(lattice.ends[place].tolist(), found, logs.tolist(), strict=True):
            if reached[place] + log > reached[end]:
                reached[end] = reached[place] + log
                best[end] = ids
    return tuple(out)


def mixture(lattice: Lattice, guided: Weights) -> list[Proposal]:
    """Make the proposals that are drawn from in equal parts.

    Two follow the model's probabilities, one of them less closely; the third knows only that few
    tokens are likelier than many, so that no tokenization is out of reach.
    """
    return [
        *(propose(lattice, tuple(power * logs for logs in guided)) for power in SHARPNESS),
        propose(lattice, flat(lattice, PENALTY)),
    ]


def density(parts: list[Proposal], ids: Tokenization) -> float:
    """Give ln of the probability of a tokenization in the mixture."""
    logs = [part.logprob(ids) for part in parts]
    return float(np.logaddexp.reduce(logs)) - math.log(len(parts))


def score(
    scorer: Scorer, vocabulary: Vocabulary, text: str, wanted: Iterable[Tokenization]
) -> dict[Tokenization, float]:
    """Give ln of the model's probability of tokenizations; minus infinity where one decodes to
    another text.

    Raises:
        ProtocolError: when a first token is not scored.
    """
    order = sorted(wanted)
    kept = [ids for ids in order if vocabulary.decode(ids) == text]
    out = dict.fromkeys(order, -math.inf)
    for ids, found in zip(kept, logprobs(scorer, kept), strict=True):
        out[ids] = math.fsum(found)
    return out


def logprobs(scorer: Scorer, wanted: Sequence[Tokenization]) -> Iterator[list[float]]:
    """Give ln of the probability of every token of sequences of ids.

    Raises:
        ProtocolError: when a first token is not scored.
    """
    documents = [Document("ids", "", ids=np.asarray(ids, dtype=np.int64)) for ids in wanted]
    for ids, found in zip(wanted, scorer.score(documents), strict=True):
        if len(found) != len(ids) or bool(np.isnan(found.logprobs).any()):
            raise ProtocolError(
                "Not every token of the text is scored, so its probability is not known; use a "
                "prefix (--prefix bos or eos)."
            )
        yield found.logprobs.tolist()
