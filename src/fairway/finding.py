"""The outcome of one check, of a model or of a scorer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: its name.
        outcome: ``ok``, ``note`` (worth knowing), ``defect`` (gives wrong numbers or errors), or
            ``skipped`` (not applicable).
        evidence: what was seen, with numbers.
        fix: how to mend it; empty unless a note or a defect.
    """

    check: str
    outcome: str
    evidence: str
    fix: str = ""

    @property
    def found(self) -> bool:
        """Whether there is something to say: a note or a defect."""
        return self.outcome in ("note", "defect")
