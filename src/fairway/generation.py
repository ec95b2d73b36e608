"""What a model writes itself, token by token: the settings, and a step.

A scorer that can write has ``generate(ids, sampling)``, an iterator of `Step`: each ``next`` is one
forward, so that whoever drives it can stop at any step, or do other work between two. One that can
score token ids as they are has ``bare()``, a scorer of the same model without prefix, whose only
window holds as many tokens as the model has positions, and one more that is only predicted. Its
``ends`` are the tokens that end a text, its ``prefix`` the ids that stand before one. One with a
chat template has ``chat(messages)``, the ids after which the assistant writes. Logprobs are those
of the model before temperature and top_p, so that a text's are those that scoring gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairway import windows
from fairway.errors import InputError, ModelError
from fairway.protocol import Convention, Plan
from fairway.windows import Window

BARE = Convention(
    "bare", "token ids as they are, in one window", prefix="none", windowing="single", length=0
)
"""How `bare` scorers read; nothing else is offered under this name."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        max_tokens: to be written at most.
        temperature: that logits are divided by; 0 = always the most likely token.
        top_p: probability of the most likely tokens that are drawn from.
        seed: of the drawing; None = another each time.
        top: alternatives told at each step.
        ignore_end: write on behind a token that ends texts.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    top: int = 0
    ignore_end: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One written token.

    Attributes:
        id: in the vocabulary.
        logprob: of the model, nats, before temperature and top_p.
        piece: its raw bytes; empty for a special token.
        top_ids: the most likely tokens, the likeliest first.
        top_logprobs: theirs, nats.
        ends: whether it ends the text, and is none of it.
    """

    id: int
    logprob: float
    piece: bytes
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()
    ends: bool = False


def bare_plan(positions: int | None) -> Plan:
    """Give the plan of a scorer that reads token ids as they are.

    Args:
        positions: tokens that the model can read; None = no limit.

    Raises:
        InputError: from the plan's ``cut``, for more ids than positions and one more.
    """
    longest = None if positions is None else positions + 1

    def cut(tokens: int) -> list[Window]:
        if longest is not None and tokens > longest:
            raise InputError(
                f"{tokens} token ids are more than the {positions} that the model reads and one "
                "that is only predicted; cut them into windows."
            )
        return windows.single(tokens)

    return Plan(BARE, (), (), "none", longest, None, cut)


def write(
    read: Callable[[Sequence[int]], NDArray[np.float64]],
    ids: Sequence[int],
    sampling: Sampling,
    pieces: Sequence[bytes],
    ends: Collection[int],
) -> Iterator[Step]:
    """Write behind some ids.

    Args:
        read: gives the ``(vocabulary,)`` logits of the token behind some ids, which are those it
            was given before and one more.
        ids: what stands there.
        sampling: how tokens are drawn; ids that the tokenizer has no token for never are.
        pieces: the bytes of each token, empty where it stands for no text.
        ends: tokens that end a text.

    Raises:
        InputError: at once, when there is no id, or one that the tokenizer does not have.
        ModelError: from a step, when a log-probability is not a number.
    """
    if not ids:
        raise InputError("There is no token to write behind; begin with one, such as the prefix.")
    wrong = next((one for one in ids if not 0 <= one < len(pieces)), None)
    if wrong is not None:
        raise InputError(f"There is no token {wrong}: the tokenizer has {len(pieces)}.")
    return _steps(read, ids, sampling, pieces, ends)


def _steps(
    read: Callable[[Sequence[int]], NDArray[np.float64]],
    ids: Sequence[int],
    sampling: Sampling,
    pieces: Sequence[bytes],
    ends: Collection[int],
) -> Iterator[Step]:
    random = np.random.default_rng(sampling.seed)
    kept = list(ids)
    for _ in range(sampling.max_tokens):
        logprobs = normalised(read(kept))
        token = draw(logprobs[: len(pieces)], sampling, random)
        top = most_likely(logprobs, sampling.top)
        ends_here = token in ends and not sampling.ignore_end
        yield Step(
            token,
            float(logprobs[token]),
            b"" if ends_here else pieces[token],
            tuple(top.tolist()),
            tuple(logprobs[top].tolist()),
            ends_here,
        )
        if ends_here:
            return
        kept.append(token)


def normalised(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn ``(vocabulary,)`` logits into log-probabilities, nats: a float64 log-softmax.

    Raises:
        ModelError: when one of them is not a number.
    """
    above = logits - logits.max()
    found: NDArray[np.float64] = np.minimum(above - np.log(np.exp(above).sum()), 0.0)
    if np.isnan(found).any():
        raise ModelError(
            "A log-probability is not a number: the model overflows; try --dtype float32."
        )
    return found


def draw(logprobs: NDArray[np.float64], sampling: Sampling, random: np.random.Generator) -> int:
    """Draw a token.

    Args:
        logprobs: ``(v,)`` of the tokens that may be drawn, nats; they need not sum to one.
        sampling: temperature, and the nucleus of top_p: the fewest tokens, the likeliest first,
            that hold so much probability at that temperature (Holtzman et al. 2020).
        random: takes one number of it a token, none at temperature 0.

    Returns:
        Its id; of equally likely ones the lowest at temperature 0.
    """
    if sampling.temperature == 0:
        return int(logprobs.argmax())
    # A tiny temperature may divide to minus infinity, which is a probability of 0.
    with np.errstate(over="ignore"):
        weights = np.exp((logprobs - logprobs.max()) / sampling.temperature)
    # All of them need no order.
    whole = sampling.top_p >= 1
    order = np.arange(len(weights)) if whole else np.argsort(-weights, kind="stable")
    sums = np.cumsum(weights[order])
    many = int(np.searchsorted(sums, sampling.top_p * sums[-1])) + 1
    many = min(many, len(order))
    place = np.searchsorted(sums[:many], random.random() * sums[many - 1], side="right")
    return int(order[min(int(place), many - 1)])


def most_likely(logprobs: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Give the ids of the largest, the largest first; of equal ones the lower id first."""
    count = min(count, len(logprobs))
    if not count:
        return np.zeros(0, np.int64)
    level = np.partition(logprobs, -count)[-count]
    some = np.flatnonzero(logprobs >= level)
    order: NDArray[np.int64] = some[np.argsort(-logprobs[some], kind="stable")][:count]
    return order
