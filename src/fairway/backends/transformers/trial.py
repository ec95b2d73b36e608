"""What bfloat16 would gain and cost, tried on some of a run's own documents."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fairway.backends.transformers import forward, products
from fairway.corpus import Document
from fairway.scores import Totals


@dataclass(frozen=True, slots=True)
class Trial:
    """A comparison of bfloat16 with float32.

    Attributes:
        speedup: seconds in float32 over seconds in bfloat16.
        difference: of all documents together, nats per token, bfloat16 minus float32.
        worst: the largest absolute difference of a document, nats per token.
        documents: how many were tried.
        tokens: of them.
    """

    speedup: float
    difference: float
    worst: float
    documents: int
    tokens: int


def worthwhile(scorer: Any) -> bool:
    """Whether bfloat16 could be faster: a float32 model on a processor that has it."""
    device = scorer.loaded.model.get_input_embeddings().weight.device
    return (
        scorer.loaded.dtype == "float32"
        and not scorer.loaded.quant
        and not scorer.loaded.wrapped
        and scorer.path.head is not None
        and products.fast_half(device.type)
    )


def compare(scorer: Any, documents: Sequence[Document]) -> Trial | None:
    """Score documents in both; the model stays in bfloat16, so the scorer is spent.

    Returns:
        None where nothing was scored, or where bfloat16 fails the probe.
    """
    exact, slow = _timed(scorer, documents)
    if not sum(one.tokens for one in exact):
        return None
    model = scorer.loaded.model.to(torch.bfloat16)
    scorer.loaded = replace(scorer.loaded, dtype="bfloat16")
    path = replace(scorer.path, products=products.choose(model))
    if forward.probe(model, path) > forward.tolerance(torch.bfloat16):
        return None
    scorer.path = path
    rough, quick = _timed(scorer, documents)
    gaps = [
        (half.nll - full.nll) / full.tokens
        for full, half in zip(exact, rough, strict=True)
        if full.tokens
    ]
    tokens = sum(one.tokens for one in exact)
    difference = (sum(one.nll for one in rough) - sum(one.nll for one in exact)) / tokens
    return Trial(slow / quick, difference, max(map(abs, gaps)), len(gaps), tokens)


def _timed(scorer: Any, documents: Sequence[Document]) -> tuple[list[Totals], float]:
    """Score twice and time the second, when kernels are made and memory is there."""
    list(scorer.score(documents))
    start = time.perf_counter()
    totals = [score.totals for score in scorer.score(documents)]
    return totals, time.perf_counter() - start
