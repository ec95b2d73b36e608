"""The progress bar of long work, on stderr, and what a pilot of the first documents foretells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fairway import evaluation, statistics

PRECISION = 0.005
"""The relative half-width that the pilot's forecast names."""


def forecast(state: evaluation.Progress) -> str:
    """Say what the first documents foretell: the time left, and the documents a precision needs.

    Args:
        state: after at least `fairway.evaluation.PILOT` documents.
    """
    parts = []
    if state.size and 0 < state.position < state.size:
        left = state.seconds * (state.size - state.position) / state.position
        parts.append(f"about {duration(left)} for the rest")
    width = statistics.half_width(state.moments)
    if width == width:
        parts.append(f"perplexity ±{width:.1%} so far")
        needed = statistics.documents_needed(state.moments, PRECISION)
        if needed is not None and width > PRECISION:
            rounded = float(f"{needed:.2g}")
            parts.append(f"±{PRECISION:.1%} would take about {rounded:,.0f} documents")
    return f"pilot of {state.documents:,} documents: " + "; ".join(parts)


def duration(seconds: float) -> str:
    """Write a time in the largest unit of which there are at least two."""
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    whole = max(1, round(seconds))
    return f"{whole} second{'s' * (whole != 1)}"


@contextmanager
def bar() -> Iterator[Callable[[evaluation.Progress], None]]:
    """Show documents, tokens a second, time left, and the precision reached."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[status]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("scoring", total=None, status="")
        told = False

        def show(state: evaluation.Progress) -> None:
            nonlocal told
            rate = state.fresh / state.seconds if state.seconds > 0 else 0.0
            status = f"{state.documents:,} documents, {rate:,.0f} tokens/s"
            if state.moments.documents >= evaluation.PILOT:
                if not told and state.fresh:
                    told = True
                    progress.console.print(forecast(state), style="dim", highlight=False)
                status += f", perplexity ±{statistics.half_width(state.moments):.1%}"
            progress.update(
                task, total=state.size, completed=state.position if state.size else 0,
                status=status,
            )  # fmt: skip

        yield show
