"""Attention over packed rows, through transformers' own attention interface.

While a packed row runs, the model's attention is replaced by one in which a token sees its own
segment up to itself and the segments above it. No model code is touched, no mask over the whole
row is made. Source of the interface: `AttentionInterface` and `AttentionMaskInterface` in the
documentation of transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from fairway.backends.transformers.tree import Packed, Segment

NAME = "fairway"
SHORT = 96
"""Segments up to this length are stacked; padding behind a causal text changes nothing."""
STEP = 16
"""Lengths are rounded up to a multiple of this when segments are stacked."""
BRANCHES = 256
"""Tokens that follow the same segment and are attended to together."""
QUERIES = 256
"""Queries for which a whole matrix of scores is made where no fused kernel fits."""


class Unpackable(RuntimeError):
    """The model's attention does something that packed rows do not."""


@dataclass(slots=True)
class Layout:
    """What one packed row needs in every layer; made once, filled with masks as layers ask.

    Attributes:
        packed: the row.
        device: of its tensors.
        singles: segments that follow none, attended to one by one: start and end.
        stacks: short segments that follow none: ``(m, longest)`` places, and where the real ones
            are among them.
        branches: segments that follow others: places of queries, of keys, and the mask between.
        masks: masks of sliding windows by (length, window).
        local: widths of sliding windows that the model asked masks for.
        windows: widths of sliding windows that its attention layers named.
    """

    packed: Packed
    device: torch.device
    singles: list[tuple[int, int]] = field(default_factory=list)
    stacks: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    branches: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = field(
        default_factory=list
    )
    masks: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    local: set[int] = field(default_factory=set)
    windows: set[int] = field(default_factory=set)


ACTIVE: ContextVar[Layout | None] = ContextVar("fairway_layout", default=None)


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
        layout.branches.extend(_branches(packed, parent, children, device))
    return layout


def _stack(
    segments: Sequence[Segment], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    starts = torch.tensor([s.start for s in segments])
    lengths = torch.tensor([s.length for s in segments])
    steps = torch.arange(int(lengths.max()))
    real = steps[None] < lengths[:, None]
    places = starts[:, None] + torch.minimum(steps[None], lengths[:, None] - 1)
    return (
        places.to(device), real.flatten().nonzero().squeeze(1).to(device), places[real].to(device)
    )  # fmt: skip


def _branches(
    packed: Packed, parent: int, children: Sequence[int], device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    above: list[torch.Tensor] = []
    node = parent
    while node >= 0:
        one = packed.segments[node]
        above.insert(0, torch.arange(one.start, one.start + one.length))
        node = one.parent
    trunk = torch.cat(above)
    positions = torch.from_numpy(packed.positions)
    chunk: list[Segment] = []
    for number, child in enumerate(children):
        chunk.append(packed.segments[child])
        held = sum(s.length for s in chunk)
        last = number + 1 == len(children)
        if not last and held + packed.segments[children[number + 1]].length <= BRANCHES:
            continue
        own = torch.cat([torch.arange(s.start, s.start + s.length) for s in chunk])
        label = torch.cat([torch.full((s.length,), i) for i, s in enumerate(chunk)])
        keys = torch.cat((trunk, own))
        inside = (label[:, None] == label[None]) & (own[:, None] >= own[None])
        mask = torch.cat((torch.ones(len(own), len(trunk), dtype=torch.bool), inside), 1)
        apart = positions[own][:, None] - positions[keys][None]
        yield own.to(device), keys.to(device), mask.to(device), apart.to(device)
        chunk = []


@contextmanager
def packed_attention(model: Any, layout: Layout) -> Iterator[None]:
    """Let a model's layers attend as a layout says."""
    configs = {id(c): c for c in (model.config, model.config.get_text_config())}
    before = {key: config._attn_implementation for key, config in configs.items()}
    token = ACTIVE.set(layout)
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        ACTIVE.reset(token)


def usable(model: Any) -> bool:
    """Whether a model's attention is reached through the interface, so far as it says."""
    if not getattr(model, "_supports_attention_backend", False):
        return False
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds <= {"full_attention", "sliding_attention", "attention"}:
        return False
    return not getattr(config, "alibi", False) and not getattr(
        config, "use_bidirectional_attention", False
    )


def _mask(
    batch_size: int, q_length: int, kv_length: int, local_size: int | None = None, **_: Any
) -> None:
    """Make no mask: segments say what sees what. Widths of sliding windows are remembered."""
    layout = ACTIVE.get()
    if layout is not None and local_size:
        layout.local.add(int(local_size))


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend over ``(1, heads, tokens, size)``; gives ``(1, tokens, heads, size)``."""
    layout = ACTIVE.get()
    if layout is None or position_bias is not None or attention_mask is not None:
        raise Unpackable("the model adds a mask or a bias of its own")
    if getattr(module, "is_causal", True) is False:
        raise Unpackable("the model looks both ways")
    if query.shape[0] != 1 or query.shape[2] != len(layout.packed.ids):
        raise Unpackable("the model changes the length of its input")
    window = int(sliding_window) if sliding_window else 0
    if window:
        layout.windows.add(window)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if _varlen_fits(query, value, layout, softcap, s_aux):
        return _varlen(query, key, value, layout, scale, window), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    extra = (scale, softcap, s_aux)
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[-1])
    for start, end in layout.singles:
        q, k, v = (t[:, :, start:end] for t in (query, key, value))
        mask = _band(layout, end - start, window)
        out[:, start:end] = _attend(q, k, v, mask, *extra).transpose(1, 2)
    for places, real, targets in layout.stacks:
        q, k, v = (t[0][:, places].transpose(0, 1) for t in (query, key, value))
        mask = _band(layout, places.shape[1], window)
        done = _attend(q, k, v, mask, *extra).transpose(1, 2).flatten(0, 1)
        out[0, targets] = done[real]
    for own, keys, mask, apart in layout.branches:
        seen = mask & (apart < window) if window else mask
        done = _attend(query[:, :, own], key[:, :, keys], value[:, :, keys], seen, *extra)
        out[0, own] = done[0].transpose(0, 1)
    return out, None


def _band(layout: Layout, length: int, window: int) -> torch.Tensor | None:
    """A mask for a sliding window shorter than the text; None = plainly causal."""
    if not window or length <= window:
        return None
    found = layout.masks.get((length, window))
    if found is None:
        steps = torch.arange(length, device=layout.device)
        apart = steps[:, None] - steps[None]
        found = layout.masks[length, window] = (apart >= 0) & (apart < window)
    return found


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    if softcap is None and sinks is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale
        )
    parts = []
    for at in range(0, query.shape[2], QUERIES):
        some = query[:, :, at : at + QUERIES]
        scores = (some @ key.transpose(2, 3)).float() * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        rows = torch.arange(at, at + some.shape[2], device=query.device)
        columns = torch.arange(key.shape[2], device=query.device)
        seen = rows[:, None] >= columns[None] if mask is None else mask[at : at + QUERIES]
        scores = scores.masked_fill(~seen, float("-inf"))
        if sinks is not None:
            sink = sinks.float().reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            scores = torch.cat((scores, sink), -1).softmax(-1)[..., :-1]
        else:
            scores = scores.softmax(-1)
        parts.append(scores.to(value.dtype) @ value)
    return torch.cat(parts, 2)


def _varlen_fits(
    query: torch.Tensor, value: torch.Tensor, layout: Layout, softcap: Any, sinks: Any
) -> bool:
    """Whether torch's fused kernel for packed rows can be used: half precision on CUDA."""
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and not layout.branches
        and softcap is None
        and sinks is None
        and query.shape[-1] == value.shape[-1] <= 256
    )


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    scale: float,
    window: int,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    lengths = [segment.length for segment in layout.packed.segments]
    bounds = torch.tensor([0, *lengths], device=query.device).cumsum(0).to(torch.int32)
    longest = max(lengths)
    out = varlen_attn(
        *(t[0].transpose(0, 1).contiguous() for t in (query, key, value)),
        bounds, bounds, longest, longest, scale=scale,
        window_size=(window - 1 if window else -1, 0), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    result: torch.Tensor = out[None]
    return result


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
