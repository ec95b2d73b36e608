"""What an examination of a model's context found: plain data, and what it says in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fairway import __version__
from fairway.longcontext.depth import Bucket
from fairway.longcontext.gain import LN2, Curve, Gain
from fairway.longcontext.longppl import LongPPL
from fairway.scores import Totals, exp, number
from fairway.signature import Signature


@dataclass(frozen=True, slots=True)
class ContextReport:
    """Does a model use its context, and how far back.

    Attributes:
        model: its name.
        data: the corpus' name.
        signature: how the numbers were made.
        totals: sums over the corpus, as an evaluation has them.
        room: tokens of text in a window, the prefix not counted.
        sure: tokens of context that every token has, where as many stand before it.
        unit: what positions count: bytes or tokens.
        buckets: bits by position.
        curve: the context-gain curve.
        longppl: LongPPL; None = not asked for.
        notes: what must be known.
    """

    model: str
    data: str
    signature: Signature
    totals: Totals
    room: int
    sure: int
    unit: str
    buckets: tuple[Bucket, ...]
    curve: Curve
    longppl: LongPPL | None
    notes: tuple[str, ...] = ()

    def sentences(self) -> tuple[str, ...]:
        """Say what was found, in plain words."""
        out = [*_of_curve(self.curve)]
        if self.longppl is not None:
            out.append(_of_longppl(self.longppl, self.totals))
        return tuple(out)

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        return {
            "model": self.model,
            "data": self.data,
            "signature": str(self.signature),
            "version": __version__,
            "sentences": list(self.sentences()),
            "totals": self.totals.to_json(),
            "window": self.room,
            "context_at_least": self.sure,
            "position_unit": self.unit,
            "positions": [one.to_json() for one in self.buckets],
            "gain": self.curve.to_json(),
            "longppl": None if self.longppl is None else self.longppl.to_json(),
            "notes": list(self.notes),
        }


def _of_curve(curve: Curve) -> list[str]:
    if curve.reason:
        return [f"There is no curve of the context's gain: {curve.reason}."]
    of = (
        f"{curve.tokens:,} token{'s' * (curve.tokens != 1)} of {curve.documents:,} "
        f"document{'s' * (curve.documents != 1)}"
    )
    if curve.documents < 2:
        one = curve.gains[0]
        return [
            f"Beyond {_tokens(one.k)} the context {_brings(one)}, on {of}; whether that holds for "
            "other documents cannot be told from one."
        ]
    helped = [one for one in curve.gains if one.real]
    if not helped:
        one = curve.gains[0]
        if one.found.value < 0 and one.adjusted < 1 - one.found.level:
            return [f"Beyond {_tokens(one.k)} the context {_brings(one)}, on {of}."]
        return [
            f"Beyond {_tokens(one.k)} no gain of context can be told: {_signed(one)} on {of}; more "
            "tokens (--per-document) or documents would tell."
        ]
    last = helped[-1]
    out = [f"Beyond {_tokens(last.k)} the context {_brings(last)}, on {of}."]
    further = [one for one in curve.gains if one.k > last.k]
    if further:
        out.append(f"Beyond {_tokens(further[0].k)} no gain can be told: {_signed(further[0])}.")
    return out


def _tokens(count: int) -> str:
    return f"{count:,} token{'s' * (count != 1)}"


def _brings(one: Gain) -> str:
    verb = "brings" if one.found.value >= 0 else "costs"
    low, high = sorted((one.found.low / LN2, one.found.high / LN2))
    span = ""
    if low == low:
        low, high = (low, high) if verb == "brings" else (-high, -low)
        span = f" ({one.found.level:.0%} {low:.4f} to {high:.4f})"
    return f"{verb} {abs(one.bits_per_byte):.4f} bits per byte{span}"


def _signed(one: Gain) -> str:
    low, high = one.found.low / LN2, one.found.high / LN2
    return (
        f"{one.bits_per_byte:+.4f} bits per byte ({one.found.level:.0%} {low:+.4f} to {high:+.4f}, "
        f"p = {one.adjusted:.2g})"
    )


def _of_longppl(item: LongPPL, totals: Totals) -> str:
    if item.value is None:
        return f"There is no LongPPL: {item.reason}."
    span = ""
    if item.interval is not None:
        low, high = item.interval.low, item.interval.high
        span = f" ({item.interval.level:.0%} {low:,.4g} to {high:,.4g})"
    tokens = item.key.totals.tokens
    share = tokens / (tokens + item.rest.totals.tokens)
    return (
        f"LongPPL is {item.value:,.4g}{span}: the perplexity of the {_tokens(tokens)} "
        f"({share:.2%}) for which {item.evaluator} needs more than {_tokens(item.short)} of "
        f"context; over all tokens it is {exp(totals.per('tokens')):,.4g}."
    )


def bits(value: float) -> float:
    """Turn nats into bits."""
    return value / math.log(2)


def rows(report: ContextReport) -> list[dict[str, Any]]:
    """Give every figure as one row of a table: which result, where, the value, its interval.

    Bits by position and on key spans are bits per byte; a gain is bits per byte, too.
    """
    out: list[dict[str, Any]] = []
    for one in report.buckets:
        span = (one.interval.low, one.interval.high) if one.interval else (math.nan, math.nan)
        out.append(_row(f"position ({report.unit})", f"{one.low}-{one.high - 1}",
                        "bits_per_byte", one.bits_per_byte, span, one.totals))  # fmt: skip
    curve = report.curve
    sums = Totals(math.nan, curve.tokens, bytes=curve.bytes, documents=curve.documents)
    for gain in curve.gains:
        ends = bits(gain.found.low), bits(gain.found.high)
        out.append(_row("gain beyond (tokens)", str(gain.k), "bits_per_byte",
                        gain.bits_per_byte, ends, sums))  # fmt: skip
    if report.longppl is not None and report.longppl.value is not None:
        parts = (("key spans", report.longppl.key), ("rest", report.longppl.rest))
        for name, part in parts:
            for metric, value in (
                ("perplexity", exp(part.totals.per("tokens"))),
                ("bits_per_byte", bits(part.totals.per("bytes"))),
            ):
                found = part.intervals.get(metric)
                ends = (found.low, found.high) if found else (math.nan, math.nan)
                out.append(_row("longppl", name, metric, value, ends, part.totals))
    return out


def _row(
    result: str, where: str, metric: str, value: float, span: tuple[float, float], totals: Totals
) -> dict[str, Any]:
    return {
        "result": result, "where": where, "metric": metric, "value": number(value),
        "low": number(span[0]), "high": number(span[1]), "tokens": totals.tokens,
        "bytes": totals.bytes, "documents": totals.documents,
    }  # fmt: skip
