"""``POST /v1/completions``: OpenAI's, with the log-probabilities of the prompt's own tokens."""

from __future__ import annotations

import asyncio
import codecs
import math
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairway.corpus import Document
from fairway.errors import FairwayError
from fairway.generation import Sampling, Step
from fairway.scores import Score, number
from fairway.serve.answering import answer
from fairway.serve.openai import asking, stream, tokenizing
from fairway.serve.openai.asking import Asked
from fairway.serve.openai.stream import Part, Token
from fairway.serve.openai.tokenizing import Words
from fairway.serve.problems import Problem, body, of
from fairway.serve.state import Served, state


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt.

    Attributes:
        text: as it was sent, or what its ids spell.
        tokens: with their places in it; scored where that was asked for.
        behind: the likeliest token behind them, where scoring told it and it is all that is asked
            for.
    """

    text: str
    tokens: tuple[Token, ...]
    behind: Step | None = None

    @property
    def ids(self) -> list[int]:
        """Of the tokens."""
        return [one.id for one in self.tokens]


@dataclass(frozen=True, slots=True)
class Work:
    """A request that is understood.

    Attributes:
        served: the model.
        words: its tokenizer.
        asked: settings.
        echo: whether answers begin with their prompts.
        prompts: in order.
        head: what every object that is sent begins with.
    """

    served: Served
    words: Words
    asked: Asked
    echo: bool
    prompts: tuple[Prompt, ...]
    head: Mapping[str, Any] = field(default_factory=dict)


async def completions(request: Request) -> Response:
    """Score prompts, write behind them, or both."""
    work = await _understand(request)
    if work.asked.stream:
        return await stream.respond(_events(work))
    answers = []
    for index, prompt, sampling in _choices(work):
        parts = [_echoed(prompt)] if work.echo else []
        parts += [part async for part in _grow(work, prompt, sampling)]
        answers.append((index, prompt, stream.joined(parts)))
    size = sum(len(one.text) for _, _, one in answers)
    return await answer(size, lambda: _whole(work, answers))


def _whole(work: Work, answers: Sequence[tuple[int, Prompt, Part]]) -> dict[str, Any]:
    """Write an answer."""
    choices = [_choice(work, *one) for one in answers]
    usage = _usage(work, sum(one.written for _, _, one in answers))
    return {**work.head, "choices": choices, "usage": usage}


async def _events(work: Work) -> AsyncIterator[str]:
    """Give the events of a stream."""
    extra = {"usage": None} if work.asked.usage else {}
    written = 0
    for index, prompt, sampling in _choices(work):
        if work.echo:
            part = _echoed(prompt)
            choice = _choice(work, index, prompt, part)
            yield stream.event({**work.head, "choices": [choice], **extra})
        async for part in _grow(work, prompt, sampling):
            written += part.written
            choice = _choice(work, index, prompt, part)
            yield stream.event({**work.head, "choices": [choice], **extra})
    if work.asked.usage:
        yield stream.event({**work.head, "choices": [], "usage": _usage(work, written)})


def _grow(work: Work, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Part]:
    start = len(prompt.text) if work.echo else 0
    stops = work.asked.stops
    return stream.grow(work.served, prompt.ids, sampling, stops, start, prompt.behind)


def _choices(work: Work) -> Any:
    """Give index, prompt and sampling of each choice that is to be made."""
    for place, prompt in enumerate(work.prompts):
        for number_ in range(work.asked.n):
            yield place * work.asked.n + number_, prompt, work.asked.drawn(number_)


async def _understand(request: Request) -> Work:
    """Read a request, tokenize its prompts, and score them where that was asked for."""
    given = await body(request)
    kept = state(request)
    served = kept.find(given.get("model"))
    data = asking.refuse(given, asking.COMPLETION)
    items = _prompts(data.get("prompt"))
    asked = asking.completion(data, len(items), kept.settings.limits)
    echo = asking.flag(data, "echo")
    _able(served, asked, echo)
    words = await tokenizing.words(request, served)
    special = asking.flag(data, "add_special_tokens")
    prompts = await served.lane.call(lambda: tuple(_prompt(words, one, special) for one in items))
    for place, prompt in enumerate(prompts):
        _fits(words, prompt, place, len(prompts))
    if echo and asked.logprobs is not None:
        prompts = await _scored(served, words, prompts, asked)
    head = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": str((words.bare or served.scorer).signature),
    }
    return Work(served, words, asked, echo, prompts, head)


def _prompts(given: Any) -> list[str] | list[list[int]]:
    """Read ``prompt``: a text, texts, token ids, or lists of them.

    Raises:
        Problem: for anything else.
    """
    items = given if isinstance(given, list) else [given]
    if items and all(type(one) is int for one in items):
        items = [items]
    texts = all(isinstance(one, str) for one in items)
    ids = all(isinstance(one, list) and all(type(i) is int for i in one) for one in items)
    if not items or not (texts or ids):
        raise Problem(
            400, "prompt must be a text, a list of texts, token ids, or a list of lists of them."
        )
    return items


def _able(served: Served, asked: Asked, echo: bool) -> None:
    """Refuse what a model cannot do.

    Raises:
        Problem: naming its kind.
    """
    scores = echo and asked.logprobs is not None
    lacks = "generate" if asked.sampling.max_tokens else "bare" if scores else None
    for need in {lacks, "bare" if scores else lacks} - {None}:
        if need and not hasattr(served.scorer, need):
            what = "writes no text" if need == "generate" else "reads no bare token ids"
            raise Problem(
                400,
                f"{served.name} ({served.kind}:) {what}; its scores are to be had from /v1/score.",
                "unsupported_model",
            )


def _prompt(words: Words, item: str | list[int], special: bool) -> Prompt:
    """Tokenize a prompt, without special tokens unless they are asked for."""
    front = tuple(Token(one, b"", 0) for one in words.prefix) if special else ()
    if isinstance(item, str):
        (coded,) = words.vocabulary.encode([item])
        ids, starts = coded.ids.tolist(), coded.offsets[:, 0].tolist()
        made = zip(ids, words.spelled(item, ids), starts, strict=True)
        return Prompt(item, front + tuple(Token(*one) for one in made))
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, tokens = "", []
    for one in tokenizing.check_ids(item, words, "prompt"):
        tokens.append(Token(one, words.raw(one), len(text)))
        text += decoder.decode(words.raw(one))
    return Prompt(text + decoder.decode(b"", True), front + tuple(tokens))


def _fits(words: Words, prompt: Prompt, place: int, prompts: int) -> None:
    """Refuse a prompt that is empty, or too long.

    Raises:
        Problem: for either.
    """
    size = len(prompt.tokens)
    name = "The prompt" if prompts == 1 else f"Prompt {place + 1}"
    if not size:
        raise Problem(
            400,
            f"{name} holds no token; send some, or add_special_tokens: true for the prefix that "
            "texts of this model begin with, where it has one.",
        )
    if words.room is not None and size > words.room:
        raise Problem(
            400,
            f"{name} has {size} tokens, and this model reads {words.positions} and one more that "
            f"is only predicted; send at most {words.room}.",
            "context_length_exceeded",
        )


async def _scored(
    served: Served, words: Words, prompts: Sequence[Prompt], asked: Asked
) -> tuple[Prompt, ...]:
    """Score prompts, beside those of other requests.

    Clients that only score ask for one token all the same. The likeliest is known from the same
    pass: a token more is scored, whatever it is, and the alternatives to it are what may follow.
    """
    top = asked.logprobs or 0
    sampling = asked.sampling
    single = sampling.max_tokens == 1 and sampling.temperature == 0
    documents, ahead = [], []
    for place, one in enumerate(prompts):
        ahead.append(single and (words.room is None or len(one.tokens) < words.room))
        ids = [*one.ids, *one.ids[-1:]] if ahead[-1] else one.ids
        documents.append(Document(f"prompt {place + 1}", "", ids=np.asarray(ids, np.int64)))
    count = max(top, 1) if any(ahead) else top
    want = (f"top{count}",) if count else ()
    found = []
    outcomes = await served.lane.score(documents, want, words.bare)
    for prompt, more, outcome in zip(prompts, ahead, outcomes, strict=True):
        if isinstance(outcome, FairwayError):
            raise of(outcome)
        tokens = await asyncio.to_thread(_with_scores, prompt.tokens, outcome, count, top)
        behind = _behind(words, outcome, count, asked) if more else None
        found.append(Prompt(prompt.text, tokens, behind))
    return tuple(found)


def _behind(words: Words, score: Score, count: int, asked: Asked) -> Step | None:
    """Give the likeliest token in the place of a score's last; None where it is none of text."""
    best = _best(score, len(score) - 1, count)
    token, logprob = best[0]
    if token >= len(words.pieces):
        return None
    ends = token in words.ends and not asked.sampling.ignore_end
    told = best[: asked.logprobs or 0]
    return Step(
        token, logprob, b"" if ends else words.raw(token), tuple(one for one, _ in told),
        tuple(value for _, value in told), ends,
    )  # fmt: skip


def _best(score: Score, place: int, count: int) -> tuple[tuple[int, float], ...]:
    """Give ids and logprobs of the likeliest tokens at a place."""
    ids, values = score.extras[f"top{count}"][place], score.extras[f"top{count}_logprob"][place]
    return tuple((int(a), b) for a, b in zip(ids.tolist(), values.tolist(), strict=True))


def _with_scores(tokens: Sequence[Token], score: Score, count: int, top: int) -> tuple[Token, ...]:
    """Give tokens their scores, and so many of the likeliest as are told."""
    out = []
    for place, one in enumerate(tokens):
        logprob = float(score.logprobs[place])
        if math.isnan(logprob):
            out.append(one)
            continue
        best = _best(score, place, count)[:top] if top else ()
        out.append(Token(one.id, one.raw, one.start, logprob, best))
    return tuple(out)


def _echoed(prompt: Prompt) -> Part:
    return Part(prompt.text, prompt.tokens)


def _choice(work: Work, index: int, prompt: Prompt, part: Part) -> dict[str, Any]:
    """Write an answer, or a part of one, in OpenAI's form."""
    told = None if work.asked.logprobs is None else _logprobs(work, part.tokens)
    out = {
        "index": index, "text": part.text, "logprobs": told, "finish_reason": part.finish,
    }  # fmt: skip
    if work.asked.ids:
        out["prompt_token_ids"] = prompt.ids
        out["token_ids"] = [one.id for one in part.tokens]
    return out


def _logprobs(work: Work, tokens: Sequence[Token]) -> dict[str, Any]:
    """Write tokens as OpenAI does, and beside them their bytes and ids, so that nothing is lost."""
    words = work.words
    return {
        "tokens": [words.name(one.id, one.raw) for one in tokens],
        "token_logprobs": [None if one.logprob is None else number(one.logprob) for one in tokens],
        "top_logprobs": [top(words, one) for one in tokens] if work.asked.logprobs else None,
        "text_offset": [one.start for one in tokens],
        "bytes": [list(one.raw) for one in tokens],
        "token_ids": [one.id for one in tokens],
    }


def top(words: Words, token: Token) -> dict[str, Any] | None:
    """Write the likeliest tokens by their spelling, and the one that is there, if it is none.

    Of two that are spelled alike the second goes by its id.
    """
    if token.logprob is None:
        return None
    names = {token.id: words.name(token.id, token.raw)}
    for one, _ in token.top:
        if one not in names:
            name = words.name(one)
            names[one] = f"token_id:{one}" if name in names.values() else name
    known = dict(token.top)
    known[token.id] = token.logprob
    return {names[one]: number(known[one]) for one in known}


def _usage(work: Work, written: int) -> dict[str, int]:
    read = sum(len(one.tokens) for one in work.prompts)
    return {
        "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
    }  # fmt: skip


ROUTES = (Route("/v1/completions", completions, methods=["POST"]),)
