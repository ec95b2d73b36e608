"""Print the goals of all committed results as the table that stands in README.

python bench/summary.py
"""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
MEANING = {
    "engine": {
        "fp32_vs_evaluate": "float32: CPU time of HF evaluate over fairway's",
        "fp32_vs_lm_eval": "of lm-evaluation-harness, batch size 8",
        "fp32_vs_lm_eval_best": "of lm-evaluation-harness, its best batch size here (1)",
        "bf16_vs_evaluate": "bfloat16: HF evaluate in float32",
        "bf16_vs_lm_eval": "lm-evaluation-harness in float32, batch size 8",
        "bf16_vs_lm_eval_bf16": "lm-evaluation-harness in bfloat16, batch size 8",
        "bf16_vs_lm_eval_bf16.best": "the same, its best batch size here (1)",
    },
    "limit": {
        "fp32": "float32: time of the bare matrix products over the engine's",
        "bf16": "bfloat16: likewise",
    },
    "memory": {
        "vs_lm_eval": "peak memory above the weights over lm-evaluation-harness', batch size 1",
        "flat": "peak memory with 60 documents over that with 15",
    },
    "long": {"overlap": "overlapping windows: time over that of as many tokens without overlap"},
    "prefix": {
        "speedup": "64 continuations of one context: speed-up over the ratio of tokens read",
        "no_slowdown": "contexts that all differ: time without sharing over that with it",
    },
    "start": {
        "vs_import": "`fairway score` from cold over the imports alone",
        "help_ms": "`fairway --help`, milliseconds over the bare interpreter",
    },
    "ngram": {
        "vs_full_scores": "n-grams: CPU time of a bare loop over KenLM's scores over `kenlm:`'s",
        "two_cores": "two processes over one, tokens by the clock",
    },
    "gguf_loop": {
        "gguf_overhead llama-58m-32k": "GGUF: CPU time of `gguf:` over llama.cpp's own bare loop"
    },
    "ngram_train": {
        "minutes": "n-gram training, 10 million words of order 5: minutes",
        "peak_gib": "its peak memory, GiB",
    },
    "serve": {
        "vs_engine": "`fairway serve`: 32 clients' short texts a second over the engine's",
        "vs_direct": "a sentence's report: median time through the server over a direct call's",
    },
    "scaling": {"linear": "CPU time of a further token up to 1M over that up to 100k, two threads"},
}

LOWER = ("memory", "long", "start", "scaling", "gguf_loop", "ngram_train")
"""Benches of which less is better."""
LOWER_GOALS = ("vs_direct",)
"""Likewise goals of other benches."""


def lines() -> list[str]:
    """Give the table's lines."""
    out = ["| what | measured | target | bench |", "|---|---|---|---|"]
    for name, meanings in MEANING.items():
        goals = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))["goals"]
        for key, meaning in meanings.items():
            one = goals[key]
            lower = name in LOWER or key in LOWER_GOALS
            target = one["target"]
            bound = f"{'≤' if lower else '≥'} {target}" if not isinstance(target, str) else "-"
            mark = "" if one["met"] else " (missed)"
            out.append(f"| {meaning} | {one['value']:.3g}{mark} | {bound} | `{name}` |")
    return out


if __name__ == "__main__":
    print("\n".join(lines()))
