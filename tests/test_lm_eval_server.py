"""lm-eval through `fairway serve` gives what lm-eval's own ``hf`` model gives."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tiny_models

import fairway
from fairway.protocol import PAGE, convention, prepare
from serving import served as serving

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "bench" / "parity" / "peer_server.py"
CLOSE = 1e-4
"""Relative; the issue's."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def peers() -> str:
    """A Python with lm-eval and what its API models need."""
    named = os.environ.get("FAIRWAY_PEERS")
    if named:
        return named
    folder = ROOT / ".venv-peers"
    if not (folder / ".installed").exists():
        log = folder / "install.log"
        said = " ".join(log.read_text("utf-8", "replace").split())[-600:] if log.exists() else ""
        pytest.skip(
            f"make peers did not work; pip said: {said}" if said else "make peers was not run"
        )
    return str(folder / "bin" / "python")


def ask(peers: str, jobs: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    out = folder / "answers.json"
    done = subprocess.run(
        [peers, str(SCRIPT), str(out)], input=json.dumps(jobs), capture_output=True, text=True,
        env={
            **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONWARNINGS")},
            "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf"),
            "NO_PROXY": "127.0.0.1",
        },
        timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return list(json.loads(out.read_text("utf-8")))


def pages(assets: Path, count: int) -> list[str]:
    corpus = fairway.read(assets / "corpora/wikitext2/wiki.test.raw", split="wikitext")
    made = prepare(convention("lm-eval"), corpus, wikitext=True)
    return [next(made).metadata[PAGE] for _ in range(count)]


def hold(answer: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Compare the figures, and each choice's own."""
    own, served = answer["hf"], answer["local-completions"]
    assert served["wikitext"] == pytest.approx(own["wikitext"], rel=CLOSE)
    for metric, right in own["choices"]["right"].items():
        # Without a context it is a difference of a number from itself, and rounding decides.
        kept = [at for at, one in enumerate(rows) if one["context"] or "mutual" not in metric]
        mine = served["choices"]["right"][metric]
        assert [mine[at] for at in kept] == [right[at] for at in kept], metric
    assert served["choices"]["greedy"] == own["choices"]["greedy"]
    pairs = zip(served["choices"]["logprobs"], own["choices"]["logprobs"], strict=True)
    for mine, theirs in pairs:
        assert mine == pytest.approx(theirs, rel=CLOSE, abs=1e-6)


def test_lm_eval_cannot_tell_the_server_from_its_own(
    peers: str, assets: Path, tmp_path: Path
) -> None:
    """The built-in model, a GPT-2 without BOS, and a Llama whose tokenizer adds one."""
    rows = [
        json.loads(line)
        for line in (ROOT / "tests/golden/choices_rows.jsonl").read_text("utf-8").splitlines()
    ]
    # Between two choices that are the same the last digit of a rounding would decide.
    rows = [one for one in rows if len(set(one["choices"])) == len(one["choices"])]
    folders = {name: tiny_models.save(name, tmp_path) for name in ("no-bos", "adds-bos")}
    folders["builtin"] = Path(fairway.__file__).parent / "data" / "models" / "mini"
    scorers: dict[str, Any] = {n: fairway.load(str(f)) for n, f in folders.items()}
    few = [one[:12000] for one in pages(assets, 2)]
    with serving({name: ("hf", one) for name, one in scorers.items()}) as url:
        jobs = [
            {
                "folder": str(folders[name]), "name": name, "url": f"{url}/v1/completions",
                "positions": scorers[name].loaded.positions, "bos": bos,
                "pages": few if name == "builtin" else [one[:2000] for one in few],
                # To a text that spells BOS lm-eval's hf adds none, and its API models do.
                "rows": [one for one in rows if not (bos and one["context"].startswith("<s>"))],
                "concurrent": concurrent, "batch": batch,
            }
            for name, bos, concurrent, batch in (
                ("builtin", False, 1, 8), ("no-bos", False, 4, 1), ("adds-bos", True, 3, 4),
            )
        ]  # fmt: skip
        answers = ask(peers, jobs, tmp_path)
    for job, answer in zip(jobs, answers, strict=True):
        hold(answer, job["rows"])
