"""One batch of windows through the model: the fast path, the model's own, and the probe."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fairway.backends.transformers import carry as carrying
from fairway.backends.transformers import head as heads
from fairway.backends.transformers.attention import packed_attention
from fairway.backends.transformers.carry import Carry
from fairway.backends.transformers.layout import Layout, lay_out
from fairway.backends.transformers.products import Products
from fairway.backends.transformers.tree import SHARED, Row, pack
from fairway.errors import ModelError

if TYPE_CHECKING:
    from fairway.backends.transformers.loading import Loaded

PROBE_TOKENS = 24
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-4}
HALF_TOLERANCE = 0.25
MIXED_TOLERANCE = 2.0
"""Nats by which a later token may move an earlier one where activations share a scale."""
CHUNK_BYTES = 64 << 20
"""Float32 logits of the model's own forward that are reduced at a time."""
HELD = 512
"""Predictions of texts read piece by piece that are scored together."""
BROKEN = (
    AttributeError, TypeError, RuntimeError, ValueError, IndexError, KeyError, ImportError,
    ModelError,
)  # fmt: skip
"""What a model raises whose code or whose torch the fast path does not fit."""
NOT_A_NUMBER = (
    "The model computes log-probabilities that are not numbers in {}: its weights are damaged, or "
    "a value overflows; try --dtype float32."
)


@dataclass(frozen=True, slots=True)
class Path:
    """How windows go through a model.

    Attributes:
        head: scored rows alone go through it, in tiles; None = the model's own logits, a window
            at a time.
        packed: windows lie in one row without padding, and what they begin with alike is read
            once.
        products: faster equals of the model's matrix products and activations.
        sets: ``(k, vocabulary)`` booleans: sets of tokens whose probability is wanted.
        carry: texts are read whole, the model's state handed on from piece to piece.
    """

    head: heads.Head | None = None
    packed: bool = False
    products: Products = field(default_factory=Products)
    sets: torch.Tensor | None = field(default=None, repr=False, compare=False)
    carry: Carry | None = None


def gradless(model: Any) -> Any:
    """Give the context that a model runs in: inference mode, which is faster, where it can.

    Classes of quantised weights that are made of several tensors may not be used in it.
    """
    plain = all(type(one) in (torch.nn.Parameter, torch.Tensor) for one in model.parameters())
    return torch.inference_mode() if plain else torch.no_grad()


def pad(rows: Sequence[Row], device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Stack inputs, padded on the right; the mask is None where nothing was padded."""
    longest = max(len(row.inputs) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row.inputs)] = torch.from_numpy(row.inputs)
        mask[index, : len(row.inputs)] = 1
    padded = any(len(row.inputs) != longest for row in rows)
    return ids.to(device), mask.to(device) if padded else None


def run(
    model: Any, path: Path, rows: Sequence[Row], want: Collection[str]
) -> list[dict[str, torch.Tensor]]:
    """Score the targets of some windows.

    Args:
        model: a causal language model in evaluation mode.
        path: how the windows go through it.
        rows: the windows.
        want: names of extra columns.

    Returns:
        For each window its columns (``logprob`` in nats, float64), on the CPU.

    Raises:
        ModelError: when a log-probability is not a number.
    """
    device = model.get_input_embeddings().weight.device
    with gradless(model):
        if path.carry is not None:
            with path.products.active():
                scored = _carried(model, path, rows, device, want)
        elif path.head is None:
            parts = [_own(model, path, row, device, want) for row in rows]
            scored = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        else:
            with path.products.active():
                taken = _hidden(model, path.head, path.packed, rows, device)
                targets = torch.from_numpy(np.concatenate([row.targets for row in rows]))
                targets = targets.to(taken.device)
                scored = heads.score_rows(path.head, taken, targets, want, path.sets)
    if torch.isnan(scored["logprob"]).any():
        raise ModelError(NOT_A_NUMBER.format(str(model.dtype).removeprefix("torch.")))
    out, at = [], 0
    for row in rows:
        out.append({key: value[at : at + len(row.targets)] for key, value in scored.items()})
        at += len(row.targets)
    return out


def states(model: Any, path: Path, rows: Sequence[Row]) -> list[torch.Tensor]:
    """Give for each window what the distributions of its targets are made of.

    Returns:
        ``(targets, width)`` hidden states; without a head ``(targets, vocabulary)`` logits.
    """
    device = model.get_input_embeddings().weight.device
    with gradless(model):
        if path.carry is not None:
            with path.products.active():
                parts: list[list[torch.Tensor]] = [[] for _ in rows]
                for index, taken, _ in _walk(model, path, rows, device):
                    parts[index].append(taken)
                return [torch.cat(some) for some in parts]
        if path.head is None:
            return [_own_logits(model, row, device) for row in rows]
        with path.products.active():
            hidden = _hidden(model, path.head, path.packed, rows, device)
        return list(hidden.split([len(row.targets) for row in rows]))


def _hidden(
    model: Any, head: heads.Head, packed: bool, rows: Sequence[Row], device: torch.device
) -> torch.Tensor:
    """Read windows; give the hidden states that predict their targets, where the head is."""
    hidden = _packed(model, rows, device)[0] if packed else _padded(model, rows, device)
    return hidden.to(head.module.weight.device)


def _packed(model: Any, rows: Sequence[Row], device: torch.device) -> tuple[torch.Tensor, Layout]:
    """Read windows in one row; give the hidden states that predict their targets."""
    row = pack([one.inputs for one in rows], fill=True)
    layout = lay_out(row, device)
    with packed_attention(model, layout):
        hidden = model.base_model(
            torch.from_numpy(row.ids)[None].to(device),
            position_ids=torch.from_numpy(row.positions)[None].to(device),
            use_cache=False,
        ).last_hidden_state[0]
    places = [
        place[one.first : one.first + len(one.targets)]
        for one, place in zip(rows, row.places, strict=True)
    ]
    return hidden[torch.from_numpy(np.concatenate(places)).to(device)], layout


def _padded(model: Any, rows: Sequence[Row], device: torch.device) -> torch.Tensor:
    """Read windows as rows of one batch; give the hidden states that predict their targets."""
    ids, mask = pad(rows, device)
    # Padding behind a text cannot reach a state before it, and RWKV warns of a mask.
    masked = mask is not None and not carrying.stateful(model)
    options = {"attention_mask": mask} if masked else {}
    hidden = model.base_model(ids, use_cache=False, **options).last_hidden_state
    return torch.cat(
        [hidden[index, row.first : row.first + len(row.targets)] for index, row in enumerate(rows)]
    )


def _walk(
    model: Any, path: Path, rows: Sequence[Row], device: torch.device
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Read texts whole, piece by piece.

    Yields:
        A row's index, and of a stretch of its targets what predicts them (hidden states where
        there is a head, else logits), and their ids.
    """
    assert path.carry is not None
    ids, _ = pad(rows, device)
    call = model if path.head is None else model.base_model
    for begin, end, out in carrying.walk(call, ids, path.carry):
        read = out.logits if path.head is None else out.last_hidden_state
        if path.head is not None:
            read = read.to(path.head.module.weight.device)
        for index, row in enumerate(rows):
            low, high = max(row.first, begin), min(row.first + len(row.targets), end)
            if low < high:
                targets = torch.from_numpy(row.targets[low - row.first : high - row.first])
                yield index, read[index, low - begin : high - begin], targets.to(read.device)


def _carried(
    model: Any, path: Path, rows: Sequence[Row], device: torch.device, want: Collection[str]
) -> dict[str, torch.Tensor]:
    """Score texts that are read whole; give their columns one behind the other."""
    done: list[list[dict[str, torch.Tensor]]] = [[] for _ in rows]
    held: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def flush() -> None:
        taken = torch.cat([one[1] for one in held])
        targets = torch.cat([one[2] for one in held])
        if path.head is None:
            columns = _reduced(path, taken, targets, want)
        else:
            columns = heads.score_rows(path.head, taken, targets, want, path.sets)
        at = 0
        for index, _, ids in held:
            done[index].append({k: v[at : at + len(ids)] for k, v in columns.items()})
            at += len(ids)
        held.clear()

    for one in _walk(model, path, rows, device):
        held.append(one)
        if sum(len(kept[2]) for kept in held) >= HELD:
            flush()
    if held:
        flush()
    parts = [part for some in done for part in some]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _own(
    model: Any, path: Path, row: Row, device: torch.device, want: Collection[str]
) -> dict[str, torch.Tensor]:
    """Score one window from the logits that the model's own forward returns."""
    rows = _own_logits(model, row, device)
    return _reduced(path, rows, torch.from_numpy(row.targets).to(rows.device), want)


def _reduced(
    path: Path, rows: torch.Tensor, targets: torch.Tensor, want: Collection[str]
) -> dict[str, torch.Tensor]:
    sets = path.sets if path.sets is None else path.sets.to(rows.device)
    size = max(1, CHUNK_BYTES // (4 * rows.shape[1]))
    return heads.fetch(
        [
            heads.columns(rows[at : at + size], targets[at : at + size], want, sets)
            for at in range(0, len(targets), size)
        ]
    )


def _own_logits(model: Any, row: Row, device: torch.device) -> torch.Tensor:
    ids = torch.from_numpy(row.inputs)[None].to(device)
    out = model(input_ids=ids, use_cache=False).logits[0]
    return out[row.first : row.first + len(row.targets)]


def row(ids: Sequence[int], targets: Sequence[int], first: int = 0, document: int = 0) -> Row:
    """Make a window by hand."""
    return Row(document, 0, np.asarray(ids, np.int64), np.asarray(targets, np.int64), first, 0)


def probe(model: Any, path: Path) -> float:
    """Compare a fast path with the model's own logits, on rows of several lengths.

    Two of the rows begin alike, so that packed ones share it.

    Returns:
        The largest difference of a log-probability, nats; infinity where the fast path fails.
    """
    assert path.head is not None
    size = min(path.head.vocabulary, model.get_input_embeddings().weight.shape[0])
    ids = [(7 + 37 * index * index) % size for index in range(PROBE_TOKENS)]
    rows = [row(ids[:-1], ids[1:]), row(ids[:9], ids[1:10], document=1)]
    if path.packed:
        trunk = (ids * 2)[: SHARED + 1]
        for tail in (ids[3:8], ids[11:14]):
            rows.append(row([*trunk, *tail[:-1]], tail, SHARED, len(rows)))
    try:
        fast = run(model, path, rows, ())
        if path.packed:
            # A sliding window that masks name and layers do not would not be heeded.
            with gradless(model):
                layout = _packed(model, rows, model.get_input_embeddings().weight.device)[1]
            if not layout.local <= layout.windows:
                return float("inf")
    except BROKEN:
        return float("inf")
    own = run(model, Path(), rows, ())
    gaps = [
        float((a["logprob"] - b["logprob"]).abs().max()) for a, b in zip(fast, own, strict=True)
    ]
    worst = max(gaps)
    return worst if worst == worst else float("inf")


def leak(model: Any) -> float:
    """Measure how much a later token moves the log-probabilities of earlier ones.

    Returns:
        The largest change, nats: rounding for a causal model, large for one that sees ahead, such
        as a masked language model loaded as a causal one.
    """
    size = min(model.get_input_embeddings().weight.shape[0], 1 << 20)
    ids = [(7 + 37 * index * index) % size for index in range(PROBE_TOKENS)]
    changed = [*ids[:-3], *((one + 1) % size for one in ids[-3:])]
    outs = [
        run(model, Path(), [row(one, ids[1 : PROBE_TOKENS - 3])], ())[0]["logprob"]
        for one in (ids, changed)
    ]
    return float((outs[0] - outs[1]).abs().max())


def tolerance(dtype: torch.dtype) -> float:
    """How far the probe may be off, nats: rounding of a whole forward pass in that dtype."""
    return TOLERANCE.get(dtype, HALF_TOLERANCE)


def leak_tolerance(loaded: Loaded) -> float:
    """How far later tokens may move earlier ones, nats; a masked model's do by many."""
    if loaded.activations == "batch":
        return MIXED_TOLERANCE
    return HALF_TOLERANCE if loaded.quant is not None else tolerance(loaded.model.dtype)
