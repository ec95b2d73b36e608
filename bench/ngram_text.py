"""Ten million words for the bench of n-gram training, made from what is in the assets.

Repeating a small corpus would give few n-grams, and far more repeated ones than text has. Here a
walk through 1.3 million words of real text goes on with the next word, or jumps to another place
where the current word (or the current two) occurs, so that sequences are mostly new; one word in 64
is a number drawn from a long tail, since real text never stops to bring new words. The shares of
distinct n-grams are printed in the results.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np

SOURCES = (
    "wikitext2/wiki.valid.tokens", "wikitext2/wiki.test.tokens", "tinyshakespeare/input.txt",
    "books/bronte.txt.gz", "books/darwin.txt.gz",
)  # fmt: skip
STREAMS = 20_000
"""Walks that go on side by side."""
AHEAD, PAIR = 0.25, 0.35
"""Probabilities of going on with the next word, and of jumping by the last two words."""
NUMBERS = 1 / 64


def words(folder: Path) -> list[str]:
    """Give the words of the real texts; ``\\n`` ends a sentence."""
    found: list[str] = []
    for name in SOURCES:
        path = folder / "corpora" / name
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = data.decode("utf-8", "replace").replace("<unk>", "UNK")
        for sentence in re.split(r"\n\s*\n|(?<= [.!?]) |(?<=[.!?])\s", text):
            parts = sentence.split()
            if len(parts) > 1:
                found += [*parts, "\n"]
    return found


def _places(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort places by key: the order, and where each place's key begins and ends in it."""
    order = np.argsort(keys, kind="stable")
    _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    return order, (ends - sizes)[group], ends[group]


def make(folder: Path, out: Path, tokens: int, seed: int = 0) -> None:
    """Write a text of so many words, the same each time.

    Args:
        folder: the assets.
        out: the text, a sentence a line.
        tokens: at least so many words.
        seed: of the walks.
    """
    real = words(folder)
    names, ids = np.unique(np.array(real, dtype=object), return_inverse=True)
    pairs = ids.astype(np.int64) * len(names) + np.roll(ids, 1)
    one, two = _places(ids), _places(pairs)
    draw = np.random.default_rng(seed)
    at = draw.integers(0, len(ids), STREAMS)
    steps = tokens // STREAMS + tokens // STREAMS // 12
    walked = np.empty((STREAMS, steps), dtype=np.int32)
    for step in range(steps):
        chance = draw.random(STREAMS)
        for (order, first, last), chosen in (
            (two, (chance >= AHEAD) & (chance < AHEAD + PAIR)), (one, chance >= AHEAD + PAIR),
        ):  # fmt: skip
            here = at[chosen]
            at[chosen] = order[draw.integers(first[here], last[here])]
        at = (at + 1) % len(ids)
        walked[:, step] = ids[at]
    numbers = draw.random(walked.shape) < NUMBERS
    tail = np.minimum(draw.zipf(1.25, int(numbers.sum())), 10**9)
    end = int(np.flatnonzero(names == "\n")[0])
    with out.open("w", encoding="utf-8", newline="\n") as file:
        used = 0
        for row, marks in zip(walked, numbers, strict=True):
            spelled = names[row]
            count = int(marks.sum())
            spelled[marks] = [str(n) for n in tail[used : used + count]]
            used += count
            spelled[row == end] = "\n"
            text = " ".join(spelled.tolist())
            file.write(re.sub(r" ?\n[ \n]*", "\n", text).strip() + "\n")
