"""What a request for completions asks for; what cannot be done is refused, not left out.

The rule: null is as if the key were absent. What cannot change an answer (`IGNORED`) is ignored.
Settings that other servers have and this one has not are taken at the value that asks for nothing
(`NEUTRAL`) and refused at any other. A key that nobody knows is refused: it may be misspelled.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fairway.generation import Sampling
from fairway.serve.problems import Problem
from fairway.serve.settings import Limits

IGNORED = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "prompt_cache_options", "priority", "request_id", "cache_prompt",
}  # fmt: skip
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "suffix": ("",), "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},),
    "repetition_penalty": (1,), "repeat_penalty": (1,), "top_k": (0, -1), "min_p": (0,),
    "typical_p": (1,), "use_beam_search": (False,), "response_format": ({"type": "text"},),
    "modalities": (["text"],), "tools": ([],), "functions": ([],),
    "tool_choice": ("none", "auto"), "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False), "skip_special_tokens": (True,),
}  # fmt: skip
SHARED = {
    "model", "n", "temperature", "top_p", "seed", "stop", "max_tokens", "stream", "stream_options",
    "logprobs", "ignore_eos", "return_token_ids",
}  # fmt: skip
COMPLETION = SHARED | {"prompt", "echo", "best_of", "add_special_tokens"}
CHAT = SHARED | {"messages", "top_logprobs", "max_completion_tokens"}
STOPS = 16
"""Stop sequences that are looked for, at most."""
LONGEST = 500
"""Characters of such a text, at most."""
MOST = 20
"""Alternatives that are told of a token, at most."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Settings that both kinds of completions share.

    Attributes:
        sampling: of the first choice.
        n: choices for each prompt.
        stops: texts that end an answer, and are none of it.
        logprobs: alternatives told of each token; None = no logprobs.
        stream: send what is written as it is written.
        usage: tell at a stream's end how many tokens there were.
        ids: tell the ids of tokens beside the text.
    """

    sampling: Sampling
    n: int
    stops: tuple[bytes, ...]
    logprobs: int | None
    stream: bool
    usage: bool
    ids: bool

    def drawn(self, choice: int) -> Sampling:
        """Give the sampling of a choice: with a seed, each has the next one."""
        seed = self.sampling.seed
        return self.sampling if seed is None else replace(self.sampling, seed=seed + choice)


def refuse(data: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Give what a request holds that is read, or refuse it; see the rule above.

    Raises:
        Problem: naming the key.
    """
    kept = {}
    for key, value in data.items():
        if value is None or key in IGNORED:
            continue
        if key in known:
            kept[key] = value
        elif key not in NEUTRAL:
            raise Problem(400, f"There is no setting {key!r} here; leave it away.", "unknown_key")
        elif value not in NEUTRAL[key]:
            raise Problem(400, f"{key} is not to be had here; leave it away.", "unsupported")
    return kept


def completion(data: Mapping[str, Any], prompts: int, limits: Limits) -> Asked:
    """Read the settings of ``/v1/completions``.

    Args:
        data: what `refuse` gave.
        prompts: how many there are.
        limits: of the server.

    Raises:
        Problem: for a value that is none.
    """
    echo = flag(data, "echo")
    n = whole(data, "n", 1, 1, limits.documents)
    best = whole(data, "best_of", n, 1, limits.documents)
    if best != n:
        raise Problem(400, "best_of is not to be had here; ask for n choices.", "unsupported")
    tokens = whole(data, "max_tokens", 16, 0, None)
    if not tokens and not echo:
        raise Problem(400, "max_tokens 0 gives an answer only with echo; ask for 1 or more.")
    logprobs = data.get("logprobs")
    if logprobs is True or logprobs is False:
        raise Problem(400, f"logprobs must be a whole number from 0 to {MOST} here.")
    count = None if logprobs is None else whole(data, "logprobs", 0, 0, MOST)
    return _asked(data, tokens, n, prompts, count, limits)


def chat(data: Mapping[str, Any], room: int | None, limits: Limits) -> Asked:
    """Read the settings of ``/v1/chat/completions``.

    Args:
        data: what `refuse` gave.
        room: tokens that the model's window has left; None = any number.
        limits: of the server.

    Raises:
        Problem: for a value that is none.
    """
    n = whole(data, "n", 1, 1, limits.documents)
    if "max_tokens" in data and "max_completion_tokens" in data:
        raise Problem(400, "max_tokens and max_completion_tokens are one; send one of them.")
    name = "max_tokens" if "max_tokens" in data else "max_completion_tokens"
    fitting = max(1, limits.tokens // n)
    tokens = whole(data, name, fitting if room is None else min(fitting, max(1, room)), 1, None)
    told = flag(data, "logprobs")
    top = whole(data, "top_logprobs", 0, 0, MOST)
    if top and not told:
        raise Problem(400, "top_logprobs goes with logprobs: true.")
    return _asked(data, tokens, n, 1, top if told else None, limits)


def _asked(
    data: Mapping[str, Any],
    tokens: int,
    n: int,
    prompts: int,
    logprobs: int | None,
    limits: Limits,
) -> Asked:
    if n * prompts > limits.documents:
        raise Problem(400, f"{n * prompts} answers are too many; ask for {limits.documents}.")
    if tokens * n * prompts > limits.tokens:
        raise Problem(
            400,
            f"{tokens} tokens for each of {n * prompts} answers are more than the "
            f"{limits.tokens} that are written for a request; ask for fewer.",
        )
    seed = whole(data, "seed", None, None, None)
    sampling = Sampling(
        tokens,
        real(data, "temperature", 1.0, 0.0, 100.0),
        real(data, "top_p", 1.0, 0.0, 1.0),
        None if seed is None else seed % (1 << 64),
        logprobs or 0,
        flag(data, "ignore_eos"),
    )
    options = data.get("stream_options", {})
    if not isinstance(options, dict):
        raise Problem(400, "stream_options is no object.")
    usage = flag(options, "include_usage")
    stream, ids = flag(data, "stream"), flag(data, "return_token_ids")
    return Asked(sampling, n, _stops(data), logprobs, stream, usage, ids)


def _stops(data: Mapping[str, Any]) -> tuple[bytes, ...]:
    given = data.get("stop", [])
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(one, str) and one for one in texts):
        raise Problem(400, "stop must be a text or a list of texts, none of them empty.")
    if len(texts) > STOPS or any(len(one) > LONGEST for one in texts):
        raise Problem(400, f"stop takes at most {STOPS} texts of {LONGEST} characters.")
    return tuple(one.encode("utf-8", "surrogatepass") for one in texts)


def flag(data: Mapping[str, Any], key: str) -> bool:
    """Read a boolean; absent is false.

    Raises:
        Problem: for what is none.
    """
    value = data.get(key)
    if value is not None and not isinstance(value, bool):
        raise Problem(400, f"{key} must be true or false.")
    return bool(value)


def whole(
    data: Mapping[str, Any], key: str, default: Any, low: int | None, high: int | None
) -> Any:
    """Read a whole number within bounds.

    Raises:
        Problem: for what is none.
    """
    value = data.get(key, default)
    if value is default:
        return value
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or (low is not None and value < low) or (high or value) < value:
        reach = "" if low is None else f" from {low}" + ("" if high is None else f" to {high}")
        raise Problem(400, f"{key} must be a whole number{reach}.")
    return value


def real(data: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    """Read a number within bounds.

    Raises:
        Problem: for what is none.
    """
    value = data.get(key, default)
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if not right or not math.isfinite(value) or not low <= value <= high:
        raise Problem(400, f"{key} must be a number from {low:g} to {high:g}.")
    return float(value)
