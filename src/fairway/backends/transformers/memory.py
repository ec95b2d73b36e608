"""How many tokens fit into a batch, and what to do when they did not."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from fairway.errors import ModelError

Row = TypeVar("Row")
Done = TypeVar("Done")
CPU_TOKENS = 2048
"""A batch on a CPU: enough to fill its products, and small enough for its caches."""
LEAST, MOST = 256, 1 << 16
SHARE = 0.5
"""Of the free memory of a GPU, for the activations of a batch."""
CPU_SHARE = 0.1
"""Of all memory of the machine, likewise."""


def budget(model: Any) -> int:
    """Choose the tokens of a batch by the memory that there is: a power of two."""
    device = model.get_input_embeddings().weight.device
    each = activations(model)
    if device.type == "cuda":
        room = SHARE * torch.cuda.mem_get_info(device)[0]
        return _power(min(MOST, room / each))
    return _power(min(CPU_TOKENS, CPU_SHARE * total() / each))


def activations(model: Any) -> int:
    """Estimate the bytes that a token holds while it goes through a layer, generously."""
    config = model.config.get_text_config()
    width = int(getattr(config, "hidden_size", None) or 1024)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    return 4 * (12 * width + 4 * inner)


def total() -> int:
    """Give the machine's memory in bytes, or 8 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 << 30


def _power(tokens: float) -> int:
    return max(LEAST, 1 << (max(1, int(tokens)).bit_length() - 1))


def lacking(problem: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    text = str(problem)
    return isinstance(problem, torch.OutOfMemoryError | MemoryError) or (
        "not enough memory" in text or "can't allocate memory" in text or "out of memory" in text
    )


def run(
    rows: Sequence[Row],
    call: Callable[[Sequence[Row]], list[Done]],
    smaller: Callable[[], None],
    size: Callable[[Row], int],
    way: str = "give a smaller --max-length",
) -> list[Done]:
    """Run a batch; where memory does not suffice, plan smaller ones and run its halves.

    Args:
        rows: the batch.
        call: runs some rows.
        smaller: makes later batches smaller.
        size: gives the tokens of a row.
        way: what a user can do where a single row does not fit.

    Raises:
        ModelError: when a single row does not fit.
    """
    try:
        return call(rows)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as problem:
        if not lacking(problem):
            raise
        if len(rows) == 1:
            raise ModelError(
                f"A single window of {size(rows[0])} tokens does not fit into memory; {way}, or "
                "give a smaller --dtype."
            ) from None
    release()
    smaller()
    half = len(rows) // 2
    return run(rows[:half], call, smaller, size, way) + run(rows[half:], call, smaller, size, way)


def release() -> None:
    """Give back what torch keeps for later, after a batch that did not fit."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
