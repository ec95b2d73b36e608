"""A thousand requests through a bad line: nothing lost, nothing twice, the same report."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import fairway
from fairway.backends.openai.answer import Asked
from fairway.backends.openai.routes import ROUTES, Wish
from fairway.cli import app as commands
from fairway.errors import InputError
from fairway.serve import app, faults, lane
from fairway.serve.settings import Limits, Settings
from serving import serving

LINE = (
    "429:0.02", "429-date:0.01", "429-bare:0.03", "500:0.03", "503:0.02", "502-page:0.03",
    "cut:0.03", "cut-body:0.03", "slow:0.02", "truncated:0.03", "page:0.02", "type:0.03",
    "empty:0.02", "error-200:0.02", "no-choices:0.02", "twice:0.02", "choices-twice:0.03",
)  # fmt: skip
"""Every fault of the line but the one that never answers."""


@pytest.fixture(scope="module")
def server(small: str) -> Iterator[tuple[str, faults.Faults]]:
    scorer = fairway.load(f"hf:{small}", prefix="none")
    # A batch of one: which texts share a batch shows in a number's last digits.
    alone = Settings(limits=Limits(batch=1))
    made = faults.Faults(app.build({"small": ("hf", scorer)}, alone), seed=3)
    with pytest.MonkeyPatch.context() as patch, serving(made) as url:
        patch.setattr(lane, "LEAST", 1)
        yield f"openai:small@{url}", made


def corpus(folder: Path, count: int, more: str = "") -> Path:
    path = folder / "texts.jsonl"
    rows = [json.dumps({"text": f"the hen {n} in an inn{more}"}) for n in range(count)]
    path.write_text("\n".join(rows), "utf-8")
    return path


def command(model: str, data: Path, out: Path, *more: str) -> list[str]:
    return ["eval", "--model", model, "--data", str(data), "--out", str(out), "--json",
            "--no-cache", "--model-arg", "concurrency=8", *more]  # fmt: skip


def told(output: str) -> str:
    """A report but for the notes of what was sent, in which alone a bad line may be seen."""
    report = json.loads(output)
    report["notes"] = [one for one in report["notes"] if " answers of " not in one]
    return json.dumps(report, sort_keys=True)


def lines(out: Path) -> list[str]:
    return (out / "scores.jsonl").read_text("utf-8").splitlines()


def run(*parts: Any) -> str:
    found = CliRunner().invoke(commands, command(*parts))
    assert found.exit_code == 0, found.output + repr(found.exception)
    return found.stdout


def key(number: int, write: int) -> str:
    route = ROUTES["echo"]
    body = route.body(Asked(f"the hen {number} in an inn", None, "echo"), Wish("small", 0, write))
    return faults.named(route.path, json.dumps(body).encode())


@pytest.mark.slow
def test_a_thousand_requests_through_a_bad_line(server: Any, tmp_path: Path) -> None:
    model, made = server
    count = 1000
    data = corpus(tmp_path, count)
    made.faults = ()
    clean = run(model, data, tmp_path / "clean")
    made.faults = tuple(faults.parse(one) for one in LINE)
    for counter in (made.met, made.seen, made.whole):
        counter.clear()
    bad = run(model, data, tmp_path / "bad")
    assert told(bad) == told(clean)
    assert lines(tmp_path / "bad") == lines(tmp_path / "clean")
    assert len({json.loads(one)["key"] for one in lines(tmp_path / "bad") if '"key"' in one}) == (
        count
    )
    # Each fault was met, and each text was answered whole exactly once.
    assert {one.partition(":")[0] for one in LINE} <= set(made.met)
    assert sum(n for name, n in made.met.items() if name != "clean") > count // 4
    written = next(w for w in (0, 1) if key(0, w) in made.seen)
    answered = [made.whole[key(number, written)] for number in range(count)]
    assert answered == [1] * count


@pytest.mark.slow
def test_stopped_and_killed_it_goes_on(server: Any, tmp_path: Path) -> None:
    model, made = server
    data = corpus(tmp_path, 400, " and then in the garden")
    made.faults = ()
    clean = run(model, data, tmp_path / "clean")
    made.faults = tuple(faults.parse(one) for one in LINE)
    out = tmp_path / "run"
    stopped = CliRunner().invoke(commands, command(model, data, out, "--max-requests", "250"))
    assert stopped.exit_code == 2 or "max_requests=250" in str(stopped.exception)
    kept = len(lines(out))
    assert 60 < kept < 250
    client = subprocess.Popen(
        [sys.executable, "-m", "fairway", *command(model, data, out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(lines(out)) < kept + 60:
        assert time.monotonic() < deadline and client.poll() is None
        time.sleep(0.02)
    client.kill()
    client.wait()
    assert len(lines(out)) < 400
    assert told(run(model, data, out)) == told(clean)
    assert lines(out) == lines(tmp_path / "clean")


def test_faults_are_named(tmp_path: Path) -> None:
    assert faults.parse("429:0.25") == faults.Fault("429", 0.25)
    assert faults.parse("zeros") == faults.Fault("zeros", 1.0)
    for wrong in ("nonsense", "429:2", "429:x", "zeros:-1", ""):
        with pytest.raises(InputError):
            faults.parse(wrong)
    found = CliRunner().invoke(commands, ["serve", "--fault", "nonsense", "--port", "0"])
    assert found.exit_code != 0
    assert "nonsense" in found.output + str(found.exception)
