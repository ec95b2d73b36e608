"""Attention over packed rows, through transformers' own attention interface.

While a packed row runs, the model's attention is replaced by one in which a token sees its own
segment up to itself and the segments above it. No model code is touched, no mask over the whole
row is made. Source of the interface: `AttentionInterface` and `AttentionMaskInterface` in the
documentation of transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn import functional
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from fairway.backends.transformers.carry import stateful
from fairway.backends.transformers.layout import Branch, Layout, band, pieces

NAME = "fairway"
QUERIES = 256
"""Queries for which a whole matrix of scores is made where no fused kernel fits."""


class Unpackable(RuntimeError):
    """The model's attention does something that packed rows do not."""


ACTIVE: ContextVar[Layout | None] = ContextVar("fairway_layout", default=None)


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
    if not getattr(model, "_supports_attention_backend", False) or stateful(model):
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
        mask = band(layout, end - start, window)
        out[:, start:end] = _attend(q, k, v, mask, *extra).transpose(1, 2)
    for places, real, targets in layout.stacks:
        q, k, v = (t[0][:, places].transpose(0, 1) for t in (query, key, value))
        mask = band(layout, places.shape[1], window)
        done = _attend(q, k, v, mask, *extra).transpose(1, 2).flatten(0, 1)
        out[0, targets] = done[real]
    plain = not window and softcap is None and s_aux is None
    joined = plain and query.device.type == "cpu" and query.shape[-1] == value.shape[-1]
    for branch in layout.branches:
        if joined:
            out[0, branch.own] = _joined(query, key, value, branch, scale)
            continue
        for own, keys, mask, apart in pieces(layout, branch):
            seen = mask & (apart < window) if window else mask
            done = _attend(query[:, :, own], key[:, :, keys], value[:, :, keys], seen, *extra)
            out[0, own] = done[0].transpose(0, 1)
    return out, None


def _joined(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, branch: Branch, scale: float
) -> torch.Tensor:
    """Attend to the trunk, which all see whole, and to the own segment, then join the two.

    Softmax over both is their mean, weighted with the exponential of each part's log-sum-exp
    (Milakov and Gimelshein 2018); no mask is needed and the trunk is not copied for each piece.

    Returns:
        ``(tokens, heads, size)``, for the places of the branch.
    """
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    trunk, trunk_lse = attend(
        query[:, :, branch.own], key[:, :, branch.trunk], value[:, :, branch.trunk], scale=scale
    )
    trunk, trunk_lse = _wide(trunk[0].transpose(0, 1)), trunk_lse[0].T
    own, own_lse = torch.empty_like(trunk), torch.empty_like(trunk_lse)
    for places, real, rows in branch.stacks:
        q, k, v = (t[0][:, places].transpose(0, 1) for t in (query, key, value))
        done, lse = attend(q, k, v, is_causal=True, scale=scale)
        own[rows] = _wide(done.transpose(1, 2).flatten(0, 1)[real])
        own_lse[rows] = lse.transpose(1, 2).flatten(0, 1)[real]
    both = torch.logaddexp(trunk_lse, own_lse)
    joined = trunk * (trunk_lse - both).exp()[..., None]
    joined += own * (own_lse - both).exp()[..., None]
    return joined.to(query.dtype)


def _wide(values: torch.Tensor) -> torch.Tensor:
    """Lift half precision to float32; float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


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
        scores = _wide(some @ key.transpose(2, 3)) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        rows = torch.arange(at, at + some.shape[2], device=query.device)
        columns = torch.arange(key.shape[2], device=query.device)
        seen = rows[:, None] >= columns[None] if mask is None else mask[at : at + QUERIES]
        scores = scores.masked_fill(~seen, float("-inf"))
        if sinks is not None:
            sink = sinks.to(scores.dtype).reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
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
