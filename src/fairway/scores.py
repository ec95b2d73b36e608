"""Log-probabilities of one text, the sums they add up to, and the ratios of those sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairway.text import close_gaps, mark, measure

UNITS = ("tokens", "bytes", "chars", "words")
"""What a negative log-likelihood can be divided by."""
PERPLEXITY = "perplexity"
"""The name of exp(nll / tokens), where log-probabilities are those of the text itself."""
PSEUDO = "pseudo_perplexity"
"""Its name where each token is told by what stands on both sides of it."""
CONDITIONAL = "conditional_perplexity"
"""Its name where the text is told by a source."""
OWN_OUTPUT = "own_output_perplexity"
"""Its name where the text is what the model itself wrote."""
LIKELIHOODS = (
    "perplexity", "bits_per_byte", "bits_per_char", "word_perplexity", "byte_perplexity",
    "nll_per_token",
)  # fmt: skip
"""Ratios that hold log-probabilities, and are named after what these are of."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over scored tokens: additive, the only thing that crosses module borders.

    Attributes:
        nll: minus the sum of log-probabilities, nats.
        tokens: tokens scored.
        tokens_skipped: tokens that were to be scored and were not, for want of context.
        words: whitespace words that the scored tokens cover.
        chars: Unicode characters that the scored tokens cover.
        bytes: UTF-8 bytes that the scored tokens cover.
        documents: texts.
    """

    nll: float = 0.0
    tokens: int = 0
    tokens_skipped: int = 0
    words: int = 0
    chars: int = 0
    bytes: int = 0
    documents: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def scored(self) -> bool:
        """Whether anything was scored; a log may hold nats and not say of how many tokens."""
        return bool(self.tokens or self.nll)

    def per(self, unit: str) -> float:
        """Give nats per unit (one of `UNITS`); NaN where nothing was counted."""
        count = getattr(self, unit)
        return self.nll / count if count else math.nan

    def to_json(self) -> dict[str, Any]:
        """Give the sums as plain data; an infinite nll as text."""
        return {
            f.name: number(self.nll) if f.name == "nll" else getattr(self, f.name)
            for f in fields(self)
        }


def number(value: float) -> float | str | None:
    """Write a float without the literals that JSON lacks."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def real(value: Any) -> float:
    """Read back what `number` wrote."""
    return math.nan if value is None else float(value)


def read_totals(data: Mapping[str, Any]) -> Totals:
    """Read back what `Totals.to_json` gave, among other things."""
    counts: dict[str, int] = {f.name: data[f.name] for f in fields(Totals) if f.name != "nll"}
    return Totals(nll=real(data["nll"]), **counts)


def add(totals: Iterable[Totals]) -> Totals:
    """Sum totals; the nll is summed exactly and rounded once, whatever the order."""
    kept = list(totals)
    exact = math.fsum(t.nll for t in kept)
    counts = {
        f.name: sum(getattr(t, f.name) for t in kept) for f in fields(Totals) if f.name != "nll"
    }
    return Totals(nll=exact, **counts)


def exp(nats: float) -> float:
    """Exponentiate; infinity instead of an overflow."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def named(key: str, perplexity: str) -> str:
    """Give a ratio the name that it has where perplexity is called otherwise.

    With ``pseudo_perplexity`` ``bits_per_byte`` is ``pseudo_bits_per_byte``, so that no reader of
    names takes the one for the other; what holds no log-probability keeps its name.
    """
    return kind_of(perplexity) + key if key in LIKELIHOODS else key


def kind_of(perplexity: str) -> str:
    """Give what stands before a perplexity's name: nothing, ``pseudo_`` or ``conditional_``."""
    return perplexity.removesuffix(PERPLEXITY)


def ratios(totals: Totals, perplexity: str = PERPLEXITY) -> dict[str, float]:
    """Compute every metric that is a ratio of the sums.

    Args:
        totals: the sums.
        perplexity: the name of exp(nll / tokens), after which the others are named (`named`).

    Returns:
        ``perplexity = exp(nll / tokens)``; ``bits_per_byte = nll / (bytes ln 2)`` (Gao et al.
        2020, section 3.1); ``bits_per_char``; ``word_perplexity`` and ``byte_perplexity``, the
        exponentials of nats per word and per byte; ``nll_per_token`` in nats;
        ``bytes_per_token``. NaN where the denominator is zero.
    """
    ln2 = math.log(2)
    found = {
        "perplexity": exp(totals.per("tokens")),
        "bits_per_byte": totals.per("bytes") / ln2,
        "bits_per_char": totals.per("chars") / ln2,
        "word_perplexity": exp(totals.per("words")),
        "byte_perplexity": exp(totals.per("bytes")),
        "nll_per_token": totals.per("tokens"),
        "bytes_per_token": totals.bytes / totals.tokens if totals.tokens else math.nan,
    }
    return {named(key, perplexity): value for key, value in found.items()}


class Token(NamedTuple):
    """One row of a `Score`, made on iteration.

    Attributes:
        id: vocabulary id, -1 where the scorer has none.
        text: the characters of the source that the token covers.
        start: first character.
        end: one past the last character.
        logprob: natural logarithm of its probability; NaN = not scored.
    """

    id: int
    text: str
    start: int
    end: int
    logprob: float


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probabilities of the tokens of one text.

    Attributes:
        id: the document's id.
        text: the source text, without context or prefix.
        offsets: ``(n, 2)`` character spans of the tokens in the text.
        logprobs: ``(n,)`` natural logarithms, float64; NaN = not scored.
        ids: ``(n,)`` vocabulary ids.
        scored: character spans of the text that were to be scored; None = all of it.
        token_bytes: ``(n,)`` bytes of each token, only where no source text exists.
        byte_count: source bytes of all tokens, where no source text exists and they are known.
        lossy: whether the tokenizer cannot give the text back; None = not checked.
        extras: further columns by name, ``(n,)`` or ``(n, k)``: ``entropy``, ``top5``, ...
        metadata: the document's other fields.
        unit: what a token is: ``token``, ``byte`` or ``word``.
        perplexity: what exp(nll / tokens) is called: log-probabilities of masked tokens are none
            of the text, and those of a target are given its source.
    """

    id: str
    text: str
    offsets: NDArray[np.int64]
    logprobs: NDArray[np.float64]
    ids: NDArray[np.int64]
    scored: tuple[tuple[int, int], ...] | None = None
    token_bytes: NDArray[np.int64] | None = None
    lossy: bool | None = None
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "token"
    byte_count: int | None = None
    perplexity: str = PERPLEXITY

    def __len__(self) -> int:
        return len(self.logprobs)

    @property
    def tokens(self) -> list[Token]:
        """The rows, for reading; the arrays are for computing."""
        return [
            Token(int(i), self.text[s:e], int(s), int(e), float(p))
            for i, (s, e), p in zip(self.ids, self.offsets, self.logprobs, strict=True)
        ]

    @property
    def wanted(self) -> NDArray[np.bool_]:
        """``(n,)`` booleans: the tokens that touch a character that was to be scored."""
        if self.scored is None:
            return np.ones(len(self), dtype=bool)
        inside = np.concatenate(([0], np.cumsum(mark(self.scored, len(self.text)))))
        spans = np.clip(self.offsets, 0, len(self.text))
        return np.asarray(inside[spans[:, 1]] > inside[spans[:, 0]])

    @property
    def totals(self) -> Totals:
        """The sums of this text: float64 nll, integer counts."""
        done = ~np.isnan(self.logprobs)
        tokens = int(np.count_nonzero(done))
        whole = tokens == len(self)
        nll = -math.fsum((self.logprobs if whole else self.logprobs[done]).tolist())
        skipped = 0 if whole else int((self.wanted & ~done).sum())
        if self.token_bytes is not None:
            size = int(self.token_bytes[done].sum())
            if self.byte_count is not None and tokens:
                # What was not scored is taken away by the vocabulary's spelling of it.
                size = max(0, self.byte_count - int(self.token_bytes[~done].sum()))
            return Totals(nll + 0.0, tokens, skipped, 0, 0, size, 1)
        if whole and tokens and self.scored is None:
            extent = measure(self.text)
        else:
            closed = close_gaps(self.offsets, len(self.text))
            covered = mark(closed[done], len(self.text))
            if self.scored is not None:
                covered &= mark(self.scored, len(self.text))
            extent = measure(self.text, covered)
        return Totals(nll + 0.0, tokens, skipped, extent.words, extent.chars, extent.bytes, 1)

    @property
    def metrics(self) -> dict[str, float]:
        """Every ratio of this text's sums; see `ratios`."""
        return ratios(self.totals, self.perplexity)

    def to_frame(self) -> Any:
        """Give a row for each token, extra columns included, as a pandas DataFrame.

        Raises:
            MissingExtra: when pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            from fairway.errors import MissingExtra

            raise MissingExtra("A DataFrame", "data") from None
        columns = {
            name: column if column.ndim == 1 else list(column)
            for name, column in self.extras.items()
        }
        return pandas.DataFrame(self.tokens).assign(**columns)

    def _repr_html_(self) -> str | None:
        return _pictures["html"](self) if "html" in _pictures else None


_pictures: dict[str, Callable[[Score], str]] = {}


def draw_with(draw: Callable[[Score], str]) -> None:
    """Set how a notebook shows a score; the façade does, since rendering lies above this file."""
    _pictures["html"] = draw
