"""``POST /v1/chat/completions``: an answer to messages, with its log-probabilities."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairway.scores import number
from fairway.serve.answering import answer
from fairway.serve.openai import asking, stream, tokenizing
from fairway.serve.openai.asking import Asked
from fairway.serve.openai.stream import Part, Token
from fairway.serve.openai.tokenizing import Words
from fairway.serve.problems import Problem, body
from fairway.serve.state import Served, state


@dataclass(frozen=True, slots=True)
class Work:
    """A request that is understood.

    Attributes:
        served: the model.
        words: its tokenizer.
        asked: settings.
        ids: of the messages, written out.
        head: what every object that is sent begins with.
    """

    served: Served
    words: Words
    asked: Asked
    ids: list[int]
    head: Mapping[str, Any]


async def chat(request: Request) -> Response:
    """Answer messages."""
    work = await _understand(request)
    if work.asked.stream:
        return await stream.respond(_events(work))
    answers = [
        stream.joined([part async for part in _grow(work, index)]) for index in range(work.asked.n)
    ]
    size = sum(len(one.text) for one in answers)
    return await answer(size, lambda: _whole(work, answers))


def _whole(work: Work, answers: Sequence[Part]) -> dict[str, Any]:
    """Write an answer."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": one.text, "refusal": None},
            "logprobs": _logprobs(work, one.tokens),
            "finish_reason": one.finish,
            **_ids(work, one.tokens),
        }
        for index, one in enumerate(answers)
    ]
    usage = _usage(work, sum(one.written for one in answers))
    return {**work.head, "object": "chat.completion", "choices": choices, "usage": usage}


async def _events(work: Work) -> AsyncIterator[str]:
    """Give the events of a stream."""
    head = {**work.head, "object": "chat.completion.chunk"}
    extra = {"usage": None} if work.asked.usage else {}
    written = 0

    def one(index: int, delta: dict[str, str], part: Part) -> str:
        choice = {
            "index": index, "delta": delta, "logprobs": _logprobs(work, part.tokens),
            "finish_reason": part.finish, **_ids(work, part.tokens),
        }  # fmt: skip
        return stream.event({**head, "choices": [choice], **extra})

    for index in range(work.asked.n):
        begun = False
        async for part in _grow(work, index):
            if not begun:
                yield one(index, {"role": "assistant", "content": ""}, Part())
                begun = True
            written += part.written
            if part.text or part.tokens:
                yield one(index, {"content": part.text}, Part(part.text, part.tokens))
            if part.finish:
                yield one(index, {}, Part(finish=part.finish))
    if work.asked.usage:
        yield stream.event({**head, "choices": [], "usage": _usage(work, written)})


def _grow(work: Work, index: int) -> AsyncIterator[Part]:
    sampling = work.asked.drawn(index)
    return stream.grow(work.served, work.ids, sampling, work.asked.stops)


async def _understand(request: Request) -> Work:
    """Read a request, and write its messages out."""
    given = await body(request)
    kept = state(request)
    served = kept.find(given.get("model"))
    data = asking.refuse(given, asking.CHAT)
    messages = _messages(data.get("messages"))
    scorer: Any = served.scorer
    if not hasattr(scorer, "generate") or not hasattr(scorer, "chat"):
        raise Problem(
            400,
            f"{served.name} ({served.kind}:) writes no text; its scores are to be had from "
            "/v1/score.",
            "unsupported_model",
        )
    words = await tokenizing.words(request, served)
    ids: list[int] = await served.lane.call(lambda: scorer.chat(messages))
    room = None if words.positions is None else words.positions - len(ids)
    if room is not None and room < 0:
        raise Problem(
            400,
            f"The messages have {len(ids)} tokens, and this model reads {words.positions}; send "
            "fewer.",
            "context_length_exceeded",
        )
    asked = asking.chat(data, room, kept.settings.limits)
    head = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": str((words.bare or scorer).signature),
    }
    return Work(served, words, asked, ids, head)


def _messages(given: Any) -> list[dict[str, str]]:
    """Read ``messages``: roles, and contents that are texts or lists of parts of text.

    Raises:
        Problem: for anything else.
    """
    if not isinstance(given, list) or not given:
        raise Problem(400, "messages must be a list of messages, with role and content.")
    found = []
    for place, one in enumerate(given, 1):
        role = one.get("role") if isinstance(one, dict) else None
        content = one.get("content") if isinstance(one, dict) else None
        if isinstance(content, list):
            content = _joined(content)
        if not isinstance(role, str) or not isinstance(content, str):
            raise Problem(400, f"Message {place} has no role and content that are texts.")
        found.append({"role": role, "content": content})
    return found


def _joined(parts: Sequence[Any]) -> str | None:
    texts = [
        one.get("text") if isinstance(one, dict) and one.get("type") == "text" else None
        for one in parts
    ]
    known = [one for one in texts if isinstance(one, str)]
    return "".join(known) if len(known) == len(texts) else None


def _logprobs(work: Work, tokens: Sequence[Token]) -> dict[str, Any] | None:
    """Write tokens as OpenAI does, the one that ends the text left out; their ids beside."""
    if work.asked.logprobs is None:
        return None
    content = [
        {
            **_entry(work.words, one.id, one.logprob or 0.0),
            "top_logprobs": [_entry(work.words, *other) for other in one.top],
            "id": one.id,
        }
        for one in tokens
        if not one.ends
    ]
    return {"content": content, "refusal": None}


def _entry(words: Words, token: int, logprob: float) -> dict[str, Any]:
    raw = words.raw(token)
    return {
        "token": words.name(token, mark=""),
        "logprob": number(logprob),
        "bytes": list(raw) if raw else None,
    }


def _ids(work: Work, tokens: Sequence[Token]) -> dict[str, Any]:
    if not work.asked.ids:
        return {}
    return {"prompt_token_ids": work.ids, "token_ids": [one.id for one in tokens]}


def _usage(work: Work, written: int) -> dict[str, int]:
    read = len(work.ids)
    return {
        "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
    }  # fmt: skip


ROUTES = (Route("/v1/chat/completions", chat, methods=["POST"]),)
