"""One thing that is wrong with a server's numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong.

    Attributes:
        name: of the defect.
        evidence: what was seen, with figures.
        refuse: whether numbers of such an answer must not be used.
        fix: the way out.
        reference: where it is known from; empty = from no engine by name.
    """

    name: str
    evidence: str
    refuse: bool = True
    fix: str = "Use another route or server, such as fairway serve."
    reference: str = ""

    def __str__(self) -> str:
        known = f" ({self.reference})" if self.reference else ""
        return f"{self.name}: {self.evidence}{known}. {self.fix}"
