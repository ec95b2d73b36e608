"""Normalisers of other tools: characters a second beside the same steps in plain Python.

    make bench NAME=normalisers

The plain steps are those of cc_net, edugp and datatrove, one call of the standard library after
the other. Both sides read the same documents in turn, in processor time. ``vs_plain`` is the ratio
of speeds; ``mchar_s`` is held against what the tools' own code reached on a two-core Xeon: 6.9,
12.3 and 7.2 million characters a second. Places in the source are made in the same time; the plain
steps have none. ``call_us`` is the time of one call with a text of `SHORT`, where plain Python is
faster.
"""

from __future__ import annotations

import re
import sys
import time
import unicodedata
from collections.abc import Callable
from typing import Any

from common import goal, middle, ratios, versions, write

from fairway.corpus import read
from fairway.ngram.normalisers import named
from fairway.ngram.normalisers.ccnet import PUNCTUATION, UNPRINTABLE
from fairway.ngram.normalisers.datatrove import NUMBER

ROUNDS = 7
REPEAT = 10
CONTROL = re.compile(f"[{''.join(map(re.escape, sorted(UNPRINTABLE)))}]")
DIGIT = re.compile(r"\d")
SHORT = "Café prices rose 12.5% in 2024."
CALLS = 2000
TOOLS = {"ccnet": 6.9, "ccnet-fixed": 6.9, "edugp": 12.3, "datatrove": 7.2}


def rest(text: str) -> str:
    """Punctuation and control characters."""
    return CONTROL.sub("", "".join(PUNCTUATION.get(char, char) for char in text))


def bare(text: str) -> str:
    """No accents."""
    wide = unicodedata.normalize("NFD", text)
    return "".join(char for char in wide if unicodedata.category(char) != "Mn")


PLAIN: dict[str, Callable[[str], str]] = {
    "ccnet": lambda text: rest(DIGIT.sub("0", bare(text.strip().lower()))),
    "ccnet-fixed": lambda text: "\n".join(PLAIN["ccnet"](line) for line in text.split("\n")),
    "edugp": lambda text: rest(DIGIT.sub("0", text.strip())),
    "datatrove": lambda text: rest(bare(NUMBER.sub("0", text.lower())).strip()),
}


def spend(work: Callable[[str], Any], texts: list[str]) -> float:
    """Give the processor time of a pass."""
    start = time.process_time()
    for text in texts:
        work(text)
    return time.process_time() - start


def main() -> None:
    """Run the benchmark; a corpus may be named, sample:all by default."""
    source = sys.argv[1] if len(sys.argv) > 1 else "sample:all"
    texts = [document.text for document in read(source)]
    texts *= max(1, REPEAT * 100_000 // sum(map(len, texts)))
    size = sum(map(len, texts)) / 1e6
    rows: list[dict[str, Any]] = []
    goals = {}
    for name, tool in TOOLS.items():
        normalise = named(name)
        assert all(normalise(text).text == PLAIN[name](text) for text in set(texts))
        own, plain = [], []
        for _ in range(ROUNDS):
            own.append(spend(lambda text, one=normalise: one(text).text, texts))
            plain.append(spend(PLAIN[name], texts))
        speed = size / middle(own)
        found = ratios(plain, own)
        short = [SHORT] * CALLS
        rows.append(
            {
                "normaliser": name, "mchar_s": speed, "plain_mchar_s": size / middle(plain),
                **found,
                "call_us": spend(lambda text, one=normalise: one(text).text, short) / CALLS * 1e6,
                "plain_call_us": spend(PLAIN[name], short) / CALLS * 1e6,
            }
        )  # fmt: skip
        goals[f"vs_plain.{name}"] = goal(found["ratio"], 1.0)
        goals[f"mchar_s.{name}"] = goal(speed, tool)
    for row in rows:
        row["corpus"] = source
        row["characters"] = round(size * 1e6)
    write("normalisers", rows, goals, versions("torch", "numpy", "fairway"))


if __name__ == "__main__":
    main()
