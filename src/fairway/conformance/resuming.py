"""The check of resuming: an evaluation that was interrupted and goes on gives the same run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from fairway import run as runs
from fairway.companions import WANT
from fairway.conformance.case import Case, slack
from fairway.corpus import Corpus, Document
from fairway.evaluation import Progress, evaluate
from fairway.finding import Finding
from fairway.protocol import convention
from fairway.report import Report
from fairway.run import Run
from fairway.scorer import Scorer, fills

BLOCK, FEW = 64, 6
"""Bytes of a block here: several of them, with little text; one for each of few documents."""
STOP_AFTER = 2


class _Stopped(Exception):
    """The interruption."""


def _corpus(case: Case) -> Corpus:
    def documents(corpus: Corpus) -> Iterator[Document]:
        yield from case.documents

    return Corpus("conformance", documents)


def _evaluate(case: Case, scorer: Scorer, folder: Path, stop: int | None = None) -> Report | None:
    """Evaluate in a run directory; None where it was stopped behind so many blocks."""
    blocks = 0

    def progress(now: Progress) -> None:
        nonlocal blocks
        blocks += 1
        if blocks == stop:
            raise _Stopped

    name = scorer.signature.get("protocol") or "fairway"
    size = BLOCK if len(case.documents) > FEW else 1
    run = Run(folder, {"signature": str(scorer.signature), "companions": fills(scorer, WANT)})
    budget = (run.settings.get("engine") or {}).get("budget")
    if budget and hasattr(scorer, "budget"):
        scorer.budget = budget
    try:
        report = evaluate(
            scorer, _corpus(case), convention(name), run=run, progress=progress, block_bytes=size
        )
        run.finish(report)
        return report
    except _Stopped:
        return None
    finally:
        run.close()


def resume(case: Case) -> Finding:
    """Is a run that was interrupted and resumed the run that was not interrupted?"""
    name = "resume"
    fresh = case.again or (lambda: case.scorer)
    with tempfile.TemporaryDirectory(prefix="fairway-suite-") as temporary:
        whole, broken = Path(temporary, "whole"), Path(temporary, "broken")
        first = _evaluate(case, fresh(), whole)
        _evaluate(case, fresh(), broken, STOP_AFTER)
        kept = sum(1 for _ in runs.read_blocks(broken))
        second = _evaluate(case, fresh(), broken)
        assert first is not None and second is not None
        blocks = sum(1 for _ in runs.read_blocks(whole))
        assert kept < blocks
        same = (whole / runs.SCORES).read_bytes() == (broken / runs.SCORES).read_bytes()
        pairs = [
            (a, b)
            for one, other in zip(runs.read_blocks(whole), runs.read_blocks(broken), strict=True)
            for a, b in zip(one, other, strict=True)
        ]
    largest = slack(case.scorer.signature)[1]
    wrong = ""
    if str(first.signature) != str(second.signature):
        wrong = "the resumed run has another signature"
    for a, b in pairs:
        alike = a.key == b.key and a.totals.tokens == b.totals.tokens
        apart = 0.0 if a.totals.nll == b.totals.nll else abs(a.totals.nll - b.totals.nll)
        if not wrong and not (alike and apart <= largest * max(1, a.totals.tokens)):
            wrong = (
                f"{a.id} has {a.totals.nll:.6f} nats of {a.totals.tokens} tokens in one piece and "
                f"{b.totals.nll:.6f} of {b.totals.tokens} when resumed"
            )
    if wrong:
        return Finding(
            name, "defect", wrong,
            "A block's scores depend on its documents alone, and not on what was scored before "
            "it in the same process.",
        )  # fmt: skip
    how = "byte by byte" if same else "but for rounding"
    return Finding(
        name, "ok", f"interrupted behind {kept} of {blocks} blocks and resumed: the same {how}"
    )
