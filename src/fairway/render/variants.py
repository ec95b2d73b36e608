"""The table of variants on a terminal and as Markdown."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from fairway.render.visible import figure, plain
from fairway.scores import exp
from fairway.statistics import Mean, absence
from fairway.variants import CAUTION, Model, Table, Variant

SIZE = ("size", "bits/weight", "tokens/s", "perplexity", "ratio", "interval")
FAR = ("KLD", "median", "p99", "p99.9", "max")
TOKENS = ("same top", "RMS Δp", "mean Δp", "p1 Δp", "p99 Δp")
KLD_SHOWN = (0.5, 0.99, 0.999, 1.0)


def table(console: Console, item: Table) -> None:
    """Print what the variants lose: size and perplexity, divergence, and a sentence for each."""
    for header, base, cells in (
        (SIZE, _size(item.base, None), [_size(one.model, one) for one in item.variants]),
        (FAR, None, [_far(one) for one in item.variants]),
        (TOKENS, None, [_tokens(one) for one in item.variants]),
    ):
        grid = Grid(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        grid.add_column("model", no_wrap=True, overflow="fold")
        for name in header:
            grid.add_column(name, justify="right")
        if base is not None:
            grid.add_row(plain(item.base.name), *base)
        for one, row in zip(item.variants, cells, strict=True):
            grid.add_row(plain(one.model.name), *row)
        console.print(grid)
        console.print()
    for one in item.variants:
        style = "bold yellow" if one.near or not one.ratio.real else "bold"
        console.print(Text(plain(one.sentence()), style=style))
    for line in _below(item):
        console.print(Text(plain(line), style="dim"))
    console.print(Text(CAUTION, style="yellow"))


def markdown(item: Table) -> str:
    """Give the whole table as Markdown, what it rests on below."""
    header = ("model", *SIZE, *FAR, *TOKENS[:2])
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    rows = [(item.base.name, *_size(item.base, None), *("-",) * (len(FAR) + 2))]
    rows += [
        (one.model.name, *_size(one.model, one), *_far(one), *_tokens(one)[:2])
        for one in item.variants
    ]
    for row in rows:
        cells = [plain(cell).replace("\\", "\\\\").replace("|", "\\|") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {plain(one.sentence())}" for one in item.variants), ""]
    lines += [plain(line) + "  " for line in _below(item)]
    lines += [CAUTION, "", f"`{item.base.signature}`"]
    lines += [f"`{one.model.signature}`" for one in item.variants]
    return "\n".join(lines) + "\n"


def _size(model: Model, variant: Variant | None) -> tuple[str, ...]:
    ratio, span = "-", "-"
    if variant is not None:
        one = variant.ratio
        ratio = f"{exp(one.value):.5f}"
        if not math.isnan(one.low):
            span = f"{exp(one.low):.5f} to {exp(one.high):.5f}"
    return (
        "-" if model.size is None else _bytes(model.size),
        figure(model.bits_per_weight, 3),
        figure(model.tokens_per_second, 3),
        figure(model.perplexity, 5),
        ratio,
        span,
    )


def _far(one: Variant) -> tuple[str, ...]:
    return (
        _with(one.kld, 1.0, "", 3),
        *(figure(one.kld_at[at], 3) for at in KLD_SHOWN),
    )


def _tokens(one: Variant) -> tuple[str, ...]:
    return (
        _with(one.same_top, 100.0, "%", 4),
        _with(one.rms_delta_p, 100.0, "%", 3),
        _with(one.delta_p, 100.0, "%", 2),
        *(f"{figure(100 * one.delta_p_at[at], 3)}%" for at in (0.01, 0.99)),
    )


def _with(one: Mean, scale: float, unit: str, digits: int) -> str:
    """Write a figure and the half-width of its interval."""
    value = figure(one.value * scale, digits)
    if math.isnan(one.low):
        return value + unit
    half = max(one.high - one.value, one.value - one.low) * scale
    return f"{value} ±{figure(half, 2)}{unit}"


def _bytes(size: float) -> str:
    """Write a size in the largest of decimal units of which there is one."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{figure(size / factor, 3)} {unit}"
    return f"{size:.0f} B"


def _below(item: Table) -> list[str]:
    """Say what the table rests on."""
    count = f"{item.documents:,} document{'s' * (item.documents != 1)}"
    lines = [
        f"{item.tokens:,} tokens in {count} of {item.data}; KLD in nats per token, from "
        f"{item.base.name}; Δp is the change of the probability of the text's token",
        "size: of the weights on disk, or as held where a dtype was asked for; tokens/s: of this "
        "run, on this machine",
    ]
    if item.documents < 2:
        lines.append(absence(item.documents))
    else:
        lines.append(f"± and intervals: {item.level:.0%}, documents as clusters, ratio paired")
    for one in item.variants:
        if one.outside:
            lines.append(
                f"{one.model.name}: the vocabularies have different padding; KLD is among the ids "
                f"of both, which leaves out a probability of at most {one.outside:.2g}"
            )
        lines += [f"{one.model.name}: {note}" for note in one.notes]
    return [*lines, *item.notes]
