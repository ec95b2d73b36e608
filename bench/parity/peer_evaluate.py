"""Run in the peers' Python: what HF evaluate's perplexity metric gives for jobs on stdin.

A job is ``{"model", "texts", "options"}``. Arguments: the metric's script, and the file for the
answers.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    warnings.filterwarnings("ignore")
    script, answer = sys.argv[1:]
    jobs = json.load(sys.stdin)
    answers = []
    with contextlib.redirect_stdout(sys.stderr):
        import evaluate

        metric = evaluate.load(script, module_type="metric")
        for job in jobs:
            out = metric.compute(
                predictions=job["texts"], model_id=job["model"], device="cpu", **job["options"]
            )
            answers.append(
                {
                    "perplexities": [float(value) for value in out["perplexities"]],
                    "mean_perplexity": float(out["mean_perplexity"]),
                }
            )
    found = {name: version(name) for name in ("evaluate", "torch", "transformers")}
    Path(answer).write_text(json.dumps({"versions": found, "answers": answers}), "utf-8")


main()
