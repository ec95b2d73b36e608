"""Training of an n-gram model: 10 million words, order 5, beside KenLM's lmplz at the same memory.

    make bench NAME=ngram_train

The text is made by ngram_text.py. lmplz comes from FAIRWAY_LMPLZ or PATH; without it its rows are
left out. To build it: the source distribution of kenlm (pip download --no-binary :all: --no-deps
kenlm), Debian's cmake, zlib1g-dev and libboost-{system,thread,program-options,test}-dev, then
cmake and make lmplz: 37 s. Each training runs in a process of its own on FAIRWAY_WORDS words (ten
million by default); the processor's seconds and the peak of resident memory are its own and its
children's. ``difference`` is the largest between log10 of one n-gram in 16.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ngram_text
from common import goal, no_goal, versions, write

WORDS = int(os.environ.get("FAIRWAY_WORDS", "10000000"))
ORDER = 5
MEMORIES = ("2G", "512M")
MINUTES = 5
GIB = 1 << 30


def measure(command: list[str]) -> dict[str, float]:
    """Run a training in a process of its own: seconds, processor's seconds, peak of memory."""
    code = f"""
import json, resource, subprocess, sys, time
started = time.perf_counter()
done = subprocess.run({command!r}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
seconds = time.perf_counter() - started
used = resource.getrusage(resource.RUSAGE_CHILDREN)
if done.returncode:
    sys.exit(done.stderr[-500:])
print(json.dumps([seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, processor, peak = (float(one) for one in out.stdout.strip("[]\n").split(","))
    return {"seconds": seconds, "cpu_seconds": processor, "peak_gib": peak / GIB}


def sampled(path: Path) -> Iterator[tuple[bytes, float, float]]:
    """Give one n-gram in 16 of an ARPA file, by a hash of its words."""
    with path.open("rb") as lines:
        for line in lines:
            fields = line.rstrip(b"\n").split(b"\t")
            if len(fields) > 1 and zlib.crc32(fields[1]) % 16 == 0:
                yield fields[1], float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0


def difference(ours: Path, theirs: Path) -> float:
    """Give the largest difference of log10; infinite where the n-grams are not the same."""
    known = {gram: (prob, back) for gram, prob, back in sampled(theirs)}
    worst = 0.0
    for gram, prob, back in sampled(ours):
        other = known.pop(gram, (float("inf"), 0.0))
        worst = max(worst, abs(prob - other[0]), abs(back - other[1]))
    return float("inf") if known else worst


def shares(text: Path) -> dict[str, float]:
    """Give how many of the n-grams in a text are distinct, by order."""
    from fairway.corpus import read
    from fairway.ngram.training import database, reading

    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reading.encode([read(text, split="lines")], "error", folder / "ids", folder / "words",
                       lambda *_: None)  # fmt: skip
        from fairway.ngram.training import counting

        with database.opened(folder, 2 * GIB, None) as connection:
            counting.count(connection, folder / "ids", ORDER, lambda *_: None)
            for k in range(1, ORDER + 1):
                distinct, raw = database.rows(connection, f"SELECT count(*), sum(raw) FROM g{k}")[0]
                found[f"distinct_{k}"] = float(distinct) / float(raw)
    return found


def main() -> None:
    """Run the benchmark."""
    assets = os.environ.get("FAIRWAY_ASSETS")
    if not assets:
        raise SystemExit("ngram_train: FAIRWAY_ASSETS names no folder of assets.")
    lmplz = os.environ.get("FAIRWAY_LMPLZ") or shutil.which("lmplz")
    rows: list[dict[str, Any]] = []
    goals: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text.txt"
        ngram_text.make(Path(assets), text, WORDS)
        own = [sys.executable, "-m", "fairway", "ngram", "train", "--data", str(text), "--order",
               str(ORDER)]  # fmt: skip
        for memory in MEMORIES:
            out = folder / f"own{memory}.arpa"
            found = measure([*own, "--out", str(out), "--memory", memory])
            rows.append({"trainer": "fairway", "memory": memory, **found})
        first = rows[0]
        goals["minutes"] = goal(first["seconds"] / 60, MINUTES, least=False)
        goals["peak_gib"] = goal(first["peak_gib"], 4, least=False)
        goals["peak_within_memory"] = goal(first["peak_gib"] / 2, 1, least=False)
        if lmplz is None:
            why = "lmplz is neither on PATH nor named by FAIRWAY_LMPLZ"
            goals["difference"] = goals["cpu_vs_lmplz"] = no_goal(None, why)
        else:
            made = folder / "lmplz.arpa"
            found = measure([lmplz, "-o", str(ORDER), "-S", "2G", "-T", f"{folder}/", "--text",
                             str(text), "--arpa", str(made)])  # fmt: skip
            rows.append({"trainer": "lmplz", "memory": "2G", **found})
            worst = difference(folder / "own2G.arpa", made)
            first["difference"] = worst
            goals["difference"] = goal(worst, 1e-4, least=False)
            goals["cpu_vs_lmplz"] = no_goal(
                first["cpu_seconds"] / found["cpu_seconds"], "to know what Python and SQL cost"
            )
        same = (folder / "own2G.arpa").read_bytes() == (folder / "own512M.arpa").read_bytes()
        goals["same_bytes"] = goal(float(same), 1)
        rows.append({"trainer": "the text", **shares(text)})
    write("ngram_train", rows, goals, versions("torch", "duckdb", "pyarrow", "numpy", "fairway"))


if __name__ == "__main__":
    main()
