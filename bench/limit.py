"""How near the engine comes to its own matrix products.

    make bench NAME=limit

The products of one scoring pass (projections, attention, head) are recorded with their shapes and
run bare, with the same dtype, threads and kernels; the share is their time over the engine's. In
float32, where the engine takes oneDNN's products in place of torch's default, the goal holds
against the faster ones; ``fp32.torch`` tells the share of torch's default products. The rest is
printed by operation.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import shapes
import torch
from common import goal, middle, no_goal, versions, write
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import fairway as fw
from fairway.backends.transformers import forward, tree
from fairway.backends.transformers import layout as layouts
from fairway.backends.transformers.products import Products

ROUNDS = 5
SHAPE = "gpt2-124m"
SHOWN = 8


class Recorder(TorchFunctionMode):  # type: ignore[misc]
    """Notes the shapes of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear: Counter[tuple[int, int, int]] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear:
            rows, weight = args[:2]
            self.linear[rows.numel() // rows.shape[-1], weight.shape[1], weight.shape[0]] += 1
        elif func is torch.addmm:
            self.linear[args[1].shape[0], args[1].shape[1], args[2].shape[1]] += 1
        return func(*args, **(kwargs or {}))


def batches(scorer: Any, texts: list[str]) -> list[list[tree.Row]]:
    """Plan the batches of a pass."""
    front = scorer.plan.prefix[0]
    rows = []
    for index, text in enumerate(texts):
        ids = [front, *scorer.loaded.tokenizer(text)["input_ids"]]
        rows.append(forward.row(ids[:-1], ids[1:], 0, index))
    return [[rows[i] for i in some] for some in tree.plan([r.inputs for r in rows], scorer.budget)]


def engine(scorer: Any, planned: list[list[tree.Row]], path: forward.Path) -> Callable[[], None]:
    """Score the batches."""

    def run() -> None:
        for rows in planned:
            forward.run(scorer.loaded.model, path, rows, ())

    return run


def linears(found: Counter[tuple[int, int, int]], dtype: torch.dtype) -> Callable[[], None]:
    """Run the linear products alone."""
    made = {
        (m, k, n): (torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype))
        for m, k, n in found
    }  # fmt: skip

    def run() -> None:
        for shape, count in found.items():
            rows, weight = made[shape]
            for _ in range(count):
                functional.linear(rows, weight)

    return run


def attentions(scorer: Any, planned: list[list[tree.Row]], dtype: torch.dtype) -> Any:
    """Run the two products of attention alone, over the lower triangle in blocks of 128."""
    config = scorer.loaded.model.config
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    size = config.hidden_size // heads
    sizes: Counter[tuple[int, int]] = Counter()
    for rows in planned:
        layout = layouts.lay_out(tree.pack([row.inputs for row in rows]), torch.device("cpu"))
        sizes.update((1, end - start) for start, end in layout.singles)
        sizes.update((len(places), places.shape[1]) for places, _, _ in layout.stacks)
    made = {
        key: [torch.randn(key[0] * heads, key[1], size).to(dtype) for _ in range(3)]
        for key in sizes
    }

    def run() -> None:
        for key, count in sizes.items():
            query, keys, values = made[key]
            for _ in range(count * layers):
                for at in range(0, key[1], 128):
                    reach = min(at + 128, key[1])
                    torch.bmm(
                        torch.bmm(query[:, at:reach], keys[:, :reach].transpose(1, 2)),
                        values[:, :reach],
                    )

    return run


def clock(run: Callable[[], None]) -> float:
    """Time one call, seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def rest(run: Callable[[], None]) -> list[tuple[str, float]]:
    """Tell where the engine's time goes, by operation: share of its own time."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    events = sorted(found.key_averages(), key=lambda e: -e.self_cpu_time_total)
    whole = sum(e.self_cpu_time_total for e in events)
    return [(e.key, e.self_cpu_time_total / whole) for e in events[:SHOWN]]


def measure(name: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Compare the engine with its products in one dtype."""
    scorer: Any = fw.load(shapes.folder(SHAPE), dtype=name)
    dtype = getattr(torch, name)
    planned = batches(scorer, shapes.texts(SHAPE, shapes.lengths(24)))
    run = engine(scorer, planned, scorer.path)
    run()
    with Recorder() as seen:
        # Without the replaced kernels, which would take the calls before the recorder sees them.
        engine(scorer, planned, replace(scorer.path, products=Products()))()
    plain = linears(seen.linear, dtype)
    attend = attentions(scorer, planned, dtype)
    times: dict[str, list[float]] = {"engine": [], "linear": [], "torch": [], "attention": []}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            times["engine"].append(clock(run))
            with scorer.path.products.active():
                times["linear"].append(clock(plain))
                times["attention"].append(clock(attend))
            times["torch"].append(clock(plain))
    tokens = sum(len(row.targets) for rows in planned for row in rows)
    pairs = list(zip(*times.values(), strict=True))
    shares = {
        "own": middle([(linear + att) / whole for whole, linear, _, att in pairs]),
        "torch": middle([(default + att) / whole for whole, _, default, att in pairs]),
    }
    row = {
        "dtype": name, "kernels": scorer.path.products.name, "tokens": tokens,
        "engine_s": round(middle(times["engine"]), 3),
        "linear_s": round(middle(times["linear"]), 3),
        "linear_torch_s": round(middle(times["torch"]), 3),
        "attention_s": round(middle(times["attention"]), 3),
        "share": round(shares["own"], 3), "share_torch": round(shares["torch"], 3),
        "rest": "; ".join(f"{key} {share:.0%}" for key, share in rest(run)),
    }  # fmt: skip
    return row, shares


def main() -> None:
    """Run the benchmark."""
    single, single_shares = measure("float32")
    half, half_shares = measure("bfloat16")
    goals = {
        "fp32": goal(single_shares["own"], 0.7),
        "bf16": goal(half_shares["own"], 0.6),
        "fp32.torch": no_goal(single_shares["torch"], "none: torch's default products"),
    }
    write("limit", [single, half], goals, versions("torch", "transformers", "fairway"))


if __name__ == "__main__":
    main()
