"""Accuracies of decisions, with intervals, by group, and of two models on the same items."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairway import choices
from fairway.choices import Decision, Refused, Rule
from fairway.corpus.choices import Item, Items, digest
from fairway.corpus.document import LISTED, SkippedRow
from fairway.errors import InputError
from fairway.scores import exp
from fairway.signature import Signature
from fairway.statistics import LEVEL, Interval, quantile

if TYPE_CHECKING:
    from fairway.scorer import Scorer


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of items decided rightly.

    Attributes:
        right: items decided rightly.
        items: all of them.
        ties: items in which several choices share the first place exactly.
        interval: Wilson's, items as independent.
        clustered: with groups as clusters, where there are two groups or more.
    """

    right: int
    items: int
    ties: int
    interval: Interval
    clustered: Interval | None = None

    @property
    def value(self) -> float:
        """The share."""
        return self.right / self.items

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        out: dict[str, Any] = {
            "value": self.value, "right": self.right, "items": self.items, "ties": self.ties,
            "interval": self.interval._asdict(),
        }  # fmt: skip
        if self.clustered is not None:
            out["clustered"] = self.clustered._asdict()
        return out


@dataclass(frozen=True, slots=True)
class Average:
    """A mean of something, with its interval; None where one item, or one group, gives none."""

    value: float
    interval: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        span = None if self.interval is None else self.interval._asdict()
        return {"value": self.value, "interval": span}


@dataclass(frozen=True, slots=True)
class ChoiceReport:
    """One model on one task.

    Attributes:
        model: its name.
        data: the source's name.
        task: a key of `fairway.corpus.choices.TASKS`.
        signature: all that decides the numbers.
        accuracies: by metric: acc, acc_norm (by characters), acc_bytes, acc_tokens, and
            acc_mutual_info after a second scoring; acc alone where items have a single choice.
        chance: the accuracy of guessing; 0 where items have a single choice.
        groups: the same by group.
        macro: the groups' unweighted means by metric; empty below two groups.
        item_perplexity: where items have a single choice, the exponential of the mean nll of the
            whole choice, an item and not a token being the unit: lm-eval's ``perplexity`` of
            LAMBADA.
        decisions: every item's.
        skipped: rows that are no items and items that could not be scored, the first thousand.
        skipped_total: all of them.
        notes: what a reader must know.
    """

    model: str
    data: str
    task: str
    signature: Signature
    accuracies: Mapping[str, Accuracy]
    chance: float
    groups: Mapping[str, Mapping[str, Accuracy]]
    macro: Mapping[str, Average]
    item_perplexity: Average | None
    decisions: tuple[Decision, ...]
    skipped: tuple[SkippedRow, ...]
    skipped_total: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give plain data, the decisions aside."""
        out: dict[str, Any] = {
            "model": self.model,
            "data": self.data,
            "task": self.task,
            "signature": str(self.signature),
            "items": len(self.decisions),
            "accuracies": {name: one.to_json() for name, one in self.accuracies.items()},
            "chance": self.chance,
        }
        if self.item_perplexity is not None:
            out["item_perplexity"] = self.item_perplexity.to_json()
        if self.groups:
            out["groups"] = {
                name: {metric: one.to_json() for metric, one in found.items()}
                for name, found in self.groups.items()
            }
            out["macro"] = {name: one.to_json() for name, one in self.macro.items()}
        out["skipped"] = [
            {"source": row.source, "line": row.line, "reason": row.reason} for row in self.skipped
        ]
        out["skipped_total"] = self.skipped_total
        out["notes"] = list(self.notes)
        return out


def wilson(right: int, items: int, level: float = LEVEL) -> Interval:
    """Give Wilson's score interval of a share (Wilson 1927), items being independent."""
    from scipy.stats import binomtest

    found = binomtest(right, items).proportion_ci(level, "wilson")
    return Interval(float(found.low), float(found.high), level, "Wilson, items as independent")


def clustered(
    sums: NDArray[np.floating], counts: NDArray[np.integer], level: float = LEVEL
) -> Interval | None:
    """Give the interval of ``sum(sums) / sum(counts)`` with clusters as the sampling unit.

    ``SE = sqrt(g / (g - 1) * sum_c (s_c - r n_c)^2) / sum_c n_c`` (Miller 2024, arXiv 2411.00640),
    t with g - 1 degrees of freedom; cut off at 0 and 1. None below two clusters.
    """
    count = len(sums)
    if count < 2:
        return None
    total = int(counts.sum())
    rest = sums - float(sums.sum()) / total * counts
    error = math.sqrt(count / (count - 1) * math.fsum((rest * rest).tolist())) / total
    reach, value = quantile(count, level) * error, float(sums.sum()) / total
    method = f"groups as clusters, t with {count - 1} degrees of freedom"
    return Interval(max(0.0, value - reach), min(1.0, value + reach), level, method)


def average(values: Sequence[float], what: str, level: float = LEVEL) -> Average:
    """Give a mean with Student's t interval.

    Args:
        values: what is averaged.
        what: what they are, for the interval's method.
        level: of the interval.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Average(mean, None)
    squares = math.fsum((value - mean) ** 2 for value in values)
    reach = quantile(count, level) * math.sqrt(squares / (count - 1) / count)
    method = f"{what}, t with {count - 1} degrees of freedom"
    return Average(mean, Interval(mean - reach, mean + reach, level, method))


def accuracies(decisions: Sequence[Decision], level: float = LEVEL) -> dict[str, Accuracy]:
    """Compute every metric of some decisions; groups are the clusters of the second interval."""
    out: dict[str, Accuracy] = {}
    names, place = np.unique([str(one.item.group) for one in decisions], return_inverse=True)
    for metric in choices.metrics(decisions):
        right = np.array([one.right(metric) for one in decisions], dtype=np.float64)
        ties = sum(one.tied(metric) for one in decisions)
        sums = np.bincount(place, right, len(names)).astype(np.float64)
        count = int(right.sum())
        out[metric] = Accuracy(
            count, len(decisions), ties, wilson(count, len(decisions), level),
            clustered(sums, np.bincount(place, minlength=len(names)), level),
        )  # fmt: skip
    return out


def choose(
    scorer: Scorer,
    items: Items | Sequence[Item],
    rule: Rule | None = None,
    *,
    strict: bool = False,
    level: float = LEVEL,
    progress: Callable[[int], None] | None = None,
) -> ChoiceReport:
    """Let a model choose, and count.

    Args:
        scorer: any scorer; one loaded with ``like="lm-eval-pairs"`` reads as lm-eval does.
        items: the questions.
        rule: what decides; None = lm-eval's under ``lm-eval-pairs``, else fairway's.
        strict: stop at the first item that cannot be scored.
        level: of the intervals.
        progress: called with the number of items done.

    Raises:
        InputError: when no item can be scored, one cannot where strict, or single choices are
            mixed with several.
        FairwayError: when the model fails.
    """
    if not isinstance(items, Items):
        items = Items(tuple(items), "items", "jsonl")
    protocol = scorer.signature.get("protocol")
    rule = rule or (choices.LM_EVAL if protocol == "lm-eval-pairs" else Rule())
    decisions: list[Decision] = []
    refused: list[SkippedRow] = []
    for found in choices.decide(scorer, items.items, rule):
        if isinstance(found, Refused):
            if strict:
                raise InputError(f"{found.item.id}: {found.reason}")
            refused.append(SkippedRow(found.item.id, 0, found.reason))
        else:
            decisions.append(found)
        if progress is not None:
            progress(len(decisions) + len(refused))
    if not decisions:
        why = f": {refused[0].reason}" if refused else "."
        raise InputError(f"No item of {items.name} can be scored{why}")
    single = decisions[0].greedy is not None
    groups: dict[str, list[Decision]] = {}
    for one in decisions:
        if one.item.group is not None:
            groups.setdefault(one.item.group, []).append(one)
    by_group = {name: accuracies(some, level) for name, some in groups.items()}
    macro = {}
    if len(by_group) > 1:
        for metric in choices.metrics(decisions):
            mean = average([one[metric].value for one in by_group.values()], "groups", level)
            if (span := mean.interval) is not None:
                span = span._replace(low=max(0.0, span.low), high=min(1.0, span.high))
            macro[metric] = Average(mean.value, span)
    return ChoiceReport(
        scorer.signature.get("model") or "",
        items.name,
        items.task,
        sign(scorer.signature, items, decisions, rule),
        accuracies(decisions, level),
        0.0 if single else average([1 / len(d.item.choices) for d in decisions], "").value,
        by_group,
        macro,
        _perplexity(decisions, level) if single else None,
        tuple(decisions),
        (*items.skipped, *refused)[:LISTED],
        items.skipped_total + len(refused),
        tuple(_notes(decisions, rule)),
    )


def _perplexity(decisions: Sequence[Decision], level: float) -> Average:
    mean = average([-float(one.logprobs[0]) for one in decisions], "items", level)
    span = mean.interval
    if span is not None:
        span = span._replace(low=exp(span.low), high=exp(span.high))
    return Average(exp(mean.value), span)


def sign(
    signature: Signature, items: Items, decisions: Iterable[Decision], rule: Rule
) -> Signature:
    """Complete a scorer's signature by what decides accuracies."""
    kept = [one.item for one in decisions]
    return signature.without("agg", "unit", "bytes").with_(
        task=items.task,
        data=items.name,
        items=len(kept),
        digest=digest(kept),
        delimiter=rule.delimiter + ("+bare" if rule.bare else ""),
        ties=rule.ties,
        unconditional=rule.unconditional,
    )


def _notes(decisions: Sequence[Decision], rule: Rule) -> Iterable[str]:
    unscored = sum(int(one.unscored.sum()) for one in decisions)
    if unscored:
        yield f"tokens of choices not scored, for want of a token before them: {unscored}"
    blank = sum(
        one.item.context[-1:].isspace() and rule.delimiter[:1].isspace() for one in decisions
    )
    if blank:
        yield f"contexts that end in white space, with a delimiter that adds more: {blank}"
    own = sum(one.item.context == rule.unconditional for one in decisions)
    if own:
        yield (
            "items whose own context is the unconditional one, so that acc_mutual_info is a tie "
            f"of all choices: {own}"
        )
