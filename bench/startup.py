"""Time until something is there: Python alone, the import, the help, a score.

    make bench NAME=startup

Whole processes, each several times, turn about; prints the median and its ratio to Python alone.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 7
COMMANDS = {
    "python": ["-c", "pass"],
    "import fairway": ["-c", "import fairway"],
    "fairway --help": ["-m", "fairway", "--help"],
    "fairway list": ["-m", "fairway", "list"],
    "import torch, transformers": ["-c", "import torch, transformers.models.auto.modeling_auto"],
    "fairway score (built-in model)": ["-m", "fairway", "score", "The cat sat on the mat."],
}


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, words in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    base = statistics.median(times["python"])
    print(f"{'':32}{'seconds':>9}{'ratio':>9}")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:32}{middle:9.3f}{middle / base:9.1f}")


if __name__ == "__main__":
    main()
