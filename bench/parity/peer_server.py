"""Run in the peers' Python: lm-evaluation-harness through a server, and with its own ``hf`` model.

A job on standard input is ``{"folder", "name", "url", "positions", "bos", "pages", "rows",
"concurrent", "batch"}``: a model's folder, its name at the server, the address of its
``/v1/completions``, the positions that it has, whether BOS is added, WikiText's pages and the rows
of a multiple-choice task. The answers of both go to the file named as the only argument.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "bench" / "parity")]


def served(job: dict[str, Any]) -> Any:
    """Give lm-eval's ``local-completions``, with settings that make its windows those of ``hf``."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    return LocalCompletionsAPI(
        base_url=job["url"],
        model=job["name"],
        tokenizer=job["folder"],
        tokenizer_backend="huggingface",
        # It takes off one for a token that it lets the server write, and one for the context.
        max_length=job["positions"] + 2,
        add_bos_token=job["bos"],
        num_concurrent=job["concurrent"],
        batch_size=job["batch"],
    )


def own(job: dict[str, Any]) -> Any:
    """Give lm-eval's ``hf``."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=job["folder"], dtype="float32", device="cpu", batch_size=4,
        add_bos_token=job["bos"],
    )  # fmt: skip


def main() -> None:
    warnings.filterwarnings("ignore")
    jobs = json.load(sys.stdin)
    answers = []
    with contextlib.redirect_stdout(sys.stderr):
        import lm_eval_choices
        import peer_lm_eval
        from lm_eval.tasks import TaskManager

        # Its own tasks need not be found: these are made here.
        options = {"task_manager": TaskManager(include_defaults=False)}
        for job in jobs:
            answers.append({})
            for name, make in (("hf", own), ("local-completions", served)):
                model = make(job)
                answers[-1][name] = {
                    "wikitext": peer_lm_eval.wikitext(model, job["pages"], **options),
                    "choices": lm_eval_choices.run(model, "rows", job["rows"], **options),
                }
    Path(sys.argv[1]).write_text(json.dumps(answers), "utf-8")


if __name__ == "__main__":
    main()
