"""Curves over checkpoints: order, what is scored again, the best set, forgetting, damage."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fairway import checkpoints, comparable, comparison, curve
from fairway.cache import ScoreCache
from fairway.checkpoints import Checkpoint
from fairway.cli import curving, main
from fairway.cli.evaluating import READING
from fairway.comparable import Side
from fairway.errors import InputError, MissingExtra, ProtocolError
from fairway.ledger import REPLACED, Ledger
from fairway.pairs import holm
from fairway.render import curve as render
from fairway.render import plot
from fairway.report import Group
from fairway.request import Request
from fairway.scores import add
from models import build, tokenizer

NOISE = {200: 0.5, 900: 0.2, 1000: 0.0, 2000: 1e-6, 10000: 0.3}
"""By step: noise that is added to the weights, in their standard deviations."""


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line in this process: a new one takes seconds to load torch."""
    out, errors = io.StringIO(), io.StringIO()
    code = 0
    with (
        pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors)
    ):  # fmt: skip
        patch.setattr(sys, "argv", ["fairway", *words])
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), errors.getvalue())


def save(folder: Path, noise: float, seed: int) -> None:
    model = build("llama")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim >= 2:
                weights.add_(
                    torch.randn(weights.shape, generator=generator) * noise * weights.std()
                )
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    lines = [
        {"text": f"{i}: the cat in the hat, and the hen " * (1 + i % 4), "kind": "ab"[i % 2]}
        for i in range(24)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five checkpoints; not to be changed."""
    folder = tmp_path_factory.mktemp("train")
    for step, noise in NOISE.items():
        save(folder / f"checkpoint-{step}", noise, step)
    return folder


@pytest.fixture
def train(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "train"))


@pytest.fixture(scope="module")
def runs(made: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their runs, as eval writes them for a pattern."""
    folder = tmp_path_factory.mktemp("runs")
    found = command(
        "eval", "--model", f"{made}/checkpoint-*", "--data", str(data), "--group-by", "kind",
        "--out", str(folder),
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return folder


@pytest.fixture(scope="module")
def found(runs: Path) -> list[tuple[Checkpoint, Side]]:
    return [curve.read(path) for path in sorted(runs.iterdir())]


class Loads:
    """The models that were loaded, and the loader in use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from fairway import api

        self.names: list[str] = []
        real = api.load

        def load(model: str, **options: Any) -> Any:
            self.names.append(Path(model).name)
            return real(model, **options)

        monkeypatch.setattr(api, "load", load)

    def take(self) -> list[str]:
        names, self.names = self.names, []
        return names


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    return Loads(monkeypatch)


@pytest.fixture
def cache() -> Iterator[ScoreCache]:
    kept = ScoreCache()
    yield kept
    kept.close()


def work(train: Path, data: Path, out: Path, cache: ScoreCache, **load: Any) -> curving.Work:
    asked = Request("", str(data), {"like": "fairway", **load}, READING, "kind")
    made = curving.Work(asked, [f"{train}/checkpoint-*"], Ledger(out), cache)
    made.once()
    return made


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-900", 900), ("step_12", 12), ("step3000", 3000), ("global_step1000", 1000),
        ("iter_0000500", 500), ("stage1-step140000-tokens294B", 140000), ("ckpt-7", 7),
        ("final", None), ("llama-2-7b", None), ("footstep9", None),
    ],
)  # fmt: skip
def test_steps_are_read_from_names(name: str, step: int | None) -> None:
    assert checkpoints.step_of(name) == step


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=8), st.randoms())
def test_order_is_that_of_the_numbers(steps: list[int], draw: Any) -> None:
    names = [f"out/checkpoint-{step}" for step in steps]
    draw.shuffle(names)
    ordered = checkpoints.in_order(checkpoints.describe(name) for name in names)
    assert [one.step for one in ordered] == sorted(steps)


def test_a_pattern_gives_its_checkpoints_in_order(made: Path) -> None:
    found = checkpoints.expand(f"hf:{made}/checkpoint-*")
    assert [one.step for one in found] == sorted(NOISE)
    assert found[0].model == f"hf:{made}/checkpoint-200"
    assert checkpoints.several(f"{made}/checkpoint-*")
    assert not checkpoints.several(f"{made}/checkpoint-200") and not checkpoints.several("gpt2")


def test_revisions(tmp_path: Path) -> None:
    found = checkpoints.expand("EleutherAI/pythia-70m@step3000, step512,step3000")
    assert [(one.model, one.step) for one in found] == [
        ("EleutherAI/pythia-70m@step512", 512), ("EleutherAI/pythia-70m@step3000", 3000),
    ]  # fmt: skip
    with pytest.raises(InputError, match="empty revision"):
        checkpoints.expand("pythia@step1,,step2")


def test_the_trainers_state_tells_the_step_where_the_name_does_not(tmp_path: Path) -> None:
    for name, step in (("last", 9), ("early", 10), ("none", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        if step:
            (tmp_path / name / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (tmp_path / "logs").mkdir()
    found = checkpoints.expand(f"{tmp_path}/*")
    assert [(one.name, one.step) for one in found] == [("last", 9), ("early", 10), ("none", None)]


def test_a_pattern_that_matches_nothing(tmp_path: Path, data: Path) -> None:
    (tmp_path / "checkpoint-1").write_text("a file")
    for name in ("eval", "curve"):
        for pattern in ("nothing-*", "checkpoint-*"):
            found = command(name, "--model", f"{tmp_path}/{pattern}", "--data", str(data))
            assert found.returncode == 2 and "No checkpoint matches" in found.stderr
            assert "Traceback" not in found.stderr and not found.stdout


# --- numbers -------------------------------------------------------------------------------------


def test_steps_are_ordered_and_named(found: list[tuple[Checkpoint, Side]]) -> None:
    drawn = curve.trace(found)
    assert [step.step for step in drawn.steps] == sorted(NOISE)
    assert drawn.domains == ("a", "b")
    values = [step.side.report.metrics["bits_per_byte"] for step in drawn.steps]
    assert values[drawn.best] == min(values)


PLATEAU = {10: (1.2, 1.1), 20: (1.0, 1.0), 30: (1.0, 1.0), 40: (1.02, 1.02), 50: (1.01, 1.02)}


@pytest.mark.parametrize("case", ["models", "constructed"])
def test_the_best_set_is_that_of_direct_comparisons(
    found: list[tuple[Checkpoint, Side]], case: str
) -> None:
    """Against compare() for each pair, scipy's paired t test, and Holm as a plain loop."""
    drawn = curve.trace(found if case == "models" else constructed(found, PLATEAU, 0.02))
    best = drawn.steps[drawn.best].side
    direct = {
        place: comparison.compare(best, step.side).byte
        for place, step in enumerate(drawn.steps)
        if place != drawn.best
    }
    assert drawn.against == direct
    nats = [np.array([r.totals.nll for r in step.side.records]) for step in drawn.steps]
    p = {place: stats.ttest_rel(nats[place], nats[drawn.best]).pvalue for place in direct}
    apart: set[int] = set()
    for rank, place in enumerate(sorted(p, key=lambda place: p[place])):
        if p[place] * (len(p) - rank) >= 0.05:
            break
        apart.add(place)
    apart = {
        place for place in apart
        if direct[place].p_flip < 0.05 and not direct[place].low <= 0 <= direct[place].high
    }  # fmt: skip
    assert set(drawn.alike) == set(direct) - apart
    assert case == "models" or (drawn.alike and apart), "the case must have both"


def test_sentences_name_the_best_and_its_equals(found: list[tuple[Checkpoint, Side]]) -> None:
    drawn = curve.trace(constructed(found, PLATEAU, 0.02))
    first = drawn.sentences()[0]
    best = drawn.steps[drawn.best]
    assert first.startswith(f"Step {best.label} is lowest ({best.side.bits_per_byte:.4f} bits")
    assert all(drawn.steps[place].label in first for place in drawn.alike)
    assert "cannot be told apart from step" in first


def test_a_single_checkpoint(found: list[tuple[Checkpoint, Side]]) -> None:
    drawn = curve.trace(found[:1])
    assert drawn.alike == () and drawn.forgetting == () and drawn.against == {}
    assert "only one" in drawn.sentences()[0]
    assert json.loads(json.dumps(drawn.to_json()))["steps"][0]["from_best"] is None
    with pytest.raises(InputError, match="no finished run"):
        curve.trace([])


def scaled(side: Side, name: str, factors: dict[str, np.ndarray[Any, Any]]) -> Side:
    """A run whose documents' nats are multiplied, domain by domain."""
    places = {key: iter(values) for key, values in factors.items()}
    records = tuple(
        replace(
            one, totals=replace(one.totals, nll=one.totals.nll * float(next(places[one.group])))
        )
        for one in side.records
        if one.group is not None
    )
    groups = tuple(
        Group(key, add(one.totals for one in records if one.group == key)) for key in factors
    )
    report = replace(
        side.report, totals=add(one.totals for one in records), groups=groups, intervals={}
    )
    return Side(name, side.signature, report, records)


def constructed(
    found: list[tuple[Checkpoint, Side]],
    means: dict[int, tuple[float, float]],
    spread: float,
    seed: int = 3,
) -> list[tuple[Checkpoint, Side]]:
    """Steps at which the domains' nats are these multiples, with noise by document."""
    draw = np.random.default_rng(seed)
    out = []
    for step, (a, b) in means.items():
        factors = {"a": draw.normal(a, spread, 12), "b": draw.normal(b, spread, 12)}
        name = f"checkpoint-{step}"
        out.append((Checkpoint(name, name, step), scaled(found[0][1], name, factors)))
    return out


def test_forgetting_names_the_domain_that_got_worse(found: list[tuple[Checkpoint, Side]]) -> None:
    """Domain a gets better all along; b is best at step 20 and is lost afterwards."""
    means = {10: (1.0, 0.9), 20: (0.8, 0.7), 30: (0.6, 0.8), 40: (0.5, 0.9)}
    drawn = curve.trace(constructed(found, means, 0.005))
    by_name = {one.domain: one for one in drawn.forgetting}
    assert not by_name["a"].worse and by_name["a"].found.value < 0
    assert by_name["b"].worse and drawn.steps[by_name["b"].best].step == 20
    first, last = (
        sum(r.totals.nll for r in drawn.steps[i].side.records if r.group == "b") for i in (1, 3)
    )
    size = sum(r.totals.bytes for r in drawn.steps[0].side.records if r.group == "b")
    assert by_name["b"].found.value == pytest.approx((last - first) / size, rel=1e-12)
    text = drawn.sentences()[-1]
    assert "Worse at step 40" in text and "b by" in text and "since step 20" in text
    assert "a by" not in text


def test_forgetting_allows_for_the_choice_of_the_best_step(
    found: list[tuple[Checkpoint, Side]],
) -> None:
    """The p value is multiplied by the steps to choose from, then Holm's over the domains."""
    means = dict.fromkeys(range(1, 9), (1.0, 1.0))
    drawn = curve.trace(constructed(found, means, 0.05))
    raw = {}
    for one in drawn.forgetting:
        nats = [
            np.array(
                [r.totals.nll for r in drawn.steps[place].side.records if r.group == one.domain]
            )
            for place in (one.best, -1)
        ]
        raw[one.domain] = min(1.0, 7 * float(stats.ttest_rel(nats[1], nats[0]).pvalue))
    low, high = sorted(raw, key=lambda name: raw[name])
    wanted = {low: min(1.0, 2 * raw[low])}
    wanted[high] = max(wanted[low], raw[high])
    assert {one.domain: one.p for one in drawn.forgetting} == pytest.approx(wanted)
    assert not any(one.worse for one in drawn.forgetting)
    assert "No domain is shown to be worse" in drawn.sentences()[-1]


def test_plateaus_are_seldom_called_forgetting(found: list[tuple[Checkpoint, Side]]) -> None:
    """Eight equal steps: Holm alone flags one plateau in ten, as the best is low by luck."""
    means = dict.fromkeys(range(1, 9), (1.0, 1.0))
    flagged = alone = 0
    for seed in range(40):
        drawn = curve.trace(constructed(found, means, 0.05, seed))
        flagged += any(one.worse for one in drawn.forgetting)
        alone += any(
            one.found.value > 0 and one.found.real and p < 0.05
            for one, p in zip(
                drawn.forgetting, holm([one.found.p_t for one in drawn.forgetting]), strict=True
            )
        )
    assert flagged <= 0.05 * 40 < alone


def test_a_step_without_finite_numbers_is_in_no_test(found: list[tuple[Checkpoint, Side]]) -> None:
    means = {10: (1.0, 1.0), 20: (math.nan, 1.0), 30: (0.9, 0.9)}
    drawn = curve.trace(constructed(found, means, 0.005))
    assert drawn.steps[drawn.best].step == 30 and set(drawn.against) == {0}
    assert "Without finite numbers, and in no test: step 20." in drawn.sentences()
    assert drawn.to_json()["steps"][1]["bits_per_byte"] is None
    assert render.sparkline([1.0, math.nan, 0.0]) == "█ ▁"


def test_what_cannot_be_on_one_curve(found: list[tuple[Checkpoint, Side]]) -> None:
    (first, side), (second, other) = found[:2]
    with pytest.raises(InputError, match="both of step"):
        curve.trace([(first, side), (replace(second, step=first.step), other)])
    unlike = replace(other, signature=other.signature.with_(prefix="none"))
    with pytest.raises(ProtocolError, match="prefix"):
        curve.trace([(first, side), (second, unlike)])
    assert curve.trace([(first, side), (second, unlike)], allow=["prefix"]).steps
    unnamed = curve.trace([(first, side), (replace(second, step=None), other)])
    assert [step.title for step in unnamed.steps] == [f"step {first.step}", second.name]


# --- what is scored again ------------------------------------------------------------------------


def test_only_what_is_new_or_changed_is_scored(
    train: Path, data: Path, tmp_path: Path, cache: ScoreCache, loads: Loads, capsys: Any
) -> None:
    out = tmp_path / "runs"
    first = work(train, data, out, cache)
    assert loads.take() == [f"checkpoint-{step}" for step in sorted(NOISE)]
    before = curve.trace(list(first.found.values()))

    assert work(train, data, out, cache).found.keys() == first.found.keys()
    assert loads.take() == []

    # A trainer that keeps the newest deletes the others: their runs stay on the curve.
    (train / "checkpoint-900" / "model.safetensors").unlink()
    shutil.rmtree(train / "checkpoint-1000")
    again = curve.trace(list(work(train, data, out, cache).found.values()))
    assert loads.take() == [] and again == before

    # Another time of change alone makes it be looked at, and no more.
    os.utime(train / "checkpoint-200" / "model.safetensors")
    assert curve.trace(list(work(train, data, out, cache).found.values())) == before
    assert loads.take() == ["checkpoint-200"] and not (out / REPLACED).exists()

    capsys.readouterr()
    save(train / "checkpoint-2000", 0.4, 77)
    save(train / "checkpoint-3000", 0.1, 78)
    after = curve.trace(list(work(train, data, out, cache).found.values()))
    assert loads.take() == ["checkpoint-2000", "checkpoint-3000"]
    moved = list((out / REPLACED).iterdir())
    assert len(moved) == 1 and "checkpoint-2000" in moved[0].name
    assert "moved to" in capsys.readouterr().err
    kept = [step for step in after.steps if step.step not in (2000, 3000)]
    assert kept == [step for step in before.steps if step.step != 2000]
    old = comparable.read(moved[0]).bits_per_byte
    new = next(step for step in after.steps if step.step == 2000).side.bits_per_byte
    fresh = work(train, data, tmp_path / "other", cache)
    assert new != old
    assert new == next(s for c, s in fresh.found.values() if c.step == 2000).bits_per_byte


def test_other_text_or_settings_are_scored_again(
    train: Path, data: Path, tmp_path: Path, cache: ScoreCache, loads: Loads
) -> None:
    out, texts = tmp_path / "runs", tmp_path / "texts.jsonl"
    for step in (200, 900, 1000):
        shutil.rmtree(train / f"checkpoint-{step}")
    shutil.copy(data, texts)
    work(train, texts, out, cache)
    assert len(loads.take()) == 2
    work(train, texts, out, cache, max_length=16)
    assert len(loads.take()) == 2 and len(list((out / REPLACED).iterdir())) == 2
    lines = texts.read_text("utf-8").splitlines()
    texts.write_text("\n".join([*lines, lines[0].replace("cat", "dog")]), "utf-8")
    found = work(train, texts, out, cache, max_length=16).found
    assert len(loads.take()) == 2 and len(list((out / REPLACED).iterdir())) == 4
    assert {len(side.records) for _, side in found.values()} == {25}


def test_runs_without_notes_are_looked_at_and_kept(
    made: Path, data: Path, runs: Path, tmp_path: Path, cache: ScoreCache, loads: Loads
) -> None:
    """eval with the same pattern made them: their models are loaded once, and nothing is scored."""
    out = Path(shutil.copytree(runs, tmp_path / "runs"))
    before = {path: path.read_bytes() for path in out.glob("*/scores.jsonl")}
    work(made, data, out, cache)
    assert len(loads.take()) == 5 and len(before) == 5 and not (out / REPLACED).exists()
    assert {path: path.read_bytes() for path in out.glob("*/scores.jsonl")} == before
    work(made, data, out, cache)
    assert loads.take() == []


def test_a_damaged_checkpoint_is_reported_and_the_others_kept(
    train: Path, data: Path, tmp_path: Path
) -> None:
    whole = (train / "checkpoint-900" / "model.safetensors").read_bytes()
    (train / "checkpoint-900" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (train / "checkpoint-1000" / "config.json").unlink()
    (train / "checkpoint-2000" / "model.safetensors").unlink()
    words = ["--model", f"{train}/checkpoint-*", "--data", str(data), "--json"]
    found = command("curve", *words, "--out", str(tmp_path / "runs"))
    assert found.returncode == 2 and "Traceback" not in found.stderr
    shown = json.loads(found.stdout)
    assert [step["step"] for step in shown["steps"]] == [200, 10000]
    assert [one["name"] for one in shown["left_out"]] == [
        "checkpoint-900", "checkpoint-1000", "checkpoint-2000",
    ]  # fmt: skip
    assert all(one["name"] in found.stderr and one["reason"] for one in shown["left_out"])
    evaluated = command("eval", *words, "--out", str(tmp_path / "evals"))
    assert evaluated.returncode == 2 and "checkpoint-900 is left out" in evaluated.stderr
    assert len(json.loads(evaluated.stdout)["reports"]) == 2
    assert len(list((tmp_path / "evals").iterdir())) == 2
    for step in (200, 10000):
        (train / f"checkpoint-{step}" / "config.json").write_text("{")
    nothing = command("curve", *words)
    assert nothing.returncode == 2 and "No checkpoint could be scored" in nothing.stderr
    assert not nothing.stdout


# --- what is shown -------------------------------------------------------------------------------


def test_the_command_shows_runs(runs: Path, tmp_path: Path) -> None:
    found = command("curve", str(runs))
    assert found.returncode == 0, found.stderr
    assert "Training" in found.stdout and "is lowest" in found.stdout
    places = [found.stdout.index(f" {step} ") for step in sorted(NOISE)]
    assert places == sorted(places)
    table = command("curve", str(runs), "--csv")
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert len(rows) == 15 and {row["domain"] for row in rows} == {"all", "a", "b"}
    side = comparable.read(next(runs.glob("*checkpoint-200__*")))
    assert float(rows[0]["bits_per_byte"]) == side.report.metrics["bits_per_byte"]
    assert float(rows[0]["bits_per_byte_low"]) == side.report.intervals["bits_per_byte"].low
    assert sum(int(row["best"] or 0) for row in rows) == 1
    text = command("curve", str(runs), "--md").stdout
    assert text.startswith("| step |") and text.count("\n| ") == 5


def test_mistakes_are_said(made: Path, runs: Path, tmp_path: Path) -> None:
    one, two = f"{made}/checkpoint-200", f"{made}/checkpoint-900"
    for words, says in (
        (["--model", one, two], "quotes"), ([one], "'DIR/checkpoint-*'"), ([], "--model"),
        ([str(made)], "'DIR/checkpoint-*'"), ([str(runs), "--plot", "a.jpg"], ".png"),
        ([str(runs), "--watch", "1"], "--watch"), (["--model", one, "--data", "-"], "once only"),
    ):  # fmt: skip
        found = command("curve", *words)
        assert found.returncode == 2 and says in found.stderr, words
        assert "Traceback" not in found.stderr
    found = command("eval", "--model", one, two)
    assert found.returncode == 2 and "quotes" in found.stderr


def test_an_unfinished_run_is_left_out(runs: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(runs, tmp_path / "runs"))
    (next(out.glob("*checkpoint-200__*")) / "report.json").unlink()
    found = command("curve", str(out), "--json")
    assert found.returncode == 0 and "unfinished" in found.stderr
    assert len(json.loads(found.stdout)["steps"]) == 4


def test_a_picture(found: list[tuple[Checkpoint, Side]], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    drawn = curve.trace(found)
    for name in ("a.svg", "b.svg", "c.png"):
        plot.draw(drawn, tmp_path / name)
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert "bits per byte" in text and "training step" in text and "lowest, step" in text
    assert text == (tmp_path / "b.svg").read_text("utf-8")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"\.png"):
        plot.draw(drawn, tmp_path / "a.gif")
    with pytest.raises(InputError, match="no folder"):
        plot.draw(drawn, tmp_path / "none" / "a.svg")


def test_without_matplotlib_the_way_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"fairway\[plot\]"):
        plot.check(tmp_path / "a.svg")


@pytest.mark.slow
def test_watch_finds_what_is_added(train: Path, data: Path, tmp_path: Path) -> None:
    late = train / "checkpoint-10000"
    shutil.move(late, tmp_path / "checkpoint-10000")
    words = ["--model", f"{train}/checkpoint-*", "--data", str(data), "--watch", "0.2"]
    watching = subprocess.Popen(
        [sys.executable, "-m", "fairway", "curve", *words, "--out", str(tmp_path / "runs")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert watching.stdout is not None
    try:
        lines = [watching.stdout.readline() for _ in range(4)]
        shutil.move(tmp_path / "checkpoint-10000", late)
        lines.append(watching.stdout.readline())
        time.sleep(0.1)
        watching.send_signal(signal.SIGINT)
        rest, errors = watching.communicate(timeout=60)
    finally:
        watching.kill()
        watching.communicate()  # so that a failure here does not show up as another test's
    assert [line.split(":")[0] for line in lines] == [
        f"checkpoint-{step}" for step in sorted(NOISE)
    ]
    assert "is lowest" in rest and watching.returncode == 0, errors
