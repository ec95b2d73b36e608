"""Addresses, tokens, and servers that are no fairway server: a sentence for each."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import fairway
import serving
from fairway.backends.remote import address
from fairway.errors import FairwayError, InputError
from fairway.serve.settings import Settings

App = Callable[[Any, Any, Any], Awaitable[None]]


def said_by(url: str, **settings: Any) -> str:
    with pytest.raises(FairwayError) as caught:
        fairway.connect(url, **settings)
    return str(caught.value)


def listing(change: Callable[[dict[str, Any]], Any]) -> App:
    """A server whose word on its only model is changed."""
    facts = {
        "wire": 1, "version": "0.1.0", "kind": "hf", "signature": "model:a|protocol:fairway",
        "columns": [], "notes": [], "perplexity": "perplexity", "needs_context": False,
        "contextual": True, "settings": True, "room": None,
    }  # fmt: skip
    made = change({"data": [{"id": "a", "fairway": facts}]})

    async def call(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await serving.answer(send, 200, json.dumps(made).encode())

    return call


def fact(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    def change(data: dict[str, Any]) -> Any:
        data["data"][0]["fairway"][key] = value
        return data

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (fact("wire", 99), "another version"),
        (lambda data: {"data": [{"id": "gpt-4", "object": "model"}]}, "no fairway server"),
        (lambda data: [], "no fairway server"),
        (lambda data: {"data": {}}, "no fairway server"),
        (fact("columns", 3), "no fairway server"),
        (fact("notes", [{}]), "no fairway server"),
        (fact("signature", "nonsense"), "no fairway server"),
        (fact("room", "large"), "no fairway server"),
    ],
)
def test_what_is_no_fairway_server(change: Any, said: str) -> None:
    with serving.serving(listing(change)) as url:
        assert said in said_by(url)


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (404, (), "no fairway server"),
        (302, ((b"location", b"http://127.0.0.1:1/"),), "not followed"),
        (401, (), "asks for a token"),
        (403, (), "asks for a token"),
    ],
)
def test_other_answers(status: int, headers: Any, said: str) -> None:
    async def call(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await serving.answer(send, status, b"<html>", *headers)

    with serving.serving(call) as url:
        assert said in said_by(url)


def test_a_token_goes_along_and_is_shown_nowhere(
    small: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = {"m": ("hf", fairway.load(small))}
    with serving.served(models, Settings(token="a-secret")) as url:
        assert "asks for a token" in said_by(url)
        monkeypatch.setenv("FAIRWAY_TOKEN", "a-wrong-one")
        told = said_by(url)
        assert "refuses the token" in told and "a-wrong-one" not in told
        monkeypatch.setenv("FAIRWAY_TOKEN", "a\nbroken")
        assert "broken" not in said_by(url)
        monkeypatch.setenv("FAIRWAY_TOKEN", "a-secret")
        there = fairway.connect(url)
        fairway.evaluate(there, ["the cat"], out=tmp_path / "run")
        kept = "".join(path.read_text("utf-8") for path in (tmp_path / "run").iterdir())
        assert "a-secret" not in kept + repr(there) + str(there.signature)


def test_nobody_there_is_said_at_once() -> None:
    heard = socket.create_server(("127.0.0.1", 0))
    port = heard.getsockname()[1]
    heard.close()
    started = time.monotonic()
    assert "is fairway serve running?" in said_by(f"http://127.0.0.1:{port}")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("name", "model", "url"),
    [
        ("http://h:1", None, "http://h:1"),
        ("m@http://h:1/", "m", "http://h:1"),
        ("gpt2@main@https://h/v1", "gpt2@main", "https://h"),
        ("m@http://h/base/v1/", "m", "http://h/base"),
        ("a@http://b@http://[::1]:80", "a@http://b", "http://[::1]:80"),
    ],
)
def test_addresses(name: str, model: str | None, url: str) -> None:
    assert address(name) == (model, url)


@pytest.mark.parametrize(
    "name",
    ["", "host:80", "ftp://h", "http://", "m@", "http://h?key=secret", "http://u:secret@h",
     "http://h/#secret", "http://h /", "http://h\n"],
)  # fmt: skip
def test_no_addresses(name: str) -> None:
    with pytest.raises(InputError) as caught:
        address(name)
    assert "secret" not in str(caught.value)


def test_a_note_says_where_texts_went() -> None:
    from fairway.backends.remote.scoring import sent

    assert sent("http://127.0.0.1:8", True) == sent("http://[::1]:8", True) == []
    assert sent("http://localhost", True) == []
    assert sent("https://far.example/x", True) == ["texts were sent to far.example"]
    assert sent("http://10.0.0.7:80", True) == [
        "texts and the token were sent to 10.0.0.7 unencrypted"
    ]
