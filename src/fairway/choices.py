"""Which choice a model finds likeliest: multiple choice, minimal pairs, last words.

Every figure comes from one pass: the log-probability of each choice after its context, and how
many tokens, characters and bytes the choice has.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairway.corpus import Document
from fairway.errors import FairwayError, InputError, ProtocolError

if TYPE_CHECKING:
    from fairway.corpus.choices import Item
    from fairway.scorer import Scorer
    from fairway.scores import Score

BLOCK_BYTES = 64 << 10
"""UTF-8 bytes of items that are scored together; a context counts once."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What decides between choices.

    Attributes:
        delimiter: stands between a context and each choice; it is scored, and not counted in the
            choice's length.
        bare: whether it stands before a choice that has no context, too.
        ties: ``wrong``: an answer that shares the first place is not chosen; ``first``: of those
            that share it the first is chosen, as lm-eval's argmax does.
        unconditional: the context of the second scoring that mutual information takes away; None =
            no second scoring.
    """

    delimiter: str = " "
    bare: bool = False
    ties: str = "wrong"
    unconditional: str | None = None

    def text(self, context: str, choice: str) -> str:
        """Give what stands behind a context."""
        return self.delimiter + choice if context or self.bare else choice


LM_EVAL = Rule(bare=True, ties="first")
"""As lm-eval does: the delimiter always, the first of those that tie."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One item with what the model makes of its ``k`` choices.

    Attributes:
        item: the question.
        logprobs: ``(k,)`` summed log-probabilities of the choices, nats.
        tokens: ``(k,)`` tokens that were summed.
        unscored: ``(k,)`` tokens of the choices without a log-probability, for want of context.
        unconditional: ``(k,)`` the same sums behind the unconditional context, where asked for.
        greedy: whether each token of the answer is the model's likeliest; of items with a single
            choice only.
        ties: as `Rule`.
    """

    item: Item
    logprobs: NDArray[np.float64]
    tokens: NDArray[np.int64]
    unscored: NDArray[np.int64]
    unconditional: NDArray[np.float64] | None = None
    greedy: bool | None = None
    ties: str = "wrong"

    def values(self, metric: str) -> NDArray[np.float64]:
        """Give the ``(k,)`` numbers of which a metric takes the largest.

        Raises:
            KeyError: for an unknown metric.
            ValueError: for mutual information without a second scoring.
        """
        if metric == "acc_mutual_info":
            if self.unconditional is None:
                raise ValueError("There was no second scoring.")
            return self.logprobs - self.unconditional
        return np.asarray(self.logprobs / METRICS[metric](self))

    def chosen(self, metric: str) -> int:
        """Give the index of the likeliest choice, the first of those that tie."""
        return int(np.argmax(self.values(metric)))

    def tied(self, metric: str) -> bool:
        """Whether several choices share the first place exactly."""
        values = self.values(metric)
        return len(values) > 1 and bool(np.sum(values == values.max()) > 1)

    def right(self, metric: str) -> bool:
        """Whether the answer was chosen."""
        if self.greedy is not None:
            return self.greedy
        if self.ties == "wrong" and self.tied(metric):
            return False
        return self.chosen(metric) == self.item.answer

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        names = metrics([self])
        out: dict[str, Any] = {
            "id": self.item.id,
            "group": self.item.group,
            "answer": self.item.answer,
            "logprobs": self.logprobs.tolist(),
            "tokens": self.tokens.tolist(),
            "chars": [len(choice) for choice in self.item.choices],
            "bytes": [len(choice.encode("utf-8")) for choice in self.item.choices],
        }
        if self.unconditional is not None:
            out["unconditional"] = self.unconditional.tolist()
        if self.greedy is not None:
            return {**out, "greedy": self.greedy}
        out["chosen"] = {name: self.chosen(name) for name in names}
        out["right"] = {name: self.right(name) for name in names}
        if tied := [name for name in names if self.tied(name)]:
            out["tied"] = tied
        return out


METRICS: dict[str, Callable[[Decision], Any]] = {
    "acc": lambda one: 1.0,
    "acc_norm": lambda one: np.array([float(len(c)) for c in one.item.choices]),
    "acc_bytes": lambda one: np.array([float(len(c.encode("utf-8"))) for c in one.item.choices]),
    "acc_tokens": lambda one: one.tokens.astype(np.float64),
}
"""What each accuracy divides the summed log-probabilities by before it takes the largest.

``acc``, ``acc_norm``, ``acc_bytes`` and ``acc_mutual_info`` are lm-eval's (``api/task.py``,
0.4.13); ``acc_tokens`` is the mean log-probability of a token.
"""


def metrics(decisions: Sequence[Decision]) -> tuple[str, ...]:
    """Name the metrics that decisions have."""
    if decisions and decisions[0].greedy is not None:
        return ("acc",)
    more = bool(decisions) and decisions[0].unconditional is not None
    return (*METRICS, "acc_mutual_info") if more else tuple(METRICS)


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that could not be scored, and why."""

    item: Item
    reason: str


def decide(
    scorer: Scorer, items: Iterable[Item], rule: Rule | None = None
) -> Iterator[Decision | Refused]:
    """Score every choice of every item, in their order.

    A choice's log-probability is the sum over the tokens that the scorer's convention gives it:
    by default those that touch its characters (context and choice are encoded as one), under
    ``lm-eval-pairs`` those behind the context's own count of tokens.

    Args:
        scorer: any scorer.
        items: the questions, all with one choice or all with several.
        rule: what decides; None = `Rule()`.

    Raises:
        InputError: when some items have a single choice and others several.
        FairwayError: when the model fails.
    """
    rule = rule or Rule()
    blocks = _blocks(items)
    waiting: deque[tuple[list[Item], Iterator[Score]]] = deque()
    while True:
        for block in islice(blocks, 1 + getattr(scorer, "ahead", 0) - len(waiting)):
            waiting.append((block, _begin(scorer, block, rule)))
        if not waiting:
            return
        block, scores = waiting.popleft()
        try:
            done: list[Decision | Refused] = [_take(item, scores, rule) for item in block]
        except (InputError, ProtocolError):
            # One bad item must not lose the others: each is tried by itself.
            done = [_alone(scorer, item, rule) for item in block]
        yield from done


def _blocks(items: Iterable[Item]) -> Iterator[list[Item]]:
    block: list[Item] = []
    held = 0
    single: bool | None = None
    for item in items:
        if single is not None and single != (len(item.choices) == 1):
            raise InputError(
                f"Up to {item.id}, some items have a single choice, for the model's first guess, "
                "and some have several: these are different tasks; split the data."
            )
        single = len(item.choices) == 1
        block.append(item)
        held += sum(len(text.encode("utf-8")) for text in (item.context, *item.choices))
        if held >= BLOCK_BYTES:
            yield block
            block, held = [], 0
    if block:
        yield block


def _begin(scorer: Scorer, block: Sequence[Item], rule: Rule) -> Iterator[Score]:
    single = len(block[0].choices) == 1
    documents = [document for item in block for document in _documents(item, rule)]
    return scorer.score(documents, ("rank",) if single else ())


def _documents(item: Item, rule: Rule) -> Iterator[Document]:
    contexts = [item.context]
    if _again(item, rule):
        contexts.append(rule.unconditional or "")
    for context in contexts:
        for choice in item.choices:
            # The same words behind both, as lm-eval has it.
            yield Document(item.id, rule.text(item.context, choice), context)


def _again(item: Item, rule: Rule) -> bool:
    """Whether an item is scored a second time; behind its own context it would give the same."""
    return rule.unconditional not in (None, item.context)


def _alone(scorer: Scorer, item: Item, rule: Rule) -> Decision | Refused:
    try:
        return _take(item, _begin(scorer, [item], rule), rule)
    except (InputError, ProtocolError) as problem:
        return Refused(item, str(problem))


def _take(item: Item, scores: Iterator[Score], rule: Rule) -> Decision:
    """Read an item's scores; those of all its choices are read before anything is refused."""
    count = len(item.choices)
    own = list(islice(scores, count))
    other = list(islice(scores, count)) if _again(item, rule) else own
    if len(own) < count:
        raise FairwayError("The scorer gave fewer scores than it was given texts.")
    sums = [_sum(item, number, score) for number, score in enumerate(own)]
    second = None
    if rule.unconditional is not None:
        second = np.array([_sum(item, n, score) for n, score in enumerate(other)])
    greedy = None
    if count == 1:
        scored = ~np.isnan(own[0].logprobs)
        greedy = bool((own[0].extras["rank"][scored] == 0).all())
    return Decision(
        item,
        np.array(sums, dtype=np.float64),
        np.array([int((~np.isnan(score.logprobs)).sum()) for score in own], dtype=np.int64),
        np.array([int((score.wanted & np.isnan(score.logprobs)).sum()) for score in own]),
        second,
        greedy,
        rule.ties,
    )


def _sum(item: Item, number: int, score: Score) -> float:
    values = score.logprobs[~np.isnan(score.logprobs)]
    if not len(values):
        raise InputError(
            f"choice {number} of {item.id} has no token with a log-probability; with --prefix none "
            "the first token of a text has none."
        )
    return math.fsum(values.tolist())
