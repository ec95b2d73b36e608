"""The engine against its peers on the same texts and tokens.

    make bench NAME=engine

Peers run in an environment of their own (`bench/parity/requirements.txt`): FAIRWAY_PEERS names its
Python, else `.venv-peers` is taken. FAIRWAY_EVALUATE_METRIC names the script of HF evaluate's
metric (`metrics/perplexity/perplexity.py` of its repository); without it a loop of ours with the
same batching stands in, and the row says so. Repetitions are interleaved; a ratio is the median of
the pairs of one round, in CPU seconds of the scoring alone.
"""

from __future__ import annotations

import os
from typing import Any

import shapes
from common import goal, machine, middle, no_goal, peers, ratios, versions, work, write

ROUNDS = int(os.environ.get("FAIRWAY_ROUNDS", "3"))
DOCUMENTS = {"gpt2-124m": 24, "llama-183m-128k": 16}
LONGEST = {"gpt2-124m": 1000, "llama-183m-128k": 700}


def jobs(shape: str, script: str | None) -> dict[str, dict[str, Any]]:
    """Give what is run for a shape, by the row's name."""
    texts = shapes.texts(shape, shapes.lengths(DOCUMENTS[shape], LONGEST[shape]))
    common = {"model": shapes.folder(shape), "texts": texts}
    bf16 = {"dtype": "bfloat16"}
    found = {
        "fairway": {"scorer": "fairway", **common},
        "fairway bf16": {"scorer": "fairway", **bf16, **common},
        "lm-eval batch 8": {"scorer": "lm_eval", "batch": 8, **common},
        "lm-eval batch 1": {"scorer": "lm_eval", "batch": 1, **common},
        "lm-eval batch 8 bf16": {"scorer": "lm_eval", "batch": 8, **bf16, **common},
        "lm-eval batch 1 bf16": {"scorer": "lm_eval", "batch": 1, **bf16, **common},
    }
    if shape == "gpt2-124m":
        # On the large vocabulary its padded logits need more memory than a small machine has.
        found["HF evaluate" if script else "loop batched as HF evaluate"] = {
            "scorer": "evaluate" if script else "padded_loop", "script": script, **common
        }  # fmt: skip
    return found


def measure(shape: str, script: str | None, python: str) -> dict[str, list[dict[str, Any]]]:
    """Run every job once a round, in turn."""
    planned = jobs(shape, script)
    times: dict[str, list[dict[str, Any]]] = {name: [] for name in planned}
    for round_ in range(ROUNDS):
        for name, job in planned.items():
            own = job["scorer"] in ("fairway", "padded_loop")
            times[name].append(work("scorers.py", job, None if own else python))
            print(f"{shape} round {round_ + 1}: {name}: {times[name][-1]['cpu']:.1f} CPU s")
    return times


def row(shape: str, name: str, runs: list[dict[str, Any]], own: list[dict[str, Any]]) -> Any:
    """Sum up a scorer's runs beside fairway's of the same dtype."""
    sizes = shapes.lengths(DOCUMENTS[shape], LONGEST[shape])
    cpu = middle([run["cpu"] for run in runs])
    gap = None
    if "evaluate" not in name:
        # Documents' log-probs against fairway's in float32, nats per token.
        gaps = [(a - b) / n for a, b, n in zip(runs[0]["sums"], own[0]["sums"], sizes, strict=True)]
        gap = max(map(abs, gaps))
    return {
        "shape": shape, "scorer": name, "cpu_s": round(cpu, 2),
        "wall_s": round(middle([run["wall"] for run in runs]), 2),
        "tokens_per_cpu_s": round(sum(sizes) / cpu),
        **{
            key: round(value, 2)
            for key, value in ratios(
                [run["cpu"] for run in runs], [run["cpu"] for run in own]
            ).items()
        },
        "worst_document_nats": gap,
    }  # fmt: skip


def ratio(times: dict[str, list[dict[str, Any]]], peer: list[str], own: str) -> float:
    """Compare the best of some peers with fairway, pair by pair."""
    found = [
        ratios([r["cpu"] for r in times[name]], [r["cpu"] for r in times[own]])["ratio"]
        for name in peer
        if name in times
    ]
    return min(found)


def goals(times: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """Hold the ratios against the targets; those of bfloat16 depend on the processor."""
    flags = machine()["flags"]
    half = (8, 5, 3) if "amx_bf16" in flags else (5, 3, 2) if "avx512_bf16" in flags else None
    out: dict[str, Any] = {}
    for shape, runs in times.items():
        suffix = "" if shape == "gpt2-124m" else f".{shape}"
        evaluates = ["HF evaluate", "loop batched as HF evaluate"]
        eight, one = "lm-eval batch 8", "lm-eval batch 1"
        if suffix == "":
            out["fp32_vs_evaluate"] = goal(ratio(runs, evaluates, "fairway"), 3)
        out[f"fp32_vs_lm_eval{suffix}"] = goal(ratio(runs, [eight], "fairway"), 1.8)
        out[f"fp32_vs_lm_eval_best{suffix}"] = goal(ratio(runs, [eight, one], "fairway"), 1.0)
        pairs = [
            ("bf16_vs_evaluate", evaluates, 0),
            ("bf16_vs_lm_eval", [eight], 1),
            ("bf16_vs_lm_eval_bf16", [f"{eight} bf16"], 2),
            ("bf16_vs_lm_eval_bf16.best", [f"{eight} bf16", f"{one} bf16"], None),
        ]
        for key, names, place in pairs:
            if suffix and names is evaluates:
                continue
            value = ratio(runs, names, "fairway bf16")
            if place is None:
                out[key + suffix] = no_goal(value, "none: told for honesty")
            elif half is None:
                out[key + suffix] = no_goal(value, "none on this CPU")
            else:
                out[key + suffix] = goal(value, half[place])
    return out


def main() -> None:
    """Run the benchmark."""
    python = peers()
    if python is None:
        raise SystemExit("engine: FAIRWAY_PEERS names no Python, and there is no .venv-peers.")
    script = os.environ.get("FAIRWAY_EVALUATE_METRIC")
    times = {shape: measure(shape, script, python) for shape in DOCUMENTS}
    rows = [
        row(shape, name, runs, named["fairway"])
        for shape, named in times.items()
        for name, runs in named.items()
    ]
    write("engine", rows, goals(times), versions("torch", "transformers", "fairway"))


if __name__ == "__main__":
    main()
