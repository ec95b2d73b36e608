"""Hold every convention to its peer or to a plain loop; exit 1 above 1e-5 relative.

python bench/parity/run.py --peers PYTHON [--assets FOLDER] [--evaluate-metric SCRIPT]
                           [--record tests/golden]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import cases  # noqa: E402
import tiny_models  # noqa: E402

TOLERANCE = 1e-5
COMMAND = (
    "python bench/parity/run.py --peers PYTHON --assets FOLDER --evaluate-metric perplexity.py "
    "--record tests/golden"
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", default=os.environ.get("FAIRWAY_PEERS"))
    parser.add_argument("--assets", type=Path, default=os.environ.get("FAIRWAY_ASSETS"))
    parser.add_argument("--evaluate-metric", type=Path)
    parser.add_argument("--record", type=Path)
    return parser.parse_args()


def ask(python: str, script: str, jobs: list[dict[str, Any]], *words: str) -> dict[str, Any]:
    """Run a peer's script on jobs and read its answers."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        done = subprocess.run(
            [python, str(HERE / script), *words, str(answer)],
            input=json.dumps(jobs), text=True, capture_output=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{script} failed in {python}:\n{done.stderr[-2000:]}")
        return dict(json.loads(answer.read_text("utf-8")))


def named(case: cases.Case, answer: dict[str, Any]) -> cases.Numbers:
    """Give a peer's answer the names that fairway's side has."""
    if case.like == "hf-evaluate":
        return {
            "mean_perplexity": [answer["mean_perplexity"]], "perplexity": answer["perplexities"],
        }  # fmt: skip
    if case.task:
        return {name: [value] for name, value in answer.items()}
    return {"loglikelihood": answer["loglikelihoods"]}


def peer_options(case: cases.Case) -> dict[str, Any]:
    """The same settings in the peer's words: lm-eval's prefix always stands, BOS is not added."""
    options = dict(case.options)
    if options.pop("prefix", None) == "bos":
        options["add_bos_token"] = False
    return options


def peer_texts(case: cases.Case, texts: list[str]) -> list[str]:
    """What the peer is given: lm-eval's own data set holds pages as its script cuts them."""
    if case.task != "wikitext":
        return texts
    # The last page keeps the file's last newline; a page ends before the next one's heading.
    pages: list[str] = []
    lines: list[str] = []
    for line in "".join(texts).split("\n"):
        drawn = line.replace("= = =", "===").replace("= =", "==").strip()
        if drawn.startswith("= ") and drawn.endswith(" ="):
            if "".join(lines).strip():
                pages.append("\n".join(lines))
            lines = []
        lines.append(line)
    return [*pages, "\n".join(lines)]


def show(case: cases.Case, peer: str, theirs: cases.Numbers, ours: cases.Numbers) -> float:
    """Print a line of the table: the first number of each side, and the worst difference."""
    gap = cases.difference(theirs, ours)
    first = next(iter(theirs))
    settings = ",".join(f"{k}={v}" for k, v in case.options.items())
    print(
        f"{case.like:20} {case.model:12} {case.corpus:9} {settings:26} {peer:22} {first:16}"
        f"{theirs[first][0]:>18.8g} {ours[first][0] if first in ours else float('nan'):>18.8g}"
        f" {sum(map(len, theirs.values())):>5} {gap:>9.1e}{'' if gap <= TOLERANCE else '  <<<'}",
        flush=True,
    )
    return gap


def main() -> int:
    asked = arguments()
    if not asked.peers:
        print(
            "This bench compares with lm-eval and HF evaluate in an environment of their own: give "
            "its Python with --peers (bench/parity/README.md says how to make one), the folder of "
            "assets with --assets, and evaluate's perplexity.py with --evaluate-metric.",
            file=sys.stderr,
        )
        return 2
    assets = Path(asked.assets) if asked.assets else None
    started = time.monotonic()
    print(
        f"{'convention':20} {'model':12} {'corpus':9} {'settings':26} {'peer':22} {'number':16}"
        f"{'peer':>18} {'fairway':>18} {'count':>5} {'rel. diff':>9}"
    )
    with tempfile.TemporaryDirectory() as folder:
        places = {name: str(tiny_models.save(name, Path(folder))) for name in cases.TINY}
        if assets is not None:
            places.update({name: str(assets / path) for name, path in cases.MODELS.items()})
        gaps = [run_peer("lm-eval", asked, places, assets)]
        if asked.evaluate_metric is None:
            print(f"{'hf-evaluate':20} skipped: no --evaluate-metric")
        else:
            tame = {name: padded(place, Path(folder)) for name, place in places.items()}
            gaps.append(run_peer("hf-evaluate", asked, tame, assets))
        gaps.append(run_loops(places, assets))
    print(f"worst relative difference {max(gaps):.1e}, {time.monotonic() - started:.0f} s")
    return 1 if max(gaps) > TOLERANCE else 0


def run_peer(
    like: str, asked: argparse.Namespace, places: dict[str, str], assets: Path | None
) -> float:
    """Compare with lm-eval or HF evaluate, and record what the peer gave where asked to."""
    script, words = "peer_lm_eval.py", []
    if like == "hf-evaluate":
        script, words = "peer_evaluate.py", [str(asked.evaluate_metric)]
    chosen = [case for case in cases.peer_cases(assets is not None) if case.like == like]
    corpora = {case.corpus: cases.corpus(case.corpus, assets) for case in chosen}
    jobs = [
        {
            "model": places[case.model],
            "options": peer_options(case),
            "task": case.task,
            "texts": peer_texts(case, corpora[case.corpus]),
        }
        for case in chosen
    ]
    out = ask(asked.peers, script, jobs, *words)
    package = {"lm-eval": "lm_eval", "hf-evaluate": "evaluate"}[like]
    worst = 0.0
    records = []
    for case, answer in zip(chosen, out["answers"], strict=True):
        theirs = named(case, answer)
        texts = corpora[case.corpus]
        ours = cases.ours(case, places[case.model], texts)
        worst = max(worst, show(case, f"{package} {out['versions'][package]}", theirs, ours))
        records.append(
            {
                "case": case.name,
                "like": case.like,
                "model": case.model,
                "corpus": case.corpus,
                "task": case.task,
                "options": case.options,
                "weights": weights(places[case.model]),
                "digest": cases.digest(texts),
                "numbers": theirs,
            }
        )
    if asked.record is not None:
        record = {"command": COMMAND, "versions": out["versions"], "records": records}
        place = asked.record / f"{like.replace('-', '_')}.json"
        place.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return worst


def run_loops(places: dict[str, str], assets: Path | None) -> float:
    """Compare with the plain loops."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    worst = 0.0
    for case in cases.loop_cases(assets is not None):
        place = places[case.model]
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(place)
        texts = cases.corpus(case.corpus, assets)
        theirs = cases.looped(case, model, tokenizer, texts)
        worst = max(worst, show(case, "plain loop", theirs, cases.ours(case, place, texts)))
    return worst


def padded(place: str, folder: Path) -> str:
    """Give the folder, or a copy whose tokenizer has a pad token.

    The metric takes one of the special tokens through an attribute that transformers 5 no longer
    has; its own choice does not touch the number, since pads are masked.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place)
    if tokenizer.pad_token is not None:
        return place
    copy = folder / "padded" / hashlib.sha256(place.encode()).hexdigest()[:8]
    if not copy.exists():
        shutil.copytree(place, copy)
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.save_pretrained(copy)
    return str(copy)


def weights(place: str) -> str:
    """Hash a saved model's weights."""
    from transformers import AutoModelForCausalLM

    return tiny_models.digest(AutoModelForCausalLM.from_pretrained(place))


if __name__ == "__main__":
    sys.exit(main())
