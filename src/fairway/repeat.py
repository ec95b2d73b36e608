"""Whether a repeated number is confirmed, and if not, what was different."""

from __future__ import annotations

from dataclasses import dataclass

from fairway.report import Report
from fairway.signature import Signature

TOLERANCE = {"float64": 1e-9, "float32": 2e-5}
"""Nats per token that another machine or batch may move a number by, by dtype."""
HALF = 2e-2
"""The same for half precision."""
EITHER = ("version",)
"""Fields that may differ: they name the program, and not what it was asked to do."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a repetition.

    Attributes:
        confirmed: whether the same thing was measured and gave the same number.
        differences: signature fields that differ: name, then, now.
        gap: absolute difference of nll per token, nats; None where no number was given.
        tolerance: what rounding may do, nats per token.
    """

    confirmed: bool
    differences: tuple[tuple[str, str, str], ...]
    gap: float | None
    tolerance: float

    def sentence(self) -> str:
        """Say it in one or two sentences."""
        changed = "; ".join(
            f"{key} was {was or 'absent'} and is {now or 'absent'}"
            for key, was, now in self.differences
        )
        if self.gap is None:
            if self.differences:
                return f"Not repeated: {changed}."
            return "The setting is the signature's: a number that was reported with it is this one."
        if self.confirmed and self.gap == 0:
            return "Confirmed: the sums are identical to the last bit."
        if self.confirmed:
            return (
                f"Confirmed: nll per token differs by {self.gap:.1e} nats, within the "
                f"{self.tolerance:.0e} that rounding may do."
            )
        if self.differences:
            return f"Not confirmed: {changed}. nll per token differs by {self.gap:.3g} nats."
        return (
            f"Not confirmed: the setting is the same, and nll per token differs by "
            f"{self.gap:.3g} nats, more than the {self.tolerance:.0e} that rounding may do."
        )


def differences(then: Signature, now: Signature) -> tuple[tuple[str, str, str], ...]:
    """List the fields in which two signatures differ, the program's version aside."""
    keys = [key for key, _ in then] + [key for key, _ in now if then.get(key) is None]
    return tuple(
        (key, then.get(key) or "", now.get(key) or "")
        for key in keys
        if key not in EITHER and then.get(key) != now.get(key)
    )


def judge(then: Report | Signature, now: Report) -> Verdict:
    """Compare a report with the one, or with the signature, that it repeats."""
    before = then if isinstance(then, Signature) else then.signature
    found = differences(before, now.signature)
    tolerance = TOLERANCE.get(now.signature.get("dtype") or "", HALF)
    if isinstance(then, Signature):
        return Verdict(not found, found, None, tolerance)
    gap = abs(then.totals.per("tokens") - now.totals.per("tokens"))
    if then.totals.nll == now.totals.nll and then.totals.tokens == now.totals.tokens:
        gap = 0.0
    same = then.totals.tokens == now.totals.tokens and gap <= tolerance
    return Verdict(same and not found, found, gap, tolerance)
