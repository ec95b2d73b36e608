"""What benchmarks share: the machine, results on disk, goals, workers in processes of their own."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
BUILD = HERE.parent / "build" / "bench"
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile")


def machine() -> dict[str, Any]:
    """Describe the processor: its name, the flags that decide speed, cores and memory."""
    facts: dict[str, Any] = {"cpu": platform.processor() or platform.machine(), "flags": []}
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                facts["cpu"] = value.strip()
            elif key.strip() == "flags":
                facts["flags"] = [flag for flag in FLAGS if flag in value.split()]
    facts["cores"] = os.cpu_count()
    facts["memory_gib"] = round(
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1
    )
    facts["python"] = platform.python_version()
    return facts


def versions(*names: str) -> dict[str, str]:
    """Give the versions of packages in this environment; those that are absent are left out."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def goal(value: float, target: float, least: bool = True) -> dict[str, Any]:
    """Hold a figure against a target: at least it, or at most it."""
    met = value >= target if least else value <= target
    return {"value": round(value, 4), "target": target, "met": bool(met)}


def no_goal(value: float | None, why: str) -> dict[str, Any]:
    """Record a figure that has no target on this machine."""
    return {"value": None if value is None else round(value, 4), "target": why, "met": True}


def write(
    name: str, rows: list[dict[str, Any]], goals: dict[str, Any], versions: dict[str, str]
) -> None:
    """Write a benchmark's results and print them as tables."""
    RESULTS.mkdir(exist_ok=True)
    out = {"machine": machine(), "versions": versions, "rows": rows, "goals": goals}
    (RESULTS / f"{name}.json").write_text(json.dumps(out, indent=2) + "\n", "utf-8")
    table(rows)
    print()
    for key, one in goals.items():
        mark = "met" if one["met"] else "NOT MET"
        print(f"{key:40} {one['value']!s:>10}   target {one['target']!s:>28}   {mark}")


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a table."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(n), *(len(c[i]) for c in cells)) for i, n in enumerate(names)]
    for line in [names, *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def ratios(peer: Sequence[float], own: Sequence[float]) -> dict[str, float]:
    """Compare runs pair by pair: the median ratio, and its spread."""
    pairs = [a / b for a, b in zip(peer, own, strict=True)]
    return {
        "ratio": statistics.median(pairs), "ratio_min": min(pairs), "ratio_max": max(pairs)
    }  # fmt: skip


def work(
    script: str, job: dict[str, Any], python: str | None = None, threads: int | None = None
) -> dict[str, Any]:
    """Run a script in a process of its own, a job on stdin, and read the answer from a file.

    Raises:
        RuntimeError: when the process fails, with the last lines that it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        env = dict(os.environ)
        env["TOKENIZERS_PARALLELISM"] = "false"
        env["FAIRWAY_CACHE"] = str(BUILD / "cache")
        if threads:
            env["OMP_NUM_THREADS"] = env["MKL_NUM_THREADS"] = str(threads)
        done = subprocess.run(
            [python or sys.executable, str(HERE / script), str(answer)],
            input=json.dumps(job), text=True, capture_output=True, env=env,
        )  # fmt: skip
        if done.returncode or not answer.exists():
            last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
            raise RuntimeError(f"{script} ended with {done.returncode}: {last}")
        out: dict[str, Any] = json.loads(answer.read_text("utf-8"))
        return out


def peers() -> str | None:
    """Give the Python of the peers' environment, from FAIRWAY_PEERS or .venv-peers."""
    named = os.environ.get("FAIRWAY_PEERS")
    if named:
        return named
    own = HERE.parent / ".venv-peers" / "bin" / "python"
    return str(own) if own.exists() else None


def middle(values: Sequence[float]) -> float:
    """The median."""
    return float(statistics.median(values))
