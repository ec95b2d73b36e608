"""Which windows are run together: a pure function of their lengths and a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """One window of one document, ready to run.

    Attributes:
        document: index of the document among those given.
        window: index of the window in the document.
        inputs: ids that the model reads, prefix first.
        targets: ids to be predicted.
        first: position in inputs whose output predicts the first target.
        at: index of the first target among the document's tokens.
    """

    document: int
    window: int
    inputs: list[int]
    targets: list[int]
    first: int
    at: int


def plan(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group windows, longest first, so that ``rows * longest`` stays within a budget.

    Args:
        lengths: tokens in each window's input.
        budget: tokens in a batch, padding counted.

    Returns:
        Indices of the windows in each batch; a window above the budget has one of its own.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        if batches:
            batch = batches[-1]
            if lengths[batch[0]] * (len(batch) + 1) <= budget:
                batch.append(index)
                continue
        batches.append([index])
    return batches
