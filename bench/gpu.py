"""On a GPU: tokens a second and share of the peak, against lm-eval and vLLM.

    make bench NAME=gpu

A Llama of 1.2 billion parameters with random weights, bfloat16. ``vs_best_peer``: tokens a second
over the better of lm-eval (its best batch size) and vLLM's prompt_logprobs, where the peers'
environment has them. ``mfu``: two operations a parameter and token read, over the peak that
FAIRWAY_PEAK_TFLOPS names (989 for an H100, the default). Without a CUDA device nothing is written.
"""

from __future__ import annotations

import os
import time
from typing import Any

import shapes
import torch
from common import goal, middle, no_goal, peers, versions, work, write

SHAPE = "llama-1.2b"
DOCUMENTS = 400
PEAK = float(os.environ.get("FAIRWAY_PEAK_TFLOPS", "989")) * 1e12
ROUNDS = int(os.environ.get("FAIRWAY_ROUNDS", "3"))


def main() -> None:
    """Run the benchmark, or say that there is no GPU."""
    if not torch.cuda.is_available():
        print("gpu: no CUDA device here; nothing was measured.")
        return
    import fairway as fw

    model = shapes.folder(SHAPE)
    sizes = shapes.lengths(DOCUMENTS, 2000)
    texts = shapes.texts(SHAPE, sizes)
    scorer: Any = fw.load(model, dtype="bfloat16", device="cuda")
    documents = [fw.Document(str(i), text) for i, text in enumerate(texts)]
    list(scorer.score(documents[:40]))
    times = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        list(scorer.score(documents))
        times.append(time.perf_counter() - start)
    rate = sum(sizes) / middle(times)
    size = sum(p.numel() for p in scorer.loaded.model.parameters())
    peak = torch.cuda.max_memory_allocated() / (1 << 30)
    rows: list[dict[str, Any]] = [
        {
            "scorer": "fairway bf16", "tokens_per_s": round(rate), "gpu_gib": round(peak, 1),
            "budget": scorer.budget, "gpu": torch.cuda.get_device_name(),
        }
    ]  # fmt: skip
    best = 0.0
    python = peers()
    for batch in (8, 32, 64) if python else ():
        job = {
            "scorer": "lm_eval", "model": model, "texts": texts, "dtype": "bfloat16",
            "batch": batch, "device": "cuda", "warmups": 1,
        }  # fmt: skip
        try:
            done = work("scorers.py", job, python)
        except RuntimeError as problem:
            rows.append({"scorer": f"lm-eval batch {batch}", "failed": str(problem)[-200:]})
            continue
        best = max(best, sum(sizes) / done["wall"])
        rows.append(
            {
                "scorer": f"lm-eval batch {batch}",
                "tokens_per_s": round(sum(sizes) / done["wall"]),
            }
        )
    try:
        done = work("scorers.py", {"scorer": "vllm", "model": model, "texts": texts}, python)
        best = max(best, sum(sizes) / done["wall"])
        rows.append({"scorer": "vLLM", "tokens_per_s": round(sum(sizes) / done["wall"])})
    except RuntimeError as problem:
        rows.append({"scorer": "vLLM", "failed": str(problem)[-200:]})
    goals = {
        "vs_best_peer": goal(rate / best, 2) if best else no_goal(None, "none: no peer ran"),
        "mfu": goal(2 * size * rate / PEAK, 0.5),
    }
    write("gpu", rows, goals, versions("torch", "transformers", "fairway"))


if __name__ == "__main__":
    main()
