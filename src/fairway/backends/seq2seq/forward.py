"""Sources and targets through an encoder-decoder model, and the probe.

Sources are encoded once each. The decoder's head is reached through a hook: what the model gives
its output embedding is taken, and the scored places of it go to
`fairway.backends.transformers.head`, so that the ``(targets, tokens, vocabulary)`` tensor never
exists. The probe compares with the model's own logits, which are used where the two differ.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.modeling_outputs import BaseModelOutput

from fairway.backends.transformers import forward
from fairway.backends.transformers import head as heads
from fairway.backends.transformers.products import Products
from fairway.errors import ModelError


class Row(NamedTuple):
    """A target that is ready to run.

    Attributes:
        source: ``(s,)`` ids that the encoder reads.
        inputs: ``(n,)`` ids that the decoder reads.
        targets: ``(n,)`` ids that it should predict.
        first: the first place that is scored.
        state: ``(s, width)`` what the encoder makes of the source; None = not encoded yet.
    """

    source: NDArray[np.int64]
    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    first: int
    state: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """How rows go through a model.

    Attributes:
        head: scored places alone go through it, in tiles; None = the model's own logits, a row at
            a time.
        products: faster equals of the model's matrix products and activations.
    """

    head: heads.Head | None = None
    products: Products = field(default_factory=Products)


def find(model: Any) -> heads.Head | None:
    """Read a model's head; BART and its kin add a bias to the logits that is no part of it."""
    found = heads.find(model)
    bias = getattr(model, "final_logits_bias", None)
    if found is None or bias is None:
        return found
    own = getattr(found.module, "bias", None)
    module = SimpleNamespace(
        weight=found.module.weight, bias=bias[0] if own is None else own + bias[0]
    )
    return heads.Head(module, found.scale, found.cap, found.vocabulary)


def _stack(rows: Sequence[NDArray[np.int64]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack ids, padded on the right, with their mask."""
    longest = max(map(len, rows))
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.from_numpy(row)
        mask[index, : len(row)] = 1
    return ids, mask


def encode(model: Any, path: Path, sources: Sequence[NDArray[np.int64]]) -> list[torch.Tensor]:
    """Give what the encoder makes of each source: ``(s, width)``."""
    device = model.get_input_embeddings().weight.device
    ids, mask = (one.to(device) for one in _stack(sources))
    with torch.inference_mode(), path.products.active():
        hidden = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    return [hidden[index, : len(source)] for index, source in enumerate(sources)]


def run(
    model: Any, path: Path, rows: Sequence[Row], want: Collection[str]
) -> list[dict[str, torch.Tensor]]:
    """Score the places of each row from its first on.

    Args:
        model: an encoder-decoder model in evaluation mode.
        path: how the rows go through it.
        rows: the rows, their sources encoded where there is a head.
        want: names of extra columns.

    Returns:
        For each row its columns (``logprob`` in nats, float64), on the CPU.

    Raises:
        ModelError: when a log-probability is not a number.
    """
    device = model.get_input_embeddings().weight.device
    sizes = [len(row.inputs) - row.first for row in rows]
    with torch.inference_mode():
        if path.head is None:
            parts = [_own(model, row, device, want) for row in rows]
            scored = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        else:
            with path.products.active():
                hidden = _hidden(model, rows, device).to(path.head.module.weight.device)
                targets = np.concatenate([row.targets[row.first :] for row in rows])
                where = torch.from_numpy(targets).to(hidden.device)
                scored = heads.score_rows(path.head, hidden, where, want)
    if torch.isnan(scored["logprob"]).any():
        raise ModelError(forward.NOT_A_NUMBER.format(str(model.dtype).removeprefix("torch.")))
    pieces = {key: value.split(sizes) for key, value in scored.items()}
    return [{key: value[index] for key, value in pieces.items()} for index in range(len(rows))]


def _hidden(model: Any, rows: Sequence[Row], device: torch.device) -> torch.Tensor:
    """Decode rows; give the ``(places, width)`` states that the output embedding is given."""
    states = [row.state for row in rows if row.state is not None]
    source = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
    _, mask = _stack([row.source for row in rows])
    ids, _ = _stack([row.inputs for row in rows])
    taken: list[torch.Tensor] = []

    def take(module: Any, given: Any) -> Any:
        taken.append(given[0])
        return (given[0][:, :0], *given[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        model(
            encoder_outputs=BaseModelOutput(last_hidden_state=source),
            attention_mask=mask.to(device),
            decoder_input_ids=ids.to(device),
            use_cache=False,
        )
    finally:
        hook.remove()
    hidden = taken[0]
    return torch.cat([hidden[i, row.first : len(row.inputs)] for i, row in enumerate(rows)])


def _own(
    model: Any, row: Row, device: torch.device, want: Collection[str]
) -> dict[str, torch.Tensor]:
    """Score a row from the logits that the model's own forward returns."""
    source, inputs = (torch.from_numpy(one)[None].to(device) for one in (row.source, row.inputs))
    logits = model(
        input_ids=source,
        attention_mask=torch.ones_like(source),
        decoder_input_ids=inputs,
        use_cache=False,
    ).logits[0, row.first :]
    targets = torch.from_numpy(row.targets[row.first :]).to(logits.device)
    size = max(1, forward.CHUNK_BYTES // (4 * logits.shape[1]))
    return heads.fetch(
        [
            heads.columns(logits[at : at + size], targets[at : at + size], want)
            for at in range(0, len(targets), size)
        ]
    )


def probe(model: Any, path: Path) -> float:
    """Compare the fast path with the model's own logits, on pairs of several lengths.

    Returns:
        The largest difference of a log-probability, nats; infinity where the fast path fails.
    """
    size = int(min(model.get_input_embeddings().weight.shape[0], 1 << 20))
    steps = np.arange(forward.PROBE_TOKENS, dtype=np.int64)
    ids = np.asarray((7 + 37 * steps * steps) % size)
    cuts = ((24, 5, 0), (6, 16, 2), (11, 9, 1))
    rows = [Row(ids[:s], ids[: n - 1], ids[1:n], first) for s, n, first in cuts]
    try:
        states = encode(model, path, [row.source for row in rows])
        ready = [row._replace(state=one) for row, one in zip(rows, states, strict=True)]
        fast = run(model, path, ready, ())
    except forward.BROKEN:
        return float("inf")
    own = run(model, Path(), rows, ())
    worst = max(
        float((a["logprob"] - b["logprob"]).abs().max()) for a, b in zip(fast, own, strict=True)
    )
    return worst if worst == worst else float("inf")
