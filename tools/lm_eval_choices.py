"""Record what lm-evaluation-harness gives for multiple choice: tests/golden/lm_eval_choices.json.

PYTHON tools/lm_eval_choices.py --assets FOLDER [--out FILE]

PYTHON has lm-eval 0.4.13, as bench/parity/README.md says; fairway is not used. The tasks are the
harness' own, with the data in files and further metrics; models run in float64, so that the record
is exact to more than float32 can show.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import json
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench" / "parity"))

import tiny_models  # noqa: E402

METRICS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
WIKIHOW = [
    "  [header] How to boil  an egg [title] Take a pot. [step] Fill it [with water]. ",
    "Fill  the pot. [substeps] Use  cold water. [title]",
    "no brackets, two  blanks",
]
PAIRS, HELLASWAG, LAMBADA = 20, 200, 200


def rows_of(assets: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the data of each task."""
    plain = (ROOT / "tests" / "golden" / "choices_rows.jsonl").read_text("utf-8")
    corpora = assets / "corpora"
    lines = (
        bz2.decompress((corpora / "hellaswag/hellaswag_val_full.txt.bz2").read_bytes())
        .decode("utf-8")
        .split("\n")
    )
    lines = lines[: 6 * HELLASWAG]
    with gzip.open(corpora / "lambada/lambada_test.jsonl.gz", "rt", encoding="utf-8") as stream:
        lambada = [json.loads(next(stream)) for _ in range(LAMBADA)]
    pairs = []
    for path in sorted((corpora / "blimp").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            pairs += [json.loads(next(stream)) for _ in range(PAIRS)]
    return {
        "rows": [json.loads(line) for line in plain.splitlines()],
        "hellaswag": [
            {"query": lines[at], "choices": lines[at + 2 : at + 6], "label": int(lines[at + 1])}
            for at in range(0, len(lines), 6)
        ],
        "lambada": lambada,
        "blimp": pairs,
    }


def config_of(task: str) -> dict[str, Any]:
    """Give a task of the harness, but for where its data are."""
    import lm_eval.tasks
    import yaml

    folder = Path(lm_eval.tasks.__file__).parent
    file = {
        "hellaswag": "hellaswag/hellaswag.yaml",
        "lambada": "lambada/lambada_openai.yaml",
        "blimp": "blimp/_template_yaml",
    }.get(task)
    if file is None:
        config = {
            "output_type": "multiple_choice", "doc_to_text": "{{context}}",
            "doc_to_target": "{{answer}}", "doc_to_choice": "{{choices}}",
        }  # fmt: skip
    else:
        config = yaml.safe_load((folder / file).read_text("utf-8").replace("!function ", ""))
    for key in (
        "tag", "process_docs", "dataset_path", "dataset_name", "training_split", "validation_split",
        "should_decontaminate", "doc_to_decontamination_query",
    ):  # fmt: skip
        config.pop(key, None)
    if task != "lambada":
        config["metric_list"] = [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS
        ]
    return {**config, "task": task, "test_split": "test", "num_fewshot": 0}


def run(model: Any, task: str, rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """Let the harness evaluate a task; keep each request's answer and each metric's total."""
    import lm_eval
    from lm_eval.api.task import ConfigurableTask

    config = config_of(task)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        config.update(dataset_path="json", dataset_name=None)
        config["dataset_kwargs"] = {"data_files": {"test": str(data)}, "cache_dir": folder}
        made = ConfigurableTask(config=config)
        out = lm_eval.simple_evaluate(
            model=model, tasks=[made], bootstrap_iters=0, log_samples=True, **options
        )
    names = ("acc", "perplexity") if task == "lambada" else METRICS
    samples = sorted(out["samples"][task], key=lambda one: one["doc_id"])
    return {
        "metrics": {name: out["results"][task][f"{name},none"] for name in names},
        "logprobs": [[answer[0][0] for answer in one["resps"]] for one in samples],
        "greedy": [[bool(answer[0][1]) for answer in one["resps"]] for one in samples],
        "right": {
            name: [int(one[name]) for one in samples] for name in names if name != "perplexity"
        },
    }


def models(assets: Path) -> dict[str, tuple[Any, Any]]:
    """Give models in float64 with their tokenizers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = {
        "stories260K": assets / "models/stories260K/hf",
        "builtin": ROOT / "src/fairway/data/models/mini",
    }
    found = {}
    for name, folder in folders.items():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float64")
        found[name] = model, AutoTokenizer.from_pretrained(folder)
    for name in tiny_models.NAMES:
        model, tokenizer = tiny_models.build(name)
        found[name] = model.double(), tokenizer
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/golden/lm_eval_choices.json")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks.hellaswag.utils import preprocess

    rows = rows_of(asked.assets)
    records = {}
    for name, (model, tokenizer) in models(asked.assets).items():
        peer = HFLM(pretrained=model.eval(), tokenizer=tokenizer, batch_size=4)
        tasks = list(rows) if name == "stories260K" else ["rows"]
        records[name] = {task: run(peer, task, rows[task]) for task in tasks}
    out = {
        "versions": {name: version(name) for name in ("lm_eval", "torch", "transformers")},
        "counts": {"pairs": PAIRS, "hellaswag": HELLASWAG, "lambada": LAMBADA},
        "tidied": {text: preprocess(text) for text in WIKIHOW},
        "records": records,
    }
    asked.out.write_text(json.dumps(out) + "\n", "utf-8")


if __name__ == "__main__":
    main()
