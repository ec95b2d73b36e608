"""The progress bar of long work, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fairway import evaluation, statistics


@contextmanager
def bar() -> Iterator[Callable[[evaluation.Progress], None]]:
    """Show documents, tokens a second, time left, and after a pilot the precision reached."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[status]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("scoring", total=None, status="")

        def show(state: evaluation.Progress) -> None:
            rate = state.fresh / state.seconds if state.seconds > 0 else 0.0
            status = f"{state.documents:,} documents, {rate:,.0f} tokens/s"
            if state.moments.documents >= evaluation.PILOT:
                width = statistics.half_width(state.moments)
                needed = statistics.documents_needed(state.moments, 0.005)
                status += f", perplexity ±{width:.1%}"
                if needed is not None and width > 0.005:
                    status += f" (±0.5% takes about {needed:,} documents)"
            progress.update(
                task, total=state.size, completed=state.position if state.size else 0,
                status=status,
            )  # fmt: skip

        yield show
