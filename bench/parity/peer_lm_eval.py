"""Run in the peers' Python: what lm-evaluation-harness gives for jobs on standard input.

A job is ``{"model", "texts", "task", "options"}``; task ``rolling`` gives the log-likelihood of
each text, task ``wikitext`` takes the texts as pages through the harness' own task and gives its
three metrics. The answers go to the file named as the only argument.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any


def rolling(model: Any, texts: list[str]) -> dict[str, Any]:
    from lm_eval.api.instance import Instance

    requests = [
        Instance("loglikelihood_rolling", {}, (text,), index) for index, text in enumerate(texts)
    ]
    return {"loglikelihoods": model.loglikelihood_rolling(requests, disable_tqdm=True)}


def wikitext(model: Any, pages: list[str], **options: Any) -> dict[str, Any]:
    import lm_eval
    import yaml
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks.wikitext import preprocess_wikitext as processing

    source = Path(processing.__file__).with_name("wikitext.yaml").read_text("utf-8")
    plain = source.replace("!function ", "")
    config = yaml.safe_load(plain)
    config["doc_to_target"] = processing.wikitext_detokenizer
    config["process_results"] = processing.process_results
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pages.jsonl"
        data.write_text("".join(json.dumps({"page": page}) + "\n" for page in pages), "utf-8")
        config.update(dataset_path="json", dataset_name=None)
        config["dataset_kwargs"] = {"data_files": {"test": str(data)}, "cache_dir": folder}
        for split in ("training_split", "validation_split"):
            config.pop(split)
        config.pop("should_decontaminate")
        config.pop("doc_to_decontamination_query")
        task = ConfigurableTask(config=config)
        out = lm_eval.simple_evaluate(model=model, tasks=[task], bootstrap_iters=0, **options)
    scores = out["results"]["wikitext"]
    names = ("word_perplexity", "byte_perplexity", "bits_per_byte")
    return {name: scores[f"{name},none"] for name in names}


def main() -> None:
    warnings.filterwarnings("ignore")
    jobs = json.load(sys.stdin)
    answers = []
    with contextlib.redirect_stdout(sys.stderr):
        from lm_eval.models.huggingface import HFLM

        for job in jobs:
            model = HFLM(
                pretrained=job["model"], dtype="float32", device="cpu", batch_size=4,
                **job["options"],
            )  # fmt: skip
            answers.append(
                (wikitext if job["task"] == "wikitext" else rolling)(model, job["texts"])
            )
    found = {name: version(name) for name in ("lm_eval", "torch", "transformers")}
    Path(sys.argv[1]).write_text(json.dumps({"versions": found, "answers": answers}), "utf-8")


if __name__ == "__main__":
    main()
