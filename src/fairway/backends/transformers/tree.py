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
        inputs: ``(n,)`` ids that the model reads, prefix first.
        targets: ``(m,)`` ids to be predicted.
        first: position in inputs whose output predicts the first target.
        at: index of the first target among the document's tokens.
    """

    document: int
    window: int
    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
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


def plan(inputs: Sequence[NDArray[np.int64]], budget: int) -> list[list[int]]:
    """Group windows so that what a batch reads stays within a budget of tokens.

    Windows that begin alike come together; the first of them does not count against the budget,
    since to read it again in another batch would cost more than the memory that it takes. A pure
    function of its arguments.

    Args:
        inputs: ids of each window.
        budget: tokens in a batch.

    Returns:
        Indices of the windows in each batch; a window above the budget has one of its own.
    """
    families: list[tuple[int, list[int]]] = []
    for index in _sorted(inputs):
        size = len(inputs[index])
        if families:
            cost, members = families[-1]
            alike = common(inputs[members[-1]], inputs[index])
            fresh = cost + size - alike
            if _shares(alike, size) and fresh - len(inputs[members[0]]) <= budget:
                members.append(index)
                families[-1] = fresh, members
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


def _sorted(inputs: Sequence[NDArray[np.int64]]) -> list[int]:
    """Order windows so that those that begin alike are neighbours: as lists of ids compare."""
    keys = [ids.astype(">i8").tobytes() for ids in inputs]
    return sorted(range(len(inputs)), key=lambda index: (keys[index], index))


def common(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """Count the tokens that two texts begin with alike."""
    size = min(len(one), len(other))
    if size == 0 or one[0] != other[0]:
        return 0
    unlike = one[:size] != other[:size]
    first = int(unlike.argmax())
    return first if unlike[first] else size


def rounded(size: int) -> int:
    """Round a length up, by about a fiftieth, so that few different ones occur.

    The libraries of matrix products compile a kernel for each size of matrix and keep it: with
    every length there is, that costs time and, after some thousand batches, a gigabyte.
    """
    step = max(8, 1 << max(0, size.bit_length() - 6))
    return -(-size // step) * step


def pack(inputs: Sequence[NDArray[np.int64]], share: bool = True, fill: bool = False) -> Packed:
    """Lay windows into one row.

    Args:
        inputs: ids of each window.
        share: whether windows that begin alike share what they have in common.
        fill: make the row's length a `rounded` one, with a segment that no window has.
    """
    segments: list[Segment] = []
    pieces: list[NDArray[np.int64]] = []
    places: list[Any] = [None] * len(inputs)
    used = 0
    # What waits to be laid: windows in order that agree up to depth, which lies at path.
    waiting: list[tuple[list[int], int, int, tuple[NDArray[np.int64], ...]]] = []
    waiting.append((_sorted(inputs) if share else list(range(len(inputs))), 0, -1, ()))
    while waiting:
        members, depth, parent, path = waiting.pop()
        reach, alike = _alike(inputs, members, depth) if share else (1, len(inputs[members[0]]))
        if reach < len(members):
            waiting.append((members[reach:], depth, parent, path))
        piece = inputs[members[0]][depth:alike]
        node = len(segments)
        segments.append(Segment(used, len(piece), depth, parent))
        pieces.append(piece)
        way = (*path, np.arange(used, used + len(piece), dtype=np.int64))
        used += len(piece)
        below: list[int] = []
        for index in members[:reach]:
            if len(inputs[index]) == alike:
                places[index] = np.concatenate(way)
            else:
                below.append(index)
        if below:
            waiting.append((below, alike, node, way))
    rest = rounded(used) - used if fill else 0
    if rest:
        segments.append(Segment(used, rest, 0, -1))
        pieces.append(np.zeros(rest, np.int64))
    return Packed(
        np.concatenate(pieces),
        np.concatenate([np.arange(s.depth, s.depth + s.length) for s in segments]),
        tuple(segments),
        tuple(places),
    )


def _alike(
    inputs: Sequence[NDArray[np.int64]], members: Sequence[int], depth: int
) -> tuple[int, int]:
    """Find how many of the first members share a piece behind depth, and up to where."""
    first = inputs[members[0]]
    reach, alike = 1, len(first)
    while reach < len(members):
        other = inputs[members[reach]]
        now = min(alike, common(first, other))
        whole = now == alike and (depth > 0 or now == len(other))
        if now <= depth or (now - depth < SHARED and not whole):
            break
        alike, reach = now, reach + 1
    return reach, alike


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
