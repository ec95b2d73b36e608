"""Windows laid into rows without padding; what several begin with alike is read once.

The tokens that windows begin with alike form a tree: each of its segments is read once, after the
segments above it. This is exact for a causal model, whose states depend on nothing behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SHARED = 32
"""Tokens that windows must begin with alike before they share them."""


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


class Segment(NamedTuple):
    """A stretch of a packed row that is one piece of text.

    Attributes:
        start: where it begins in the packed row.
        length: its tokens.
        depth: tokens before it in its own text.
        parent: index of the segment that it follows; -1 = none.
    """

    start: int
    length: int
    depth: int
    parent: int


@dataclass(frozen=True, slots=True)
class Packed:
    """Windows in one row without padding.

    Attributes:
        ids: ``(n,)`` tokens to read.
        positions: ``(n,)`` place of each in its own text.
        segments: what may see what: a token sees its own segment up to itself, and the whole
            segments above it.
        places: for each window the ``(len(inputs),)`` places of its tokens in the row.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    segments: tuple[Segment, ...]
    places: tuple[NDArray[np.int64], ...]


def plan(inputs: Sequence[Sequence[int]], budget: int, share: bool = True) -> list[list[int]]:
    """Group windows so that what a batch reads stays within a budget of tokens.

    Windows that begin alike come together. A pure function of its arguments.

    Args:
        inputs: ids of each window.
        budget: tokens in a batch.
        share: whether windows that begin alike share what they have in common.

    Returns:
        Indices of the windows in each batch; a window above the budget has one of its own.
    """
    families: list[tuple[int, list[int]]] = []
    order = (
        sorted(range(len(inputs)), key=lambda index: (list(inputs[index]), index))
        if share
        else range(len(inputs))
    )
    for index in order:
        size = len(inputs[index])
        if share and families:
            cost, members = families[-1]
            alike = common(inputs[members[-1]], inputs[index])
            if _shares(alike, size) and cost + size - alike <= budget:
                members.append(index)
                families[-1] = cost + size - alike, members
                continue
        families.append((size, [index]))
    families.sort(key=lambda family: (-family[0], family[1][0]))
    batches: list[list[int]] = []
    filled = 0
    for cost, members in families:
        if batches and filled + cost <= budget:
            batches[-1].extend(members)
            filled += cost
        else:
            batches.append(list(members))
            filled = cost
    return batches


def _shares(alike: int, size: int) -> bool:
    return alike >= SHARED or alike == size


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that two texts begin with alike."""
    size = min(len(one), len(other))
    if list(one[:size]) == list(other[:size]):
        return size
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        if list(one[low:middle]) == list(other[low:middle]):
            low = middle
        else:
            high = middle
    return low


def pack(inputs: Sequence[Sequence[int]], share: bool = True) -> Packed:
    """Lay windows into one row.

    Args:
        inputs: ids of each window.
        share: whether windows that begin alike share what they have in common.
    """
    segments: list[Segment] = []
    pieces: list[Sequence[int]] = []
    places: list[Any] = [None] * len(inputs)
    used = 0

    def put(ids: Sequence[int], depth: int, parent: int) -> int:
        nonlocal used
        segments.append(Segment(used, len(ids), depth, parent))
        pieces.append(ids)
        used += len(ids)
        return len(segments) - 1

    def grow(members: list[int], depth: int, parent: int, path: list[NDArray[np.int64]]) -> None:
        # Members are sorted and agree up to depth, whose places are in path.
        at = 0
        while at < len(members):
            first = inputs[members[at]]
            reach = at + 1
            alike = len(first)
            while share and reach < len(members):
                now = min(alike, common(first, inputs[members[reach]]))
                if now - depth < SHARED and now < len(inputs[members[reach - 1]]):
                    break
                if now <= depth:
                    break
                alike, reach = now, reach + 1
            node = put(first[depth:alike], depth, parent)
            here = np.arange(segments[node].start, used, dtype=np.int64)
            below: list[int] = []
            for index in members[at:reach]:
                if len(inputs[index]) == alike:
                    places[index] = np.concatenate([*path, here])
                else:
                    below.append(index)
            if below:
                grow(below, alike, node, [*path, here])
            at = reach

    order = list(range(len(inputs)))
    if share:
        order.sort(key=lambda index: (list(inputs[index]), index))
    grow(order, 0, -1, [])
    return Packed(
        np.fromiter((token for piece in pieces for token in piece), np.int64, used),
        np.concatenate([np.arange(s.depth, s.depth + s.length) for s in segments]),
        tuple(segments),
        tuple(places),
    )


def padded(lengths: Sequence[int], budget: int) -> list[list[int]]:
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
