"""Curves as pictures, through matplotlib."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fairway.curve import Curve
from fairway.errors import InputError, MissingExtra
from fairway.render.curve import part
from fairway.render.visible import plain
from fairway.scores import named

ENDINGS = (".png", ".svg", ".pdf")
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito, "Color universal design" (2008): black is all, then a colour for each domain."""
MARKS = "osD^vPX"
"""A shape for each line, so that colour is not needed."""


def check(path: Path) -> None:
    """Refuse a picture that cannot be made, before anything is computed.

    Raises:
        InputError: when the file's ending is not one of `ENDINGS`, or its folder is absent.
        MissingExtra: when matplotlib is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"--plot {path} does not end in {', '.join(ENDINGS)}.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent} for --plot; make it first.")
    if find_spec("matplotlib") is None:
        raise MissingExtra("--plot", "plot")


def draw(item: Curve, path: Path) -> None:
    """Draw bits per byte over steps, a line for all and each domain, intervals as bands.

    Domains beyond the palette's colours are left out, and said to be.

    Raises:
        InputError: when the file cannot be written.
        MissingExtra: when matplotlib is not installed.
    """
    check(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fairway"}):
        # No pyplot: it keeps state, and looks for a screen.
        figure = Figure(figsize=(7.0, 4.4), layout="constrained")
        axes = figure.add_subplot()
        shown = item.domains[: len(COLOURS) - 1]
        for number, name in enumerate((None, *shown)):
            _line(axes, item, name, number)
        best = item.steps[item.best]
        axes.plot(
            [best.step], [best.side.bits_per_byte], "o", markersize=12, fillstyle="none",
            color=COLOURS[0], label=_safe(f"lowest, {best.title}"),
        )  # fmt: skip
        report = best.side.report
        left_out = len(item.domains) - len(shown)
        more = f"; {left_out} domains not shown" if left_out else ""
        axes.set_title(_safe(f"{report.data}, {report.totals.documents:,} documents{more}"))
        axes.set_xlabel("training step")
        axes.set_ylabel(f"bits per byte (band: {item.level:.0%} interval)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False)
        try:
            # Without a date the same curve gives the same file.
            figure.savefig(path, dpi=150, metadata=_undated(path))
        except OSError as problem:
            raise InputError(f"{path} cannot be written: {problem.strerror or problem}.") from None


def _undated(path: Path) -> dict[str, Any]:
    key = {".svg": "Date", ".pdf": "CreationDate"}.get(path.suffix.lower())
    return {key: None} if key else {}


def _line(axes: Any, item: Curve, name: str | None, number: int) -> None:
    steps, values, low, high = [], [], [], []
    for step in item.steps:
        found = part(step, name)
        if found is None:
            continue
        byte = named("bits_per_byte", found.perplexity)
        value = found.metrics[byte]
        if not math.isfinite(value):
            continue
        interval = found.intervals.get(byte)
        steps.append(step.step)
        values.append(value)
        low.append(interval.low if interval else math.nan)
        high.append(interval.high if interval else math.nan)
    axes.plot(
        steps, values, color=COLOURS[number], marker=MARKS[number], markersize=4,
        linewidth=2.2 if name is None else 1.4, label="all" if name is None else _safe(name),
    )  # fmt: skip
    axes.fill_between(steps, low, high, color=COLOURS[number], alpha=0.13, linewidth=0)


def _safe(text: str) -> str:
    """Keep matplotlib from reading $ as a formula, and from hiding labels that begin with _."""
    shown = plain(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
