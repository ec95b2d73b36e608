"""Run directories: kills at any moment, a full disk, precision, the cache, mistakes half-way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fairway
from fairway import api, evaluation, record
from fairway.cache import ScoreCache
from fairway.corpus import Document, cut, read
from fairway.errors import RunError
from fairway.protocol import convention
from fairway.request import Request
from fairway.run import Run, read_blocks

SENTENCE = "The {} saw the {} and the inn, and then an ant in the thin hat. "


def fairway_command(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fairway", *words], input=stdin, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 documents of different lengths in four groups, and rows that cannot be scored."""
    draw = random.Random(5)
    path = tmp_path_factory.mktemp("corpus") / "data.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for number in range(300):
            text = f"{number}. " + "".join(
                SENTENCE.format(draw.choice(["cat", "dog", "émigré", "猫"]), draw.random())
                for _ in range(draw.randint(1, 30))
            )
            stream.write(json.dumps({"text": text, "kind": "abcd"[number % 4]}) + "\n")
            if number % 50 == 7:
                stream.write('{"text": ""}\n{"broken\n')
    return path


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import fairway
from fairway import api, blocks
from fairway.corpus import read
from fairway.request import Request

model, data, folder, seed, kills = sys.argv[1:]
blocks.BLOCK_BYTES = 2048
scorer = fairway.load(model)
draw = random.Random(int(seed))
request = Request(model, data, {}, {}, "kind", True)


def work(folder):
    api.perform(request, scorer, read(data, group_by="kind"), out=Path(folder))


start = time.monotonic()
work(folder + "-whole")
span = time.monotonic() - start
done = 0
while done < int(kills):
    child = os.fork()
    if child == 0:
        work(folder)
        os._exit(0)
    time.sleep(draw.random() * span * 0.2)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    done += 1
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
path = Path(folder) / "scores.jsonl"
kept = path.read_bytes().count(b'{"block"') if path.exists() else 0
work(folder)
print(done, kept)
"""


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_run_that_is_killed_at_random_ends_in_the_same_report(
    small: str, corpus: Path, tmp_path: Path, seed: int
) -> None:
    folder = tmp_path / "run"
    out = subprocess.run(
        [sys.executable, "-c", KILLED, small, str(corpus), str(folder), str(seed), "12"],
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr
    kills, kept = map(int, out.stdout.split())
    assert kills >= 3, "the kills came too late to matter"
    assert kept >= 1, "no killed process had committed a block"
    whole = tmp_path / "run-whole"
    for name in ("scores.jsonl", "report.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_interrupted_by_ctrl_c(small: str, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # So much text that the signal comes before the end.
    long = tmp_path / "long.jsonl"
    rows = [line for line in corpus.read_text("utf-8").splitlines() if '"kind"' in line]
    texts = [json.loads(line)["text"] for line in rows]
    # A text that comes again is not scored again.
    lines = [json.dumps({"text": f"{copy} {text}"}) for copy in range(4) for text in texts]
    long.write_text("\n".join(lines), "utf-8")
    corpus = long
    words = ("eval", "--model", small, "--data", str(corpus), "--no-cache", "--out", str(folder))
    process = subprocess.Popen(
        [sys.executable, "-m", "fairway", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if (folder / "scores.jsonl").exists() and (folder / "scores.jsonl").stat().st_size:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.005)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "continues with the same command" in err and "Traceback" not in err
    assert next(read_blocks(folder))
    again = fairway_command(*words, "--json")
    assert again.returncode == 0, again.stderr
    whole = fairway_command(*words[:-1], str(tmp_path / "whole"), "--json")
    assert again.stdout == whole.stdout


@pytest.mark.slow
def test_a_full_disk_keeps_what_was_scored(small: str, corpus: Path, tmp_path: Path) -> None:
    """The run directory lies on a real file system of 24 KiB, in a mount namespace of its own."""
    mount = tmp_path / "mount"
    mount.mkdir()
    probe = ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size=96k tmpfs {mount}"]
    try:
        allowed = subprocess.run(probe, capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("this machine does not let a test mount a file system")
    command = (
        f"mount -t tmpfs -o size=96k tmpfs {mount}; "
        f"{sys.executable} -m fairway eval --model {small} --data {corpus} --no-cache "
        f"--out {mount}/run; echo rc=$?; "
        f"cp {mount}/run/run.json {mount}/run/scores.jsonl {tmp_path}"
    )
    out = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True)
    assert "rc=2" in out.stdout, out.stderr
    assert "is full" in out.stderr and "Traceback" not in out.stderr
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "scores.jsonl"):
        (tmp_path / name).rename(folder / name)
    kept = sum(1 for _ in read_blocks(folder))
    assert kept >= 1
    words = ("eval", "--model", small, "--data", str(corpus), "--no-cache", "--json", "--out")
    again = fairway_command(*words, str(folder))
    assert again.returncode == 0, again.stderr
    assert again.stdout == fairway_command(*words, str(tmp_path / "whole")).stdout


def test_precision_stops_early_and_the_interval_keeps_its_promise(small: str, corpus: Path) -> None:
    part = fairway.evaluate(small, str(corpus), precision=0.2)
    whole = fairway.evaluate(small, str(corpus))
    assert 30 <= part.totals.documents <= whole.totals.documents
    wide = fairway.evaluate(small, str(corpus), precision=1e-9)
    assert wide.totals == whole.totals
    found = part.intervals["perplexity"]
    assert found.high / part.metrics["perplexity"] - 1 <= 0.2


def test_the_cache_scores_nothing_twice(small: str, corpus: Path, tmp_path: Path) -> None:
    scorer = fairway.load(small)
    cache = ScoreCache(tmp_path / "scores.sqlite")
    seen: list[int] = []

    def evaluate(data: str, **more: object) -> fairway.Report:
        return evaluation.evaluate(
            scorer, read(data, **more), convention("fairway"), cache=cache,
            progress=lambda state: seen.append(state.fresh),
        )  # fmt: skip

    first = evaluate(str(corpus))
    assert seen[-1] == first.totals.tokens
    second = evaluate(str(corpus))
    assert seen[-1] == 0
    assert second.totals == first.totals and second.intervals == first.intervals
    part = evaluate(str(corpus), sample=40, seed=3)
    assert seen[-1] == 0 and part.totals.documents == 40
    cache.close()
    # Another setting is another key.
    other = fairway.load(small, max_length=32)
    assert str(other.signature) != str(scorer.signature)


def test_a_damaged_cache_is_left_aside(small: str, corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    path.write_bytes(b"this is no database" * 100)
    cache = ScoreCache(path)
    assert cache.problem and "not used" in cache.problem
    corpus_now = read(str(corpus), limit=5)
    scorer = fairway.load(small)
    report = evaluation.evaluate(scorer, corpus_now, convention("fairway"), cache=cache)
    assert report.totals.documents == 5


def test_a_run_of_other_settings_is_refused(small: str, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fairway.evaluate(small, str(corpus), out=folder, corpus={"limit": 3})
    with pytest.raises(RunError, match="another read"):
        fairway.evaluate(small, str(corpus), out=folder, corpus={"limit": 4})
    with pytest.raises(RunError, match="another signature"):
        fairway.evaluate(small, str(corpus), out=folder, corpus={"limit": 3}, max_length=32)
    changed = tmp_path / "data.jsonl"
    changed.write_text(corpus.read_text("utf-8").replace("the inn", "the ink"), "utf-8")
    with pytest.raises(RunError, match="other text"):
        fairway.evaluate(small, str(changed), out=folder, corpus={"limit": 3})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo").write_text("x")
    with pytest.raises(RunError, match="other files"):
        fairway.evaluate(small, str(corpus), out=tmp_path / "full")
    with pytest.raises(RunError, match="is a file"):
        fairway.evaluate(small, str(corpus), out=changed)


def test_a_folder_in_use_is_refused(small: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", {"signature": "a"})
    with pytest.raises(RunError, match="in use"):
        Run(tmp_path / "run", {"signature": "a"})
    run.close()
    Run(tmp_path / "run", {"signature": "a"}).close()


def test_a_mistake_does_not_lose_the_reports_before_it(small: str, corpus: Path) -> None:
    out = fairway_command(
        "eval", "--model", small, "--data", str(corpus), "--data", "nowhere.txt", "--json"
    )
    assert out.returncode == 2 and "nowhere.txt" in out.stderr
    assert json.loads(out.stdout)["metrics"]["documents"] == 300


def test_repeat_confirms_and_denies(small: str, corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(corpus.read_bytes())
    folder = tmp_path / "run"
    words = ("eval", "--model", small, "--data", str(data), "--limit", "9", "--stride", "20")
    assert fairway_command(*words, "--out", str(folder)).returncode == 0
    same = fairway_command("eval", "--repeat", str(folder))
    assert same.returncode == 0 and "identical to the last bit" in same.stdout
    signature = json.loads((folder / "report.json").read_text("utf-8"))["signature"]
    named = ("--model", small, "--data", str(data))
    again = fairway_command("eval", "--repeat", signature, *named)
    assert again.returncode == 0 and "the signature's" in again.stdout
    nameless = fairway_command("eval", "--repeat", signature)
    assert nameless.returncode == 2 and "Traceback" not in nameless.stderr
    garbage = fairway_command("eval", "--repeat", "no signature")
    assert garbage.returncode == 2 and "Traceback" not in garbage.stderr
    data.write_text(data.read_text("utf-8").replace("0. ", "0! "), "utf-8")
    other = fairway_command("eval", "--repeat", str(folder))
    assert other.returncode == 1 and "digest was" in other.stdout
    report = fairway_command("eval", "--repeat", str(folder / "report.json"), *named, "--json")
    assert report.returncode == 1 and "Not confirmed" in report.stderr
    json.loads(report.stdout)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=400), max_size=12), st.integers(1, 500))
def test_blocks_hold_every_document_once(texts: list[str], size: int) -> None:
    documents = [Document(str(i), text) for i, text in enumerate(texts)]
    made = list(cut(documents, size))
    assert [d for block in made for d in block] == documents
    for block in made[:-1]:
        held = [len(d.text.encode("utf-8", "surrogatepass")) for d in block]
        assert sum(held) >= size and sum(held[:-1]) < size


def test_records_round_trip(small: str) -> None:
    scorer = fairway.load(small)
    document = Document("é", "The cat ☃ saw it.")
    score = next(iter(scorer.score([document])))
    kept = record.make(document, score, convention("fairway"), True, True)
    assert record.from_json(json.loads(json.dumps(kept.to_json()))) == kept


def test_python_and_command_line_share_a_run(small: str, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    request = Request(small, str(corpus), {"like": "fairway"}, {"limit": 5})
    scorer = fairway.load(small)
    report = api.perform(request, scorer, read(str(corpus), limit=5), out=folder)
    shown = fairway_command("show", str(folder), "--json")
    assert json.loads(shown.stdout)["metrics"]["nll"] == report.totals.nll
    assert os.listdir(folder)


def test_the_pilots_forecast(small: str, corpus: Path) -> None:
    from fairway.cli.progress import duration, forecast

    states: list[evaluation.Progress] = []
    scorer = fairway.load(small)
    evaluation.evaluate(scorer, read(str(corpus)), convention("fairway"), progress=states.append)
    early = next(s for s in states if s.moments.documents >= evaluation.PILOT)
    words = forecast(early)
    assert f"pilot of {early.documents:,} documents" in words and "would take about" in words
    assert [duration(s) for s in (0.2, 90, 130, 8000)] == [
        "1 second", "90 seconds", "2 minutes", "2 hours",
    ]  # fmt: skip
