"""From a cold start to a number, against the imports that any such program needs.

    make bench NAME=start

Whole processes, in turn. ``vs_import`` compares ``fairway score`` with a program that imports torch
and transformers' class of the model and of the tokenizer and does nothing with them;
``vs_import.lazy`` with ``import torch, transformers`` alone, behind which transformers has loaded
none of its models yet. ``help_ms`` is ``fairway --help`` over the bare interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from common import goal, middle, no_goal, versions, write

ROUNDS = int(os.environ.get("FAIRWAY_ROUNDS", "7"))
COMMANDS = {
    "python": ["-c", "pass"],
    "import fairway": ["-c", "import fairway"],
    "fairway --help": ["-m", "fairway", "--help"],
    "fairway list": ["-m", "fairway", "list"],
    "import torch, transformers": ["-c", "import torch, transformers"],
    "import torch, the model's class, the tokenizer's": [
        "-c", "import torch; from transformers import LlamaForCausalLM, AutoTokenizer",
    ],
    "fairway score (built-in model)": ["-m", "fairway", "score", "The cat sat on the mat."],
}  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_ in range(ROUNDS + 1):
        for name, words in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            if round_:
                times[name].append(time.perf_counter() - start)
    rows: list[dict[str, Any]] = [
        {
            "command": name, "seconds": round(middle(found), 3),
            "least": round(min(found), 3), "most": round(max(found), 3),
        }
        for name, found in times.items()
    ]  # fmt: skip
    python, _, help_, _, lazy, whole, score = times.values()
    over = [1000 * (a - b) for a, b in zip(help_, python, strict=True)]
    goals = {
        "vs_import": goal(
            middle([a / b for a, b in zip(score, whole, strict=True)]), 1.3, least=False
        ),
        "vs_import.lazy": no_goal(
            middle([a / b for a, b in zip(score, lazy, strict=True)]),
            "none: nothing is loaded yet",
        ),
        "help_ms": goal(middle(over), 250, least=False),
    }
    write("start", rows, goals, versions("torch", "transformers", "fairway"))


if __name__ == "__main__":
    main()
