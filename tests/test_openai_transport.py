"""Requests to servers that misbehave: what is repeated, what is not, and what is never told."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

import standin
from fairway.backends.openai import address, transport
from fairway.backends.openai.transport import Link, Refused, Spent, after, loads
from fairway.cli import app
from fairway.errors import InputError, ModelError

KEY = "sk-test-0123456789abcdef"
Answer = Callable[[httpx2.Request], httpx2.Response]


def link(
    *answers: Any, waits: list[float] | None = None, key: bool = False, **options: Any
) -> tuple[Link, list[httpx2.Request]]:
    """A link to a server that gives these answers in turn; the last again and again."""
    seen: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        one = answers[min(len(seen), len(answers) - 1)]
        seen.append(request)
        if isinstance(one, Exception):
            raise one
        return one

    place = address.Address("m", "http://h:1", None, KEY if key else None, "NAME" if key else None)
    wait = (waits if waits is not None else []).append
    made = Link(place, transport=httpx2.MockTransport(handle), wait=wait, **options)
    return made, seen


def said(status: int, text: str = "{}", **headers: str) -> httpx2.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, content=text.encode(), headers=names)


@pytest.mark.parametrize(
    "fault",
    [
        said(429), said(408), said(500), said(503, "<html>gone</html>"),
        said(200, '{"choices": [{"te'), said(200, "<html>proxy</html>"), said(200, ""),
        said(200, "[" * 100_000),
        httpx2.ReadError("cut"), httpx2.RemoteProtocolError("cut"), httpx2.ConnectError("no"),
        httpx2.ReadTimeout("slow"),
        httpx2.Response(200, content=b"no gzip", headers={"content-encoding": "identity"}),
    ],
)  # fmt: skip
def test_what_is_no_whole_answer_is_asked_again(fault: Any) -> None:
    waits: list[float] = []
    one, seen = link(fault, fault, said(200, '{"a": 1}'), waits=waits)
    assert one.post("/x", {"b": 2}).data == {"a": 1}
    assert [json.loads(request.content) for request in seen] == [{"b": 2}] * 3
    assert len(waits) == 2 and 0 < waits[0] <= 0.25 and waits[1] <= 0.5
    assert (one.counts.requests, one.counts.repeated, one.counts.answered) == (3, 2, 1)


def test_repetitions_are_bounded() -> None:
    one, seen = link(said(500, '{"error": {"message": "boom"}}'), retries=4)
    with pytest.raises(ModelError, match=r"No whole answer came from h:1 5 times: HTTP 500: boom"):
        one.post("/x", {})
    assert len(seen) == 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 301, 307])
def test_a_refusal_is_not_asked_again(status: int) -> None:
    one, seen = link(said(status, '{"detail": "no\\u001b[31m way"}', location="http://evil/"))
    with pytest.raises(Refused) as caught:
        one.post("/x", {})
    assert len(seen) == 1 and caught.value.status == status
    assert "\x1b" not in str(caught.value)


def test_retry_after() -> None:
    """Seconds, or a date; a wait of hours is told and not sat out."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)
    for value, least, most in (("7", 7, 7), (soon, 7, 9), ("nonsense", 0, 1), ("-3", 0, 1)):
        waits: list[float] = []
        one, _ = link(said(429, retry_after=value), said(200), waits=waits)
        one.post("/x", {})
        assert least <= waits[0] <= most
    one, seen = link(said(429, retry_after="7200"))
    with pytest.raises(ModelError, match="asks to wait 7200 seconds"):
        one.post("/x", {})
    assert len(seen) == 1
    assert after(None) is None and after("inf") is None and after("nan") is None


def test_a_number_of_requests_is_a_hard_stop() -> None:
    one, seen = link(said(200), max_requests=3)
    for _ in range(3):
        one.post("/x", {})
    with pytest.raises(Spent, match="max_requests=3 requests were sent to h:1"):
        one.post("/x", {})
    again, seen = link(said(503), max_requests=3)
    with pytest.raises(Spent):
        again.post("/x", {})
    assert len(seen) == 3


def test_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER", 1000)
    one, seen = link(said(200, json.dumps(["x" * 2000])))
    with pytest.raises(ModelError, match="answers with more than"):
        one.post("/x", {})
    assert len(seen) == 1


def test_numbers_that_json_lacks() -> None:
    reply = loads(b'{"a": [NaN, -Infinity, 1e999, 1.5]}')
    assert reply.odd == ("NaN", "-Infinity", "1e999")
    assert math.isnan(reply.data["a"][0]) and reply.data["a"][3] == 1.5
    assert loads(b'{"a": 0.1}').odd == ()


def test_the_key_is_sent_and_never_told() -> None:
    one, seen = link(said(401, f'{{"error": {{"message": "bad key {KEY} given"}}}}'), key=True)
    with pytest.raises(Refused, match="the one in NAME is refused") as caught:
        one.post("/x", {})
    assert seen[0].headers["authorization"] == f"Bearer {KEY}"
    for told in (str(caught.value), repr(one), repr(one.address), str(one.counts)):
        assert KEY not in told
    bare, seen = link(said(200))
    bare.post("/x", {})
    assert "authorization" not in seen[0].headers


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "MINE", "OPENROUTER_API_KEY"):
        monkeypatch.setenv(name, KEY)
    parse = address.parse
    assert parse("m@http://h:1/v1/").root == "http://h:1"
    assert parse("http://h:1").model == "" and parse("@http://h").root == "http://h"
    assert parse("@cf/meta@http://h").model == "@cf/meta"
    assert parse("org/m", "vllm").root == "http://127.0.0.1:8000"
    assert parse("m@https://h/api/v1").root == "https://h/api"
    # A key goes to the host that it is for, and to none that merely was named.
    assert parse("m", "openai").key == KEY and parse("m@https://api.openai.com/v1").key == KEY
    for other in ("m@https://api.openai.com.evil.net", "m@http://api.openai.com", "m@http://h"):
        assert parse(other).key is None and parse(other, "openai").key is None
    assert parse("m@http://h", None, "MINE").key == KEY
    for bad, said in (
        ("m", "takes MODEL@URL"), ("m@http://", "no host"), ("m@http://a:b@h", "a password"),
        ("m@http://h?key=1", "a query"), ("m@http://h:99999999", "cannot be read"),
        ("m@http://h h", "no host"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            parse(bad)
    for key in (KEY, "UNSET_NAME", 5, True, "a b"):
        with pytest.raises(InputError, match="takes the name of an environment variable") as no:
            parse("m@http://h", None, key)
        assert str(key) not in str(no.value)
    monkeypatch.setenv("MINE", "a\nb")
    with pytest.raises(InputError, match="holds no key"):
        parse("m@http://h", None, "MINE")


@pytest.fixture
def guarded() -> Iterator[str]:
    """A server that asks for the key, and answers as one that gives no log-probabilities."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def answer(request: Any) -> JSONResponse:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({"error": {"message": "no"}}, 401)
        if request.method == "GET":
            return JSONResponse({"data": [{"id": "m"}]})
        token = {"tokens": ["a"], "token_logprobs": [-1.0], "text_offset": [0]}
        return JSONResponse(
            {"choices": [{"text": "a", "logprobs": token}], "usage": {"completion_tokens": 1}}
        )

    routes = [Route("/{path:path}", answer, methods=["GET", "POST"])]
    with standin.serve(Starlette(routes=routes)) as url:
        yield url


def test_the_key_is_in_no_file(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment to the server; not to a screen, a run directory or the cache."""
    monkeypatch.setenv("MY_KEY", KEY)
    data = tmp_path / "t.txt"
    data.write_text("one\n\ntwo\n", "utf-8")
    out = tmp_path / "run"
    common = ["eval", "--model", f"openai:{guarded}", "--data", str(data), "--out", str(out)]
    own = ["--generated", "--model-arg", "retries=0"]
    without = CliRunner().invoke(app, [*common, *own])
    assert without.exit_code != 0 and "--model-arg key=NAME" in str(without.exception)
    given = CliRunner().invoke(app, [*common, *own, "--model-arg", "key=MY_KEY"])
    assert given.exit_code == 0, given.exception
    told = given.output + "".join(p.read_text("utf-8") for p in out.iterdir())
    cache = Path(os.environ["FAIRWAY_CACHE"])
    told += "".join(p.read_bytes().decode("latin-1") for p in cache.rglob("*") if p.is_file())
    assert KEY not in told and "own_output" in told
