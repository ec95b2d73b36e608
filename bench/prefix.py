"""64 continuations of 20 tokens over one context of 1,000 tokens: the context is read once.

    make bench NAME=prefix

``speedup`` compares the engine with itself, sharing turned off, as a part of the ratio of the
tokens read; ``no_slowdown`` compares the two where every context differs, so that nothing can be
shared. The head is not shared (every token is scored), so a model whose head is a large part of it
gains less than the ratio. A row tells what lm-eval takes for the same log-probs, where the peers'
environment is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import shapes
from common import goal, middle, peers, versions, work, write

import fairway as fw
from fairway.backends.transformers import tree

SHAPE = "llama-213m-32k"
CONTEXT, CONTINUATIONS, TOKENS = 1000, 64, 20
DISTINCT = 8
ROUNDS = int(os.environ.get("FAIRWAY_ROUNDS", "3"))


@contextmanager
def apart() -> Iterator[None]:
    """Turn sharing off: no beginning is long enough."""
    before = tree.SHARED
    tree.SHARED = 1 << 30
    try:
        yield
    finally:
        tree.SHARED = before


def clock(run: Callable[[], Any]) -> float:
    """Time a call in CPU seconds."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Run the benchmark."""
    scorer: Any = fw.load(shapes.folder(SHAPE))
    context = shapes.text(SHAPE, CONTEXT, 1)
    tails = [" " + shapes.text(SHAPE, TOKENS, 50 + i) for i in range(CONTINUATIONS)]
    shared = [fw.Document(str(i), tail, context) for i, tail in enumerate(tails)]
    distinct = [
        fw.Document(str(i), tails[i], shapes.text(SHAPE, CONTEXT, 100 + i)) for i in range(DISTINCT)
    ]

    def score(documents: list[Any]) -> Any:
        return np.concatenate([s.logprobs for s in scorer.score(documents)])

    times: dict[str, list[float]] = {key: [] for key in ("once", "each", "d_on", "d_off")}
    score(shared)
    once = score(shared)
    for _ in range(ROUNDS):
        times["once"].append(clock(lambda: score(shared)))
        times["d_on"].append(clock(lambda: score(distinct)))
        with apart():
            times["each"].append(clock(lambda: score(shared)))
            times["d_off"].append(clock(lambda: score(distinct)))
    with apart():
        gap = float(np.abs(once - score(shared)).max())
    read = CONTINUATIONS * (CONTEXT + TOKENS) / (CONTEXT + CONTINUATIONS * TOKENS)
    rows: list[dict[str, Any]] = [
        {"case": "one context, read once", "cpu_s": round(middle(times["once"]), 2)},
        {"case": "one context, read each time", "cpu_s": round(middle(times["each"]), 2)},
        {"case": "distinct contexts, sharing on", "cpu_s": round(middle(times["d_on"]), 2)},
        {"case": "distinct contexts, sharing off", "cpu_s": round(middle(times["d_off"]), 2)},
        {"case": f"largest difference {gap:.1e} nats; ratio of tokens read {read:.1f}"},
    ]
    python = peers()
    if python is not None:
        job = {
            "scorer": "lm_eval", "model": shapes.folder(SHAPE), "texts": tails,
            "context": context, "batch": 8,
        }  # fmt: skip
        done = work("scorers.py", job, python)
        rows.append({"case": "lm-eval batch 8", "cpu_s": round(done["cpu"], 2)})
    pairs = zip(times["each"], times["once"], strict=True)
    fair = zip(times["d_off"], times["d_on"], strict=True)
    goals = {
        "speedup": goal(middle([a / b for a, b in pairs]) / read, 0.8),
        "no_slowdown": goal(middle([a / b for a, b in fair]), 0.95),
    }
    write("prefix", rows, goals, versions("torch", "transformers", "fairway"))


if __name__ == "__main__":
    main()
