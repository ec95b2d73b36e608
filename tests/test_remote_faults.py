"""Servers that are busy, slow, damaged, gone, another's, or changed: never another number."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fairway
import kinds
import serving
from fairway import api, run
from fairway.corpus import Document, read
from fairway.errors import ModelError
from fairway.request import Request
from fairway.run import read_blocks
from fairway.serve import app

App = Callable[[Any, Any, Any], Awaitable[None]]


@pytest.fixture(scope="module")
def model(small: str) -> Any:
    return fairway.load(small)


def documents(count: int) -> list[Document]:
    return [Document(str(n), f"the cat and {n} hens " * (1 + n % 5)) for n in range(count)]


def values(scorer: Any, given: list[Document]) -> list[np.ndarray]:
    return [one.logprobs for one in scorer.score(given, ("rank",))]


class Faulty:
    """Stands before a server and misbehaves, at random or as told."""

    def __init__(self, inner: App, faults: list[str], share: float, seed: int = 3) -> None:
        self.inner, self.faults, self.share = inner, faults, share
        self.draw = random.Random(seed)
        self.counts: dict[str, int] = {}
        self.begun = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/documents":
            await self.inner(scope, receive, send)
            return
        self.begun.set()
        fault = self.draw.choice(self.faults) if self.draw.random() < self.share else "none"
        self.counts[fault] = self.counts.get(fault, 0) + 1
        if fault == "429":
            await serving.answer(
                send, 429, b'{"error": {"message": "wait"}}', (b"retry-after", b"0.02")
            )
        elif fault in ("500", "503"):
            await serving.answer(send, int(fault), b"<html>no</html>")
        elif fault == "cut":
            await serving.answer(send, 200, b'{"signature": "x", "scores": [', cut=True)
        elif fault == "garbage":
            await serving.answer(send, 200, b'{"scores": [{"logprobs": [NaN')
        elif fault == "slow":
            await asyncio.sleep(self.draw.random() / 10)
            await self.inner(scope, receive, send)
        elif fault == "hang up":
            raise ConnectionError("the connection is dropped")
        elif fault == "lost":  # scored, and the answer never arrives

            async def swallow(_: Any) -> None: ...

            await self.inner(scope, receive, swallow)
            await serving.answer(send, 200, b"{", cut=True)
        else:
            await self.inner(scope, receive, send)


@contextmanager
def faulty(
    model: Any, faults: list[str], share: float = 1.0, name: str = "m"
) -> Iterator[tuple[str, Faulty]]:
    made = Faulty(app.build({name: ("hf", model)}), faults, share)
    with serving.serving(made) as url:
        yield url, made


def test_nothing_is_lost_and_nothing_twice(model: Any) -> None:
    """Random faults of every sort: the same numbers, in order."""
    given = documents(300)
    faults = ["429", "503", "500", "cut", "garbage", "hang up", "lost", "slow"]
    with faulty(model, faults, 0.4) as (url, made):
        there = fairway.connect(url, parallel=8)
        ids, found = [], []
        for start in range(0, 300, 15):
            for one in there.score(given[start : start + 15], ("rank",)):
                ids.append(one.id)
                found.append(one.logprobs)
    assert ids == [one.id for one in given]
    for one, other in zip(values(model, given), found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert sum(made.counts.values()) > 28
    assert made.counts["none"] + made.counts.get("slow", 0) == 20


def test_a_run_with_faults_is_the_clean_run(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": one.text}) for one in documents(40)), "utf-8")

    def report(scorer: Any, out: Path) -> Any:
        return api.perform(
            Request("m", str(path), {"like": "fairway"}), scorer, read(str(path)), out=out
        )

    clean = report(model, tmp_path / "clean")
    with faulty(model, ["429", "503", "cut", "lost"], 0.5) as (url, _):
        other = report(fairway.connect(url), tmp_path / "faulty")
    assert str(other.signature) == str(clean.signature)
    assert other.totals.nll == pytest.approx(clean.totals.nll, rel=1e-6)
    assert other.totals.tokens == clean.totals.tokens and other.totals.documents == 40


@pytest.mark.parametrize(
    ("fault", "settings", "said"),
    [
        ("429", {"patience": 0.3}, "status 429: wait. What was scored is kept"),
        ("503", {"patience": 0.3}, "status 503"),
        ("500", {"patience": 1}, "status 500"),
        ("garbage", {"patience": 1}, "no JSON"),
        ("cut", {"patience": 0.5}, "There is no answer"),
    ],
)
def test_a_limit_to_patience(fault: str, settings: dict[str, Any], said: str, model: Any) -> None:
    with faulty(model, [fault]) as (url, made):
        there = fairway.connect(url, **settings)
        started = time.monotonic()
        with pytest.raises(ModelError, match=said) as caught:
            values(there, documents(1))
        assert str(caught.value).isprintable() and time.monotonic() - started < 10
        assert 2 <= made.counts[fault] <= 12


def test_retry_after_is_heeded(model: Any) -> None:
    """More than patience: the end comes at once, and not after many tries."""

    class Later(Faulty):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] == "/v1/documents":
                self.counts["all"] = self.counts.get("all", 0) + 1
                await serving.answer(send, 429, b"{}", (b"retry-after", b"3600"))
                return
            await self.inner(scope, receive, send)

    made = Later(app.build({"m": ("hf", model)}), [], 0)
    with serving.serving(made) as url:
        started = time.monotonic()
        with pytest.raises(ModelError, match="status 429"):
            values(fairway.connect(url), documents(1))
        assert made.counts["all"] == 1 and time.monotonic() - started < 5


def test_a_slow_answer_has_a_limit(model: Any) -> None:
    """A server that takes the request, and then says nothing."""
    with serving.served({"m": ("hf", model)}) as url:
        there = fairway.connect(url, timeout=0.3)
        quiet = socket.create_server(("127.0.0.1", 0))
        there.caller.url = f"http://127.0.0.1:{quiet.getsockname()[1]}"  # type: ignore[attr-defined]
        with pytest.raises(ModelError, match=r"within 0.3 seconds; .* timeout=SECONDS"):
            values(there, documents(1))
        quiet.close()


def test_another_model_is_not_mixed_in(model: Any, small: str) -> None:
    """The server comes back at the same address with other settings in the middle of a run."""
    given = documents(40)
    with serving.served({"m": ("hf", model)}) as url:
        there = fairway.connect(url)
        scores = [next(there.score([one])) for one in given[:2]]
        assert len(scores) == 2
    port = int(url.rpartition(":")[2])
    other = fairway.load(small, prefix="none")
    with serving.served({"m": ("hf", other)}, port=port):
        with pytest.raises(ModelError, match=r"another model or protocol .*prefix bos, now none"):
            values(there, given[2:])
        assert fairway.connect(url).signature["prefix"] == "none"
    gone = pytest.raises(ModelError, match="no model 'm' here; there are: n")
    with serving.served({"n": ("hf", model)}, port=port), gone:
        values(there, given[2:])


# Real processes.


@contextmanager
def process(*words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    made = subprocess.Popen(
        [sys.executable, "-m", "fairway", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    try:
        yield made
    finally:
        made.kill()
        made.communicate()


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as heard:
        return int(heard.getsockname()[1])


def until(met: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.02)


def up(url: str) -> bool:
    try:
        return bool(fairway.connect(url))
    except ModelError:
        return False


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    """Killed twice in the middle of an evaluation: the run is, to the byte, one made here."""
    path, port = tmp_path / "texts.jsonl", free()
    draw = random.Random(1)
    rows = [" ".join(draw.choices(kinds.WORDS, k=200)) for _ in range(9000)]
    path.write_text("\n".join(json.dumps({"text": one}) for one in rows), "utf-8")
    spec = kinds.arpa("arpa")(tmp_path)
    clean = fairway.evaluate(spec, str(path), out=tmp_path / "clean")
    url, out = f"http://127.0.0.1:{port}", tmp_path / "killed"
    words = ["eval", "--model", f"fairway:{url}", "--data", str(path), "--out", str(out)]

    def serve() -> Any:
        return process("serve", "--model", spec, "--port", str(port))

    with ExitStack() as again:
        first = again.enter_context(serve())
        until(lambda: up(url))
        client = again.enter_context(process(*words, "--no-cache"))
        for blocks in (3, 9):
            until(lambda least=blocks: done(out) >= least)  # type: ignore[misc]
            assert client.poll() is None
            first.send_signal(signal.SIGKILL)
            first.wait()
            first = again.enter_context(serve())
        _, stderr = client.communicate(timeout=120)
        assert client.returncode == 0, stderr
    kept = (out / "scores.jsonl").read_bytes()
    assert kept == (tmp_path / "clean" / "scores.jsonl").read_bytes()
    assert run.read(out)[1].totals == clean.totals


def done(out: Path) -> int:
    try:
        return sum(1 for _ in read_blocks(out))
    except OSError:
        return 0


@pytest.mark.slow
def test_ctrl_c_ends_fast(model: Any, small: str, tmp_path: Path) -> None:
    """Also while a request is waiting for its answer; what was done is kept."""

    class Asleep(Faulty):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] == "/v1/documents":
                self.begun.set()
                await receive()
                await receive()  # until the client has gone
                return
            await self.inner(scope, receive, send)

    made = Asleep(app.build({"m": ("hf", model)}), [], 0)
    with (
        serving.serving(made) as url,
        process("eval", "--model", f"fairway:{url}", "--no-cache") as client,
    ):
        assert made.begun.wait(60)
        started = time.monotonic()
        client.send_signal(signal.SIGINT)
        _, stderr = client.communicate(timeout=30)
        assert time.monotonic() - started < 3
        assert client.returncode == 130 and "interrupted" in stderr
        assert "Traceback" not in stderr


def test_a_fork_takes_no_connection_along(model: Any) -> None:
    with serving.served({"m": ("hf", model)}) as url:
        there = fairway.connect(url)
        before = values(there, documents(2))
        ours = there.caller._client  # type: ignore[attr-defined]
        there.caller._client = (ours[0] + 1, ours[1])  # type: ignore[attr-defined]  # as in a child
        after = values(there, documents(2))
        assert there.caller._client[1] is not ours[1]  # type: ignore[attr-defined]
        ours[1].close()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
