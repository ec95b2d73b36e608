"""One answer by itself: planted bugs have their names, and right answers have none."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fairway
import models
from fairway.backends.openai import checking, covering
from fairway.backends.openai.answer import Answer, Asked, Entry
from fairway.backends.openai.defects import find, refusal
from fairway.backends.openai.routes import ROUTES, Wish
from fairway.backends.openai.transport import loads
from fairway.corpus import Document
from fairway.errors import ModelError
from fairway.serve.faults.answers import Memory, spoil
from fairway.serve.faults.bugs import BUGS

TEXT = "na\u00efve caf\u00e9 \U0001f600, the hen in the inn \u65e5\u672c and the garden there"
CHEAP = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TOP = 5

SAID = {
    "zeros": "all zeros",
    "generated-only": "no log-probabilities",
    "clamped": "clamped log-probabilities",
    "infinite": "infinite numbers",
    "positive": "positive log-probabilities",
    "first-number": "wrong first token",
    "first-zero": "wrong first token",
    "bos-scored": "BOS scored",
    "null-inside": "null inside",
    "head-cut": "truncated prompt",
    "tail-cut": "truncated prompt",
    "lost-bytes": "lost tokens",
    "lost-characters": "lost bytes",
    "replacement": "replacement characters",
    "copied-top": "copied alternatives",
    "doubled": "repeated tokens",
    "repeated": "repeated tokens",
    "log10": "wrong units",
}
"""Bugs that show in one answer."""
ONLY_NOTED = ("replacement", "copied-top")


@pytest.fixture(scope="module")
def scorers(small: str) -> dict[str, Any]:
    return {
        "small": fairway.load(f"hf:{small}", prefix="none"),
        "builtin": fairway.load("hf:builtin", prefix="none"),
    }


def echoed(scorer: Any, text: str) -> dict[str, Any]:
    """A right answer in OpenAI's form, from local numbers."""
    (score,) = scorer.score([Document("a", text)], (f"top{TOP}",))
    ids, values = score.extras[f"top{TOP}"], score.extras[f"top{TOP}_logprob"]
    tokens = [text[a:b] for a, b in score.offsets.tolist()]
    spans = score.offsets.tolist()
    for at, span in enumerate(spans):
        if spans.count(span) > 1:
            tokens[at] = "\ufffd"
    tops: list[Any] = []
    for at, own in enumerate(score.ids.tolist()):
        if math.isnan(score.logprobs[at]):
            tops.append(None)
            continue
        both = zip(ids[at], values[at], strict=True)
        held = {f"token_id:{int(one)}": v for one, v in both if int(one) != own}
        held[tokens[at]] = float(score.logprobs[at])
        tops.append(held)
    told = {
        "tokens": tokens,
        "token_logprobs": [None if math.isnan(v) else v for v in score.logprobs.tolist()],
        "top_logprobs": tops,
        "text_offset": [a for a, _ in spans],
        "token_ids": score.ids.tolist(),
    }
    size = len(tokens)
    usage = {"prompt_tokens": size, "completion_tokens": 0}
    return {"choices": [{"index": 0, "text": text, "logprobs": told}], "usage": usage}


def vllm(scorer: Any, text: str) -> dict[str, Any]:
    """The same in vLLM's form."""
    (score,) = scorer.score([Document("a", text)], (f"top{TOP}",))
    ids, values = score.extras[f"top{TOP}"], score.extras[f"top{TOP}_logprob"]
    spans = score.offsets.tolist()
    told: list[Any] = []
    for at, own in enumerate(score.ids.tolist()):
        if math.isnan(score.logprobs[at]):
            told.append(None)
            continue
        held = {str(int(one)): v for one, v in zip(ids[at], values[at], strict=True)}
        held[str(own)] = float(score.logprobs[at])
        told.append({k: {"logprob": v, "rank": 1, "decoded_token": "?"} for k, v in held.items()})
        whole = at + 1 == len(spans) or spans[at + 1] != spans[at]
        told[-1][str(own)]["decoded_token"] = text[slice(*spans[at])] if whole else ""
    choice = {
        "index": 0,
        "text": "",
        "prompt_logprobs": told,
        "prompt_token_ids": score.ids.tolist(),
    }
    usage = {"prompt_tokens": len(told), "completion_tokens": 1}
    return {"choices": [choice], "usage": usage}


def examined(route: str, data: dict[str, Any], text: str, *bugs: str) -> tuple[Any, ...]:
    """Spoil an answer, read it as the client does, and examine it."""
    asked = Asked(text, None, route, 0)
    body = json.dumps(ROUTES[route].body(asked, Wish("m", TOP, 1))).encode()
    raw = json.dumps(data).encode()
    out = spoil(raw, body, bugs, Memory()) if bugs else None
    return find(asked, ROUTES[route].read(loads(raw if out is None else out), asked))


def test_each_bug_is_in_a_table() -> None:
    several = {"missing", "shifted", "shifted-late", "temperature", "stale", "log2", "log2-all"}
    assert set(SAID) | several == set(BUGS)


@pytest.mark.parametrize("plain", [(), ("plain",)])
@pytest.mark.parametrize("bug", list(SAID))
def test_a_bug_has_its_name(scorers: Any, bug: str, plain: tuple[str, ...]) -> None:
    if plain and bug == "lost-bytes":
        pytest.skip("without a count of tokens nothing tells that one is lost")
    data = echoed(scorers["builtin"], TEXT)
    found = examined("echo", data, TEXT, bug, *plain)
    names = [one.name for one in found]
    if plain and bug == "first-number":
        assert names in ([], ["replacement characters"])
        return
    assert SAID[bug] in names, names
    assert (refusal(found, "a text") is None) == (bug in ONLY_NOTED), found
    assert all(one.evidence and one.fix for one in found)


@pytest.mark.parametrize("bug", [*SAID, "missing"])
def test_in_the_form_of_vllm_too(scorers: Any, bug: str) -> None:
    if bug in (
        "bos-scored",
        "replacement",
        "repeated",
        "doubled",
        "head-cut",
        "copied-top",
        "lost-bytes",
    ):
        pytest.skip("other columns of that form change with it")
    found = examined("prompt_logprobs", vllm(scorers["builtin"], TEXT), TEXT, bug)
    wanted = {**SAID, "missing": "missing log-probabilities"}[bug]
    assert wanted in [one.name for one in found] or bug in ("lost-bytes", "lost-characters")
    assert refusal(found, "a text") is not None, found


texts = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=2, max_size=16),
    st.builds(lambda word, n: (word * n)[:60], st.sampled_from(["ha ", "the", "a", " 7"]),
              st.integers(2, 20)),
    st.lists(st.sampled_from(TEXT.split()), min_size=2, max_size=8).map(" ".join),
)  # fmt: skip


@pytest.mark.parametrize("name", ["small", "builtin"])
@CHEAP
@given(text=texts)
def test_right_answers_have_no_defect(scorers: Any, name: str, text: str) -> None:
    data = echoed(scorers[name], text)
    if len(data["choices"][0]["logprobs"]["tokens"]) < 2:
        return
    for plain in ((), ("plain",)):
        found = examined("echo", data, text, *plain)
        assert all(one.name == "replacement characters" for one in found), found
    found = examined("prompt_logprobs", vllm(scorers[name], text), text)
    assert not found, found


@CHEAP
@given(
    opening=st.lists(st.floats(-12, -0.01), min_size=1, max_size=8),
    rest=st.lists(st.sampled_from([0.0, -0.0, -1e-10, -1.2e-7]), min_size=1, max_size=400),
    words=st.integers(1, 4),
)
def test_a_repeated_text_is_not_called_zeros(
    opening: list[float], rest: list[float], words: int
) -> None:
    """A peaked model was not sure at first, and is sure of every later word."""
    values = [None, *opening, *rest]
    names = [f"w{at % words}" for at in range(len(values))]
    entries = tuple(Entry(n, logprob=v) for n, v in zip(names, values, strict=True))
    found = find(Asked("".join(names)), Answer(entries))
    assert not found, found


@CHEAP
@given(size=st.integers(2, 100), stray=st.integers(0, 1))
def test_zeros_are_zeros(size: int, stray: int) -> None:
    values: list[float | None] = [None, *[0.0] * size]
    if stray and size >= 40:
        values[-1] = -0.7
    names = [f"w{at};" for at in range(len(values))]
    entries = tuple(Entry(n, logprob=v) for n, v in zip(names, values, strict=True))
    (found,) = find(Asked("".join(names)), Answer(entries))
    assert found.name == "all zeros" and found.refuse


@CHEAP
@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
def test_every_spelling_of_a_text_covers_it(text: str) -> None:
    """Bytes as tokens, spelled in each of the ways that servers have."""
    core = models.tokenizer().backend_tokenizer
    codes = core.encode(text, add_special_tokens=False)
    raws = [covering.byte_alphabet()]
    spellings = [[Entry(one) for one in codes.tokens]]
    pieces = [bytes(raws[0][c] for c in one) for one in codes.tokens]
    spellings.append([Entry(one.decode("utf-8", "replace")) for one in pieces])
    spellings.append([Entry(one.decode("utf-8", "ignore")) for one in pieces])
    spellings.append([Entry(None, raw=one) for one in pieces])
    for entries in spellings:
        assert covering.covers(entries, text) == covering.WHOLE, entries
    if len(text.encode()) == len(text) > 4 and len(set(text)) == len(text):
        whole = [Entry(one) for one in text]
        if not text.isspace() and not any(c.isspace() for c in text):
            assert covering.covers(whole[2:], text) == covering.HEAD
            assert covering.covers(whole[:-2], text) == covering.TAIL
            assert covering.covers([*whole, *whole], text) == covering.TWICE


def test_copied_alternatives_are_refused_where_they_are_asked_for(scorers: Any) -> None:
    asked = Asked(TEXT, None, "echo", 0)
    data = echoed(scorers["builtin"], TEXT)
    checking.lists(asked, ROUTES["echo"].read(loads(json.dumps(data).encode()), asked))
    body = json.dumps(ROUTES["echo"].body(asked, Wish("m", TOP, 1))).encode()
    out = spoil(json.dumps(data).encode(), body, ["copied-top"], Memory())
    assert out is not None
    with pytest.raises(ModelError, match="sglang#39260"):
        checking.lists(asked, ROUTES["echo"].read(loads(out), asked))


def test_numbers_are_what_was_sent(scorers: Any) -> None:
    """The examination itself changes nothing."""
    data = echoed(scorers["builtin"], TEXT)
    told = data["choices"][0]["logprobs"]["token_logprobs"]
    answer = ROUTES["echo"].read(loads(json.dumps(data).encode()), Asked(TEXT))
    assert [one.logprob for one in answer.entries] == told
    assert np.isfinite(told[1:]).all()
