"""One model on several devices: a process each, the same scores, in order."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fairway
from fairway import blocks, run, spread
from fairway.corpus import Document
from fairway.errors import InputError, ModelError
from models import build, tokenizer


@pytest.fixture(scope="module")
def two(small: str) -> Iterator[Any]:
    scorer: Any = fairway.load(small, device="cpu,cpu", batch_tokens=400)
    yield scorer
    scorer.stop()


def texts(count: int) -> list[Document]:
    return [Document(str(i), f"{i} the cat in the hat and the hen " * (1 + i % 5)) for i in
            range(count)]  # fmt: skip


def test_the_same_scores_in_order(small: str, two: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(spread, "PIECE_BYTES", 300)
    alone: Any = fairway.load(small)
    documents = texts(40)
    wanted = list(alone.score(documents, ["entropy"]))
    found = list(two.score(iter(documents), ["entropy"]))
    assert [s.id for s in found] == [d.id for d in documents]
    for one, other in zip(wanted, found, strict=True):
        assert np.abs(one.logprobs - other.logprobs).max() < 2e-5
        assert np.abs(one.extras["entropy"] - other.extras["entropy"]).max() < 1e-4
        assert one.totals.bytes == other.totals.bytes
    assert two.signature == alone.signature and two.devices == ("cpu", "cpu")
    assert two.engine["budget"] == 400 and two.engine["devices"] == "cpu,cpu"
    assert list(two.score([])) == []


def test_a_run_on_two(small: str, two: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 500)
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps({"text": d.text}) for d in texts(60)), "utf-8")
    report = fairway.evaluate(two, data, out=tmp_path / "run")
    alone = fairway.evaluate(small, data)
    assert abs(report.totals.nll - alone.totals.nll) < 1e-3
    assert (report.totals.tokens, report.totals.bytes) == (alone.totals.tokens, alone.totals.bytes)
    assert report.signature == alone.signature
    assert report.companions is not None and alone.companions is not None
    gap = report.companions.metrics["entropy"] - alone.companions.metrics["entropy"]
    assert abs(gap) < 1e-5
    assert sum(1 for _ in run.read_blocks(tmp_path / "run")) > 5


def test_a_row_that_cannot_be_scored_is_an_error_with_its_words(two: Any) -> None:
    bad = Document("bad", "", ids=np.array([99_999]))
    with pytest.raises(InputError, match="token id 99999"):
        list(two.score([bad]))
    assert len(list(two.score(texts(3)))) == 3


def test_a_model_that_cannot_be_loaded_says_so() -> None:
    with pytest.raises(ModelError, match="not a model folder"):
        fairway.load("./nowhere", device="cpu,cpu")
    with pytest.raises(InputError, match="no cuda|Bogus|no device|this machine"):
        fairway.load("hf:builtin", device="cpu,bogus")
    with pytest.raises(InputError, match="by name"):
        fairway.load(build("llama"), tokenizer=tokenizer(), device="cpu,cpu")
    with pytest.raises(InputError, match="empty name"):
        fairway.load("hf:builtin", device="cpu,")


def test_a_process_that_dies_is_an_error(small: str) -> None:
    scorer: Any = fairway.load(small, device="cpu,cpu")
    for process in list(scorer._pool._processes.values()):
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ModelError, match="has died"):
        list(scorer.score(texts(5)))
    scorer.stop()


ORPHAN = """
import os, sys
import fairway
if __name__ == "__main__":
    scorer = fairway.load(sys.argv[1], device="cpu,cpu")
    print(*[p.pid for p in scorer._pool._processes.values()], flush=True)
    os.kill(os.getpid(), 9)
"""


def test_the_processes_end_with_a_parent_that_is_killed(small: str, tmp_path: Path) -> None:
    import subprocess
    import sys
    import time

    import psutil

    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN, "utf-8")
    out = subprocess.run([sys.executable, str(script), small], capture_output=True, text=True)
    pids = [int(word) for word in out.stdout.split()]
    assert len(pids) == 2 and out.returncode == -9
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in pids)
