"""Where in a text the tokens of an answer lie: exactly, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairway.backends.openai.answer import Entry
from fairway.backends.openai.spelling import DIALECTS, Dialect
from fairway.errors import ModelError
from fairway.text import byte_lengths

WAY_OUT = (
    "Give --model-arg tokenizer=FILE, the model's own tokenizer.json, so that nothing is lost."
)


class Lossy(ModelError):
    """The spelling of an answer's tokens does not say where in the text they lie."""


@dataclass(frozen=True, slots=True)
class _Laid:
    """What one dialect makes of an answer.

    Attributes:
        edges: per token its possible ends in bytes, by their beginnings; None = it does not fit.
        token: the first that does not.
        at: the byte up to which the tokens before it spell the text.
    """

    edges: list[set[tuple[int, int]]] | None
    token: int = 0
    at: int = 0


def spans(entries: Sequence[Entry], text: str) -> NDArray[np.int64]:
    """Lay the tokens of an answer over the prompt.

    Each dialect of spelling is tried over the whole text. A token's possible places are all that
    the spellings before and behind it leave; where they are more than one, nothing is chosen.

    Args:
        entries: the prompt's tokens, special ones in front of it left out.
        text: the prompt.

    Returns:
        ``(n, 2)`` character spans; of a token inside a character, the whole character. The blank
        that SentencePiece puts before a text goes with the first character.

    Raises:
        Lossy: where the tokens do not spell the text, or it could be read in several ways.
    """
    body = b" " + text.encode()
    worst = _Laid(None, -1, -1)
    for group in DIALECTS:
        found: list[NDArray[np.int64]] = []
        for dialect in group:
            laid = _lay(entries, body, dialect)
            if laid.edges is None:
                worst = max(worst, laid, key=lambda one: (one.token, one.at))
                continue
            found.append(_characters(laid.edges, text, entries))
        if found:
            _agree(found, text, entries)
            return found[0]
    raise Lossy(_where(worst, entries, text))


def _lay(entries: Sequence[Entry], body: bytes, dialect: Dialect) -> _Laid:
    """Find every way to read the tokens as the text, once from each side."""
    reached: list[set[int]] = [{0, 1}]
    steps: list[dict[int, set[int]]] = []
    if not dialect.speaks(entries):
        return _Laid(None, -1, -1)
    for place, entry in enumerate(entries):
        if place == 0 and entry.token is None and entry.raw is None:
            # vLLM does not spell the first token, which has no number: it is what the rest leaves.
            step = {at: set(range(2, len(body) + 1)) for at in reached[-1]}
        else:
            step = {at: dialect.ends(entry, body, at) for at in reached[-1]}
        ends = set().union(*step.values())
        if not ends:
            return _Laid(None, place, max(reached[-1]))
        steps.append(step)
        reached.append(ends)
    alive = {len(body)} & reached[-1]
    if not alive:
        return _Laid(None, len(entries), max(reached[-1]))
    edges: list[set[tuple[int, int]]] = []
    for step in reversed(steps):
        kept = {(at, end) for at, ends in step.items() for end in ends if end in alive}
        edges.append(kept)
        alive = {at for at, _ in kept}
    return _Laid(edges[::-1])


def _characters(
    edges: Sequence[set[tuple[int, int]]], text: str, entries: Sequence[Entry]
) -> NDArray[np.int64]:
    """Turn byte spans into spans of the characters that they touch."""
    starts = np.concatenate(([0], np.cumsum(byte_lengths(text))))
    out = np.zeros((len(edges), 2), np.int64)
    for place, kept in enumerate(edges):
        ways = {_span(at - 1, end - 1, starts) for at, end in kept}
        if len(ways) > 1:
            start = min(way[0] for way in ways)
            raise Lossy(
                f"The answer's token {place + 1} ({_shown(entries[place])}) at character {start} "
                f"can lie in {len(ways)} ways, since the server leaves bytes of characters out. "
                f"{WAY_OUT}"
            )
        out[place] = ways.pop()
    return out


def _span(begin: int, end: int, starts: NDArray[np.int64]) -> tuple[int, int]:
    if begin < 0:
        # The blank that the text does not have goes with its first character.
        begin, end = 0, max(end, min(1, int(starts[-1])))
    first = int(np.searchsorted(starts, begin, side="right")) - 1
    last = int(np.searchsorted(starts, end, side="left"))
    return first, max(first, last)


def _agree(found: Sequence[NDArray[np.int64]], text: str, entries: Sequence[Entry]) -> None:
    for other in found[1:]:
        apart = np.flatnonzero((found[0] != other).any(1))
        if len(apart):
            place = int(apart[0])
            raise Lossy(
                f"The answer's token {place + 1} ({_shown(entries[place])}) at character "
                f"{int(found[0][place, 0])} means different places in two spellings that servers "
                f"use. {WAY_OUT}"
            )


def _where(worst: _Laid, entries: Sequence[Entry], text: str) -> str:
    raw = text.encode()
    char = len(raw[: max(0, worst.at - 1)].decode("utf-8", "ignore"))
    rest = ascii(text[char : char + 20])
    if worst.token >= len(entries):
        return (
            f"The answer's {len(entries)} tokens end at character {char} of {len(text)}, before "
            f"{rest}: the server cut the prompt, or changed it. Give a lower --max-length, or a "
            "server whose tokenizer loses nothing."
        )
    return (
        f"The answer's token {worst.token + 1} ({_shown(entries[worst.token])}) is not what the "
        f"prompt has at character {char} ({rest}): the server changed the text, or spells tokens "
        f"in a way that loses something. {WAY_OUT}"
    )


def _shown(entry: Entry) -> str:
    if entry.token is None:
        return "not spelled" if entry.id is None else f"id {entry.id}, not spelled"
    return ascii(entry.token[:40])
