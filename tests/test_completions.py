"""Completions and chat over a real server, by OpenAI's own client, held to scoring."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import torch

import arpas
import fairway
import models
from fairway.corpus import Document
from fairway.serve.openai import completions
from fairway.serve.openai.stream import Token
from fairway.serve.openai.tokenizing import Words
from serving import served as serving

CLOSE = 2e-5
TEXT = "Once upon a time there was a hen 🦙 in the garden, é"
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    words = models.tokenizer()
    words.chat_template = TEMPLATE + "{% if add_generation_prompt %}[assistant] {% endif %}"
    path = tmp_path_factory.mktemp("arpa") / "two.arpa"
    path.write_text(arpas.write(arpas.draw(1, ["the", "hen"], 2), 2), "utf-8")
    ends = models.build("gpt2")
    ends.lm_head = torch.nn.Linear(models.WIDTH, models.VOCABULARY)
    with torch.no_grad():
        ends.lm_head.bias[1] = 30.0
    return {
        "builtin": fairway.load("hf:builtin"),
        "talks": fairway.load(models.build("gpt2"), tokenizer=words),
        "ends": fairway.load(ends, tokenizer=models.tokenizer()),
        "grams": fairway.load(f"arpa:{path}"),
    }


@pytest.fixture(scope="module")
def url(scorers: dict[str, Any]) -> Iterator[str]:
    kinds = {"builtin": "hf", "talks": "hf", "ends": "hf", "grams": "arpa"}
    with serving({name: (kinds[name], one) for name, one in scorers.items()}) as found:
        yield found


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def scored(scorer: Any, ids: list[int]) -> list[float]:
    """Log-probabilities of ids by one window for each, as the model would write them."""
    bare = scorer.bare()
    room = bare.room or len(ids)
    spans = [Document("", "", ids=np.array(ids[max(0, i + 1 - room) : i + 1])) for i in
             range(1, len(ids))]  # fmt: skip
    return [float(one.logprobs[-1]) for one in bare.score(spans)]


def test_an_echoed_prompt_is_scored(client: Any, scorers: dict[str, Any]) -> None:
    made = client.completions.create(
        model="builtin", prompt=TEXT, echo=True, logprobs=3, max_tokens=0
    )
    (choice,) = made.choices
    told = choice.logprobs
    (coded,) = scorers["builtin"].vocabulary.encode([TEXT])
    assert choice.text == TEXT and choice.finish_reason == "length"
    assert told.token_ids == coded.ids.tolist()
    assert told.text_offset == coded.offsets[:, 0].tolist()
    assert b"".join(map(bytes, told.bytes)) == TEXT.encode()
    assert told.token_logprobs[0] is None and told.top_logprobs[0] is None
    assert told.token_logprobs[1:] == pytest.approx(
        scored(scorers["builtin"], coded.ids.tolist()), abs=CLOSE
    )
    for name, value, top in zip(
        told.tokens[1:], told.token_logprobs[1:], told.top_logprobs[1:], strict=True
    ):
        assert top[name] == value and 3 <= len(top) <= 4
        assert max(top.values()) == next(iter(top.values()))
    # The parts of the llama are no text by themselves.
    assert [one for one in told.tokens if one.startswith("bytes:")][0] == "bytes:\\xf0"
    assert made.usage.prompt_tokens == len(coded.ids) == made.usage.total_tokens
    assert made.system_fingerprint == str(scorers["builtin"].bare().signature)


def test_prompts_as_ids_and_lists(client: Any, scorers: dict[str, Any]) -> None:
    texts = ["the hen and", "a cat in the garden"]
    ids = [one.ids.tolist() for one in scorers["builtin"].vocabulary.encode(texts)]
    settings = {"model": "builtin", "echo": True, "logprobs": 0, "max_tokens": 0}
    by_text = client.completions.create(prompt=texts, **settings)
    by_ids = client.completions.create(prompt=ids, **settings)
    for one, other, own in zip(by_text.choices, by_ids.choices, ids, strict=True):
        assert one.to_dict() == other.to_dict()
        assert one.logprobs.top_logprobs is None
        assert one.logprobs.token_logprobs[1:] == pytest.approx(
            scored(scorers["builtin"], own), abs=CLOSE
        )
        single = client.completions.create(prompt=own, **settings).choices[0]
        assert (
            single.logprobs.token_logprobs
            == pytest.approx(one.logprobs.token_logprobs, abs=CLOSE, nan_ok=True)
            or single.logprobs.token_logprobs[0] is None
        )
    prefixed = client.completions.create(
        prompt=texts[0], extra_body={"add_special_tokens": True}, **settings
    ).choices[0]
    (score,) = scorers["builtin"].score([Document("text", texts[0])])
    assert prefixed.text == texts[0] and prefixed.logprobs.tokens[0] == "<s>"
    assert prefixed.logprobs.token_logprobs[1:] == pytest.approx(score.logprobs, abs=CLOSE)


def test_one_more_id_than_positions_is_only_predicted(client: Any, scorers: Any) -> None:
    ids = np.random.default_rng(3).integers(2, 260, models.POSITIONS + 1).tolist()
    settings = {"model": "talks", "logprobs": 1, "temperature": 0}
    made = client.completions.create(prompt=ids, echo=True, max_tokens=1, **settings).choices[0]
    whole = made.logprobs.token_logprobs
    assert whole[1:-1] == pytest.approx(scored(scorers["talks"], ids), abs=CLOSE)
    # What is written behind it has the last of the ids before it that the model can read.
    short = client.completions.create(prompt=ids[1:], max_tokens=1, **settings).choices[0]
    assert made.logprobs.token_ids[-1] == short.logprobs.token_ids[0]
    assert whole[-1] == pytest.approx(short.logprobs.token_logprobs[0], abs=1e-12)
    with pytest.raises(openai.BadRequestError, match="reads 64 and one more") as caught:
        client.completions.create(prompt=[*ids, 7], max_tokens=1, model="talks")
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("logprobs", [0, 3])
def test_one_likeliest_token_is_told_by_the_same_pass(
    client: Any, scorers: Any, logprobs: int
) -> None:
    """As clients ask that only score; it is what the model writes, in one pass less."""
    texts = ["the hen", "Once upon a time there was", "é 🦙"]
    settings = {"model": "builtin", "echo": True, "logprobs": logprobs, "temperature": 0}
    one = client.completions.create(prompt=texts, max_tokens=1, **settings)
    two = client.completions.create(prompt=texts, max_tokens=2, **settings)
    for choice, other in zip(one.choices, two.choices, strict=True):
        assert other.text.startswith(choice.text) and choice.finish_reason == "length"
        size = len(choice.logprobs.tokens)
        for name, column in choice.logprobs.to_dict().items():
            wanted = getattr(other.logprobs, name)
            if name == "top_logprobs" and logprobs:
                assert list(column[-1]) == list(wanted[size - 1])
                column = [list(top.values()) for top in column[1:]]
                wanted = [[0.0], *(list(top.values()) for top in wanted[1:])][:size]
                assert column == [pytest.approx(top, abs=CLOSE) for top in wanted[1:]]
            elif name == "token_logprobs":
                assert column[1:] == pytest.approx(wanted[1:size], abs=CLOSE)
            else:
                assert column == (wanted and wanted[:size]), name
    assert one.usage.completion_tokens == len(texts)
    streamed = client.completions.create(prompt=texts[0], max_tokens=1, stream=True, **settings)
    assert "".join(part.choices[0].text for part in streamed) == one.choices[0].text


def test_a_token_that_ends_a_text_is_told(client: Any) -> None:
    """lm-eval takes the last entry off, whatever it is."""
    for tokens in (1, 2):
        made = client.completions.create(
            model="ends", prompt=[5, 6, 7], echo=True, logprobs=1, max_tokens=tokens, temperature=0
        )
        (choice,) = made.choices
        assert choice.logprobs.token_ids == [5, 6, 7, 1] and choice.finish_reason == "stop"
        assert choice.logprobs.tokens[-1] == "</s>" and choice.logprobs.bytes[-1] == []
        assert choice.text == "".join(choice.logprobs.tokens[:-1])
        assert made.usage.completion_tokens == 1


def test_written_text_is_scored_as_it_was_written(client: Any, scorers: Any) -> None:
    made = client.completions.create(
        model="builtin", prompt="The old man", max_tokens=24, seed=5, temperature=0.8, top_p=0.9,
        n=2, logprobs=2, extra_body={"return_token_ids": True},
    )  # fmt: skip
    assert [one.index for one in made.choices] == [0, 1]
    assert made.choices[0].text != made.choices[1].text
    for one in made.choices:
        ids = [*one.prompt_token_ids, *one.token_ids]
        assert one.logprobs.token_logprobs == pytest.approx(
            scored(scorers["builtin"], ids)[-len(one.token_ids) :], abs=CLOSE
        )
        assert b"".join(map(bytes, one.logprobs.bytes)).decode("utf-8", "replace") == one.text
    # The second choice is what its own seed gives.
    again = client.completions.create(
        model="builtin", prompt="The old man", max_tokens=24, seed=6, temperature=0.8, top_p=0.9
    )
    assert again.choices[0].text == made.choices[1].text
    assert made.usage.completion_tokens == sum(len(one.token_ids) for one in made.choices)


@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_is_the_answer_in_parts(client: Any, echo: bool) -> None:
    settings = {
        "model": "talks", "prompt": ["the é", "an 🦙"], "n": 2, "max_tokens": 40, "seed": 2,
        "logprobs": 2, "echo": echo, "temperature": 1.3,
        "extra_body": {"ignore_eos": True},
    }  # fmt: skip
    free = client.completions.create(**settings).choices[0].logprobs
    settings["stop"] = [next(one for one in free.tokens[20:] if one.isascii() and len(one) == 1)]
    whole = client.completions.create(**settings)
    parts: dict[int, list[Any]] = {}
    usage = None
    for chunk in client.completions.create(
        stream=True, stream_options={"include_usage": True}, **settings
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            parts.setdefault(choice.index, []).append(choice)
    assert usage.to_dict() == whole.usage.to_dict()
    for choice in whole.choices:
        mine = parts[choice.index]
        assert "".join(one.text for one in mine) == choice.text
        assert mine[-1].finish_reason == choice.finish_reason
        assert all(one.finish_reason is None for one in mine[:-1])
        for name, column in choice.logprobs.to_dict().items():
            assert [x for one in mine for x in getattr(one.logprobs, name)] == column, name
    assert whole.choices[0].finish_reason == "stop"


def test_chat_streams_what_it_answers(client: Any, scorers: Any) -> None:
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": one} for one in ("the ", "hen")]},
    ]
    settings = {
        "model": "talks", "messages": messages, "seed": 9, "max_completion_tokens": 14,
        "logprobs": True, "top_logprobs": 2, "n": 2, "extra_body": {"return_token_ids": True},
    }  # fmt: skip
    whole = client.chat.completions.create(**settings)
    prompt = scorers["talks"].chat([messages[0], {"role": "user", "content": "the hen"}])
    for choice in whole.choices:
        entries = choice.logprobs.content
        assert choice.prompt_token_ids == prompt
        raw = b"".join(bytes(one.bytes or []) for one in entries)
        assert raw.decode("utf-8", "replace") == choice.message.content
        found = scored(scorers["talks"], [*prompt, *choice.token_ids])[len(prompt) - 1 :]
        assert [one.logprob for one in entries] == pytest.approx(found[: len(entries)], abs=CLOSE)
        assert all(len(one.top_logprobs) == 2 for one in entries)
    streamed: dict[int, list[Any]] = {0: [], 1: []}
    for chunk in client.chat.completions.create(stream=True, **settings):
        streamed[chunk.choices[0].index].append(chunk.choices[0])
    for choice in whole.choices:
        mine = streamed[choice.index]
        assert mine[0].delta.role == "assistant"
        assert "".join(one.delta.content or "" for one in mine) == choice.message.content
        content = [x.to_dict() for one in mine if one.logprobs for x in one.logprobs.content]
        assert content == [one.to_dict() for one in choice.logprobs.content]
        assert mine[-1].finish_reason == choice.finish_reason


@pytest.mark.parametrize(
    ("path", "sent", "says"),
    [
        ("completions", {"prompt": ""}, "holds no token"),
        ("completions", {}, "prompt must be"),
        ("completions", {"prompt": ["a", [1]]}, "prompt must be"),
        ("completions", {"prompt": [True]}, "prompt must be"),
        ("completions", {"prompt": [10**6]}, "holds token id 1000000"),
        ("completions", {"prompt": "a\ud800"}, "surrogate"),
        ("completions", {"prompt": "a", "max_tokens": 0}, "only with echo"),
        ("completions", {"prompt": "a", "max_tokens": -1}, "whole number from 0"),
        ("completions", {"prompt": "a", "max_tokens": 10**9}, "are more than the 4096"),
        ("completions", {"prompt": "a", "n": 10**6}, "n must be"),
        ("completions", {"prompt": "a", "logprobs": 21}, "from 0 to 20"),
        ("completions", {"prompt": "a", "logprobs": True}, "from 0 to 20"),
        ("completions", {"prompt": "a", "temperature": -1}, "temperature must be"),
        ("completions", {"prompt": "a", "top_p": "x"}, "top_p must be"),
        ("completions", {"prompt": "a", "stop": [""]}, "stop must be"),
        ("completions", {"prompt": "a", "best_of": 3}, "best_of"),
        ("completions", {"prompt": "a", "suffix": "b"}, "suffix is not to be had"),
        ("completions", {"prompt": "a", "max_token": 3}, "no setting 'max_token'"),
        ("completions", {"prompt": "a", "model": "grams"}, "writes no text"),
        (
            "completions",
            {"prompt": "a", "model": "grams", "max_tokens": 0, "echo": True, "logprobs": 0},
            "reads no bare token ids",
        ),
        ("chat/completions", {"messages": []}, "messages must be"),
        ("chat/completions", {"messages": [{"role": "user"}]}, "Message 1"),
        ("chat/completions", {"messages": [{"role": "user", "content": "a"}]}, "no chat template"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "a" * 99}], "model": "talks"},
            "The messages have",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2, "model": "talks"},
            "goes with logprobs",
        ),
    ],
)
def test_what_cannot_be_done_is_said(url: str, path: str, sent: Any, says: str) -> None:
    # As JSON's own escapes, which can hold what is no text.
    body, kind = json.dumps(sent).encode(), {"Content-Type": "application/json"}
    answer = httpx2.post(f"{url}/v1/{path}", content=body, headers=kind)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert says in error["message"] and error["type"] == "invalid_request_error"


def test_what_asks_for_nothing_is_taken(client: Any) -> None:
    made = client.completions.create(
        model="builtin", prompt="the", max_tokens=1, presence_penalty=0, frequency_penalty=0.0,
        logit_bias={}, user="me", best_of=1, suffix=None,
    )  # fmt: skip
    assert made.choices[0].logprobs is None


def test_alternatives_spelled_alike_are_told_apart(scorers: Any) -> None:
    """Vocabularies with byte fallback have two tokens of many a letter."""
    words = Words(scorers["builtin"].vocabulary, (b"a", b"a", b"\xf0"), (), None, None)
    token = Token(1, b"a", 0, -2.0, ((0, -1.0), (2, -1.5), (7, -1.75)))
    found = completions.top(words, token)
    assert list(found.items()) == [
        ("token_id:0", -1.0), ("bytes:\\xf0", -1.5), ("token_id:7", -1.75), ("a", -2.0)
    ]  # fmt: skip


def test_the_list_of_models_says_how_much_they_read(client: Any) -> None:
    found = {one.id: one.max_model_len for one in client.models.list()}
    assert found["builtin"] == 512 and found["talks"] == models.POSITIONS


def test_tokens_there_and_back(url: str, scorers: Any) -> None:
    for key in ("content", "prompt", "text"):
        made = httpx2.post(f"{url}/tokenize", json={key: TEXT}).json()
        (coded,) = scorers["builtin"].vocabulary.encode([TEXT])
        assert made["tokens"] == coded.ids.tolist() and made["count"] == len(coded.ids)
        assert made["offsets"] == coded.offsets.tolist() and made["max_model_len"] == 512
        spelled = [p.encode() if isinstance(p, str) else bytes(p) for p in made["pieces"]]
        assert b"".join(spelled) == TEXT.encode()
    back = httpx2.post(f"{url}/detokenize", json={"tokens": made["tokens"]}).json()
    assert back["text"] == back["prompt"] == back["content"] == TEXT
    front = httpx2.post(f"{url}/tokenize", json={"text": "a", "add_special_tokens": True}).json()
    assert front["pieces"] == ["<s>", "a"] and front["offsets"] == [[0, 0], [0, 1]]
    for path, sent in (("tokenize", {"text": 3}), ("detokenize", {"tokens": "x"})):
        assert httpx2.post(f"{url}/{path}", json=sent).status_code == 400
