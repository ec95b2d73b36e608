"""Ways to ask a server for the log-probabilities of a prompt: a request's body, and its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairway.backends.openai.answer import Answer, Asked, Entry
from fairway.backends.openai.transport import Reply
from fairway.errors import ModelError

TOKEN_ID = "token_id:"
"""How vLLM spells a token whose id was asked for."""


class Strange(ModelError):
    """An answer that lacks what was asked for."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for beside the prompt.

    Attributes:
        model: the name in the request; empty = none is sent.
        top: alternatives of each token.
        write: tokens that are generated, where the server allows none; 0 where it may be none.
        bare: no special token of the server's own, where it can be told so.
        since: the first token of the prompt whose log-probability is needed, where that saves work.
    """

    model: str = ""
    top: int = 0
    write: int = 1
    bare: bool = False
    since: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """One way to ask.

    Attributes:
        name: as the signature has it.
        path: behind the server's root.
        body: makes the request.
        read: reads the answer.
        ids: whether a prompt may be token ids.
    """

    name: str
    path: str
    body: Callable[[Asked, Wish], dict[str, Any]]
    read: Callable[[Reply, Asked], Answer]
    ids: bool = True


def _prompt(asked: Asked) -> Any:
    return list(asked.ids or ()) if asked.text is None else asked.text


def _named(wish: Wish, body: dict[str, Any]) -> dict[str, Any]:
    return {"model": wish.model, **body} if wish.model else body


def echo_body(asked: Asked, wish: Wish) -> dict[str, Any]:
    """OpenAI's legacy completions: the prompt is given back in front of what is written."""
    body = {
        "prompt": _prompt(asked), "echo": True, "logprobs": max(wish.top, 1),
        "max_tokens": wish.write, "temperature": 1, "n": 1, "stream": False,
    }  # fmt: skip
    if wish.bare:
        body["add_special_tokens"] = False
    return _named(wish, body)


def echo_read(reply: Reply, asked: Asked) -> Answer:
    """Read the lists of OpenAI's completions, and the forms of Together and Fireworks.

    OpenAI and those who follow it put four lists of equal length into ``choices[0].logprobs``;
    Together puts the prompt's lists into ``prompt[0].logprobs``; Fireworks may write a list
    ``content`` of objects.
    """
    data = _object(reply.data, "an object")
    choice = _object(_first(data.get("choices"), "choices"), "choices[0]")
    counted = _counted(data)
    prompt = _count(counted.get("prompt_tokens"))
    if isinstance(data.get("prompt"), Sequence) and not isinstance(data.get("prompt"), str):
        first = _object(_first(data["prompt"], "prompt"), "prompt[0]")
        entries = _legacy(_object(first.get("logprobs"), "prompt[0].logprobs"))
        return Answer(tuple(entries), 0, prompt, _text(first.get("text")), reply.odd)
    told = _object(choice.get("logprobs"), "choices[0].logprobs")
    if isinstance(told.get("content"), list):
        entries = [_told(one) for one in told["content"]]
    else:
        entries = _legacy(told)
    written = _written(choice, counted, entries, asked)
    echoed = _text(choice.get("text"))
    cut = max(0, len(entries) - written)
    rest = tuple(entries[cut:])
    return Answer(tuple(entries[:cut]), len(rest), prompt, echoed, reply.odd, rest)


def _written(
    choice: Mapping[str, Any], counted: Mapping[str, Any], entries: list[Entry], asked: Asked
) -> int:
    """Say how many of the entries were generated."""
    told = _count(counted.get("completion_tokens"))
    if told is not None:
        return told
    if asked.text is not None and entries and all(one.start is not None for one in entries):
        return sum((one.start or 0) >= len(asked.text) for one in entries)
    if asked.text is None and asked.ids is not None:
        return max(0, len(entries) - len(asked.ids))
    return 0


def _legacy(told: Mapping[str, Any]) -> list[Entry]:
    tokens = told.get("tokens")
    logprobs = told.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(logprobs, list):
        raise Strange("The answer's logprobs have no lists tokens and token_logprobs.")
    if len(tokens) != len(logprobs):
        raise Strange(f"The answer has {len(tokens)} tokens and {len(logprobs)} log-probabilities.")
    starts = _column(told.get("text_offset"), len(tokens))
    ids = _column(told.get("token_ids"), len(tokens))
    tops = _column(told.get("top_logprobs"), len(tokens))
    return [
        Entry(
            *_spelled(tokens[at]), _id(ids[at], tokens[at]), _number(starts[at]),
            *_logprob(logprobs[at]), None, _top(tops[at]),
        )
        for at in range(len(tokens))
    ]  # fmt: skip


def _told(one: Any) -> Entry:
    """Read an object of OpenAI's newer form."""
    one = _object(one, "logprobs.content[i]")
    token, raw = _spelled(one.get("token"))
    held = one.get("bytes")
    if isinstance(held, list) and all(type(b) is int and 0 <= b < 256 for b in held):
        raw = bytes(held)
    value, given = _logprob(one.get("logprob"))
    given = given and "logprob" in one
    ids = one.get("token_id", one.get("id"))
    return Entry(
        token, raw, _number(ids), _number(one.get("text_offset")), value, given,
        None, _top(one.get("top_logprobs")),
    )  # fmt: skip


def written(reply: Reply) -> tuple[Mapping[str, Any], Answer]:
    """Read an answer to a prompt that was not given back: the choice, and what was written."""
    data = _object(reply.data, "an object")
    choice = _object(_first(data.get("choices"), "choices"), "choices[0]")
    told = _object(choice.get("logprobs"), "choices[0].logprobs")
    content = told.get("content")
    entries = [_told(one) for one in content] if isinstance(content, list) else _legacy(told)
    return choice, Answer(
        tuple(entries), 0, _count(_counted(data).get("prompt_tokens")), None, reply.odd
    )


def prompt_body(asked: Asked, wish: Wish) -> dict[str, Any]:
    """vLLM's ``prompt_logprobs``, on completions."""
    body = {
        "prompt": _prompt(asked), "prompt_logprobs": wish.top, "max_tokens": 1, "temperature": 1,
        "n": 1, "stream": False, "return_token_ids": True,
    }  # fmt: skip
    if wish.bare:
        body["add_special_tokens"] = False
    return _named(wish, body)


def prompt_read(reply: Reply, asked: Asked) -> Answer:
    """Read ``prompt_logprobs``: null, then for each token an object by token id.

    Source: vLLM, ``entrypoints/openai``: each object holds the prompt's token, outside the top
    too, under its id in decimal, as ``{"logprob", "rank", "decoded_token"}``.
    """
    data = _object(reply.data, "an object")
    choice = _object(_first(data.get("choices"), "choices"), "choices[0]")
    told = choice.get("prompt_logprobs", data.get("prompt_logprobs"))
    if not isinstance(told, list):
        raise Strange("The answer has no prompt_logprobs.")
    counted = _counted(data)
    ids = choice.get("prompt_token_ids", data.get("prompt_token_ids"))
    known: Sequence[Any] | None = ids if isinstance(ids, list) else asked.ids
    if known is not None and len(known) != len(told):
        known = None
    entries = [
        _chosen(one, None if known is None else known[at], at) for at, one in enumerate(told)
    ]
    return Answer(tuple(entries), 0, _count(counted.get("prompt_tokens")), None, reply.odd)


def _chosen(told: Any, known: Any, place: int) -> Entry:
    """Take the prompt's own token out of the alternatives."""
    if told is None:
        return Entry(id=_number(known))
    held = _object(told, f"prompt_logprobs[{place}]")
    if known is not None and str(known) in held:
        key = str(known)
    elif len(held) == 1:
        (key,) = held
    else:
        raise Strange(
            f"prompt_logprobs[{place}] holds {len(held)} tokens, and not which of them is the "
            "prompt's."
        )
    one = _object(held[key], f"prompt_logprobs[{place}]")
    value, given = _logprob(one.get("logprob"))
    top = {
        name: float(other["logprob"])
        for name, other in held.items()
        if isinstance(other, Mapping) and isinstance(other.get("logprob"), int | float)
    }
    return Entry(
        *_spelled(one.get("decoded_token")), int(key) if key.isdecimal() else None, None, value,
        "logprob" in one and given, _number(one.get("rank")), top,
    )  # fmt: skip


def chat_body(asked: Asked, wish: Wish) -> dict[str, Any]:
    """vLLM's ``prompt_logprobs``, on chat: the text in the template of a user's turn."""
    return _named(
        wish,
        {
            "messages": [{"role": "user", "content": asked.text}], "prompt_logprobs": wish.top,
            "max_tokens": 1, "temperature": 1, "stream": False, "return_token_ids": True,
        },
    )  # fmt: skip


def sglang_body(asked: Asked, wish: Wish) -> dict[str, Any]:
    """SGLang's own ``/generate``."""
    prompt = (
        {"text": asked.text} if asked.text is not None else {"input_ids": list(asked.ids or ())}
    )
    return {
        **prompt, "sampling_params": {"max_new_tokens": wish.write, "temperature": 1},
        "return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": wish.top,
        "return_text_in_logprobs": True, "stream": False,
    }  # fmt: skip


def sglang_read(reply: Reply, asked: Asked) -> Answer:
    """Read ``meta_info.input_token_logprobs``: lists of a logprob, an id and a text."""
    meta = _object(_object(reply.data, "an object").get("meta_info"), "meta_info")
    told = meta.get("input_token_logprobs")
    if not isinstance(told, list):
        raise Strange("The answer's meta_info has no input_token_logprobs.")
    tops = _column(meta.get("input_top_logprobs"), len(told))
    entries = []
    for at, one in enumerate(told):
        if not isinstance(one, list) or len(one) < 2:
            raise Strange(f"input_token_logprobs[{at}] is no list of a logprob, an id and a text.")
        value, given = _logprob(one[0])
        top = {
            str(other[1]): float(other[0])
            for other in tops[at] or ()
            if isinstance(other, list) and len(other) > 1 and isinstance(other[0], int | float)
        }
        token, raw = _spelled(one[2] if len(one) > 2 else None)
        entries.append(Entry(token, raw, _number(one[1]), None, value, given, None, top))
    return Answer(tuple(entries), 0, _count(meta.get("prompt_tokens")), None, reply.odd)


def tgi_body(asked: Asked, wish: Wish) -> dict[str, Any]:
    """The text-generation-inference server's own ``/generate``."""
    parameters = {
        "max_new_tokens": 1, "do_sample": False, "details": True, "decoder_input_details": True,
    }  # fmt: skip
    return {"inputs": asked.text, "parameters": parameters, "stream": False}


def tgi_read(reply: Reply, asked: Asked) -> Answer:
    """Read ``details.prefill``: objects of an id, a text and a logprob."""
    data = reply.data[0] if isinstance(reply.data, list) and reply.data else reply.data
    told = _object(_object(data, "an object").get("details"), "details").get("prefill")
    if not isinstance(told, list):
        raise Strange("The answer's details have no prefill.")
    entries = []
    for at, one in enumerate(told):
        one = _object(one, f"prefill[{at}]")
        value, given = _logprob(one.get("logprob"))
        token, raw = _spelled(one.get("text"))
        given = given and (at == 0 or "logprob" in one)
        entries.append(Entry(token, raw, _number(one.get("id")), None, value, given))
    return Answer(tuple(entries), 0, None, None, reply.odd)


ROUTES: Mapping[str, Route] = {
    one.name: one
    for one in (
        Route("echo", "/v1/completions", echo_body, echo_read),
        Route("prompt_logprobs", "/v1/completions", prompt_body, prompt_read),
        Route("chat", "/v1/chat/completions", chat_body, prompt_read, ids=False),
        Route("sglang", "/generate", sglang_body, sglang_read),
        Route("tgi", "/generate", tgi_body, tgi_read, ids=False),
    )
}
"""Every route by its name."""


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Strange(
            f"The answer's {what} is {'null' if value is None else type(value).__name__}."
        )
    return value


def _counted(data: Mapping[str, Any]) -> Mapping[str, Any]:
    usage = data.get("usage")
    return usage if isinstance(usage, Mapping) else {}


def _first(value: Any, what: str) -> Any:
    if not isinstance(value, list) or not value:
        raise Strange(f"The answer has no {what}.")
    return value[0]


def _column(value: Any, size: int) -> Sequence[Any]:
    if value is None:
        return (None,) * size
    if not isinstance(value, list) or len(value) != size:
        raise Strange(f"A list of the answer has not the {size} places that its tokens have.")
    return value


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _number(value: Any) -> int | None:
    return value if type(value) is int else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _id(value: Any, token: Any) -> int | None:
    if value is not None:
        return _number(value)
    if isinstance(token, str) and token.startswith(TOKEN_ID):
        digits = token.removeprefix(TOKEN_ID)
        return int(digits) if digits.isdecimal() else None
    return None


def _logprob(value: Any) -> tuple[float | None, bool]:
    """Read a logprob, and whether it is a number or null."""
    if value is None:
        return None, True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, False
    return float(value), True


def _spelled(token: Any) -> tuple[str | None, bytes | None]:
    """Read a token's spelling, and its bytes where it is written as those.

    OpenAI's completions write a token that is no UTF-8 as ``bytes:\\xe2\\x80``.
    """
    if not isinstance(token, str):
        return None, None
    if token.startswith("bytes:\\x"):
        digits = token.removeprefix("bytes:").split("\\x")[1:]
        if all(len(one) == 2 and all(c in "0123456789abcdefABCDEF" for c in one) for one in digits):
            return token, bytes(int(one, 16) for one in digits)
    return token, None


def _top(value: Any) -> dict[str, float]:
    if isinstance(value, Mapping):
        items = value.items()
        return {str(k): float(v) for k, v in items if isinstance(v, int | float)}
    if isinstance(value, list):
        return {
            str(one["token"]): float(one["logprob"])
            for one in value
            if isinstance(one, Mapping)
            and "token" in one
            and isinstance(one.get("logprob"), int | float)
        }
    return {}
