"""Responses that hold log-probabilities of the prompt: vLLM's, and OpenAI's legacy completions.

Shapes, one response per line or a list of them (vLLM: ``vllm/outputs.py``,
``entrypoints/openai/completion/serving.py``):

    {"choices": [{"prompt_logprobs": [null, {"<id>": {"logprob", "rank", "decoded_token"}}, ...],
                  "prompt_token_ids": [...]?}], "prompt": "..."?}     a server's completion
    {"prompt_logprobs": [...], "choices": [...]}                       a server's chat completion
    {"prompt": "...", "prompt_token_ids": [...], "prompt_logprobs": [...]}    a RequestOutput
    {"choices": [{"text", "logprobs": {"tokens", "token_logprobs"}}]}  with echo

A response may stand under ``response`` (and there under ``body``) beside its ``request``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairway.logs.prompts import CLAMPED, begin, lacking, make
from fairway.logs.reporting import Read, Source, report
from fairway.logs.untrusted import (
    count,
    dig,
    logprob,
    mapping,
    named,
    refuse,
    rows,
    sequence,
)  # fmt: skip
from fairway.record import Record
from fairway.signature import UNKNOWN

ORDERED = 20
"""Positions after which a best token at every one looks like a list that was sorted."""
WHOLE = "whole-prompt"
"""The convention of a prompt that a server scores in one piece."""


def recognise(value: Any) -> bool:
    """Whether a value is a response with log-probabilities, or one that could have had them."""
    body = _body(value) if isinstance(value, dict) else None
    return body is not None and (
        isinstance(body.get("choices"), list)
        or ("prompt_logprobs" in body and "doc_id" not in body)
    )


def _body(row: dict[str, Any]) -> dict[str, Any]:
    """Give the response in what stands around it."""
    inner = row.get("response", row)
    inner = inner.get("body", inner) if isinstance(inner, dict) else row
    return inner if isinstance(inner, dict) else row


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's scored tokens.

    Attributes:
        logprobs: nats, in order.
        tokens: their spelling; None = not known.
        text: the prompt; None = not known.
        best: whether each position listed several tokens, and took the first for the prompt's.
    """

    logprobs: list[float]
    tokens: list[str] | None
    text: str | None
    best: bool = False


def read(path: Path) -> Read:
    """Read a file of responses.

    Raises:
        InputError: when it is damaged, or holds no log-probabilities of prompts.
    """
    records: list[Record] = []
    skipped: list[dict[str, Any]] = []
    models: set[str] = set()
    unknown = decoded = clamped = ordered = 0
    for number, (where, row) in enumerate(rows(path), 1):
        row = mapping(row, where, "the response")
        body = _body(row)
        model = named(body.get("model")) or named(dig(row, "request", "model"))
        models |= {model} if model else set()
        found = list(_prompts(row, body, where))
        for place, one in enumerate(found):
            if isinstance(one, str) or not one.logprobs:
                reason = one if isinstance(one, str) else "no token but the first"
                skipped.append({"source": str(path), "line": number, "reason": reason})
                continue
            name = f"{path.name}:{number}" + (f".{place + 1}" if len(found) > 1 else "")
            made, known = make(name, one.logprobs, one.tokens, one.text)
            if one.best and not known and one.text is not None:
                refuse(where, _ambiguous("the tokens do not spell the prompt"), _WAY)
            records.append(made)
            unknown += not known
            decoded += one.text is None
            clamped += sum(value <= CLAMPED for value in one.logprobs)
            ordered += one.best
    notes = [
        "read from a server's responses, in which a prompt is scored in one piece",
        "not recorded: dtype, tokenizer, whether BOS stood in front, a digest of the text",
    ]
    if decoded:
        notes.append(
            f"of {decoded:,} texts there are only decoded tokens: bytes are those of their "
            "spelling, which may lack blanks"
        )
    if clamped:
        notes.append(f"{clamped:,} log-probabilities are vLLM's least, -9999, or less")
    if ordered:
        notes.append("of several tokens at a position the first was taken for the prompt's")
    if len(models) > 1:
        refuse(str(path), f"it has responses of {len(models)} models", "make a file of each")
    fields = {
        "model": next(iter(models), UNKNOWN), "dtype": UNKNOWN, "tok": UNKNOWN, "protocol": WHOLE,
        "prefix": UNKNOWN, "special": UNKNOWN, "length": UNKNOWN, "stride": UNKNOWN,
        "windows": UNKNOWN, "data": path.name, "digest": UNKNOWN, "unit": "token",
        "bytes": "tokens" if decoded else None, "agg": "ratio",
    }  # fmt: skip
    notes += _partly(records)
    source = Source("responses", fields, lacking(unknown, len(records)), notes, skipped)
    return report(records, source, str(path))


def _partly(records: list[Record]) -> list[str]:
    """Say of how many texts the first token has no log-probability."""
    firsts = sum(one.totals.tokens_skipped for one in records)
    if not firsts:
        return []
    return [f"the first token of {firsts:,} texts was not scored, and its bytes not counted"]


def _prompts(row: dict[str, Any], body: dict[str, Any], where: str) -> Iterator[Prompt | str]:
    """Give a response's prompts, or why one cannot be scored."""
    if "error" in body and not body.get("choices"):
        yield "the server answered with an error"
        return
    if body.get("prompt_logprobs") is not None:
        ids = body.get("prompt_token_ids")
        # A chat template stands around what was asked, so that only the tokens tell the text.
        text = _text(row, body, 0) if "choices" not in body else None
        yield _listed(body["prompt_logprobs"], ids, text, None, where)
        return
    if "choices" not in body:
        yield _NONE
        return
    earlier: Any = None
    number = 0
    for raw in sequence(body.get("choices"), where, "'choices'"):
        choice = mapping(raw, where, "a choice")
        listed = choice.get("prompt_logprobs")
        if listed is not None:
            if listed == earlier:  # another sample of the same prompt
                continue
            earlier = listed
            text = _text(row, body, number)
            number += 1
            yield _listed(
                listed, choice.get("prompt_token_ids"), text, choice.get("text"), where
            )  # fmt: skip
        elif isinstance(dig(choice, "logprobs", "token_logprobs"), list):
            yield _echoed(choice, body, _text(row, body, number), where)
            number += 1
        else:
            yield _NONE


def _text(row: dict[str, Any], body: dict[str, Any], number: int) -> str | None:
    """Give the prompt where it stands beside the response."""
    for value in (
        body.get("prompt"), row.get("prompt"), row.get("text"), dig(row, "request", "prompt"),
        dig(row, "request", "body", "prompt"), dig(row, "body", "prompt"),
    ):  # fmt: skip
        if isinstance(value, str) and value and number == 0:
            return value
        if isinstance(value, list) and isinstance(dig(value, number), str):
            return str(value[number])
    return None


_NONE = "no log-probabilities of the prompt: ask for prompt_logprobs, or for echo and logprobs"
_WAY = "ask for prompt_logprobs 0 or 1, or for the token ids too (return_token_ids)"


def _ambiguous(why: str) -> str:
    return f"which of several tokens at a position is the prompt's is not told ({why})"


def _listed(listed: Any, ids: Any, text: str | None, answer: Any, where: str) -> Prompt:
    """Read a list with an object of token ids for each position, null for the first."""
    entries = sequence(listed, where, "'prompt_logprobs'")
    if isinstance(ids, list) and len(ids) != len(entries):
        refuse(
            where, f"it has {len(ids)} token ids and {len(entries)} log-probabilities",
            "take a whole copy of the response",
        )  # fmt: skip
    logprobs: list[float] = []
    spelt: list[Any] = []
    several = best = 0
    for place, raw in enumerate(entries):
        if raw is None:
            if place:
                refuse(where, f"position {place} has no log-probability", _WAY)
            continue
        entry = mapping(raw, where, f"position {place}")
        if isinstance(ids, list):
            chosen = entry.get(str(ids[place]))
            if chosen is None:
                refuse(where, f"position {place} lacks the prompt's own token", _WAY)
        else:
            chosen = _own(entry, where, place)
            several += len(entry) > 1
            best += len(entry) > 1 and chosen.get("rank") == 1
        chosen = mapping(chosen, where, f"position {place}")
        logprobs.append(logprob(chosen.get("logprob"), where, f"position {place}"))
        spelt.append(chosen.get("decoded_token"))
    if several >= ORDERED and several == best:
        refuse(where, _ambiguous("the best stands first everywhere"), _WAY)
    strings = [one for one in spelt if isinstance(one, str)]
    tokens = strings if len(strings) == len(spelt) else None
    if text is None and isinstance(answer, str) and tokens:
        # With echo the answer begins with the prompt; without a generated part it ends there.
        text = answer if begin(answer, tokens) is not None else None
    return Prompt(logprobs, tokens, text, bool(several))


def _own(entry: dict[str, Any], where: str, place: int) -> dict[str, Any]:
    """Tell the prompt's token among those of a position.

    vLLM puts it first and then the best by rank, without it; in another order it is told by a rank
    beyond their number.
    """
    values = [mapping(one, where, f"position {place}") for one in entry.values()]
    if not values:
        refuse(where, f"position {place} is empty", _WAY)
    if len(values) == 1:
        return values[0]
    ranks = [count(one.get("rank"), where, f"a rank of position {place}") for one in values]
    if (
        ranks[1:]
        == [rank for rank in range(1, len(ranks) + 1) if rank != ranks[0]][: len(ranks) - 1]
    ):
        return values[0]
    beyond = [one for one, rank in zip(values, ranks, strict=True) if rank > len(values)]
    if len(beyond) != 1:
        refuse(where, _ambiguous(f"position {place} is in no order"), _WAY)
    return beyond[0]


def _echoed(
    choice: dict[str, Any], body: dict[str, Any], text: str | None, where: str
) -> Prompt | str:
    """Read parallel lists of tokens, those of the answer left out."""
    values = sequence(dig(choice, "logprobs", "token_logprobs"), where, "'token_logprobs'")
    raw = sequence(dig(choice, "logprobs", "tokens"), where, "'tokens'")
    if len(raw) != len(values):
        refuse(where, f"it has {len(raw)} tokens and {len(values)} log-probabilities", _ECHO)
    tokens = [str(one) for one in raw]
    answer = choice.get("text")
    answer = answer if isinstance(answer, str) else None
    first = int(bool(values) and values[0] is None)
    made = dig(body, "usage", "completion_tokens")
    asked = dig(body, "usage", "prompt_tokens")
    made = made if isinstance(made, int) and not isinstance(made, bool) else 0
    if asked == len(values):  # a server that makes a token and does not give it
        made = 0
    if not first and (made >= len(values) or (text is None and asked is None)):
        return "log-probabilities of the answer alone: the server did not heed echo"
    if made:
        spelt = "".join(tokens[len(tokens) - made :])
        values, tokens = values[: len(values) - made], tokens[: len(tokens) - made]
        answer = answer.removesuffix(spelt) if answer and answer.endswith(spelt) else None
    kept = [logprob(one, where, f"token {i}") for i, one in enumerate(values) if i >= first]
    spelling = None if any(one.startswith("token_id:") for one in tokens) else tokens[first:]
    return Prompt(kept, spelling, text if text is not None else answer)


_ECHO = "take a whole copy of the response"
