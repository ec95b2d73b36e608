"""What accuracy, entropy and the tail of surprisal cost beside a perplexity.

    make bench NAME=companions

Processor time of the same evaluation with and without them, one thread, in turns; the built-in
model on the shipped samples twice over, and random weights in the shape of GPT-2 on texts of its
own. ``cost`` is the median ratio.
"""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from common import goal, ratios, versions, write
from shapes import folder, lengths, texts

import fairway as fw

ROUNDS = int(os.environ.get("FAIRWAY_ROUNDS", "5"))
SHAPE = "gpt2-124m"


def seconds(scorer: Any, some: list[str], companions: bool) -> float:
    """Evaluate once; processor time."""
    started = time.process_time()
    fw.evaluate(scorer, some, companions=companions)
    return time.process_time() - started


def main() -> None:
    """Run the benchmark."""
    torch.set_num_threads(1)
    samples = [document.text for document in fw.read("sample:all")]
    # A text that comes again is not scored again.
    twice = samples + [text + "." for text in samples]
    rows: list[dict[str, Any]] = []
    goals = {}
    for name, model, some in (
        ("builtin", "hf:builtin", twice),
        (SHAPE, folder(SHAPE), texts(SHAPE, lengths(24))),
    ):
        scorer = fw.load(model)
        found: dict[bool, list[float]] = {True: [], False: []}
        for which in (True, False):
            seconds(scorer, some, which)
        for turn in range(ROUNDS):
            for which in (True, False) if turn % 2 else (False, True):
                found[which].append(seconds(scorer, some, which))
        rows.append({"model": name, **ratios(found[True], found[False])})
        goals[f"cost.{name}"] = goal(rows[-1]["ratio"], 1.1, least=False)
    write("companions", rows, goals, versions("torch", "transformers", "fairway"))


if __name__ == "__main__":
    main()
