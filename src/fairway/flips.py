"""Two models on the same items: which answers flipped, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairway.accuracy import Average, ChoiceReport, average
from fairway.errors import InputError, ProtocolError
from fairway.signature import diff
from fairway.statistics import LEVEL

MODEL = ("model", "revision", "weights", "adapter", "dtype", "quant", "tok", "prefix", "length",
         "stride", "special", "version", "items", "digest")  # fmt: skip
"""Keys of the signature that belong to a model, or that pairing sees to."""


@dataclass(frozen=True, slots=True)
class Flips:
    """How a second model's decisions differ from a first one's, by one metric.

    Attributes:
        items: that both decided.
        difference: accuracy of the second minus that of the first, with its paired interval.
        gained: ids of items that only the second decided rightly.
        lost: ids of items that only the first decided rightly.
        p: two-sided, of McNemar's exact test: gained and lost are equally likely.
    """

    items: int
    difference: Average
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    p: float


@dataclass(frozen=True, slots=True)
class Contest:
    """Two models on the same items.

    Attributes:
        first: the measure's report.
        second: the other's.
        flips: by metric.
        alone: items that only one of them could score, left out here.
    """

    first: ChoiceReport
    second: ChoiceReport
    flips: dict[str, Flips]
    alone: int

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        return {
            "first": self.first.model,
            "second": self.second.model,
            "alone": self.alone,
            "metrics": {
                name: {
                    "items": one.items,
                    "difference": one.difference.to_json(),
                    "p_mcnemar": one.p,
                    "gained": list(one.gained),
                    "lost": list(one.lost),
                }
                for name, one in self.flips.items()
            },
        }


def mcnemar(gained: int, lost: int) -> float:
    """Give the two-sided p of McNemar's exact test: of the flips, half go each way."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def compare(first: ChoiceReport, second: ChoiceReport, level: float = LEVEL) -> Contest:
    """Compare two models item by item.

    The interval of the difference is Student's t over the items' differences (Miller 2024, arXiv
    2411.00640, paired); the test is exact.

    Raises:
        ProtocolError: when the reports were not made alike.
        InputError: when they share no item.
    """
    unlike = diff(first.signature, second.signature, MODEL)
    if unlike:
        key, (one, other) = next(iter(unlike.items()))
        raise ProtocolError(
            f"The accuracies are not comparable: {key} is {one or 'none'} and {other or 'none'}; "
            "choose with the same options."
        )
    theirs = {one.item: one for one in second.decisions}
    pairs = [(one, theirs[one.item]) for one in first.decisions if one.item in theirs]
    if not pairs:
        raise InputError("The models share no item that both could score.")
    found = {}
    for metric in first.accuracies:
        right = [(one.right(metric), other.right(metric)) for one, other in pairs]
        gained = _ids(pairs, right, (False, True))
        lost = _ids(pairs, right, (True, False))
        apart = average([float(b) - float(a) for a, b in right], "items, paired", level)
        found[metric] = Flips(len(pairs), apart, gained, lost, mcnemar(len(gained), len(lost)))
    alone = len(first.decisions) + len(second.decisions) - 2 * len(pairs)
    return Contest(first, second, found, alone)


def _ids(
    pairs: Sequence[tuple[Any, Any]], right: Sequence[tuple[bool, bool]], which: tuple[bool, bool]
) -> tuple[str, ...]:
    return tuple(one.item.id for (one, _), both in zip(pairs, right, strict=True) if both == which)
