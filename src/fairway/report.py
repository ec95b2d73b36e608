"""The result of an evaluation as plain data: sums, ratios, intervals, groups, signature."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairway import __version__, oov
from fairway.companions import Figures, Pool, figures, of
from fairway.errors import InputError
from fairway.oov import Oov
from fairway.scores import PERPLEXITY, Score, Totals, add, named, number, ratios, read_totals, real
from fairway.signature import Signature, parse
from fairway.statistics import Few, Interval, Moments, absence, intervals

FORMAT = 1
"""Version of the JSON contract; it grows only when old readers would misread it."""

REASONS = {
    "tokens": "no token was scored",
    "bytes": "the corpus holds token ids without bytes",
    "chars": "the corpus holds token ids, whose characters are not known",
    "words": "the scored text holds no whole whitespace-separated word",
}
EARLIER = {"companions": "the report was made before fairway had them"}
"""What a report lacks that an earlier version wrote."""

METRICS = {
    "tokens": ("perplexity", "nll_per_token", "bytes_per_token"),
    "bytes": ("bits_per_byte", "byte_perplexity"),
    "chars": ("bits_per_char",),
    "words": ("word_perplexity",),
}
"""What cannot be computed where a unit was not counted."""


@dataclass(frozen=True, slots=True)
class Group:
    """The part of a report that one value of the grouping field has."""

    name: str
    totals: Totals
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    design_effect: float = math.nan
    companions: Figures | None = None
    perplexity: str = PERPLEXITY
    oov: Oov | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Every ratio of the sums."""
        return ratios(self.totals, self.perplexity)


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found, and how.

    Attributes:
        model: name of the model.
        data: name of the corpus.
        protocol: name of the convention.
        signature: how the number was made.
        totals: the sums.
        intervals: confidence intervals by metric.
        reasons: why a metric or an interval is absent, by its name.
        groups: the same for each value of the grouping field.
        macro: unweighted means over groups by metric, with their intervals.
        skipped_rows: rows that could not be scored: source, line, reason.
        skipped_total: how many they are; the list may be shorter.
        design_effect: variance over that of the formula for independent tokens.
        overrides: metrics that a convention computes in its own way.
        perplexity: name of exp(nll / tokens); the other ratios are named after it.
        notes: what a reader must know.
        texts: single texts, where kept.
        version: fairway's version.
        companions: what is reported beside perplexity; None = see ``reasons``.
        oov: words unknown to the model; None where the kind of model does not tell them.
    """

    model: str
    data: str
    protocol: str
    signature: Signature
    totals: Totals
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    macro: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    skipped_rows: tuple[Mapping[str, Any], ...] = ()
    skipped_total: int = 0
    design_effect: float = math.nan
    overrides: Mapping[str, float] = field(default_factory=dict)
    perplexity: str = PERPLEXITY
    notes: tuple[str, ...] = ()
    texts: tuple[Mapping[str, Any], ...] = ()
    version: str = __version__
    companions: Figures | None = None
    oov: Oov | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Every ratio of the sums, with what the convention computes in its own way."""
        return {**ratios(self.totals, self.perplexity), **self.overrides}

    def to_json(self) -> dict[str, Any]:
        """Give the report as plain JSON data; see ``data/report.schema.json``."""
        out = {
            "fairway": self.version,
            "format": FORMAT,
            "signature": str(self.signature),
            "signature_fields": dict(self.signature.fields),
            "model": self.model,
            "data": self.data,
            "protocol": self.protocol,
            "metrics": {
                **{key: number(value) for key, value in self.metrics.items()},
                **self.totals.to_json(),
            },
            "reasons": dict(self.reasons),
            "intervals": _intervals(self.intervals),
            "design_effect": number(self.design_effect),
            "companions": _companions(self.companions),
            "groups": [
                {
                    "name": group.name,
                    "metrics": {
                        **{key: number(value) for key, value in group.metrics.items()},
                        **group.totals.to_json(),
                    },
                    "reasons": dict(group.reasons),
                    "intervals": _intervals(group.intervals),
                    "design_effect": number(group.design_effect),
                    "companions": _companions(group.companions),
                    **_oov(group.oov),
                }
                for group in self.groups
            ],
            "macro": {
                key: {"value": number(value), "low": number(low), "high": number(high)}
                for key, (value, low, high) in self.macro.items()
            },
            "skipped_rows": [dict(row) for row in self.skipped_rows],
            "skipped_total": self.skipped_total,
            "notes": list(self.notes),
            **_oov(self.oov),
        }
        if self.overrides:
            out["overrides"] = {key: number(value) for key, value in self.overrides.items()}
        if self.perplexity != PERPLEXITY:
            out["perplexity_name"] = self.perplexity
        if self.texts:
            out["texts"] = [dict(text) for text in self.texts]
        return out

    def to_frame(self) -> Any:
        """Give one row for the whole and one for each group, as a pandas DataFrame.

        Raises:
            MissingExtra: when pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            from fairway.errors import MissingExtra

            raise MissingExtra("A DataFrame", "data") from None
        base = {"model": self.model, "data": self.data, "protocol": self.protocol}
        parts: list[tuple[str, Report | Group]] = [
            ("all", self),
            *((g.name, g) for g in self.groups),
        ]
        rows = []
        for name, part in parts:
            more = part.companions.metrics if part.companions else {}
            if part.oov is not None:
                more = {**more, "oov_tokens": part.oov.tokens, **part.oov.metrics}
            rows.append({**base, "group": name, **part.metrics, **part.totals.to_json(), **more})
        return pandas.DataFrame(rows)


def _companions(item: Figures | None) -> dict[str, Any] | None:
    if item is None:
        return None
    return {
        "tokens": item.tokens,
        "metrics": {key: number(value) for key, value in item.metrics.items()},
        "intervals": _intervals(item.intervals),
    }


def _oov(item: Oov | None) -> dict[str, Any]:
    if item is None:
        return {}
    metrics = {key: number(value) for key, value in item.metrics.items()}
    return {"oov": {**item.to_json(), "metrics": metrics}}


def _read_companions(data: Mapping[str, Any] | None) -> Figures | None:
    if data is None:
        return None
    metrics = {key: real(value) for key, value in data["metrics"].items()}
    return Figures(data["tokens"], metrics, _read_intervals(data["intervals"]))


def _intervals(items: Mapping[str, Interval]) -> dict[str, Any]:
    return {
        key: {
            "low": number(i.low),
            "high": number(i.high),
            "level": i.level,
            "method": i.method,
        }
        for key, i in items.items()
    }


def _read_intervals(data: Mapping[str, Any]) -> dict[str, Interval]:
    return {
        key: Interval(real(i["low"]), real(i["high"]), i["level"], i["method"])
        for key, i in data.items()
    }


def from_json(data: Mapping[str, Any]) -> Report:
    """Read a report back.

    Raises:
        InputError: when it is no report, or one of a newer format.
    """
    try:
        if data.get("format", FORMAT) > FORMAT:
            raise InputError(
                f"This report was written by fairway {data.get('fairway')}, in a newer format; "
                "update fairway to read it."
            )
        return Report(
            model=data["model"],
            data=data.get("data", ""),
            protocol=data["protocol"],
            signature=parse(data["signature"]),
            totals=read_totals(data["metrics"]),
            intervals=_read_intervals(data["intervals"]),
            reasons={**({} if "companions" in data else EARLIER), **data["reasons"]},
            groups=tuple(
                Group(
                    g["name"],
                    read_totals(g["metrics"]),
                    _read_intervals(g["intervals"]),
                    dict(g.get("reasons", {})),
                    real(g.get("design_effect")),
                    _read_companions(g.get("companions")),
                    data.get("perplexity_name", PERPLEXITY),
                    oov.from_json(g.get("oov")),
                )
                for g in data["groups"]
            ),
            macro={
                key: (real(m["value"]), real(m["low"]), real(m["high"]))
                for key, m in data.get("macro", {}).items()
            },
            skipped_rows=tuple(data["skipped_rows"]),
            skipped_total=data.get("skipped_total", len(data["skipped_rows"])),
            design_effect=real(data.get("design_effect")),
            overrides={key: real(value) for key, value in data.get("overrides", {}).items()},
            perplexity=data.get("perplexity_name", PERPLEXITY),
            notes=tuple(data.get("notes", ())),
            texts=tuple(data.get("texts", ())),
            version=data["fairway"],
            companions=_read_companions(data.get("companions")),
            oov=oov.from_json(data.get("oov")),
        )
    except (KeyError, TypeError, AttributeError) as problem:
        raise InputError(
            f"This is not a fairway report: {problem!r} is missing or wrong."
        ) from None


def dumps(reports: Iterable[Report], indent: int | None = 2, several: bool = False) -> str:
    """Write one report, or several under ``reports``; there too where several is set."""
    kept = [report.to_json() for report in reports]
    data = kept[0] if len(kept) == 1 and not several else {"reports": kept}
    return json.dumps(data, ensure_ascii=False, indent=indent, allow_nan=False)


def absent(totals: Totals, moments: Moments, perplexity: str = PERPLEXITY) -> dict[str, str]:
    """Say why metrics or intervals are missing."""
    reasons: dict[str, str] = {}
    for unit, names in METRICS.items():
        if not totals.tokens or not getattr(totals, unit):
            why = REASONS["tokens"] if not totals.tokens else REASONS[unit]
            reasons.update((named(key, perplexity), why) for key in names)
    if moments.documents < 2:
        reasons["intervals"] = absence(moments.documents)
    return reasons


def text_entry(score: Score) -> dict[str, Any]:
    """Write one text with its tokens, as the JSON contract has it."""
    return {
        "id": score.id,
        "text": score.text,
        "metrics": {
            **{key: number(value) for key, value in score.metrics.items()},
            **score.totals.to_json(),
        },
        "tokens": [
            {
                "id": token.id,
                "text": token.text,
                "start": token.start,
                "end": token.end,
                "logprob": number(token.logprob),
            }
            for token in score.tokens
        ],
    }


def renamed(items: Mapping[str, Interval], perplexity: str) -> dict[str, Interval]:
    """Name intervals as their metrics are."""
    return {named(key, perplexity): interval for key, interval in items.items()}


def token_squares(score: Score) -> float:
    """Sum the squared nll of single tokens, for the formula of independent tokens."""
    return math.fsum(value * value for value in score.logprobs.tolist() if value == value)


def summarize(
    scores: Iterable[Score], signature: Signature, *, data: str = "texts", texts: bool = True
) -> Report:
    """Make a report of a few scores in memory.

    Args:
        scores: what was scored.
        signature: the scorer's; documents are counted into it.
        data: name of the corpus.
        texts: keep the single texts.
    """
    kept = list(scores)
    totals = add(score.totals for score in kept)
    moments = sum(
        (Moments.of(score.totals, token_squares(score)) for score in kept), start=Moments()
    )
    few, pool = Few(), Pool()
    unknown: Oov | None = None
    for score in kept:
        few.add(score.totals)
        pool.add(of(score, score.totals))
        unknown = oov.plus(unknown, oov.of(score))
    name = next((score.perplexity for score in kept), PERPLEXITY)
    notes = oov.note(unknown)
    if any(score.lossy for score in kept):
        notes.append("the tokenizer does not give the text back unchanged: bytes are the source's")
    return Report(
        model=signature.get("model") or "",
        data=data,
        protocol=signature.get("protocol") or "",
        signature=signature.with_(data=data, documents=len(kept)),
        totals=totals,
        intervals=renamed(intervals(moments, few=few), name),
        reasons=absent(totals, moments, name),
        design_effect=moments.design_effect(),
        perplexity=name,
        notes=tuple(notes),
        texts=tuple(text_entry(score) for score in kept) if texts else (),
        companions=figures(pool),
        oov=unknown,
    )
