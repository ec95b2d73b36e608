"""One document of over 100,000 tokens, in windows that overlap by half, and in disjoint ones.

    make bench NAME=long

Overlapping windows read nearly twice the tokens. Beyond those tokens they should cost nothing:
``overlap`` is the ratio of the times over the ratio of the tokens read.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from common import goal, middle, versions, work, write

from fairway import windows

TOKENS = 100_000
LENGTH = 512
ROUNDS = int(os.environ.get("FAIRWAY_ROUNDS", "3"))
MODEL = "hf:builtin"


def words(count: int) -> str:
    """Draw words of the shipped samples at random, so that no two windows are the same."""
    from fairway.corpus import read as documents

    known = sorted({word for d in documents("sample:all") for word in d.text.split()})
    drawn = np.random.default_rng(0).integers(0, len(known), count)
    return " ".join(known[index] for index in drawn)


def read(stride: int, tokens: int) -> int:
    """Count the tokens that the windows of a text read, prefix included."""
    return sum(w.end - w.begin for w in windows.rolling(tokens, LENGTH, stride, 1))


def main() -> None:
    """Run the benchmark."""
    text = words(int(TOKENS / 1.3))
    rows: list[dict[str, Any]] = []
    times: dict[int, list[float]] = {LENGTH: [], LENGTH // 2: []}
    for _ in range(ROUNDS):
        for stride, found in times.items():
            job = {
                "scorer": "fairway", "model": MODEL, "texts": [text], "warmups": 1,
                "options": {"max_length": LENGTH, "stride": stride},
            }  # fmt: skip
            found.append(work("scorers.py", job)["cpu"])
    import fairway as fw

    tokenizer: Any = fw.load(MODEL)
    tokens = len(tokenizer.loaded.tokenizer(text, verbose=False)["input_ids"])
    for stride, found in times.items():
        rows.append(
            {
                "stride": stride, "tokens": tokens, "tokens_read": read(stride, tokens),
                "cpu_s": round(middle(found), 2),
            }
        )  # fmt: skip
    pairs = [half / whole for whole, half in zip(*times.values(), strict=True)]
    share = read(LENGTH // 2, tokens) / read(LENGTH, tokens)
    goals = {"overlap": goal(middle(pairs) / share, 1.05, least=False)}
    write("long", rows, goals, versions("torch", "transformers", "fairway"))


if __name__ == "__main__":
    main()
