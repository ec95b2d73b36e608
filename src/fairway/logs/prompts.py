"""Log-probabilities of a prompt's tokens, laid over its text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from fairway import record
from fairway.corpus import Document
from fairway.record import Record
from fairway.scores import Totals
from fairway.text import measure

CLAMPED = -9998.0
"""What vLLM writes for less is -9999."""
LOST = "\ufffd"
"""What stands for bytes that are no whole character."""


def begin(text: str, tokens: Sequence[str]) -> int | None:
    """Find where in a text the first of its last tokens begins.

    Decoded one by one, tokens may lose their blanks and show U+FFFD for part of a character, so
    both are compared without white space, and a run of U+FFFD stands for as many characters at
    most. White space before a token belongs to it.

    Returns:
        The position of the first character; None where the tokens do not spell the text's end.
    """
    joined = "".join(tokens)
    start: int | None
    if joined and text.endswith(joined):
        start = len(text) - len(joined)
        blanks = any(char.isspace() for char in joined)
        return start if blanks else len(text[:start].rstrip())
    places = [i for i, char in enumerate(text) if not char.isspace()]
    bare, wanted = "".join(text.split()), "".join(joined.split())
    if not wanted or len(places) != len(bare):
        return None
    if LOST not in wanted:
        start = len(bare) - len(wanted) if bare.endswith(wanted) else None
    else:
        start = _around(bare, wanted)
    if start is None:
        return None
    return places[start - 1] + 1 if start else 0


def _around(bare: str, wanted: str) -> int | None:
    """Find where a spelling with lost characters begins: at the start, or in one place alone."""
    runs = [len(run) for run in re.findall(f"{LOST}+", wanted)]
    pieces = re.split(f"{LOST}+", wanted)
    if _follows(bare, pieces, runs, 0):
        return 0
    if not pieces[0]:
        return None
    found: list[int] = []
    place = bare.find(pieces[0], 1, 64 + len(pieces[0]))
    while place > 0 and len(found) < 2:
        if _follows(bare, pieces, runs, place):
            found.append(place)
        place = bare.find(pieces[0], place + 1, 64 + len(pieces[0]))
    return found[0] if len(found) == 1 else None


def _follows(bare: str, pieces: list[str], runs: list[int], place: int) -> bool:
    """Whether pieces stand one after another from a place to the end, a little apart."""
    if not bare.startswith(pieces[0], place):
        return False
    place += len(pieces[0])
    for piece, run in zip(pieces[1:-1], runs[:-1], strict=True):
        found = bare.find(piece, place + 1, place + run + len(piece))
        if found < 0:
            return False
        place = found + len(piece)
    rest = len(bare) - len(pieces[-1]) - place
    return bare.endswith(pieces[-1]) and 1 <= rest <= runs[-1]


def make(
    name: str,
    logprobs: Sequence[float],
    tokens: Sequence[str] | None,
    text: str | None,
    target: bool = False,
) -> tuple[Record, bool]:
    """Make the record of a prompt.

    Args:
        name: the document's id.
        logprobs: of its scored tokens, in order, nats.
        tokens: their spelling; None = not known.
        text: the prompt; None = not known, and the tokens' spelling stands for it.
        target: what stands before the scored tokens is a context, and not part of the text.

    Returns:
        The record, without bytes where it is not known which characters were scored; and whether
        they are known.
    """
    nll = -math.fsum(logprobs) + 0.0
    squares = math.fsum(value * value for value in logprobs)
    start: int | None = None
    if text is None and tokens is not None:
        text = "".join(tokens)
        start = None if LOST in text else 0
    elif text is not None and tokens is not None:
        start = begin(text, tokens)
    bare = Totals(nll, len(logprobs), documents=1)
    if text is None or start is None:
        known = Document(name, "" if text is None else text)
        key = record.key(known) if text else f"id:{name}"
        return Record(name, key, bare, squares), False
    if target:
        document = Document(name, text[start:], text[:start])
        extent = measure(text[start:])
    else:
        document = Document(name, text)
        covered = np.arange(len(text)) >= start
        extent = measure(text, covered)
    totals = Totals(
        nll, len(logprobs), int(not target and start > 0), extent.words, extent.chars,
        extent.bytes, 1,
    )  # fmt: skip
    return Record(name, record.key(document), totals, squares), True


def lacking(unknown: int, records: int) -> dict[str, str]:
    """Say why bytes, characters and words are not counted; empty where they are."""
    if not unknown:
        return {}
    reason = (
        f"of {unknown:,} of {records:,} texts the log does not tell which characters were scored"
    )
    return dict.fromkeys(("bytes", "chars", "words"), reason)
