"""N-gram scoring against a bare loop over KenLM's ``full_scores``, one core and two.

    FAIRWAY_ASSETS=... make bench NAME=ngram

The model is a 5-gram of WikiText-2's test set and four books (4.7 million n-grams; relative
frequencies, which is no good model and costs what a good one costs). The text is four fifths of
WikiText's and none of it is foreign, as a filter's own language is not. ``vs_full_scores`` is the
CPU time of the bare loop, which gives one sum, as a part of that of the scorer, which gives every
word's log-probability, place in the source and whether it is known. They take turns on parts of
the text, and the median of rounds' ratios counts. ``two_cores`` is the tokens that two processes
score in a second by the clock against one process alone, so that it needs both cores for itself;
``two_cores_cpu`` is the same of CPU seconds, and tells what they take from each other's caches.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from common import BUILD, goal, middle, ratios, versions, work, write

import fairway as fw
from fairway.backends.ngram import load_arpa, load_kenlm

ORDER = 5
PART = 12
"""Documents between which the contestants take turns."""
ROUNDS = int(os.environ.get("FAIRWAY_ROUNDS", "7"))
LINES = 20
"""Lines of a document."""
BOOKS = ("botchan", "bronte", "darwin", "oz_and_others_248k")


def corpus() -> tuple[list[str], list[str]]:
    """Give lines for the model, and those that are scored: lower case, single spaces."""
    assets = Path(os.environ["FAIRWAY_ASSETS"]) / "corpora"
    texts = [(assets / "wikitext2" / "wiki.test.raw").read_text("utf-8")]
    texts += [
        gzip.decompress((assets / "books" / f"{book}.txt.gz").read_bytes()).decode("utf-8")
        for book in BOOKS
    ]
    clean = [[" ".join(line.lower().split()) for line in text.split("\n")] for text in texts]
    kept = [[line for line in lines if line] for lines in clean]
    return [line for lines in kept for line in lines], kept[0][: len(kept[0]) * 4 // 5]


def model(lines: list[str]) -> Path:
    """Write the model once."""
    path = BUILD / f"ngram-{ORDER}.arpa"
    if path.exists():
        return path
    counts: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(ORDER + 1)]
    for line in lines:
        words = ("<s>", *line.split(), "</s>")
        for n in range(1, ORDER + 1):
            counts[n].update(words[i : i + n] for i in range(len(words) - n + 1))
    total = sum(counts[1].values())
    counts[1]["<unk>",] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as out:
        out.write("\\data\\\n")
        for n in range(1, ORDER + 1):
            out.write(f"ngram {n}={len(counts[n])}\n")
        for n in range(1, ORDER + 1):
            out.write(f"\n\\{n}-grams:\n")
            for gram, count in counts[n].items():
                share = count / (counts[n - 1][gram[:-1]] if n > 1 else total)
                tail = "\t-0.30103" if n < ORDER else ""
                value = f"{min(-0.001, -0.01 + (share**0.5 - 1) * 2):.6f}"
                out.write(f"{value}\t{' '.join(gram)}{tail}\n")
        out.write("\n\\end\\\n")
    part.replace(path)
    return path


def documents(lines: list[str]) -> list[fw.Document]:
    """Give the text in documents of some lines."""
    starts = range(0, len(lines), LINES)
    return [fw.Document(str(at), "\n".join(lines[at : at + LINES]) + "\n") for at in starts]


def split(kept: list[fw.Document]) -> list[list[bytes]]:
    """Give documents' lines, as the bare loop takes them."""
    return [document.text.encode().split(b"\n")[:-1] for document in kept]


def bare(full: Callable[..., Any], texts: list[list[bytes]]) -> tuple[float, int]:
    """Sum what KenLM gives, line by line."""
    total, tokens = 0.0, 0
    for lines in texts:
        for line in lines:
            for log10, _, _ in full(line):
                total += log10
                tokens += 1
    return total, tokens


def clock(run: Callable[[], Any]) -> float:
    """Time a call in CPU seconds."""
    start = time.process_time()
    run()
    return time.process_time() - start


def worker(job: dict[str, Any]) -> dict[str, Any]:
    """Score for some seconds in this process; tell the tokens and the CPU seconds."""
    scorer = load_kenlm(job["model"])
    kept = documents(corpus()[1])
    tokens, cpu, wall = 0, time.process_time(), time.monotonic()
    while time.monotonic() - wall < job["seconds"]:
        tokens += sum(len(score) for score in scorer.score(kept))
    return {
        "tokens": tokens, "cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - wall
    }  # fmt: skip


def rate(answers: list[dict[str, Any]], by: str) -> float:
    """Tokens in a second, added up over processes."""
    return sum(one["tokens"] / one[by] for one in answers)


def main() -> None:
    """Run the benchmark."""
    every, scored = corpus()
    path = model(every)
    start = time.process_time()
    arpa = load_arpa(str(path))
    read = time.process_time() - start
    start = time.process_time()
    scorer: Any = load_kenlm(str(path))
    loaded = time.process_time() - start
    grams = sum(len(level.keys) for level in arpa.model.tables.levels)  # type: ignore[attr-defined]
    kept = documents(scored)
    full = scorer.model.model.full_scores
    parts = [kept[at : at + PART] for at in range(0, len(kept), PART)]
    sums, tokens = bare(full, split(kept))
    runs: dict[str, Callable[[Any], Any]] = {
        "bare full_scores": lambda part: bare(full, part),
        "kenlm: log-probs": lambda part: sum(s.logprobs.sum() for s in scorer.score(part)),
        "kenlm: with sums": lambda part: sum(s.totals.nll for s in scorer.score(part)),
        "arpa: log-probs": lambda part: sum(s.logprobs.sum() for s in arpa.score(part)),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        spent = dict.fromkeys(runs, 0.0)
        # In turn on each part, so that whatever else the machine does slows all of them.
        for part in parts:
            lines = split(part)
            for name, run in runs.items():
                spent[name] += clock(partial(run, lines if name.startswith("bare") else part))
        for name, seconds in spent.items():
            times[name].append(seconds)
    nll = sum(score.totals.nll for score in scorer.score(kept))
    gap = abs(nll / -2.302585092994046 - sums) / abs(sums)
    peer = times["bare full_scores"]
    rows: list[dict[str, Any]] = [
        {"case": name, "tokens_per_cpu_s": round(tokens / middle(found)), **ratios(peer, found)}
        for name, found in times.items()
    ]
    job = {"model": str(path), "seconds": 3}
    alone, both = [], []
    for _ in range(min(ROUNDS, 3)):
        alone.append([work("ngram.py", job)])
        with ThreadPoolExecutor(2) as pool:
            both.append(list(pool.map(lambda _: work("ngram.py", job), range(2))))
    for name, found in (("one process", alone), ("two processes", both)):
        rows.append(
            {
                "case": name,
                "tokens_per_cpu_s": round(middle([rate(one, "cpu_s") for one in found])),
                "tokens_per_wall_s": round(middle([rate(one, "wall_s") for one in found])),
            }
        )
    gains = {
        by: middle([rate(b, by) / rate(a, by) for a, b in zip(alone, both, strict=True)])
        for by in ("wall_s", "cpu_s")
    }
    rows.append({"case": f"reading {grams:,} n-grams, kenlm:", "cpu_s": round(loaded, 2)})
    rows.append({"case": f"reading {grams:,} n-grams, arpa:", "cpu_s": round(read, 2)})
    goals = {
        "vs_full_scores": goal(rows[1]["ratio"], 0.8),
        "two_cores": goal(gains["wall_s"], 1.85),
        "two_cores_cpu": goal(gains["cpu_s"], 1.85),
        "same_sum": goal(gap, 1e-6, least=False),
    }
    write("ngram", rows, goals, versions("ufal.kenlm", "numpy", "torch", "fairway"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(worker(json.load(sys.stdin))), "utf-8")
    else:
        main()
