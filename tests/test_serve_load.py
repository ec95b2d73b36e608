"""A real server under load: answers are the engine's, memory stays, nothing fails but by 429."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import fairway

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import serve_load

sys.path.pop(0)


def test_a_deviation_is_seen() -> None:
    data: dict[str, Any] = {"a": [1.0, {"b": "text"}], "c": None, "n": 3}
    assert serve_load.deviation(data, data) == 0
    assert serve_load.deviation({**data, "a": [1.1, {"b": "text"}]}, data) == pytest.approx(0.1)
    for other in ({**data, "n": 4}, {**data, "d": 1}, {**data, "a": [1.0]}, {**data, "c": 0}):
        assert serve_load.deviation(other, data) == float("inf")
    report = {"metrics": {"perplexity": 8.0}, "texts": [{"metrics": {"perplexity": 4.0}}]}
    other = {**report, "texts": [{"metrics": {"perplexity": 5.0}}]}
    assert serve_load.apart(report, report) == 0 and serve_load.apart(other, report) == 0.25


def run(
    model: str, seconds: float, clients: int, most: int, *options: str, warm: float = 0.0
) -> serve_load.Load:
    cases = serve_load.cases(fairway.load(model), most=most)
    with serve_load.server(model, *options) as (port, pid):
        return serve_load.loading(port, pid, cases, seconds, clients, warm)


def right(load: serve_load.Load) -> None:
    assert not load.wrong, load.wrong[:3]
    assert load.worst <= 1e-5
    assert load.perplexity <= 1e-5


def test_concurrent_clients_get_the_engines_figures(small: str) -> None:
    load = run(small, 2.0, 16, 200)
    right(load)
    assert load.answers >= 16 and not load.rejected


@pytest.mark.slow
@pytest.mark.parametrize("model", ["hf:builtin", "stories"])
def test_a_minute_of_64_clients(model: str, request: pytest.FixtureRequest) -> None:
    name = request.getfixturevalue("stories") if model == "stories" else model
    # In the first seconds the caches of kernels fill, up to their bounds.
    load = run(name, 60.0, 64, 600, "--max-waiting", "60", warm=20.0)
    right(load)
    # Four clients more than there is room for: some are told to wait, and come again.
    assert load.rejected and load.answers > 64
    assert load.growth < 1.1, [size >> 20 for size in load.memory]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
