"""Rows with masks through the model: its head on the masked tokens alone, and the probe.

Two hooks do it for every architecture whose head looks at one token at a time: behind the base
model all states but the predicted tokens' are left out, and what then reaches the output embedding
is taken to `fairway.backends.transformers.head`. The ``(rows, tokens, vocabulary)`` tensor never
exists. The probe compares with the model's own logits, which are used where the two differ.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fairway.backends.transformers import forward
from fairway.backends.transformers import head as heads
from fairway.backends.transformers.products import Products
from fairway.errors import ModelError

BLIND = 1e-6
"""Nats below which a later token has moved nothing: a causal model."""


class Filled(NamedTuple):
    """A row that is ready to run.

    Attributes:
        inputs: ``(n,)`` ids that the model reads, masks and special tokens among them.
        place: position of the token that is predicted.
        target: the token itself.
    """

    inputs: NDArray[np.int64]
    place: int
    target: int


@dataclass(frozen=True, slots=True)
class Path:
    """How rows go through a model.

    Attributes:
        head: predicted tokens alone go through it, in tiles; None = the model's own logits, a row
            at a time.
        products: faster equals of the model's matrix products and activations.
        pad: id that fills short rows up.
    """

    head: heads.Head | None = None
    products: Products = field(default_factory=Products)
    pad: int = 0


def run(
    model: Any, path: Path, rows: Sequence[Filled], want: Collection[str]
) -> list[dict[str, torch.Tensor]]:
    """Predict the token of each row.

    Args:
        model: a masked language model in evaluation mode.
        path: how the rows go through it.
        rows: the rows.
        want: names of extra columns.

    Returns:
        For each row its columns (``logprob`` in nats, float64), without a dimension of rows.

    Raises:
        ModelError: when a log-probability is not a number.
    """
    device = model.get_input_embeddings().weight.device
    targets = torch.tensor([row.target for row in rows])
    with torch.inference_mode():
        if path.head is None:
            parts = [_own(model, row, device, want) for row in rows]
            scored = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        else:
            with path.products.active():
                hidden = _hidden(model, path, rows, device).to(path.head.module.weight.device)
                scored = heads.score_rows(path.head, hidden, targets.to(hidden.device), want)
    if torch.isnan(scored["logprob"]).any():
        raise ModelError(forward.NOT_A_NUMBER.format(str(model.dtype).removeprefix("torch.")))
    return [{key: value[index] for key, value in scored.items()} for index in range(len(rows))]


def _hidden(model: Any, path: Path, rows: Sequence[Filled], device: torch.device) -> torch.Tensor:
    """Read rows; give the ``(rows, width)`` states that the output embedding is given."""
    assert path.head is not None
    longest = max(len(row.inputs) for row in rows)
    ids = torch.full((len(rows), longest), path.pad, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row.inputs)] = torch.from_numpy(row.inputs)
        mask[index, : len(row.inputs)] = 1
    places = torch.tensor([row.place for row in rows])
    with _only(model, path.head.module, places) as taken:
        model(input_ids=ids.to(device), attention_mask=mask.to(device))
    return taken[0][0]


@contextmanager
def _only(model: Any, embedding: Any, places: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Leave out all states but those at places, and take what the output embedding is given."""
    taken: list[torch.Tensor] = []

    def narrow(module: Any, given: Any, out: Any) -> Any:
        hidden = out[0]
        at = places.to(hidden.device)
        kept = hidden[torch.arange(len(at), device=hidden.device), at][None]
        if isinstance(out, tuple):
            return (kept, *out[1:])
        out["last_hidden_state"] = kept
        return out

    def take(module: Any, given: Any) -> Any:
        taken.append(given[0])
        return (given[0][:, :0], *given[1:])

    hooks = [
        model.base_model.register_forward_hook(narrow),
        embedding.register_forward_pre_hook(take),
    ]
    try:
        yield taken
    finally:
        for hook in hooks:
            hook.remove()


def _logits(model: Any, inputs: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    ids = torch.from_numpy(inputs)[None].to(device)
    out: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    return out


def _own(
    model: Any, row: Filled, device: torch.device, want: Collection[str]
) -> dict[str, torch.Tensor]:
    """Predict a row's token from the logits that the model's own forward returns."""
    logits = _logits(model, row.inputs, device)[row.place : row.place + 1]
    target = torch.tensor([row.target], device=logits.device)
    return heads.fetch([heads.columns(logits, target, want)])


def _ids(model: Any) -> NDArray[np.int64]:
    size = int(min(model.get_input_embeddings().weight.shape[0], 1 << 20))
    steps = np.arange(forward.PROBE_TOKENS, dtype=np.int64)
    return np.asarray((7 + 37 * steps * steps) % size)


def probe(model: Any, path: Path, mask: int) -> float:
    """Compare the fast path with the model's own logits, on rows of two lengths.

    Returns:
        The largest difference of a log-probability, nats; infinity where the fast path fails.
    """
    ids = _ids(model)
    rows = []
    for size, at in ((24, 3), (9, 7), (24, 20), (9, 0)):
        inputs = ids[:size].copy()
        inputs[at] = mask
        rows.append(Filled(inputs, at, int(ids[at])))
    try:
        fast = run(model, path, rows, ())
    except forward.BROKEN:
        return float("inf")
    own = run(model, Path(), rows, ())
    worst = max(
        abs(float(a["logprob"] - b["logprob"])) for a, b in zip(fast, own, strict=True)
    )  # fmt: skip
    return worst if worst == worst else float("inf")


def sight(model: Any) -> float:
    """Measure how much later tokens move the log-probabilities at earlier places.

    Returns:
        The largest change, nats: nothing for a causal model.
    """
    ids = _ids(model)
    changed = ids.copy()
    changed[-3:] = (changed[-3:] + 1) % model.get_input_embeddings().weight.shape[0]
    device = model.get_input_embeddings().weight.device
    with torch.inference_mode():
        one, other = (_logits(model, each, device)[:-3].double() for each in (ids, changed))
        gap = torch.log_softmax(one, -1) - torch.log_softmax(other, -1)
    return float(gap.abs().max())
