"""Records that come from a log, and what it does not record, as a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairway.errors import InputError
from fairway.record import Record
from fairway.report import METRICS, Report
from fairway.scores import add
from fairway.signature import Signature, Value
from fairway.statistics import Few, Moments, absence, intervals

Read = tuple[dict[str, Any], Report, tuple[Record, ...]]
"""Settings, report and records, as a run directory has them."""
SKIPPED = 1000
"""Skipped samples that are listed."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a log says of its numbers.

    Attributes:
        tool: what wrote it, with its version where that is known.
        fields: of the signature; `fairway.signature.UNKNOWN` for what the log does not record.
        lacking: why a unit of `fairway.scores.UNITS` was not counted.
        notes: what a reader must know.
        skipped: samples without a score: source, line, reason.
    """

    tool: str
    fields: Mapping[str, Value]
    lacking: Mapping[str, str]
    notes: Sequence[str] = ()
    skipped: Sequence[Mapping[str, Any]] = ()


def report(records: Sequence[Record], source: Source, path: str) -> Read:
    """Make a report of a log's records, with the reasons of what is absent.

    A unit that is lacking is set to zero in every record, since a sum over some of them would
    divide the nats of all.

    Raises:
        InputError: when there is no record.
    """
    if not records:
        reason = source.skipped[0]["reason"] if source.skipped else "it holds no sample"
        raise InputError(
            f"{path} holds nothing that was scored: {reason}; log an evaluation that keeps "
            "log-likelihoods."
        )
    none: dict[str, Any] = dict.fromkeys(source.lacking, 0)
    kept = tuple(replace(one, totals=replace(one.totals, **none)) for one in records)
    totals = add(one.totals for one in kept)
    moments = sum((Moments.of(one.totals, one.token_nll2) for one in kept), start=Moments())
    few = Few()
    for one in kept:
        few.add(one.totals)
    reasons = {
        name: source.lacking.get(unit, "none was counted")
        for unit, names in METRICS.items()
        for name in names
        if not getattr(totals, unit)
    }
    if "tokens" in source.lacking:
        reasons["bytes_per_token"] = source.lacking["tokens"]
    if moments.documents < 2:
        reasons["intervals"] = absence(moments.documents)
    signature = Signature.of({**source.fields, "documents": len(kept), "source": source.tool})
    settings = {"log": path, "tool": source.tool, "signature": str(signature)}
    made = Report(
        model=signature.get("model") or "",
        data=signature.get("data") or "",
        protocol=signature.get("protocol") or "",
        signature=signature,
        totals=totals,
        intervals=intervals(moments, few=few),
        reasons=reasons,
        skipped_rows=tuple(source.skipped[:SKIPPED]),
        skipped_total=len(source.skipped),
        design_effect=moments.design_effect(),
        notes=tuple(source.notes),
    )
    return settings, made, kept
