"""What engines do wrong with a prompt's log-probabilities, done to right answers on purpose.

Each bug takes the prompt's tokens as a right server gave them and changes them as an engine is
known to. They exist to test clients: see `fairway.serve.faults`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

LOWEST = -3.4028234663852886e38
"""The lowest number of float32, which stands for a probability of 0."""
HOLE = "\ufffd"


@dataclass(frozen=True, slots=True)
class Row:
    """One token of an answer.

    Attributes:
        token: its spelling.
        logprob: its number; None = null.
        top: alternatives; None = null.
        given: False = the key of the number is absent.
        rest: what else an answer says of it.
    """

    token: str
    logprob: float | None
    top: Mapping[str, float] | None = None
    given: bool = True
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a bug knows.

    Attributes:
        text: the prompt; empty where ids were sent.
        temperature: that was asked for.
        generated: tokens behind the prompt's.
        before: the prompt's tokens of the request before this one, of another prompt.
    """

    text: str = ""
    temperature: float = 1.0
    generated: tuple[Row, ...] = ()
    before: tuple[Row, ...] = ()


Rows = list[Row]
Bug = Callable[[Rows, Scene], Rows]


def each(change: Callable[[float], float]) -> Bug:
    """Make a bug that changes every number, those of alternatives too."""

    def bug(rows: Rows, _: Scene) -> Rows:
        return [
            replace(
                row,
                logprob=None if row.logprob is None else change(row.logprob),
                top=None if row.top is None else {k: change(v) for k, v in row.top.items()},
            )
            for row in rows
        ]

    return bug


def own(change: Callable[[float], float]) -> Bug:
    """Make a bug that changes the tokens' own numbers."""

    def bug(rows: Rows, _: Scene) -> Rows:
        return [
            row if row.logprob is None else replace(row, logprob=change(row.logprob))
            for row in rows
        ]

    return bug


def unlikely(mark: float) -> Bug:
    """Make a bug that writes a mark where a token is not among the likeliest of its place."""

    def bug(rows: Rows, _: Scene) -> Rows:
        low = sorted(row.logprob for row in rows if row.logprob is not None)
        limit = low[len(low) // 4] if low else 0.0
        return [
            replace(row, logprob=mark) if row.logprob is not None and row.logprob <= limit else row
            for row in rows
        ]

    return bug


def missing(rows: Rows, _: Scene) -> Rows:
    """The key of the number is absent at every fourth token."""
    return [replace(row, given=at % 4 != 3 and row.given) for at, row in enumerate(rows)]


def first_number(rows: Rows, _: Scene) -> Rows:
    """The first token has a number although nothing stands before it."""
    known = [row.logprob for row in rows if row.logprob is not None]
    made_up = math.fsum(known) / len(known) if known else -1.0
    return [replace(rows[0], logprob=made_up, top=None), *rows[1:]]


def first_zero(rows: Rows, _: Scene) -> Rows:
    """The first token has 0 in null's place."""
    return [replace(rows[0], logprob=0.0, top=None), *rows[1:]]


def bos_scored(rows: Rows, _: Scene) -> Rows:
    """A BOS stands in front and has a number."""
    rest = {key: 0 if key == "text_offset" else None for key in rows[0].rest}
    return [Row("<s>", -11.5, None, True, rest), *rows]


def null_inside(rows: Rows, _: Scene) -> Rows:
    """A token amid the prompt has null."""
    at = max(1, len(rows) // 2)
    return [replace(row, logprob=None, top=None) if i == at else row for i, row in enumerate(rows)]


def head_cut(rows: Rows, _: Scene) -> Rows:
    """The server read only the prompt's end."""
    kept = rows[len(rows) // 2 :]
    return [replace(kept[0], logprob=None, top=None), *kept[1:]]


def tail_cut(rows: Rows, _: Scene) -> Rows:
    """The server read only the prompt's beginning."""
    return rows[: max(1, len(rows) // 2)]


def lost_bytes(rows: Rows, scene: Scene) -> Rows:
    """Tokens that end inside a character are dropped; the last of them stands for it all."""
    out: Rows = []
    for at, row in enumerate(rows):
        if not partial(row):
            out.append(row)
        elif at + 1 == len(rows) or not partial(rows[at + 1]):
            out.append(replace(row, token=_whole(rows, at, scene.text)))
    return out


def lost_characters(rows: Rows, _: Scene) -> Rows:
    """Tokens beyond ASCII are dropped."""
    return [row for row in rows if row.token.isascii() and not partial(row)]


def replacement(rows: Rows, _: Scene) -> Rows:
    """Tokens that end inside a character are spelled with a replacement character, no more."""
    hidden = ("bytes", "token_ids")
    return [
        replace(
            row,
            token=HOLE if partial(row) else row.token,
            rest={key: value for key, value in row.rest.items() if key not in hidden},
        )
        for row in rows
    ]


def shifted(rows: Rows, scene: Scene) -> Rows:
    """Each token carries the number of the next one."""
    behind = (*rows[1:], *(scene.generated[:1] or (replace(rows[-1], logprob=None, top=None),)))
    return [
        replace(row, logprob=after.logprob, top=after.top)
        for row, after in zip(rows, behind, strict=True)
    ]


def shifted_late(rows: Rows, _: Scene) -> Rows:
    """Each token from the third on carries the number of the one before."""
    return [
        replace(row, logprob=rows[at - 1].logprob, top=rows[at - 1].top) if at > 1 else row
        for at, row in enumerate(rows)
    ]


def copied_top(rows: Rows, _: Scene) -> Rows:
    """Every list of alternatives is a copy of the first."""
    top = next((row.top for row in rows if row.top), None)
    return [row if row.top is None else replace(row, top=top) for row in rows]


def doubled(rows: Rows, _: Scene) -> Rows:
    """All tokens come twice."""
    return [*rows, *rows]


def repeated(rows: Rows, _: Scene) -> Rows:
    """One token comes twice."""
    at = len(rows) // 2
    return [*rows[: at + 1], *rows[at:]]


def generated_only(_: Rows, __: Scene) -> Rows:
    """Only what was generated is in the answer, as if there had been no echo."""
    return []


def tempered(rows: Rows, scene: Scene) -> Rows:
    """Numbers are those of sampling: divided by the temperature; 0 or the lowest float at 0."""
    if scene.temperature > 0:
        return each(lambda value: value / scene.temperature)(rows, scene)
    out = []
    for row in rows:
        best = max((row.top or {}).values(), default=row.logprob)
        sure = row.logprob is None or best is None or row.logprob >= best
        value = None if row.logprob is None else 0.0 if sure else LOWEST
        out.append(replace(row, logprob=value))
    return out


def stale(rows: Rows, scene: Scene) -> Rows:
    """Numbers of the prompt's first half are those of the prompt before, place by place."""
    half = min(len(scene.before), max(2, len(rows) // 2))
    return [
        replace(row, logprob=scene.before[at].logprob, top=scene.before[at].top)
        if 0 < at < half
        else row
        for at, row in enumerate(rows)
    ]


def partial(row: Row) -> bool:
    """Whether a token is a part of a character."""
    raw = row.rest.get("bytes")
    if isinstance(raw, list):
        try:
            bytes(raw).decode()
        except UnicodeDecodeError:
            return True
    return HOLE in row.token or row.token.startswith("bytes:\\x")


def _whole(rows: Rows, at: int, text: str) -> str:
    """Give the characters that end with a token."""
    start = at
    while start and partial(rows[start - 1]):
        start -= 1
    begin = rows[start].rest.get("text_offset")
    end = rows[at + 1].rest.get("text_offset") if at + 1 < len(rows) else len(text)
    return text[begin:end] if isinstance(begin, int) and isinstance(end, int) else HOLE


BUGS: Mapping[str, Bug] = {
    "zeros": own(lambda _: 0.0),
    "generated-only": generated_only,
    "clamped": unlikely(-9999.0),
    "missing": missing,
    "infinite": unlikely(-math.inf),
    "positive": own(math.exp),
    "first-number": first_number,
    "first-zero": first_zero,
    "bos-scored": bos_scored,
    "null-inside": null_inside,
    "head-cut": head_cut,
    "tail-cut": tail_cut,
    "lost-bytes": lost_bytes,
    "lost-characters": lost_characters,
    "replacement": replacement,
    "shifted": shifted,
    "shifted-late": shifted_late,
    "copied-top": copied_top,
    "doubled": doubled,
    "repeated": repeated,
    "temperature": tempered,
    "stale": stale,
    "log10": each(lambda value: value / math.log(10)),
    "log2": each(lambda value: value / math.log(2)),
    "log2-all": each(lambda value: value / math.log(2)),
}
"""Every bug by its name. Two more, ``swapped`` and ``none``, change answers as a whole."""
