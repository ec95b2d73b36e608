"""Memory above the weights: a vocabulary of 151,936, documents of up to 8,192 tokens.

    make bench NAME=memory

Peak resident memory while scoring minus what the loaded model holds, each in a process of its own;
lm-eval runs in the peers' environment (see engine.py). ``flat`` compares 60 documents with 15.
"""

from __future__ import annotations

from typing import Any

import shapes
from common import goal, peers, versions, work, write

SHAPE = "small-152k"
LENGTHS = [8191, 4000, 2000, 1000, 500]
OPTIONS = {"max_length": 8192, "stride": 8192}
FEW, MANY = 3, 12
MIB = 1 << 20


def measure(job: dict[str, Any], python: str | None = None) -> float:
    """Give the peak above the weights, MiB."""
    done = work("scorers.py", {**job, "memory": True}, python)
    return float(done["over_weights"]) / MIB


def main() -> None:
    """Run the benchmark."""
    python = peers()
    if python is None:
        raise SystemExit("memory: FAIRWAY_PEERS names no Python, and there is no .venv-peers.")
    model = shapes.folder(SHAPE)
    texts = shapes.texts(SHAPE, LENGTHS)
    few, many = shapes.texts(SHAPE, LENGTHS * FEW), shapes.texts(SHAPE, LENGTHS * MANY)
    own = {"scorer": "fairway", "model": model, "options": OPTIONS}
    peer = {
        "scorer": "lm_eval", "model": model, "texts": texts, "batch": 1,
        "options": {"max_length": 8192},
    }  # fmt: skip
    once = measure({**own, "texts": texts})
    less, more = measure({**own, "texts": few}), measure({**own, "texts": many})
    half = measure({**own, "texts": texts, "options": {**OPTIONS, "dtype": "bfloat16"}})
    harness = measure(peer, python)
    rows = [
        {"scorer": "fairway", "documents": len(texts), "over_weights_mib": round(once)},
        {"scorer": "fairway", "documents": len(few), "over_weights_mib": round(less)},
        {"scorer": "fairway", "documents": len(many), "over_weights_mib": round(more)},
        {"scorer": "fairway bf16", "documents": len(texts), "over_weights_mib": round(half)},
        {"scorer": "lm-eval batch 1", "documents": len(texts), "over_weights_mib": round(harness)},
    ]
    goals = {
        "vs_lm_eval": goal(once / harness, 0.25, least=False),
        "flat": goal(more / less, 1.1, least=False),
    }
    write("memory", rows, goals, versions("torch", "transformers", "fairway"))


if __name__ == "__main__":
    main()
