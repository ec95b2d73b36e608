"""How far a model's distributions are from another's of the same vocabulary, token by token.

Both are walked in lockstep, so that nothing larger than a tile of the vocabulary is held; what
stays is 29 bytes for each token. The figures are those of llama.cpp's ``--kl-divergence``
(``tools/perplexity/perplexity.cpp``); their errors are not: there tokens count as independent,
here documents are the sampling unit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairway.comparable import OPTIONS, UNLIKE
from fairway.distributions import Distributions
from fairway.errors import InputError, ModelError, ProtocolError
from fairway.scorer import Scorer
from fairway.signature import diff

if TYPE_CHECKING:
    from fairway.corpus import Document


@dataclass(frozen=True, slots=True)
class Divergences:
    """What two models expected at the same tokens, one row for each.

    Attributes:
        document: ``(n,)`` index of the document.
        base: ``(n,)`` log-probability of the token under the first model, nats.
        variant: ``(n,)`` under the second.
        kld: ``(n,)`` divergence of the second model's distribution from the first's, nats.
        same: ``(n,)`` whether both find the same token likeliest.
        seconds: that the two models took for their distributions.
        outside: largest probability of ids that the other model does not have.
    """

    document: NDArray[np.int32]
    base: NDArray[np.float64]
    variant: NDArray[np.float64]
    kld: NDArray[np.float64]
    same: NDArray[np.bool_]
    seconds: tuple[float, float] = (0.0, 0.0)
    outside: float = 0.0

    def __len__(self) -> int:
        return len(self.kld)


def terms(p: Any, q: Any, library: Any = np) -> Any:
    """Give what each outcome adds to a Kullback-Leibler divergence, from log-probabilities.

    The term is ``p ln(p / q) - p + q``, of the generalised divergence: its sum over a vocabulary is
    the same, each is at least 0, and an error of a log-probability enters by its square. With
    ``d = ln q - ln p`` it is ``p (expm1(d) - d)``, which keeps its digits where p and q are close.

    Args:
        p: natural log-probabilities, float64; minus infinity is allowed.
        q: of the other distribution, of the same shape.
        library: numpy, or a module with its functions.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        mass, other = library.exp(p), library.exp(q)
        apart = library.where(mass > 0, q - p, 0.0 * mass)
        near = mass * (library.expm1(library.clip(apart, None, 1.0)) - apart)
        out = library.where(apart < 1, near, other - mass * (1 + apart))
    return library.clip(library.where(mass > 0, out, other), 0.0, None)


def block(p: Distributions, q: Distributions, size: int = 0) -> tuple[Any, Any, float]:
    """Compare two models on the same rows, tile by tile.

    Where one vocabulary has more ids than the other, which is padding since the tokenizers are the
    same, both distributions are taken as they are among the ids that both have.

    Args:
        p: the first model's distributions.
        q: the second's.
        size: ids in a tile; 0 = as the blocks say.

    Returns:
        ``(rows,)`` divergences in nats, ``(rows,)`` whether the likeliest token is the same (of
        several, the lowest id), and the largest probability that was left out.
    """
    common = min(p.vocabulary, q.vocabulary)
    size = size or max(1, min(p.held, q.held) // max(1, len(p)))
    library = p.library if p.library is q.library else np
    kept = [_kept(one, common, size) for one in (p, q)]
    total = np.zeros(len(p))
    best = [_Best(len(p)) for _ in kept]
    for start in range(0, common, size):
        stop = min(common, start + size)
        tiles = [_wide(one.tile(start, stop), library) for one in (p, q)]
        for top, tile in zip(best, tiles, strict=True):
            top.add(tile, start, library)
        for place, mass in enumerate(kept):
            if mass.any():
                tiles[place] = tiles[place] - _wide(mass[:, None], library)
        total += _small(terms(tiles[0], tiles[1], library).sum(1))
    outside = max(float(-np.expm1(mass.min(initial=0.0))) for mass in kept)
    return total, best[0].ids == best[1].ids, outside


class _Best:
    """The likeliest id of each row so far; the lowest of several."""

    def __init__(self, rows: int) -> None:
        self.values = np.full(rows, -np.inf)
        self.ids = np.full(rows, np.iinfo(np.int64).max)

    def add(self, tile: Any, start: int, library: Any) -> None:
        values = _small(library.amax(tile, 1))
        rows = np.flatnonzero(values >= self.values)
        if not len(rows):
            return
        ids = _small(library.argmax(tile[rows], 1)) + start
        tie = values[rows] == self.values[rows]
        self.ids[rows] = np.where(tie, np.minimum(ids, self.ids[rows]), ids)
        self.values[rows] = values[rows]


def _kept(one: Distributions, common: int, size: int) -> NDArray[np.float64]:
    """Give the ``(rows,)`` log of the probability of the first ids."""
    outside = np.zeros(len(one))
    for start in range(common, one.vocabulary, size):
        tile = _wide(one.tile(start, min(one.vocabulary, start + size)), one.library)
        outside += _small(one.library.exp(tile).sum(1))
    return np.asarray(np.log1p(-outside))


def _wide(tile: Any, library: Any) -> Any:
    return library.asarray(tile, dtype=library.float64)


def _small(values: Any) -> NDArray[Any]:
    """Bring a column to numpy."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)


def diverge(
    base: Scorer,
    variant: Scorer,
    documents: Iterable[Document],
    *,
    names: tuple[str, str] = ("the base", "the variant"),
    progress: Callable[[Distributions, float], None] | None = None,
) -> Divergences:
    """Walk two models through documents in lockstep.

    Args:
        base: the model that is the measure.
        variant: the one that is held against it.
        documents: any number of them; they are read once.
        names: what errors call the models.
        progress: called with each block of the variant, and the seconds that both took for it.

    Raises:
        InputError: when the models have different tokenizers or windows, or nothing is scored.
        ModelError: when a log-probability is not a number.
    """
    check(base, variant, names)
    parts: list[tuple[Any, ...]] = []
    seconds, outside = [0.0, 0.0], 0.0
    streams = [
        one.distributions(some)  # type: ignore[attr-defined]
        for one, some in zip((base, variant), tee(documents), strict=True)
    ]
    for p, q, spent in _lockstep(streams, names):
        kld, same, left = block(p, q)
        outside = max(outside, left)
        seconds = [a + b for a, b in zip(seconds, spent, strict=True)]
        parts.append((p.document.astype(np.int32), p.logprobs, q.logprobs, kld, same))
        if progress is not None:
            progress(q, sum(spent))
    if not parts:
        raise InputError("No token is scored: the data holds no text that is long enough.")
    document, ours, theirs, kld, same = map(np.concatenate, zip(*parts, strict=True))
    return Divergences(document, ours, theirs, kld, same, (seconds[0], seconds[1]), outside)


def _lockstep(
    streams: Sequence[Iterator[Distributions]], names: tuple[str, str]
) -> Iterator[tuple[Distributions, Distributions, list[float]]]:
    while True:
        blocks, spent = [], []
        for stream, name in zip(streams, names, strict=True):
            started = time.perf_counter()
            try:
                blocks.append(next(stream, None))
            except ModelError as problem:
                raise ModelError(f"{name}: {problem}") from None
            spent.append(time.perf_counter() - started)
        p, q = blocks
        if p is None and q is None:
            return
        if p is None or q is None or not _alike(p, q):
            raise InputError(
                f"{names[0]} and {names[1]} do not score the same tokens; give both the same "
                "tokenizer, --prefix, --max-length and --stride."
            )
        yield p, q, spent


def _alike(p: Distributions, q: Distributions) -> bool:
    return all(
        np.array_equal(getattr(p, name), getattr(q, name)) for name in ("document", "place", "ids")
    )


def check(base: Scorer, variant: Scorer, names: tuple[str, str]) -> None:
    """Refuse models whose distributions cannot be held against each other.

    Raises:
        InputError: when a model has no distributions, or the vocabularies are not the same.
        ProtocolError: when the protocols differ.
    """
    for one, name in zip((base, variant), names, strict=True):
        if not hasattr(one, "distributions"):
            raise InputError(
                f"{name} gives no whole distributions; compare it without --kld, by its bits."
            )
    ours, theirs = base.signature, variant.signature
    if ours.get("tok") is None or ours.get("tok") != theirs.get("tok"):
        raise InputError(
            f"{names[0]} and {names[1]} have different tokenizers ({ours.get('tok') or 'unknown'} "
            f"and {theirs.get('tok') or 'unknown'}), and divergences need one vocabulary; compare "
            "them without --kld, by their bits per byte."
        )
    for key, (one_value, other) in diff(ours, theirs).items():
        if key in UNLIKE:
            way = f"give {OPTIONS[key]}" if key in OPTIONS else "load both alike"
            raise ProtocolError(
                f"{names[0]} and {names[1]} cannot be compared: {UNLIKE[key]} ({key}: "
                f"{one_value or 'none'} and {other or 'none'}); {way} that both can have."
            )
