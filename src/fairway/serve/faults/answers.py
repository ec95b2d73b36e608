"""Answers of completions, taken apart for what spoils them, and put together again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fairway.serve.faults.bugs import BUGS, Row, Scene

LISTS = {"tokens": "token", "token_logprobs": "logprob", "top_logprobs": "top"}
"""Lists of OpenAI's completions that a `Row` has under a name of its own."""
SCALES = ("log10", "log2-all")
"""Bugs that change what is written too."""
EXTRAS = ("bytes", "token_ids", "prompt_token_ids")
"""What an answer says beyond OpenAI's form."""


@dataclass(slots=True)
class Memory:
    """Tokens of the last two prompts, which a bug may mix with the next."""

    kept: list[tuple[str, tuple[Row, ...]]] = field(default_factory=list)

    def before(self, prompt: str, rows: Sequence[Row]) -> tuple[Row, ...]:
        """Give the last prompt that was another, and keep this one."""
        other = next((held for name, held in reversed(self.kept) if name != prompt), ())
        self.kept = [*self.kept[-1:], (prompt, tuple(rows))]
        return other


def spoil(answer: bytes, request: bytes, bugs: Sequence[str], memory: Memory) -> bytes | None:
    """Apply bugs to an answer; None where it is none of completions with a prompt's tokens."""
    try:
        data, asked = json.loads(answer), json.loads(request)
    except ValueError:
        return None
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices:
        return None
    before = json.dumps(data)
    prompt = asked.get("prompt", "")
    several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    prompts = prompt if several else [prompt]
    heat = asked.get("temperature")
    temperature = 1.0 if heat is None else float(heat)
    for choice in choices:
        place = choice.get("index", 0) * len(prompts) // len(choices)
        _one(choice, data, prompts[place], bool(asked.get("echo")), temperature, bugs, memory)
    if "swapped" in bugs and len(choices) > 1:
        marks = [choice.get("index") for choice in choices]
        choices.reverse()
        for choice, mark in zip(choices, marks, strict=True):
            choice["index"] = mark
    return None if json.dumps(data) == before else json.dumps(data).encode()


def _one(
    choice: dict[str, Any], data: dict[str, Any], prompt: Any, echo: bool, temperature: float,
    bugs: Sequence[str], memory: Memory,
) -> None:  # fmt: skip
    """Apply bugs to one prompt's answer."""
    text = prompt if isinstance(prompt, str) else ""
    told = choice.get("logprobs") if echo else None
    scaled = [name for name in bugs if name in SCALES]
    if not echo and scaled and isinstance(choice.get("logprobs"), dict):
        rows = _read(choice["logprobs"])
        for name in scaled:
            rows = BUGS[name](rows, Scene(text))
        choice["logprobs"] = _write(rows, choice["logprobs"])
        return
    if isinstance(told, dict) and isinstance(told.get("tokens"), list):
        rows = _read(told)
        behind = _behind(rows, choice, data, prompt, text)
        mine, written = rows[: len(rows) - behind], rows[len(rows) - behind :]
        out = _apply(bugs, mine, text, temperature, written, memory, prompt)
        choice["logprobs"] = _write([*out, *written], told)
        if "generated-only" in bugs and isinstance(choice.get("text"), str):
            choice["text"] = choice["text"][len(text) :]
        if "plain" in bugs:
            choice["logprobs"] = {k: v for k, v in choice["logprobs"].items() if k not in EXTRAS}
    elif isinstance(choice.get("prompt_logprobs"), list):
        ids = choice.get("prompt_token_ids") or ()
        rows = _read_vllm(choice["prompt_logprobs"], ids, text)
        out = _apply(bugs, rows, text, temperature, (), memory, prompt)
        choice["prompt_logprobs"] = [_entry(row) for row in out]
        if len(ids) == len(rows) != len(out):
            choice["prompt_token_ids"] = [row.rest.get("id") for row in out]
    else:
        return
    if "no-logprobs" in bugs:
        for key in ("logprobs", "prompt_logprobs"):
            if key in choice:
                choice[key] = None
    usage = data.get("usage")
    if isinstance(usage, dict) and {"head-cut", "tail-cut"} & set(bugs):
        usage["prompt_tokens"] = len(out)
    if "head-cut" in bugs and echo and isinstance(choice.get("text"), str):
        choice["text"] = "".join(row.token for row in out)
    if "plain" in bugs:
        data.pop("usage", None)
        for key in EXTRAS:
            choice.pop(key, None)


def _apply(
    bugs: Sequence[str], rows: list[Row], text: str, temperature: float, written: Sequence[Row],
    memory: Memory, prompt: Any,
) -> list[Row]:  # fmt: skip
    if not rows:
        return rows
    scene = Scene(text, temperature, tuple(written), memory.before(json.dumps(prompt), rows))
    for name in bugs:
        if name in BUGS and rows:
            rows = BUGS[name](rows, scene)
    return rows


def _behind(
    rows: Sequence[Row], choice: Mapping[str, Any], data: Mapping[str, Any], prompt: Any, text: str
) -> int:
    """Count the tokens that were generated."""
    if text and rows and all(isinstance(row.rest.get("text_offset"), int) for row in rows):
        return sum(row.rest["text_offset"] >= len(text) for row in rows)
    if isinstance(prompt, list):
        return max(0, len(rows) - len(prompt))
    return int((data.get("usage") or {}).get("completion_tokens") or 0)


def _read(told: Mapping[str, Any]) -> list[Row]:
    size = len(told["tokens"])
    columns = {
        key: value for key, value in told.items() if isinstance(value, list) and len(value) == size
    }
    return [
        Row(
            columns["tokens"][at],
            columns.get("token_logprobs", [None] * size)[at],
            columns.get("top_logprobs", [None] * size)[at],
            rest={key: columns[key][at] for key in columns if key not in LISTS},
        )
        for at in range(size)
    ]


def _write(rows: Sequence[Row], told: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(told)
    out["tokens"] = [row.token for row in rows]
    # A list has no keys: what is absent makes it shorter.
    out["token_logprobs"] = [row.logprob for row in rows if row.given]
    if isinstance(told.get("top_logprobs"), list):
        out["top_logprobs"] = [None if row.top is None else dict(row.top) for row in rows]
    kept = {key for row in rows for key in row.rest}
    for key, value in told.items():
        if key not in LISTS and isinstance(value, list):
            if rows and key not in kept:
                del out[key]
            else:
                out[key] = [row.rest.get(key) for row in rows]
    return out


def _read_vllm(told: Sequence[Any], ids: Sequence[Any], text: str) -> list[Row]:
    rows: list[Row] = []
    for at, held in enumerate(told):
        known = ids[at] if at < len(ids) else None
        if not held:
            rows.append(Row("", None, rest={"id": known, "held": None}))
            continue
        key = str(known) if str(known) in held else next(iter(held))
        rows.append(
            Row(
                held[key].get("decoded_token") or "", held[key].get("logprob"),
                {name: one["logprob"] for name, one in held.items()},
                rest={"id": int(key), "held": held},
            )
        )  # fmt: skip
    behind = "".join(row.token for row in rows[1:])
    if rows and not rows[0].token and text.endswith(behind):
        # A first token without a number is not spelled.
        rows[0] = replace(rows[0], token=text[: len(text) - len(behind)])
    return rows


def _entry(row: Row) -> dict[str, Any] | None:
    if row.logprob is None:
        return None
    key, held = str(row.rest.get("id")), row.rest.get("held") or {}
    out: dict[str, Any] = {}
    for name in {key: 0.0, **(row.top or {})}:
        one = dict(held.get(name) or {"rank": 1, "decoded_token": row.token})
        one["logprob"] = (row.top or {}).get(name)
        out[name] = one
    out[key]["logprob"] = row.logprob
    if row.token or "decoded_token" in out[key]:
        out[key]["decoded_token"] = row.token
    if not row.given:
        del out[key]["logprob"]
    return out


def without_choices(data: Any) -> Any:
    """Take the choices away."""
    return {**data, "choices": []} if isinstance(data, dict) and "choices" in data else data


def choices_twice(data: Any) -> Any:
    """Give every choice twice."""
    if not isinstance(data, dict) or not isinstance(data.get("choices"), list):
        return data
    return {**data, "choices": [one for choice in data["choices"] for one in (choice, choice)]}
