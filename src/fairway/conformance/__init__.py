"""The conformance suite: does a scorer, of whatever kind, keep the rules of its seam?

The rules are those of `fairway.scorer.Scorer` and `fairway.scores.Score`; a report, a comparison
and a resumed run rest on each of them. Nothing here knows a kind of model.
"""

from __future__ import annotations

from collections.abc import Callable

from fairway.conformance import numbers, resuming, seam, spans, torture
from fairway.conformance.case import Case, prepare
from fairway.finding import Finding
from fairway.scorer import Scorer

__all__ = ["CHECKS", "Case", "Finding", "examine", "prepare"]

CHECKS: dict[str, Callable[[Case], Finding]] = {
    "documents": seam.documents,
    "signature": seam.signature,
    "offsets": spans.offsets,
    "NaN rule": spans.not_scored,
    "prefix": spans.prefix,
    "bytes": spans.sizes,
    "scored spans": spans.scored,
    "context": seam.context,
    "ids and windows": seam.refusals,
    "determinism": numbers.determinism,
    "batch invariance": numbers.batches,
    "additivity": numbers.additivity,
    "columns": numbers.columns,
    "resume": resuming.resume,
    "empty text": torture.empty,
    "unicode": torture.unicode,
}
"""Every check by its name, in the order in which they are run and shown."""


def examine(
    scorer: Scorer, again: Callable[[], Scorer] | None = None, kind: str | None = None
) -> list[Finding]:
    """Run every check.

    Args:
        scorer: of any kind.
        again: loads the same scorer afresh; without it, what another process would compute is
            not looked at.
        kind: the name under which it was asked for; None = not known.

    Returns:
        One finding for each of `CHECKS`, in their order.
    """
    case = prepare(scorer, again, kind)
    return [_run(name, check, case) for name, check in CHECKS.items()]


def _run(name: str, check: Callable[[Case], Finding], case: Case) -> Finding:
    if case.problem and name not in ("documents", "signature"):
        return Finding(name, "skipped", "plain text could not be scored: see documents")
    try:
        return check(case)
    except Exception as problem:  # a scorer under test raises whatever it likes
        return Finding(
            name, "defect", f"{type(problem).__name__}: {problem}",
            "A scorer raises nothing but a FairwayError that says what is wrong and the way out.",
        )  # fmt: skip
