"""Is one model really better than another: paired by document, and said in one sentence.

The source's bytes are what both models' nats are divided by, so their tokenizers may differ.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from fairway.comparable import Side, match, refuse, warnings
from fairway.errors import InputError
from fairway.pairs import Difference, Paired, benjamini_hochberg, difference, holm
from fairway.record import Record
from fairway.scores import named, number
from fairway.statistics import FEW, LEVEL

LN2 = math.log(2)
ROUNDING = 1e-6
"""Nats per byte below which a difference of two runs is that of float32 sums and products."""
CORRECTIONS = {"holm": holm, "bh": benjamini_hochberg}
"""How p values of several groups are corrected: for any error, or for the share of errors."""
TITLES = {"holm": "Holm", "bh": "BH"}
"""What tables call them."""
SWAY = 0.5
"""Share of a difference's variance from which on one document is named."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same text.

    Attributes:
        first: the run that is the measure.
        second: the one that is held against it.
        byte: difference in nats per byte; negative = the second is better.
        token: in nats per token; None where the tokenizers differ.
        word: in nats per word; None where there are no words.
        groups: per group, differences in nats per byte.
        adjusted: corrected p values of the groups' t tests.
        correction: how: ``holm`` or ``bh`` (Benjamini and Hochberg).
        macro: unweighted mean of the groups' differences, nats per byte; None without groups.
        allowed: differences of the signatures that were let pass, by key.
        warnings: what does not forbid the comparison, and must be known.
    """

    first: Side
    second: Side
    byte: Difference
    token: Difference | None
    word: Difference | None
    groups: dict[str, Difference] = field(default_factory=dict)
    adjusted: dict[str, float] = field(default_factory=dict)
    correction: str = "holm"
    macro: float | None = None
    allowed: dict[str, tuple[str, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``undecided``, from the second run's side."""
        if not self.byte.real or self.rounding:
            return "undecided"
        return "better" if self.byte.value < 0 else "worse"

    @property
    def rounding(self) -> bool:
        """Whether the difference is so small that two programs' float32 makes it."""
        return 0 < abs(self.byte.value) < ROUNDING

    @property
    def unit(self) -> str:
        """What the difference is in: bits per byte, of masked models pseudo bits per byte."""
        return named("bits_per_byte", self.first.report.perplexity).replace("_", " ")

    @property
    def worst(self) -> str | None:
        """The group in which the second run loses most."""
        return max(self.groups, key=lambda name: self.groups[name].value, default=None)

    def sentence(self) -> str:
        """Say what was found, in plain words."""
        found, name = self.byte, self.second.name
        bits = [abs(found.value) / LN2, found.low / LN2, found.high / LN2]
        count = f"{found.documents:,} document{'s' * (found.documents != 1)}"
        if found.documents < 2:
            return (
                f"{name} is {'below' if found.value < 0 else 'above'} {self.first.name} by "
                f"{bits[0]:.4g} {self.unit} on one document; whether that holds for others "
                "cannot be told from one."
            )
        if self.rounding:
            return (
                f"{name} and {self.first.name} give the same numbers up to rounding: they differ "
                f"by {bits[0]:.1g} {self.unit} on {count}."
            )
        mixed = found.excludes or min(found.p_t, found.p_flip) < 1 - found.level
        if self.verdict == "undecided" and mixed:
            return (
                f"{name} and {self.first.name} cannot be told apart with confidence: "
                f"{found.value / LN2:+.4f} {self.unit} ({found.level:.0%} {bits[1]:+.4f} to "
                f"{bits[2]:+.4f}, {count}), and interval and tests disagree (paired t p = "
                f"{found.p_t:.2g}, sign flips p = {found.p_flip:.2g})."
            )
        if self.verdict == "undecided":
            more = ""
            if found.needed is not None:
                more = f"; as large a difference would need about {_round(found.needed)} documents"
            return (
                f"{name} and {self.first.name} cannot be told apart: {found.value / LN2:+.4f} "
                f"{self.unit} ({found.level:.0%} {bits[1]:+.4f} to {bits[2]:+.4f}, {count}). A "
                f"difference of {found.detectable / LN2:.4f} would probably have been found{more}."
            )
        low, high = sorted((abs(bits[1]), abs(bits[2])))
        share = found.wins if found.value < 0 else 1 - found.wins
        return (
            f"{name} is {self.verdict} than {self.first.name} by {bits[0]:.4f} {self.unit} "
            f"({found.level:.0%} {low:.4f} to {high:.4f}, in {share:.0%} of {count}), "
            f"{abs(found.relative):.1%} {'fewer' if found.value < 0 else 'more'} bits."
        )

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        return {
            "first": {"name": self.first.name, "signature": str(self.first.signature)},
            "second": {"name": self.second.name, "signature": str(self.second.signature)},
            "verdict": self.verdict,
            "sentence": self.sentence(),
            self.unit.replace(" ", "_"): _plain(self.byte, 1 / LN2),
            "nll_per_token": _plain(self.token, 1.0),
            "nll_per_word": _plain(self.word, 1.0),
            "groups": {
                name: {**_plain(one, 1 / LN2), f"p_{self.correction}": self.adjusted[name]}
                for name, one in self.groups.items()
            },
            f"macro_{self.unit.replace(' ', '_')}": None
            if self.macro is None
            else number(self.macro / LN2),
            "worst_group": self.worst,
            "allowed": {key: list(pair) for key, pair in self.allowed.items()},
            "warnings": list(self.warnings),
        }


def _plain(one: Difference | None, scale: float) -> dict[str, Any]:
    if one is None:
        return {}
    return {
        "documents": one.documents,
        "difference": number(one.value * scale),
        "standard_error": number(one.error * scale),
        "low": number(one.low * scale),
        "high": number(one.high * scale),
        "level": one.level,
        "perplexity_ratio": number(math.exp(one.value)),
        "relative": number(one.relative),
        "relative_low": number(one.relative_low),
        "relative_high": number(one.relative_high),
        "p_t": one.p_t,
        "p_sign_flip": one.p_flip,
        "every_flip": one.exact,
        "win_rate": one.wins,
        "detectable": number(one.detectable * scale),
        "documents_needed": one.needed,
    }


def _round(count: int) -> str:
    return f"{float(f'{count:.2g}'):,.0f}"


def compare(
    first: Side,
    second: Side,
    allow: Collection[str] = (),
    level: float = LEVEL,
    seed: int = 0,
    correction: str = "holm",
) -> Comparison:
    """Compare two runs document by document.

    Args:
        first: the run that is the measure.
        second: the one that is held against it.
        allow: keys of the signature that may differ although they make numbers incomparable.
        level: of intervals and tests.
        seed: of the bootstrap and the random sign flips.
        correction: of the groups' p values, one of `CORRECTIONS`.

    Raises:
        ProtocolError: when the signatures differ in what makes numbers incomparable.
        InputError: when a document is scored in one run alone, or nothing is scored.
    """
    if correction not in CORRECTIONS:
        raise InputError(f"--correct {correction!r} is neither holm nor bh (Benjamini-Hochberg).")
    allowed = refuse(first, second, allow)
    both = match(first, second)
    kept = [(a, b) for a, b in both if a.totals.scored and b.totals.scored]
    if not sum(a.totals.bytes for a, _ in kept):
        raise InputError(
            f"{first.name} and {second.name} have no scored document with bytes in common."
        )
    for a, b in kept:
        if a.totals.bytes != b.totals.bytes:
            raise InputError(
                f"{a.id}: {first.name} scored {a.totals.bytes} bytes and {second.name} "
                f"{b.totals.bytes}; evaluate both with the same --prefix."
            )
        for side, scored in ((first, a), (second, b)):
            if not math.isfinite(scored.totals.nll):
                raise InputError(
                    f"{scored.id} has probability zero under {side.name}, so the difference has no "
                    "value; leave the document out, or let fairway doctor look for the cause."
                )
    same = first.signature.get("tok") == second.signature.get("tok")
    byte = _difference(kept, "bytes", level, seed)
    assert byte is not None
    named: dict[str, list[tuple[Record, Record]]] = {}
    for a, b in kept:
        if a.group is not None:
            named.setdefault(a.group, []).append((a, b))
    groups = {
        name: one
        for name, some in named.items()
        if (one := _difference(some, "bytes", level, seed)) is not None
    }
    adjusted = dict(
        zip(groups, CORRECTIONS[correction]([one.p_t for one in groups.values()]), strict=True)
    )
    macro = float(np.mean([one.value for one in groups.values()])) if groups else None
    return Comparison(
        first,
        second,
        byte,
        _difference(kept, "tokens", level, seed) if same else None,
        _difference(kept, "words", level, seed),
        groups,
        adjusted,
        correction,
        macro,
        allowed,
        (*warnings(first, second), *_sway(kept, byte)),
    )


def _sway(kept: Sequence[tuple[Record, Record]], found: Difference) -> list[str]:
    """Name the document that most of the variance rests on, if one does.

    Samples that lack such a document have intervals that do not know of it: with one licence in
    Chinese among 47 in English, 95% intervals covered 75% (`bench/coverage.py`).
    """
    apart = np.array([b.totals.nll - a.totals.nll for a, b in kept])
    squares = (apart - found.value * np.array([a.totals.bytes for a, _ in kept])) ** 2
    if len(kept) < FEW[0] or not squares.sum() > 0:
        return []
    at = int(np.argmax(squares))
    share = float(squares[at] / squares.sum())
    if share < SWAY:
        return []
    return [
        f"{kept[at][0].id} alone makes {share:.0%} of the difference's variance: look at it, and "
        "mind that a sample without it would have had a narrower interval"
    ]


def _difference(
    kept: Sequence[tuple[Record, Record]], unit: str, level: float, seed: int
) -> Difference | None:
    counts = np.array([getattr(a.totals, unit) for a, _ in kept], dtype=np.int64)
    others = np.array([getattr(b.totals, unit) for _, b in kept], dtype=np.int64)
    if not counts.sum() or (counts != others).any():
        return None
    first = np.array([a.totals.nll for a, _ in kept])
    second = np.array([b.totals.nll for _, b in kept])
    return difference(Paired(first, second, counts), level, seed)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Several runs on the same text, best first.

    Attributes:
        sides: in order of bits per byte.
        pairs: comparisons of each with each, by their places; the later is held against the
            earlier.
        adjusted: p values of their t tests after Holm, likewise.
        tiers: for each run the number of its tier: runs of one tier cannot be told apart from the
            best of it.
    """

    sides: tuple[Side, ...]
    pairs: dict[tuple[int, int], Comparison]
    adjusted: dict[tuple[int, int], float]
    tiers: tuple[int, ...]


def rank(
    sides: Sequence[Side], allow: Collection[str] = (), level: float = LEVEL, seed: int = 0
) -> Ranking:
    """Compare each run with each, correct for their number, and order them.

    Raises:
        ProtocolError, InputError: as `compare`.
    """
    ordered = tuple(sorted(sides, key=lambda side: (side.bits_per_byte, side.name)))
    pairs = {
        (a, b): compare(ordered[a], ordered[b], allow, level, seed)
        for a, b in combinations(range(len(ordered)), 2)
    }
    adjusted = dict(zip(pairs, holm([one.byte.p_t for one in pairs.values()]), strict=True))
    tiers, best = [0], 0
    for place in range(1, len(ordered)):
        apart = adjusted[best, place] < 1 - level and pairs[best, place].byte.p_flip < 1 - level
        tiers.append(tiers[-1] + apart)
        if apart:
            best = place
    return Ranking(ordered, pairs, adjusted, tuple(tiers))
