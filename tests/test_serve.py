"""The service: what it answers, what it refuses, how it gathers, and that it outlives failures."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount

import fairway
from fairway.api import report_of
from fairway.companions import WANT
from fairway.corpus import Document, read
from fairway.errors import ModelError
from fairway.serve.answering import answer, encode
from fairway.serve.app import build
from fairway.serve.gate.traffic import Traffic
from fairway.serve.lane import LEAST, Lane
from fairway.serve.problems import Problem
from fairway.serve.settings import Limits, Settings
from guarded import ask, dial, serving
from lanes import Watched

TEXTS = ["The cat sat on the mat.", "北京 is a city 🙂", "a", "Twice told\ntales, " * 20]
LIMITS = Limits(documents=8, text=4000, waiting=3, body=20_000)


@pytest.fixture(scope="module")
def scorer(small: str) -> Any:
    return fairway.load(small)


@pytest.fixture(scope="module")
def port(scorer: Any) -> Iterator[int]:
    models = {"small": ("hf", scorer), "again": ("hf", scorer)}
    with serving(models, Settings(limits=LIMITS)) as port:
        yield port


@pytest.fixture
def watched(scorer: Any) -> Watched:
    return Watched(scorer)


def post(port: int, data: Any, path: str = "/v1/score") -> tuple[int, Any]:
    status, _, body = ask(port, path, "POST", json.dumps(data).encode())
    return status, json.loads(body)


def figures(port: int) -> dict[tuple[str, ...], float]:
    text = ask(port, "/metrics")[2].decode()
    return {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if not one.name.endswith(("_created", "_bucket"))
    }


def same(got: Any, wanted: Any) -> None:
    """Compare JSON, numbers to 1e-5."""
    if isinstance(wanted, dict):
        assert got.keys() == wanted.keys()
        for key in wanted:
            same(got[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            same(a, b)
    elif isinstance(wanted, float):
        assert got == pytest.approx(wanted, rel=1e-5, abs=1e-9)
    else:
        assert got == wanted


def report(scorer: Any, texts: list[str], context: str = "") -> Any:
    documents = [Document(f"text {i + 1}", one, context) for i, one in enumerate(texts)]
    corpus = read(documents)
    assert len(list(corpus)) == len(texts)
    return report_of(scorer, corpus, list(scorer.score(documents, WANT))).to_json()


@pytest.mark.parametrize("text", [*TEXTS, TEXTS])
@pytest.mark.parametrize("context", ["", "Before it: "])
def test_a_report_is_that_of_the_library(port: int, scorer: Any, text: Any, context: str) -> None:
    status, got = post(port, {"text": text, "context": context})
    assert status == 200
    same(got, report(scorer, [text] if isinstance(text, str) else text, context))


def test_several_models_give_reports(port: int, scorer: Any) -> None:
    status, got = post(port, {"model": ["again", "small"], "text": TEXTS[0]})
    assert status == 200 and len(got["reports"]) == 2
    same(got["reports"][0], report(scorer, TEXTS[:1]))
    assert post(port, {"model": ["small"], "text": "a"})[1].keys() == {"reports"}


@pytest.mark.parametrize(
    "data, status, word",
    [
        ({"text": ""}, 400, "empty"),
        ({"text": ["a", ""]}, 400, "text 2"),
        ({"text": []}, 400, "0 texts"),
        ({"text": ["a"] * 9}, 400, "9 texts"),
        ({"text": 7}, 400, "int"),
        ({"text": None}, 400, "null"),
        ({}, 400, "null"),
        ({"text": "a", "context": []}, 400, "list"),
        ({"text": "a", "model": "none"}, 404, "small, again"),
        ({"text": "a", "model": 3}, 404, "small, again"),
        ({"text": "ab" * 2001}, 413, "4,000"),
        ({"text": "ab" * 1000, "context": "ab" * 1001}, 413, "4,002"),
        ({"text": "ab" * 12_000}, 413, "20,000"),
        ([], 400, "object"),
    ],
)
def test_what_is_wrong_is_said_in_openais_form(
    port: int, data: Any, status: int, word: str
) -> None:
    got, answer = post(port, data)
    assert got == status
    assert answer["error"].keys() == {"message", "type", "code", "param"}
    assert word in answer["error"]["message"] and answer["error"]["message"].endswith(".")


def test_no_json_no_route_no_method(port: int) -> None:
    for body in (b"{", b"\xff", b"[" * 5000):
        status, _, answer = ask(port, "/v1/score", "POST", body)
        assert status == 400 and "JSON" in json.loads(answer)["error"]["message"]
    status, headers, answer = ask(port, "/v1/score")
    assert status == 405 and "post" in headers["allow"] and b"error" in answer
    status, _, answer = ask(port, "/v1/scores")
    assert status == 404 and "/openapi.json" in json.loads(answer)["error"]["message"]


def test_half_a_surrogate_pair_is_answered(port: int) -> None:
    status, _, answer = ask(port, "/v1/score", "POST", rb'{"text": "a \ud800 b"}')
    assert status in (200, 400) and json.loads(answer)


def test_health_readiness_and_figures(port: int) -> None:
    assert json.loads(ask(port, "/health")[2]) == {"status": "ok"}
    status, _, body = ask(port, "/ready")
    assert status == 200 and json.loads(body)["models"] == ["small", "again"]
    before = figures(port)
    post(port, {"text": "The cat sat.", "model": "again"})
    post(port, {"text": "SECRET", "model": "SECRET"})
    ask(port, "/SECRET")
    after = figures(port)
    gone_up = {key: after[key] - before.get(key, 0) for key in after}
    assert gone_up["fairway_requests_total", "/v1/score", "200"] == 1
    assert gone_up["fairway_requests_total", "/v1/score", "404"] == 1
    assert gone_up["fairway_requests_total", "other", "404"] == 1
    assert gone_up["fairway_scored_bytes_total", "again"] == 12
    assert gone_up["fairway_scored_tokens_total", "again"] > 3
    assert gone_up["fairway_batch_documents_count", "again"] == 1
    assert after["fairway_waiting_requests",] == 0
    assert not any("SECRET" in part for key in after for part in key)


def test_long_json_is_written_as_short_json_is() -> None:
    data = {
        "a": [], "b": {}, "c": [1.5, None] * 900, "d": [[1, 2]] * 700, "é": "\ud800 \n",
        "texts": [{"tokens": [{"id": 1, "top": [{"x": 1}]}] * 1000, "m": {"n": {}}}] * 2,
        "deep": [list(range(100)), [], {}], "e": [{"f": list(range(40))}, 3],
    }  # fmt: skip
    assert json.loads(encode(data)) == data


def gathered(lane: Lane, requests: list[list[str]]) -> list[Any]:
    """Ask for all at once; give outcomes or exceptions."""

    async def main() -> list[Any]:
        asked = [lane.score([Document("x", text) for text in texts]) for texts in requests]
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(main())


def test_what_comes_together_is_scored_together(watched: Watched) -> None:
    lane = Lane(watched)
    requests = [[f"{text} {place}"] for place in range(8) for text in TEXTS]
    got = gathered(lane, requests)
    assert len(watched.calls) <= 4
    for texts, (score,) in zip(requests, got, strict=True):
        (alone,) = watched.scorer.score([Document("x", *texts)])
        assert np.allclose(score.logprobs, alone.logprobs, rtol=0, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("word", ["REFUSE", "BUG", "MEMORY", "EXIT"])
def test_a_failure_is_its_own_requests_alone(
    watched: Watched, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    lane = Lane(watched)
    got = gathered(lane, [["a"], ["b", f"{word} c"], ["d"], ["e"], ["f", "g"]])
    bad = got.pop(1)
    assert [len(one) for one in got] == [1, 1, 1, 2]
    if word == "REFUSE":
        assert len(bad[0]) and isinstance(bad[1], ModelError)
    else:
        assert isinstance(bad, Problem) and bad.status == 500
        assert "SECRET" not in bad.message + caplog.text and "lanes.py" in caplog.text
    assert len(gathered(lane, [["again"]])[0]) == 1


def test_scores_that_are_lost_are_no_endless_wait(watched: Watched) -> None:
    watched.lose = True
    lane = Lane(watched)
    assert all(isinstance(one, Problem) for one in gathered(lane, [["a"], ["b"]]))
    lane.close()
    assert isinstance(gathered(lane, [["after the end"]])[0], Problem)


def test_a_request_of_many_texts_holds_no_other_up(watched: Watched) -> None:
    watched.go.clear()
    lane = Lane(watched, Limits(batch=LEAST))
    many, alone = [f"{place} " + "long " * 200 for place in range(40)], "a short one"

    async def main() -> None:
        first = asyncio.create_task(lane.score([Document("x", one) for one in many]))
        await asyncio.to_thread(watched.begun.wait)
        short = asyncio.create_task(lane.score([Document("x", alone)]))
        await asyncio.sleep(0)
        watched.go.set()
        await short
        assert alone in watched.calls[1] and not first.done()
        assert len(await first) == len(many)

    asyncio.run(main())
    assert sum(len(one) for one in watched.calls) == len(many) + 1


def test_behind_a_long_text_short_ones_have_their_turn(watched: Watched) -> None:
    watched.go.clear()
    lane = Lane(watched, Limits(batch=LEAST))
    long = ["long " * LEAST + str(place) for place in range(3)]

    async def main() -> None:
        texts = ["first", *long]
        rest = [asyncio.create_task(lane.score([Document("x", one)])) for one in texts[:1]]
        await asyncio.to_thread(watched.begun.wait)
        for text in [*long, "short"]:
            rest.append(asyncio.create_task(lane.score([Document("x", text)])))
        await asyncio.sleep(0)
        watched.go.set()
        await asyncio.gather(*rest)

    asyncio.run(main())
    assert watched.calls == [["first"], [long[0]], ["short"], [long[1]], [long[2]]]


def test_other_columns_do_not_wait_for_ever(watched: Watched) -> None:
    watched.go.clear()
    lane = Lane(watched)

    async def main() -> None:
        first = asyncio.create_task(lane.score([Document("x", "first")]))
        await asyncio.to_thread(watched.begun.wait)
        plain = [asyncio.create_task(lane.score([Document("x", f"p{i}")])) for i in range(3)]
        ranked = asyncio.create_task(lane.score([Document("x", "ranked")], ["rank"]))
        await asyncio.sleep(0)
        watched.go.set()
        await asyncio.gather(first, *plain)
        assert "rank" in (await ranked)[0].extras

    asyncio.run(main())
    assert watched.calls == [["first"], ["p0", "p1", "p2"], ["ranked"]]


def test_room_is_limited_and_the_wait_is_told(watched: Watched) -> None:
    watched.go.clear()
    with serving({"m": ("hf", watched)}, Settings(limits=LIMITS)) as port:
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(post, port, {"text": f"text {i}"}) for i in range(3)]
            while figures(port)["fairway_waiting_requests",] < 3:
                pass
            status, headers, answer = ask(port, "/v1/score", "POST", b'{"text": "one more"}')
            assert status == 429 and int(headers["retry-after"]) >= 1
            assert json.loads(answer)["error"]["code"] == "rate_limit_exceeded"
            assert ask(port, "/ready")[0] == 503 and ask(port, "/health")[0] == 200
            watched.go.set()
            assert [one.result()[0] for one in asked] == [200] * 3
        assert post(port, {"text": "now there is room"})[0] == 200
        assert figures(port)["fairway_rejected_requests_total",] == 1
    assert not any("one more" in text for call in watched.calls for text in call)


def test_who_goes_away_is_not_scored(watched: Watched) -> None:
    watched.go.clear()
    body = b'{"text": "nobody waits for this"}'
    head = (
        b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with serving({"m": ("hf", watched)}, Settings()) as port:
        first = threading.Thread(target=post, args=(port, {"text": "holds the lane"}))
        first.start()
        watched.begun.wait()
        with dial(port) as line:
            line.sendall(head + body)
            while figures(port)["fairway_waiting_requests",] < 2:
                pass
        while figures(port)["fairway_waiting_requests",] > 1:
            pass
        watched.go.set()
        first.join()
        post(port, {"text": "the next"})
        assert figures(port)["fairway_requests_total", "/v1/score", "499"] == 1
    assert watched.calls == [["holds the lane"], ["the next"]]


def test_the_wait_is_that_of_the_recent_pace() -> None:
    now = 100.0
    traffic = Traffic(3, clock=lambda: now)
    kept = [traffic.enter() for _ in range(3)]
    assert None not in kept and traffic.enter() is None
    now = 107.5
    assert traffic.wait() == 8, "nobody was answered: the age of the oldest"
    now = 120.0
    for number in kept:
        traffic.leave(number or 0)
        now += 6
    assert len(traffic) == 0
    now += 1000
    for _ in range(3):
        traffic.enter()
    now += 6
    # Three answers in the 18 busy seconds since the first of them; idle ones do not count.
    assert [traffic.wait() for _ in range(4)] == [6, 12, 18, 24]
    now += 13
    # Two of the four are back by now, and two have their places first.
    assert traffic.wait() == math.ceil((18 + 13) / 3 * 3)
    now += 100
    assert traffic.wait() == 119 and len(traffic) == 3


def test_it_is_an_application_for_any_server_and_mounts_in_another(scorer: Any) -> None:
    inner = build({"small": ("hf", scorer)})
    outer = Starlette(routes=[Mount("/models", inner)])

    async def main() -> None:
        for app, base in ((inner, ""), (outer, "/models")):
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as web:
                answer = await web.post(f"{base}/v1/score", json={"text": TEXTS[0]})
                same(answer.json(), report(scorer, TEXTS[:1]))
                assert (await web.get(f"{base}/docs")).status_code == 200
                counted = (await web.get(f"{base}/metrics")).text
                assert 'route="/v1/score",status="200"' in counted

    asyncio.run(main())


def test_the_collector_is_as_it_was_after_long_answers() -> None:
    async def main() -> None:
        seen: list[bool] = []
        asked = [answer(1 << 20, lambda: seen.append(gc.isenabled()) or [1]) for _ in range(8)]
        assert {one.body for one in await asyncio.gather(*asked)} == {b"[1]"}
        assert seen == [False] * 8

    for before in (gc.disable, gc.enable):
        before()
        asyncio.run(main())
        assert gc.isenabled() == (before is gc.enable)


def test_who_leaves_a_stream_ends_it(port: int) -> None:
    data = {"prompt": "The cat", "max_tokens": 4000, "ignore_eos": True, "stream": True}
    body = json.dumps(data).encode()
    before = figures(port).get(("fairway_requests_total", "/v1/completions", "499"), 0)
    with dial(port) as line:
        line.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
            b"\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        assert b"200 OK" in line.recv(65536)
        assert figures(port)["fairway_waiting_requests",] == 1
    while figures(port)["fairway_waiting_requests",]:
        pass
    assert figures(port)["fairway_requests_total", "/v1/completions", "499"] == before + 1
