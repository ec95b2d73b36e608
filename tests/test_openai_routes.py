"""Answers in the forms that servers document, read into one."""

from __future__ import annotations

from typing import Any

import pytest

from fairway.backends.openai import generated
from fairway.backends.openai.answer import Asked
from fairway.backends.openai.routes import ROUTES, Strange, Wish
from fairway.backends.openai.transport import Reply, loads

ASKED = Asked("a cat", None, "echo")


def read(route: str, data: Any, asked: Asked = ASKED) -> Any:
    return ROUTES[route].read(Reply(data), asked)


def legacy(**more: Any) -> dict[str, Any]:
    told = {
        "tokens": ["a", " cat", "!"], "token_logprobs": [None, -1.5, -0.5],
        "text_offset": [0, 1, 5], "top_logprobs": [None, {" cat": -1.5, " dog": -2.0}, {"!": -0.5}],
        **more,
    }  # fmt: skip
    return {"choices": [{"text": "a cat!", "logprobs": told, "finish_reason": "length"}]}


def test_the_legacy_form() -> None:
    """What was written is told by usage, else by offsets, else by the number of ids sent."""
    usage = {"prompt_tokens": 2, "completion_tokens": 1}
    found = read("echo", {**legacy(), "usage": usage})
    assert [e.token for e in found.entries] == ["a", " cat"]
    assert [e.logprob for e in found.entries] == [None, -1.5]
    assert (found.generated, found.prompt_tokens, found.echoed) == (1, 2, "a cat!")
    assert found.entries[1].top == {" cat": -1.5, " dog": -2.0} and found.entries[1].start == 1
    assert len(read("echo", legacy()).entries) == 2
    without = legacy(text_offset=None)
    assert len(read("echo", without, Asked(None, (5, 6))).entries) == 2
    assert len(read("echo", without).entries) == 3


def test_spellings_of_ids_and_bytes() -> None:
    tokens = ["token_id:0", "bytes:\\xe2\\x80", "bytes: no"]
    found = read("echo", legacy(tokens=tokens, text_offset=None))
    assert [e.id for e in found.entries] == [0, None, None]
    assert [e.raw for e in found.entries] == [None, b"\xe2\x80", None]
    found = read("echo", legacy(token_ids=[7, 0, 9], text_offset=None))
    assert [e.id for e in found.entries] == [7, 0, 9]


def test_together() -> None:
    """Its prompt stands beside the choices."""
    data = legacy()
    data["prompt"] = [
        {"text": "a cat", "logprobs": {"tokens": ["a", " cat"], "token_logprobs": [None, -1.5],
                                       "token_ids": [3, 4]}}
    ]  # fmt: skip
    found = read("echo", data)
    assert [(e.token, e.logprob, e.id) for e in found.entries] == [
        ("a", None, 3),
        (" cat", -1.5, 4),
    ]
    assert found.echoed == "a cat" and found.generated == 0


def test_the_newer_form() -> None:
    """A list of objects, as Fireworks and chats have it; an absent key is no null."""
    content = [
        {"token": "a", "logprob": None, "bytes": [97], "token_id": 3, "text_offset": 0},
        {"token": " \ufffd", "logprob": -1, "bytes": [32, 231],
         "top_logprobs": [{"token": "x", "logprob": -2.0}]},
        {"token": "z", "bytes": None},
    ]  # fmt: skip
    data = {"choices": [{"text": "a", "logprobs": {"content": content}}]}
    found = read("echo", data).entries
    assert [e.raw for e in found] == [b"a", b" \xe7", None]
    assert [e.given for e in found] == [True, True, False]
    assert found[1].logprob == -1.0 and found[1].top == {"x": -2.0} and found[0].id == 3
    message = {"message": {"content": "a"}, "logprobs": {"content": content[:1]}}
    text, answer = generated.read(Reply({"choices": [message]}))
    assert text == "a" and answer.entries[0].raw == b"a"


def test_vllm() -> None:
    """The prompt's own token is told by its id; without ids by being alone."""
    one = {"5": {"logprob": -1.5, "rank": 9, "decoded_token": " cat"},
           "6": {"logprob": -0.1, "rank": 1, "decoded_token": " dog"}}  # fmt: skip
    choice = {"prompt_logprobs": [None, one], "prompt_token_ids": [4, 5]}
    found = read("prompt_logprobs", {"choices": [choice]}).entries
    assert (found[0].id, found[1].id, found[1].rank, found[1].logprob) == (4, 5, 9, -1.5)
    assert found[1].top == {"5": -1.5, "6": -0.1}
    del choice["prompt_token_ids"]
    with pytest.raises(Strange, match="holds 2 tokens, and not which of them"):
        read("prompt_logprobs", {"choices": [choice]})
    assert read("prompt_logprobs", {"choices": [choice]}, Asked(None, (4, 5))).entries[1].id == 5
    del one["6"], one["5"]["logprob"]
    assert not read("prompt_logprobs", {"choices": [choice]}).entries[1].given


@pytest.mark.parametrize(
    ("route", "data"),
    [
        ("echo", None), ("echo", []), ("echo", {}), ("echo", {"choices": []}),
        ("echo", {"choices": [{"logprobs": None}]}), ("echo", {"choices": [{"logprobs": {}}]}),
        ("echo", {"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": []}}]}),
        ("echo", legacy(text_offset=[0])), ("echo", {"choices": "no"}),
        ("echo", {"choices": [{"logprobs": {"content": [None]}}]}),
        ("prompt_logprobs", {"choices": [{"text": ""}]}),
        ("prompt_logprobs", {"choices": [{"prompt_logprobs": [None, []]}]}),
        ("sglang", {"meta_info": {}}), ("sglang", {"meta_info": {"input_token_logprobs": [[1]]}}),
        ("tgi", {"details": {}}), ("tgi", {"details": {"prefill": ["a"]}}),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_told(route: str, data: Any) -> None:
    with pytest.raises(Strange, match="answer|list"):
        read(route, data)


def test_bodies() -> None:
    """No body streams; a prompt goes as text or as ids, and a nameless model is not named."""
    for name in ("echo", "prompt_logprobs", "sglang", "tgi", "chat"):
        body = ROUTES[name].body(ASKED, Wish("m"))
        assert body["stream"] is False and "a cat" in str(body)
        assert ("model" in body) == (name not in ("sglang", "tgi"))
    for name in ("echo", "prompt_logprobs", "sglang"):
        assert [4, 5] in ROUTES[name].body(Asked(None, (4, 5)), Wish()).values()
        assert "model" not in ROUTES[name].body(ASKED, Wish())
    reply = loads(b'{"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": [NaN]}}]}')
    assert ROUTES["echo"].read(reply, ASKED).odd == ("NaN",)
