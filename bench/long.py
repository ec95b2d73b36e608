"""One document of 100,000 tokens, in windows that overlap by half, and in disjoint ones.

    make bench NAME=long

Overlapping windows read nearly twice the tokens. Beyond those tokens they should cost nothing:
``overlap`` is the ratio of the times over the ratio of the tokens read.
"""

from __future__ import annotations

import os
from typing import Any

from common import goal, middle, versions, work, write

from fairway import windows

TOKENS = 100_000
LENGTH = 512
ROUNDS = int(os.environ.get("FAIRWAY_ROUNDS", "3"))
MODEL = "hf:builtin"


def read(stride: int, tokens: int) -> int:
    """Count the tokens that the windows of a text read, prefix included."""
    return sum(w.end - w.begin for w in windows.rolling(tokens, LENGTH, stride, 1))


def main() -> None:
    """Run the benchmark."""
    word = "the quick brown fox jumps over a lazy dog and then it rests in the warm sun. "
    text = word * (TOKENS * 4 // len(word))
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
    tokens = len(tokenizer.loaded.tokenizer(text)["input_ids"])
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
