"""Parts of an answer are whole characters; who leaves stops the writing, which holds nobody up."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fairway
from fairway.errors import ModelError
from fairway.generation import Step
from fairway.serve.openai.stream import Growing
from fairway.serve.settings import Limits, Settings
from serving import served


@pytest.fixture(scope="module")
def builtin() -> Any:
    return fairway.load("hf:builtin")


@given(
    st.text(alphabet="aé🦙\ufffd", max_size=8).map(str.encode)
    | st.binary(max_size=8),
    st.lists(st.integers(1, 3), max_size=8),
    st.lists(st.sampled_from(["a", "é", "aé", "🦙a", "aa"]), max_size=2),
)  # fmt: skip
def test_parts_break_no_character(raw: bytes, sizes: list[int], stops: list[str]) -> None:
    cuts = np.minimum(np.cumsum([0, *sizes, len(raw)]), len(raw)).tolist()
    pieces = [raw[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    growing, parts = Growing([one.encode() for one in stops]), []
    for number, piece in enumerate(pieces):
        part = growing.add(Step(number, -1.0, piece))
        parts += [] if part is None else [part]
        if part is not None and part.finish:
            break
    else:
        parts.append(growing.close("length"))
    places = [raw.find(one.encode()) for one in stops]
    cut = min((one for one in places if one >= 0), default=None)
    text = "".join(one.text for one in parts)
    assert text == raw[:cut].decode("utf-8", "replace")
    assert parts[-1].finish == ("length" if cut is None else "stop")
    tokens = [one for part in parts for one in part.tokens]
    ids = [number for number, begin in enumerate(cuts[:-1]) if cut is None or begin < cut]
    assert [one.id for one in tokens] == ids
    for part in parts[:-1]:
        # What was sent is whole: no later byte makes another character of it.
        assert "\ufffd" not in part.text or "\ufffd" in raw.decode("utf-8", "replace")
    assert all(0 <= one.start <= len(text) for one in tokens)


class Watched:
    """A scorer that counts its steps, and says when one was made."""

    def __init__(self, scorer: Any) -> None:
        self.scorer, self.steps, self.made = scorer, 0, threading.Semaphore(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scorer, name)

    def generate(self, ids: Any, sampling: Any) -> Iterator[Step]:
        for step in self.scorer.generate(ids, sampling):
            self.steps += 1
            self.made.release()
            yield step


class Failing(Watched):
    """A scorer that fails at its fourth token, in a way that nobody foresaw, or that was."""

    def __init__(self, scorer: Any, problem: Exception) -> None:
        super().__init__(scorer)
        self.problem = problem

    def generate(self, ids: Any, sampling: Any) -> Iterator[Step]:
        for step in super().generate(ids, sampling):
            if self.steps > 3:
                raise self.problem
            yield step


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (RuntimeError("a secret text"), "the server's log says where"),
        (ModelError("memory does not suffice"), "memory does not suffice"),
    ],
)
def test_a_failure_is_told_also_in_a_stream(
    builtin: Any, problem: Exception, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing, chunks = Failing(builtin, problem), []
    with served({"builtin": ("hf", failing)}) as url:
        sent = {"prompt": "the", "max_tokens": 9, "ignore_eos": True}
        whole = httpx2.post(f"{url}/v1/completions", json=sent)
        assert whole.status_code == 500 and says in whole.json()["error"]["message"]
        failing.steps = 0
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            answer = client.completions.create(
                model="builtin", prompt="the", stream=True, temperature=0,
                extra_body={"ignore_eos": True},
            )  # fmt: skip
            with pytest.raises(openai.APIError, match=says):
                for chunk in answer:
                    chunks.append(chunk.choices[0].text)
        assert len(chunks) == 3
        assert httpx2.post(f"{url}/v1/score", json={"text": "the hen"}).status_code == 200
    assert "secret" not in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_stops_the_writing(builtin: Any, stream: bool) -> None:
    watched = Watched(builtin)
    settings = Settings(port=0, limits=Limits(tokens=100_000))
    with served({"builtin": ("hf", watched)}, settings) as url:
        sent = {"prompt": "the", "max_tokens": 90_000, "ignore_eos": True, "stream": stream}
        with httpx2.Client() as client:
            if stream:
                with client.stream("POST", f"{url}/v1/completions", json=sent) as answer:
                    next(answer.iter_lines())
            else:
                with pytest.raises(httpx2.TimeoutException):
                    client.post(f"{url}/v1/completions", json=sent, timeout=0.5)
        # Another request is answered between its steps, and those come to an end.
        scored = httpx2.post(f"{url}/v1/score", json={"text": "the hen"}, timeout=20)
        assert scored.status_code == 200
        while watched.made.acquire(timeout=1.0):
            pass
        assert 0 < watched.steps < 5_000


def test_scoring_goes_on_beside_writing(builtin: Any) -> None:
    watched = Watched(builtin)
    settings = Settings(port=0, limits=Limits(tokens=100_000))
    with served({"builtin": ("hf", watched)}, settings) as url:
        sent = {"prompt": "the", "max_tokens": 50_000, "ignore_eos": True, "stream": True}
        with (
            httpx2.Client() as client,
            client.stream("POST", f"{url}/v1/completions", json=sent) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            before = watched.steps
            for _ in range(5):
                one = httpx2.post(f"{url}/v1/score", json={"text": "the hen"}, timeout=20)
                assert math.isfinite(one.json()["metrics"]["perplexity"])
            # A few steps for each, and not the fifty thousand that were asked for.
            assert before < watched.steps < 5_000
