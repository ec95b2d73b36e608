"""Whole next-token distributions of scored tokens, from the states of a block of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fairway.backends.transformers import forward, reading
from fairway.backends.transformers import head as heads
from fairway.backends.transformers.forward import Path
from fairway.backends.transformers.reading import Prepared, Reader
from fairway.backends.transformers.tree import Row
from fairway.corpus import Document, cut
from fairway.distributions import ROWS, Distributions
from fairway.errors import ModelError

GROUP_BYTES = 64 << 10
"""Bytes of documents that are tokenized together."""
HELD = {"cpu": 1 << 15, "cuda": 1 << 25}
"""Numbers of a tile: on a CPU few, since larger arrays come from the system page by page."""

Piece = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], torch.Tensor]
"""Documents, places and ids of rows, and their states."""


def walk(
    model: Any,
    path: Path,
    reader: Reader,
    budget: Callable[[], int],
    states: Callable[[Sequence[Row]], list[torch.Tensor]],
    documents: Iterable[Document],
) -> Iterator[Distributions]:
    """Give the distributions of documents; see `fairway.distributions`.

    Args:
        model: a causal language model.
        path: how windows go through it.
        reader: how texts become windows.
        budget: gives the tokens in a batch, which memory may lower on the way.
        states: gives the states of each of some windows' targets.
        documents: what to walk through.

    Raises:
        ModelError: when a log-probability is not a number.
    """
    for piece in _blocks(_pieces(path, reader, budget, states, documents)):
        yield _distributions(model, path, piece)


def _pieces(
    path: Path,
    reader: Reader,
    budget: Callable[[], int],
    states: Callable[[Sequence[Row]], list[torch.Tensor]],
    documents: Iterable[Document],
) -> Iterator[Piece]:
    """Run windows in the order of the text; give each one's scored rows."""
    before = 0
    for group in cut(documents, GROUP_BYTES):
        prepared = reading.prepare(reader, group)
        places = [_places(item) for item in prepared]
        rows = [row for item in prepared for row in item.rows]
        for batch in _batches(rows, budget, path.packed):
            for row, state in zip(batch, states(batch), strict=True):
                place = places[row.document][row.at : row.at + len(row.targets)]
                kept = np.flatnonzero(place >= 0)
                if len(kept):
                    taken = state if len(kept) == len(place) else state[torch.from_numpy(kept)]
                    which = np.full(len(kept), before + row.document)
                    yield which, place[kept], row.targets[kept], taken
        before += len(group)


def _places(item: Prepared) -> NDArray[np.int64]:
    """For each token of a document its place in the document's score; -1 = not scored."""
    numbers = np.full(item.size, np.nan)
    for row in item.rows:
        span = slice(row.at, row.at + len(row.targets))
        numbers[span] = np.arange(row.at, row.at + len(row.targets))
    kept = reading.finish(item, numbers, {}).logprobs
    out = np.full(item.size, -1)
    scored = np.flatnonzero(~np.isnan(kept))
    out[kept[scored].astype(np.int64)] = scored
    return out


def _batches(rows: Sequence[Row], budget: Callable[[], int], packed: bool) -> Iterator[list[Row]]:
    """Group windows that follow each other, so that what a batch reads stays within a budget."""
    batch: list[Row] = []
    total = longest = 0
    for row in rows:
        size = len(row.inputs)
        if packed:
            more = total + size
        else:
            more = (len(batch) + 1) * max(longest, size)
        if batch and more > budget():
            yield batch
            batch, total, longest = [], 0, 0
        batch.append(row)
        total, longest = total + size, max(longest, size)
    if batch:
        yield batch


def _blocks(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Cut pieces anew, so that each but the last has `ROWS` rows."""
    waiting: list[Piece] = []
    held = 0
    for piece in pieces:
        while held + len(piece[0]) >= ROWS:
            take = ROWS - held
            yield _join([*waiting, _part(piece, slice(0, take))])
            piece = _part(piece, slice(take, None))
            waiting, held = [], 0
        if len(piece[0]):
            waiting.append(piece)
            held += len(piece[0])
    if waiting:
        yield _join(waiting)


def _part(piece: Piece, rows: slice) -> Piece:
    return piece[0][rows], piece[1][rows], piece[2][rows], piece[3][rows]


def _join(pieces: Sequence[Piece]) -> Piece:
    first, second, third = (np.concatenate([piece[i] for piece in pieces]) for i in range(3))
    return first, second, third, torch.cat([piece[3] for piece in pieces])


def _distributions(model: Any, path: Path, piece: Piece) -> Distributions:
    """Sum over the vocabulary once; what is asked for later is taken from the states anew."""
    document, place, ids, state = piece
    targets = torch.from_numpy(ids).to(state.device)
    with forward.gradless(model):
        if path.head is None:
            runs = [
                heads.sums_of(state[at : at + size], targets[at : at + size], ())
                for size in [max(1, forward.CHUNK_BYTES // (4 * state.shape[1]))]
                for at in range(0, len(state), size)
            ]
        else:
            state = state.to(path.head.module.weight.dtype)
            with path.products.active():
                runs = [heads.sums(path.head, state, targets, ())]
        logprobs = torch.cat([run.columns()["logprob"] for run in runs])
        lse = torch.cat([run.lse for run in runs])
    if not bool(torch.isfinite(lse).all()) or bool(torch.isnan(logprobs).any()):
        raise ModelError(forward.NOT_A_NUMBER.format(str(model.dtype).removeprefix("torch.")))

    def tile(start: int, stop: int) -> torch.Tensor:
        # Not inference mode: its tensors could not be changed by who asked for them.
        with torch.no_grad():
            if path.head is None:
                return _wide(state[:, start:stop]) - _wide(lse)[:, None]
            shift = lse.to(state.dtype)
            with path.products.active():
                out = heads.tile(path.head, state, start, stop, shift)
            # What the shift lost when it was rounded to the model's dtype is put back.
            return (_wide(out) + (_wide(shift) - _wide(lse))).T

    kind = state.device.type
    return Distributions(
        document,
        place,
        ids,
        logprobs.cpu().double().numpy(),
        state.shape[1] if path.head is None else path.head.vocabulary,
        tile,
        HELD.get(kind, HELD["cpu"]),
        torch,
    )


def _wide(values: torch.Tensor) -> torch.Tensor:
    """Lift to float64, where need be on the processor."""
    return (values.cpu() if values.device.type == "mps" else values).double()
