"""ARPA files for tests: random models, written out, and a plain reading of them."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence

Grams = dict[tuple[str, ...], tuple[float, float]]
"""N-grams with their log10 probability and back-off weight."""


def draw(
    seed: int, words: Sequence[str], order: int, unknown: bool = True, gaps: bool = False
) -> Grams:
    """Draw a random model that lists the context of every n-gram; with gaps, not all suffixes."""
    rng = random.Random(seed)
    grams: Grams = {("<s>",): (-99.0, -0.5), ("</s>",): (-1.25, 0.0)}
    if unknown:
        grams["<unk>",] = (-2.5, -0.125)
    known = [*words, *(["<unk>"] if unknown else [])]
    for word in words:
        grams[word,] = (-rng.uniform(0.5, 4), -rng.uniform(0, 1.5) * rng.getrandbits(1))
    for _ in range(rng.randrange(40)):
        sentence = ["<s>", *(rng.choice(known) for _ in range(rng.randrange(6))), "</s>"]
        for end in range(2, len(sentence) + 1):
            longest = min(order, end)
            if rng.random() < 0.3:
                longest = min(longest, 2)
            start = end - longest
            for stop in range(start + 2, end + 1):
                gram = tuple(sentence[start:stop])
                weight = -rng.uniform(0, 1.5) if stop - start < order and stop < end else 0.0
                grams.setdefault(gram, (-rng.uniform(0.01, 3), weight))
    for gram in sorted(grams, key=len, reverse=True):
        # KenLM's hash tables have room for few n-grams whose suffix is missing.
        for start in range(1, len(gram) - 1):
            if not gaps or rng.random() < 0.9:
                grams.setdefault(gram[start:], (-rng.uniform(0.01, 3), 0.0))
                for stop in range(start + 2, len(gram)):
                    grams.setdefault(gram[start:stop], (-rng.uniform(0.01, 3), 0.0))
    return grams


def write(grams: Grams, order: int, space: str = "\t", head: str = "") -> str:
    """Write a model as an ARPA file."""
    levels = [[g for g in grams if len(g) == n] for n in range(1, order + 1)]
    out = [head + "\\data\\"]
    out += [f"ngram {n}={len(level)}" for n, level in enumerate(levels, 1)]
    for n, level in enumerate(levels, 1):
        out += ["", f"\\{n}-grams:"]
        for gram in level:
            prob, weight = grams[gram]
            tail = f"{space}{weight:.6f}" if n < order and weight else ""
            out.append(f"{prob:.6f}{space}{' '.join(gram)}{tail}")
    return "\n".join([*out, "", "\\end\\", ""])


def parse(text: str) -> Grams:
    """Read a well-formed file line by line."""
    grams: Grams = {}
    order = 0
    for line in text.split("\n"):
        if match := re.fullmatch(r"\\(\d+)-grams:", line):
            order = int(match[1])
        elif order and line and not line.startswith("\\"):
            fields = re.split(r"[ \t]+", line)
            weight = float(fields[order + 1]) if len(fields) == order + 2 else 0.0
            grams[tuple(fields[1 : order + 1])] = float(fields[0]), weight
    return grams


def ask(grams: Grams, order: int, history: Sequence[str], word: str) -> float:
    """Give log10 p(word | history) by the definition of back-off, recursively."""
    history = tuple(history)[max(0, len(history) - order + 1) :] if order > 1 else ()
    found = grams.get((*history, word))
    if found is not None:
        return found[0]
    if not history:
        return -100.0
    weight = grams.get(history, (0.0, 0.0))[1]
    return weight + ask(grams, order, history[1:], word)


def rows(
    grams: Grams, order: int, text: str, eos: bool = True, document: bool = False
) -> list[tuple[int, int, float, bool]]:
    """Score a text word by word: span, nats, unknown. An independent reference of the scorer."""
    out = []
    lines = [(0, text)] if document else []
    if not document:
        at = 0
        for line in text.split("\n"):
            lines.append((at, line))
            at += len(line) + 1
    if text.endswith("\n") and not document:
        lines.pop()
    for at, line in lines if text else []:
        history = ["<s>"]
        reached = at
        for match in re.finditer(r"[^\t-\r ]+", line):
            known = (match[0],) in grams and "\0" not in match[0]
            word = match[0] if known else "<unk>"
            log10 = ask(grams, order, history, word)
            unknown = word == "<unk>"
            reached = at + match.end()
            out.append((at + match.start(), reached, log10 * math.log(10), unknown))
            history.append(word)
        if eos:
            stop = min(at + len(line) + 1, len(text))
            log10 = ask(grams, order, history, "</s>")
            out.append((reached, stop, log10 * math.log(10), False))
    return out
