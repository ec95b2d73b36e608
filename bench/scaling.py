"""Does the cost of a token stay the same, from a thousand to a million of them?

    make bench NAME=scaling

The built-in model on a corpus of documents of realistic lengths, through `fairway.evaluate` with a
run directory, so that reading, tokenizing, statistics and commits are in it. Start-up is left out.
``linear``: CPU seconds of each further token from 100k to 1M over those from 10k to 100k.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import goal, middle, versions, work, write

SIZES = (1_000, 10_000, 100_000, 1_000_000)
ROUNDS = int(os.environ.get("FAIRWAY_ROUNDS", "3"))
CHARS_PER_TOKEN = 3.1


def corpus(tokens: int, path: Path) -> None:
    """Write documents of samples' text, cut at realistic lengths, none the same as another."""
    from importlib.resources import files

    import numpy as np

    folder = files("fairway") / "data" / "samples"
    lines = [
        json.loads(line)["text"]
        for name in ("encyclopedic", "legal", "news", "web")
        for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]
    text = "\n".join(lines)
    drawn = np.random.default_rng(0)
    left = int(tokens * CHARS_PER_TOKEN)
    with path.open("w", encoding="utf-8") as out:
        number = 0
        while left > 0:
            size = int(min(left, max(20, np.exp(drawn.normal(np.log(500), 0.8)))))
            start = int(drawn.integers(0, len(text) - size))
            out.write(json.dumps({"text": f"{number} {text[start : start + size]}"}) + "\n")
            left -= size
            number += 1


def child() -> None:
    """Score the corpora of a job and tell the CPU seconds of each."""
    job = json.load(sys.stdin)
    import torch

    import fairway as fw

    torch.set_num_threads(job["threads"])
    scorer: Any = fw.load("hf:builtin")
    list(scorer.score([fw.Document("warm", "Some words to warm up with. " * 40)]))
    out = []
    for path in job["corpora"]:
        with tempfile.TemporaryDirectory() as folder:
            cpu, wall = time.process_time(), time.perf_counter()
            report = fw.evaluate(scorer, path, out=Path(folder) / "run")
            out.append(
                {
                    "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall,
                    "tokens": report.totals.tokens,
                }
            )  # fmt: skip
    Path(sys.argv[1]).write_text(json.dumps(out), "utf-8")


def main() -> None:
    """Run the benchmark."""
    rows: list[dict[str, Any]] = []
    linear: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{size}.jsonl" for size in SIZES]
        for size, path in zip(SIZES, paths, strict=True):
            corpus(size, path)
        found: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for _ in range(ROUNDS):
            for threads in linear:
                job = {"threads": threads, "corpora": [str(path) for path in paths]}
                runs: Any = work("scaling.py", job)
                for size, run in zip(SIZES, runs, strict=True):
                    found.setdefault((threads, size), []).append(run)
                more = [
                    (b["cpu"] - a["cpu"]) / (b["tokens"] - a["tokens"]) for a, b in pairwise(runs)
                ]
                linear[threads].append(more[2] / more[1])
    for (threads, _), runs in sorted(found.items()):
        cpu, tokens = middle([run["cpu"] for run in runs]), runs[0]["tokens"]
        rows.append(
            {
                "threads": threads, "tokens": tokens, "cpu_s": round(cpu, 2),
                "wall_s": round(middle([run["wall"] for run in runs]), 2),
                "us_per_token": round(1e6 * cpu / tokens, 1),
                "tokens_per_s": round(tokens / middle([run["wall"] for run in runs])),
            }
        )  # fmt: skip
    goals = {
        "linear": goal(middle(linear[2]), 1.1, least=False),
        "linear.one_thread": goal(middle(linear[1]), 1.1, least=False),
    }
    write("scaling", rows, goals, versions("torch", "transformers", "fairway"))


if __name__ == "__main__":
    child() if len(sys.argv) > 1 else main()
