"""What a model's numbers are on text of the kind that it was made for, and whether others fit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fairway import oov
from fairway.errors import InputError
from fairway.scores import Score, Totals

CHUNK = 4096
"""Bytes of a piece of the reference whose figures give the spread: short texts scatter more."""
LEAST = 8
"""Pieces without which there is no spread."""
SPREADS = 5.0
"""Standard deviations that are far."""
FLOOR = 0.05
"""The least spread, as a share of the figure: a homogeneous reference must not forbid all else."""
FACTOR = 1.5
"""Bits and tokens per byte that differ by less are never far."""
POINTS = 0.05
"""Nor is a share of unknown words that is higher by less."""
RARE = 0.02
"""The least share of unknown words that chance is reckoned by: any few words may hold one."""


def ratios(sums: Totals, unknown: int | None) -> dict[str, float]:
    """Give ``oov`` (a share of the tokens), ``bits_per_byte`` and ``tokens_per_byte``."""
    return {
        "oov": math.nan if unknown is None or not sums.tokens else unknown / sums.tokens,
        "bits_per_byte": sums.per("bytes") / math.log(2),
        "tokens_per_byte": sums.tokens / sums.bytes if sums.bytes else math.nan,
    }


@dataclass(frozen=True, slots=True)
class Figure:
    """A ratio on the reference, and how far it scatters.

    Attributes:
        value: of all of the reference, a ratio of sums.
        spread: standard deviation over its pieces of `CHUNK` bytes and more.
    """

    value: float
    spread: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The numbers of a reference text.

    Attributes:
        reference: its name.
        digest: of its documents, as in a signature.
        documents: how many they are.
        bytes: UTF-8 bytes that were scored.
        tokens: tokens that were scored.
        figures: by name; see `ratios`.
    """

    reference: str
    digest: str
    documents: int
    bytes: int
    tokens: int
    figures: dict[str, Figure]

    def evidence(self, sums: Totals, unknown: int | None) -> list[str]:
        """Say in what sums are far from the reference's; nothing where they are not.

        A figure is far when it lies more than `SPREADS` standard deviations away, and by a factor
        or by points that matter. A text shorter than a piece scatters more: by the root of its
        length, unknown words as if each was drawn by itself.

        Args:
            sums: of the texts.
            unknown: tokens that the vocabulary lacks; None = not known.
        """
        if not sums.tokens or not sums.bytes:
            return []
        wide = math.sqrt(max(1.0, CHUNK / sums.bytes))
        found = []
        for name, value in ratios(sums, unknown).items():
            known = self.figures.get(name)
            if known is None or not math.isfinite(value):
                continue
            spread = max(known.spread, FLOOR * known.value)
            if name == "oov":
                share = min(max(known.value, RARE), 0.5)
                spread = math.hypot(spread, math.sqrt(share * (1 - share) / sums.tokens))
            else:
                spread *= wide
            if abs(value - known.value) <= SPREADS * spread or not _matters(name, value, known):
                continue
            found.append(_against(name, value, known.value))
        return found


def _matters(name: str, value: float, known: Figure) -> bool:
    if name == "oov":
        return value > known.value + POINTS
    return value > known.value * FACTOR or value * FACTOR < known.value


def _against(name: str, value: float, known: float) -> str:
    if name == "oov":
        return f"OOV {_percent(value)} against {_percent(known)}"
    return f"{value:.3g} {name.replace('_', ' ')} against {known:.3g}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 or share == 0 else f"{100 * share:.1g}%"


def count(score: Score) -> tuple[Totals, int]:
    """Give the sums of an n-gram model's score, and how many of its tokens are unknown."""
    found = oov.of(score)
    return score.totals, 0 if found is None else found.tokens


def calibrate(name: str, scores: Iterable[Score]) -> tuple[Totals, dict[str, Figure]]:
    """Sum the scores of a reference, and find how its figures scatter.

    Args:
        name: of the reference, for errors.
        scores: of its documents, in order.

    Raises:
        InputError: when it is too short for a spread, or has a token of probability zero.
    """
    whole, piece = Totals(), Totals()
    unknown = inside = 0
    pieces = []
    for score in scores:
        sums, more = count(score)
        whole, piece = whole + sums, piece + sums
        unknown, inside = unknown + more, inside + more
        if piece.bytes >= CHUNK:
            pieces.append(ratios(piece, inside))
            piece, inside = Totals(), 0
    if len(pieces) < LEAST:
        raise InputError(
            f"The reference {name} is too short to calibrate by: {whole.bytes:,} bytes, which make "
            f"{len(pieces)} pieces of {CHUNK:,}, and {LEAST} are needed; give more, or "
            "cut it into documents with --split lines."
        )
    if not math.isfinite(whole.nll):
        raise InputError(
            f"The model gives a word of the reference {name} the probability zero; it needs <unk>, "
            "or another reference."
        )
    return whole, {
        key: Figure(value, float(np.std([one[key] for one in pieces], ddof=1)))
        for key, value in ratios(whole, unknown).items()
    }
