"""From hidden states of scored rows to log-probabilities, in chunks of rows.

The full ``(batch, tokens, vocabulary)`` tensor never exists.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

CHUNK_BYTES = 64 << 20
"""Float32 logits held at a time."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a model does between its last hidden state and its logits.

    Attributes:
        module: the output embedding, bias included.
        scale: logits are multiplied by it.
        cap: logits are squeezed to ``cap * tanh(logits / cap)``; 0 = not.
        vocabulary: logits computed for each row.
    """

    module: Any
    scale: float
    cap: float
    vocabulary: int


def find(model: Any) -> Head | None:
    """Read a model's head from its configuration; None where it has none of the usual form."""
    module = model.get_output_embeddings()
    if module is None or not hasattr(module, "weight") or module.weight.ndim != 2:
        return None
    config = model.config.get_text_config()
    scale = 1.0
    if getattr(config, "logits_scaling", None):
        scale /= float(config.logits_scaling)
    if getattr(config, "logit_scale", None):
        scale *= float(config.logit_scale)
    cap = float(getattr(config, "final_logit_softcapping", None) or 0.0)
    return Head(module, scale, cap, int(module.weight.shape[0]))


def logits(head: Head, hidden: torch.Tensor) -> torch.Tensor:
    """Compute ``(rows, vocabulary)`` float32 logits of ``(rows, width)`` hidden states."""
    out: torch.Tensor = head.module(hidden.to(head.module.weight.dtype)).float()
    if head.scale != 1.0:
        out = out * head.scale
    if head.cap:
        out = head.cap * torch.tanh(out / head.cap)
    return out


def columns(
    rows: torch.Tensor, targets: torch.Tensor, want: Collection[str]
) -> dict[str, torch.Tensor]:
    """Compute log-probabilities, and what else is wanted, from ``(rows, vocabulary)`` logits.

    Returns:
        ``logprob`` (nats) and, where wanted, ``entropy`` (nats), ``rank`` (0 = most likely) and
        ``top`` (id of the most likely token).
    """
    normaliser = torch.logsumexp(rows, dim=-1)
    target = rows.gather(1, targets[:, None]).squeeze(1)
    out = {"logprob": (target - normaliser).double()}
    if "entropy" in want:
        logp = rows - normaliser[:, None]
        out["entropy"] = -(logp.exp() * logp.clamp_min(-1e30)).sum(-1).double()
    if "rank" in want:
        out["rank"] = (rows > target[:, None]).sum(-1)
    if "top" in want:
        out["top"] = rows.argmax(-1)
    return out


def score_rows(
    head: Head, hidden: torch.Tensor, targets: torch.Tensor, want: Collection[str]
) -> dict[str, torch.Tensor]:
    """Score ``(rows, width)`` hidden states against ``(rows,)`` target ids, chunk by chunk."""
    size = max(1, CHUNK_BYTES // (4 * head.vocabulary))
    parts = [
        columns(logits(head, hidden[at : at + size]), targets[at : at + size], want)
        for at in range(0, len(targets), size)
    ]
    return {key: torch.cat([part[key] for part in parts]).cpu() for key in parts[0]}
