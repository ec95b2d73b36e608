"""What stands beside a perplexity, in words: for tables and for sentences."""

from __future__ import annotations

import math
from typing import NamedTuple

from fairway.companions import Figures
from fairway.oov import Oov
from fairway.render.visible import figure

SHARES = (
    "top1_accuracy", "top5_accuracy", "bits_in_top_1_percent", "tokens_for_half_the_bits",
)  # fmt: skip
COLUMNS = (
    ("top1_accuracy", "top-1"),
    ("top5_accuracy", "top-5"),
    ("entropy", "entropy"),
    ("nll_minus_entropy", "nll-entropy"),
    ("surprisal_p50", "p50 bits"),
    ("surprisal_p99", "p99 bits"),
    ("bits_in_top_1_percent", "top 1%"),
)
"""Figures of a table of several, and their headings."""


class Row(NamedTuple):
    """A figure with its label, its interval and what it is."""

    label: str
    value: str
    span: str
    remark: str


def shown(name: str, value: float) -> str:
    """Write a figure: shares in percent, a gap with its sign."""
    if name in SHARES and value == value:
        return f"{figure(100 * value, 3)}%"
    sign = "+" if name == "nll_minus_entropy" and value > 0 else ""
    return sign + figure(value)


def rows(item: Figures) -> list[Row]:
    """Give the rows of one report's table."""
    out = []
    for name, label, remark in (
        ("top1_accuracy", "top-1 accuracy", "its first choice was right"),
        ("top5_accuracy", "top-5 accuracy", "one of its first five was"),
        ("entropy", "predicted entropy", "nats it expects to pay"),
        ("nll_minus_entropy", "nll minus entropy", "nats; above 0 over-confident"),
    ):
        interval = item.intervals.get(name)
        span = ""
        if interval is not None:
            span = f"[{shown(name, interval.low)}, {shown(name, interval.high)}]"
        out.append(Row(label, shown(name, item.metrics[name]), span, remark))
    p50, p90, p99 = (figure(item.metrics[f"surprisal_p{p}"], 3) for p in (50, 90, 99))
    out.append(Row("surprisal, median", p50, f"p90 {p90}, p99 {p99}", "bits of a token"))
    share = shown("bits_in_top_1_percent", item.metrics["bits_in_top_1_percent"])
    out.append(Row("costliest 1%", share, "", "of tokens: share of all bits"))
    return out


def unknown(item: Oov) -> list[Row]:
    """Give the rows on words that the model's vocabulary lacks."""
    metrics, both = item.metrics, item.tokens + item.known
    share = f"{figure(100 * metrics['oov_rate'], 3)}%" if both else "-"
    return [
        Row("unknown words", share, "", f"{item.tokens:,} of {both:,} tokens"),
        Row("ppl without them", figure(metrics["perplexity_without_oov"], 5), "", "per token"),
    ]


def sentences(item: Figures) -> list[str]:
    """Say what the figures mean."""
    metrics = item.metrics
    first, five, top, half = (shown(name, metrics[name]) for name in SHARES)
    out = [
        f"The model's likeliest token was the next one {first} of the time, one of its five "
        f"likeliest {five}."
    ]
    gap, interval = metrics["nll_minus_entropy"], item.intervals.get("nll_minus_entropy")
    if math.isfinite(gap):
        word, less = ("over", "more") if gap > 0 else ("under", "fewer")
        verdict = f"so it is {word}-confident on this text"
        if interval is not None and interval.low <= 0 <= interval.high:
            verdict = "which its interval does not tell from 0, where a model is calibrated"
        out.append(
            f"It paid {figure(abs(gap), 3)} nats a token {less} than its own distributions expect "
            f"({figure(metrics['entropy'], 3)}), {verdict}."
        )
    if math.isfinite(metrics["tokens_for_half_the_bits"]):
        out.append(
            f"Half of all bits go to {half} of the tokens, {top} of all to the costliest 1%."
        )
    return out
