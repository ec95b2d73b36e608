"""How the segments of a packed row are attended to: alone, stacked, or behind others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from fairway.backends.transformers.tree import Packed, Segment

SHORT = 96
"""Segments up to this length are stacked; padding behind a causal text changes nothing."""
STEP = 16
"""Lengths are rounded up to a multiple of this when segments are stacked."""
BRANCHES = 256
"""Tokens that follow the same segment and are attended to together, where a mask is needed."""
Place: TypeAlias = slice | torch.Tensor
Stack: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Piece: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(slots=True)
class Branch:
    """Segments that follow the same one.

    Attributes:
        parent: index of the segment that they follow.
        children: their indices.
        own: places of their tokens.
        trunk: places of the tokens above them, which all of them see.
        stacks: the segments stacked by length: places, where the real ones are among them, and
            their rows among own.
        pieces: where a mask is needed, once it is: places of queries, of keys, the mask between,
            and how far apart they are.
    """

    parent: int
    children: list[int]
    own: Place
    trunk: Place
    stacks: list[Stack]
    pieces: list[Piece] | None = None


@dataclass(slots=True)
class Layout:
    """What one packed row needs in every layer; made once, filled with masks as layers ask.

    Attributes:
        packed: the row.
        device: of its tensors.
        singles: segments that follow none, attended to one by one: start and end.
        stacks: short segments that follow none: ``(m, longest)`` places, and where the real ones
            are among them.
        branches: segments that follow others.
        masks: masks of sliding windows by (length, window).
        local: widths of sliding windows that the model asked masks for.
        windows: widths of sliding windows that its attention layers named.
    """

    packed: Packed
    device: torch.device
    singles: list[tuple[int, int]] = field(default_factory=list)
    stacks: list[Stack] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    masks: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    local: set[int] = field(default_factory=set)
    windows: set[int] = field(default_factory=set)


def lay_out(packed: Packed, device: torch.device) -> Layout:
    """Sort the segments of a packed row into those that run alone, stacked, or behind others."""
    layout = Layout(packed, device)
    stacks: dict[int, list[Segment]] = {}
    behind: dict[int, list[int]] = {}
    for index, segment in enumerate(packed.segments):
        if segment.parent >= 0:
            behind.setdefault(segment.parent, []).append(index)
        elif segment.length > SHORT:
            layout.singles.append((segment.start, segment.start + segment.length))
        else:
            stacks.setdefault(-(-segment.length // STEP) * STEP, []).append(segment)
    for segments in stacks.values():
        if len(segments) == 1:
            only = segments[0]
            layout.singles.append((only.start, only.start + only.length))
        else:
            layout.stacks.append(_stack(segments, device))
    for parent, children in behind.items():
        layout.branches.append(_branch(packed, parent, children, device))
    return layout


def _stack(segments: Sequence[Segment], device: torch.device) -> Stack:
    starts = torch.tensor([s.start for s in segments])
    lengths = torch.tensor([s.length for s in segments])
    steps = torch.arange(int(lengths.max()))
    real = steps[None] < lengths[:, None]
    places = starts[:, None] + torch.minimum(steps[None], lengths[:, None] - 1)
    return (
        places.to(device), real.flatten().nonzero().squeeze(1).to(device), places[real].to(device)
    )  # fmt: skip


def _branch(packed: Packed, parent: int, children: list[int], device: torch.device) -> Branch:
    above: list[torch.Tensor] = []
    node = parent
    while node >= 0:
        one = packed.segments[node]
        above.insert(0, torch.arange(one.start, one.start + one.length))
        node = one.parent
    segments = [packed.segments[child] for child in children]
    own = torch.cat([torch.arange(s.start, s.start + s.length) for s in segments])
    rows = torch.full((len(packed.ids),), -1, device=device)
    rows[own.to(device)] = torch.arange(len(own), device=device)
    alike: dict[int, list[Segment]] = {}
    for segment in segments:
        alike.setdefault(-(-segment.length // STEP), []).append(segment)
    stacks = [
        (places, real, rows[targets])
        for places, real, targets in (_stack(group, device) for group in alike.values())
    ]
    return Branch(
        parent, children, _place(own, device), _place(torch.cat(above), device), stacks
    )  # fmt: skip


def _place(places: torch.Tensor, device: torch.device) -> Place:
    """Give places as a slice where they are one stretch, which needs no copy."""
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 == len(places) and bool((places.diff() == 1).all()):
        return slice(first, last + 1)
    return places.to(device)


def pieces(layout: Layout, branch: Branch) -> list[Piece]:
    """Cut a branch into pieces with a mask each; made once."""
    if branch.pieces is None:
        packed, device = layout.packed, layout.device
        places = torch.arange(len(packed.ids))
        trunk = places[branch.trunk if isinstance(branch.trunk, slice) else branch.trunk.cpu()]
        positions = torch.from_numpy(packed.positions)
        branch.pieces = []
        chunk: list[Segment] = []
        for number, child in enumerate(branch.children):
            chunk.append(packed.segments[child])
            held = sum(s.length for s in chunk)
            last = number + 1 == len(branch.children)
            if not last:
                following = packed.segments[branch.children[number + 1]].length
                if held + following <= BRANCHES:
                    continue
            own = torch.cat([torch.arange(s.start, s.start + s.length) for s in chunk])
            label = torch.cat([torch.full((s.length,), i) for i, s in enumerate(chunk)])
            keys = torch.cat((trunk, own))
            inside = (label[:, None] == label[None]) & (own[:, None] >= own[None])
            mask = torch.cat((torch.ones(len(own), len(trunk), dtype=torch.bool), inside), 1)
            apart = positions[own][:, None] - positions[keys][None]
            branch.pieces.append(
                (own.to(device), keys.to(device), mask.to(device), apart.to(device))
            )
            chunk = []
    return branch.pieces


def band(layout: Layout, length: int, window: int) -> torch.Tensor | None:
    """A mask for a sliding window shorter than the text; None = plainly causal."""
    if not window or length <= window:
        return None
    found = layout.masks.get((length, window))
    if found is None:
        steps = torch.arange(length, device=layout.device)
        apart = steps[:, None] - steps[None]
        found = layout.masks[length, window] = (apart >= 0) & (apart < window)
    return found
