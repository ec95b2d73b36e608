"""Whether a token's alternatives agree with its own number, and with being probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fairway.backends.openai.answer import Answer, Asked, Entry
from fairway.backends.openai.covering import LOST
from fairway.backends.openai.defect import Defect

OVER = 1.05
"""Sum of probabilities above which they are none; rounding in half precision stays below."""
UNDER = 0.05
"""Probability that must be missing before it is asked where it could be."""
VOCABULARY = 1 << 19
"""Tokens that a vocabulary has at most."""
MARK = -1000.0
"""Below it a number is a mark, and says nothing of a distribution."""
COPIED = "copied alternatives"
"""The one defect that touches the alternatives alone."""
APART = 1e-3
"""Nats, and parts of the number, by which one number written twice may differ."""


def sums(_: Asked, answer: Answer) -> Defect | None:
    """Are the alternatives' probabilities a distribution's?

    They cannot sum to more than 1. Nor can what they leave to the rest of the vocabulary be more
    than all its tokens would have if each were as likely as the least likely alternative.
    """
    size = max((len(one.top) for one in answer.entries), default=0)
    over, under, seen = [], [], 0
    for place, one in enumerate(answer.entries):
        values = list(one.top.values())
        if not values or min(values) < MARK or max(values) > 0:
            continue
        if place and len(values) > 1 and one.top == answer.entries[place - 1].top:
            continue  # a copy, of which `chosen` tells
        seen += 1
        if one.logprob is not None and not _listed(one, values):
            values.append(one.logprob)
        total = math.fsum(map(math.exp, values))
        if total > OVER:
            over.append(total)
        if len(one.top) == size > 1 and not _collapsed(one):
            # The token itself may stand behind the likeliest, however unlikely it is.
            least = min((v for v in one.top.values() if v != one.logprob), default=0.0)
            if 1 - total > UNDER + VOCABULARY * math.exp(least):
                under.append(total)
    if over:
        return Defect(
            "wrong units", f"at {len(over)} of {seen} tokens the alternatives' probabilities sum "
            f"to more than 1, up to {max(over):.3g}: the numbers are no natural logarithms, or not "
            "of one distribution (log10 reads so)",
        )  # fmt: skip
    if under:
        return Defect(
            "wrong units", f"at {len(under)} of {seen} tokens the alternatives' probabilities sum "
            f"to {min(under):.3g} and the next ones are too small to make up for the rest: the "
            "numbers are no natural logarithms (log2 reads so)",
        )  # fmt: skip
    return None


def chosen(_: Asked, answer: Answer) -> Defect | None:
    """Does a token's number agree with the list of alternatives beside it?

    An engine copies the first token's list to those behind it; then the tokens' own numbers are
    right, and the lists are not. Where the lists differ and say another number of the token, no one
    can tell which is right. Spellings that several tokens share may disagree here and there.
    """
    entries = answer.entries
    apart, lacking, copied, seen = 0, 0, 0, 0
    for place, one in enumerate(entries):
        if one.logprob is None or not one.top or not math.isfinite(one.logprob):
            continue
        seen += 1
        told = _own(one)
        low = min(one.top.values())
        if told is not None:
            apart += not close(told, one.logprob)
        elif _keyed(one):
            lacking += one.logprob > low and not close(one.logprob, low)
        else:
            seen -= 1
            continue
        copied += bool(place) and len(one.top) > 1 and one.top == entries[place - 1].top
    wrong = apart + lacking
    if seen and wrong and 2 * copied > seen - 1:
        return Defect(
            COPIED, f"{copied} of {seen} lists of alternatives are the list of the "
            f"token before, {wrong} of them lack their own token or give it another number",
            refuse=False, fix="Only the tokens' own numbers are used.", reference="sglang#39260",
        )  # fmt: skip
    if wrong >= 2 and 2 * wrong > seen:
        return Defect(
            "contradicting alternatives", f"at {wrong} of {seen} tokens the list of alternatives "
            f"gives the token another number than it has itself ({apart}), or lacks it although "
            f"less likely ones are there ({lacking}): numbers and tokens are not of one place",
            reference="sglang#39260",
        )  # fmt: skip
    return None


def close(one: float, other: float) -> bool:
    """Whether two numbers are one that was written twice."""
    return math.isclose(one, other, rel_tol=APART, abs_tol=APART)


def _listed(entry: Entry, values: Sequence[float]) -> bool:
    """Whether a token may be among its alternatives."""
    value = entry.logprob
    return value is None or not math.isfinite(value) or any(close(value, one) for one in values)


def _own(entry: Entry) -> float | None:
    """Give the number that the list has for the token itself."""
    for key in (None if entry.id is None else str(entry.id), entry.token):
        if key and LOST not in key and key in entry.top:
            return entry.top[key]
    return None


def _keyed(entry: Entry) -> bool:
    """Whether the list would hold the token under a name that is known."""
    if entry.id is not None and all(key.isdecimal() for key in entry.top):
        return True
    return bool(entry.token) and LOST not in (entry.token or "")


def _collapsed(entry: Entry) -> bool:
    """Whether several alternatives may stand under one spelling."""
    return any(not key or LOST in key for key in entry.top)
