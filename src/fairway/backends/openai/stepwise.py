"""llama-server, which tells nothing of prompts: a request for each token, which it must write.

Each request holds the tokens up to there and a bias that leaves the next one no rival. The
log-probability that is told is that of the raw logits, which no bias and no temperature reaches
(llama.cpp, ``tools/server``: ``populate_token_probs`` takes them before sampling where
``post_sampling_probs`` is off). The server keeps the prompt's state, so a step costs one token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairway.backends.openai.answer import Answer, Asked, Entry
from fairway.backends.openai.routes import Route, Strange
from fairway.backends.openai.transport import Link, Reply
from fairway.errors import ModelError

BIAS = 1e6
"""Added to the logit of the token that must be written: more than any logit."""


def body(ids: tuple[int, ...], target: int) -> dict[str, Any]:
    """Ask for one token behind some."""
    return {
        "prompt": list(ids), "n_predict": 1, "n_probs": 1, "post_sampling_probs": False,
        "logit_bias": [[target, BIAS]], "temperature": 0, "cache_prompt": True, "stream": False,
        "return_tokens": True,
    }  # fmt: skip


def read(reply: Reply, target: int) -> Entry:
    """Read ``completion_probabilities[0]``.

    Raises:
        Strange: when there is none.
        ModelError: when another token was written than the one that was to be.
    """
    told = reply.data.get("completion_probabilities") if isinstance(reply.data, Mapping) else None
    if not isinstance(told, list) or not told or not isinstance(told[0], Mapping):
        raise Strange("The answer has no completion_probabilities.")
    one = told[0]
    if one.get("id") != target:
        raise ModelError(
            "The server wrote another token than the one that the request left no rival: it "
            "heeds no logit_bias, so that stepwise cannot be had from it."
        )
    value = one.get("logprob")
    token = one.get("token")
    return Entry(
        token if isinstance(token, str) else None, None, target, None,
        float(value) if isinstance(value, int | float) else None, "logprob" in one,
    )  # fmt: skip


def ask(link: Link, asked: Asked, since: int) -> Answer:
    """Ask for each token of some behind those before it.

    Args:
        link: to the server.
        asked: token ids.
        since: the first that is asked for.

    Raises:
        ModelError: when an answer is wrong, or does not come.
    """
    ids = asked.ids or ()
    since = max(1, since)
    entries = [Entry(id=one) for one in ids[:since]]
    for place in range(since, len(ids)):
        reply = link.post(ROUTE.path, body(ids[:place], ids[place]))
        entries.append(read(reply, ids[place]))
        link.note(1, 1)
    return Answer(tuple(entries))


def _none(*_: Any) -> Any:
    raise ModelError("stepwise asks for token ids, one by one.")


ROUTE = Route("stepwise", "/completion", _none, _none)
"""It has no single request: see `ask`."""
