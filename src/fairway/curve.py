"""A training's checkpoints on one text: which step is best, and what was forgotten by the last."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairway import run as runs
from fairway.checkpoints import Checkpoint, describe, in_order, step_of
from fairway.comparable import Side, refuse
from fairway.comparable import read as read_side
from fairway.comparison import LN2, compare
from fairway.errors import InputError
from fairway.pairs import Difference, holm
from fairway.report import Group, Report
from fairway.scores import named, number
from fairway.statistics import LEVEL


@dataclass(frozen=True, slots=True)
class Step:
    """A checkpoint's numbers.

    Attributes:
        step: of the training, or its place where nothing says it.
        label: the step, or the checkpoint's name where nothing says it.
        side: report and records.
    """

    step: int
    label: str
    side: Side

    @property
    def finite(self) -> bool:
        """Whether its numbers are finite; those of a training that diverged may not be."""
        return math.isfinite(self.side.bits_per_byte)

    @property
    def title(self) -> str:
        """What a sentence calls it: step 500, or its name."""
        return f"step {self.label}" if self.label == str(self.step) else self.label


@dataclass(frozen=True, slots=True)
class Forgetting:
    """A domain at the last step against its best step before.

    Attributes:
        domain: its name.
        best: place of that step.
        found: last minus best, nats per byte; positive = forgotten.
        p: of the paired t test, times the steps that the best was chosen from, after Holm over the
            domains.
    """

    domain: str
    best: int
    found: Difference
    p: float

    @property
    def worse(self) -> bool:
        """Whether the domain got worse, beyond what chance explains."""
        return self.found.value > 0 and self.found.real and self.p < 1 - self.found.level


@dataclass(frozen=True, slots=True)
class Curve:
    """Checkpoints by their steps.

    Attributes:
        steps: ascending.
        best: place of the one with the fewest bits per byte, the earliest of equals.
        against: each other one minus the best, nats per byte, by place.
        adjusted: p values of their paired t tests after Holm.
        forgetting: the last step by domain; empty without domains or earlier steps.
        level: of tests and intervals.

    Steps without finite numbers are in no test.
    """

    steps: tuple[Step, ...]
    best: int
    against: dict[int, Difference]
    adjusted: dict[int, float]
    forgetting: tuple[Forgetting, ...] = ()
    level: float = LEVEL

    @property
    def alike(self) -> tuple[int, ...]:
        """Places of the steps that cannot be told apart from the best."""
        return tuple(
            place
            for place, found in self.against.items()
            if not (found.real and self.adjusted[place] < 1 - self.level)
        )

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, in the order of the first step's report."""
        return tuple(group.name for group in self.steps[0].side.report.groups)

    def sentences(self) -> list[str]:
        """Say in plain words what the curve shows."""
        best, last = self.steps[self.best], self.steps[-1]
        unit = named("bits_per_byte", best.side.report.perplexity).replace("_", " ")
        value = f"{best.side.bits_per_byte:.4f} {unit}"
        lost = [one for one in self.steps if not one.finite]
        note = [f"Without finite numbers, and in no test: {listed(lost)}."] if lost else []
        if not best.finite:
            return note
        if not self.against:
            return [
                f"{_capital(best.title)} is the only one ({value}): there is nothing to compare "
                "it with.",
                *note,
            ]
        out = [f"{_capital(best.title)} is lowest ({value}){self._rivals()}"]
        end = self.against.get(len(self.steps) - 1)
        if end is not None and len(self.steps) - 1 not in self.alike:
            out.append(f"The last, {last.title}, is above it by {span(end)}.")
        if self.forgetting:
            out.append(self._forgotten())
        return out + note

    def _rivals(self) -> str:
        alike = [self.steps[place] for place in self.alike]
        apart = [place for place in self.against if place not in self.alike]
        if not apart:
            other = "any other" if len(alike) > 1 else alike[0].title
            return f" and cannot be told apart from {other}."
        near = min(apart, key=lambda place: self.against[place].value)
        next_one, gap = self.steps[near].title, span(self.against[near])
        below = f"below {next_one} by {gap}"
        if len(apart) > 1:
            below = f"below the other {len(apart)}, the next of them ({next_one}) by {gap}"
        if not alike:
            return f", {below}."
        return f" and cannot be told apart from {listed(alike)}. It is {below}."

    def _forgotten(self) -> str:
        last = self.steps[-1].title
        worse = sorted(
            (one for one in self.forgetting if one.worse), key=lambda one: -one.found.value
        )
        if not worse:
            return (
                f"No domain is shown to be worse at {last} than at its best step before "
                f"(paired tests, Holm over {len(self.forgetting)} domains)."
            )
        parts = [
            f"{one.domain} by {span(one.found)} since {self.steps[one.best].title}" for one in worse
        ]
        return f"Worse at {last} than at its best step before: {'; '.join(parts)}."

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        return {
            "steps": [self._step(place) for place in range(len(self.steps))],
            "best": self._which(self.best),
            "not_told_apart": [self._which(place) for place in self.alike],
            "forgetting": [
                {
                    "domain": one.domain,
                    "best_before": self._which(one.best),
                    "worse": one.worse,
                    **_difference(one.found, one.p),
                }
                for one in self.forgetting
            ],
            "sentences": self.sentences(),
        }

    def _which(self, place: int) -> dict[str, Any]:
        return {"step": self.steps[place].step, "name": self.steps[place].side.name}

    def _step(self, place: int) -> dict[str, Any]:
        report = self.steps[place].side.report
        found = self.against.get(place)
        return {
            **self._which(place),
            **figures(report),
            "tokens": report.totals.tokens,
            "bytes": report.totals.bytes,
            "documents": report.totals.documents,
            "domains": {group.name: figures(group) for group in report.groups},
            "from_best": None if found is None else _difference(found, self.adjusted[place]),
            "signature": str(report.signature),
        }


FIGURES = ("nll_per_token", "perplexity", "bits_per_byte")
"""What is said of each step, with its intervals."""


def figures(part: Report | Group) -> dict[str, Any]:
    """Give nats per token, perplexity and bits per byte with their intervals."""
    out: dict[str, Any] = {}
    for key in (named(one, part.perplexity) for one in FIGURES):
        out[key] = number(part.metrics.get(key, math.nan))
        interval = part.intervals.get(key)
        out[f"{key}_low"] = number(interval.low) if interval else None
        out[f"{key}_high"] = number(interval.high) if interval else None
    return out


def _difference(found: Difference, p: float) -> dict[str, Any]:
    return {
        "bits_per_byte": number(found.value / LN2),
        "low": number(found.low / LN2),
        "high": number(found.high / LN2),
        "level": found.level,
        "documents": found.documents,
        "p_t": found.p_t,
        "p_sign_flip": found.p_flip,
        "p_holm": p,
    }


def span(found: Difference) -> str:
    """Write a difference in bits per byte with its interval."""
    value = f"{found.value / LN2:.4f} bits per byte"
    if math.isnan(found.low):
        return value
    return f"{value} ({found.level:.0%} {found.low / LN2:.4f} to {found.high / LN2:.4f})"


def listed(steps: Sequence[Step], most: int = 6) -> str:
    """Name steps: steps 100, 200 and 300."""
    if len(steps) > most:
        return f"{len(steps)} others from {steps[0].title} to {steps[-1].title}"
    numbered = all(one.label == str(one.step) for one in steps)
    names = [one.label if numbered else one.title for one in steps]
    words = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f"step{'s' * (len(names) > 1)} {words}" if numbered else words


def _capital(text: str) -> str:
    return "S" + text[1:] if text.startswith("step ") else text


def read(folder: Path, model: str | None = None) -> tuple[Checkpoint, Side]:
    """Read a checkpoint's finished run.

    Args:
        folder: the run directory.
        model: the checkpoint; None = as the run was asked for.

    Raises:
        InputError: when it is no finished run.
    """
    side = read_side(folder)
    asked = (runs.read(folder)[0].get("ask") or {}).get("model") or ""
    found = describe(model or asked or folder.name)
    step = found.step if found.step is not None else step_of(folder.name)
    found = Checkpoint(found.model, found.name, step)
    return found, Side(found.name, side.signature, side.report, side.records)


def trace(
    found: Sequence[tuple[Checkpoint, Side]],
    allow: Collection[str] = (),
    level: float = LEVEL,
    seed: int = 0,
) -> Curve:
    """Order checkpoints by step, find the best, and test the others against it.

    The best is tested against every other step, the p values of the paired t tests being corrected
    for their number after Holm; a step is told apart where that, the sign flips and the interval
    all say so. A domain's last step is held against its best step before. That one was chosen as
    the lowest, and the lowest of many is low by luck too: its p is multiplied by their number
    (Bonferroni), before Holm over domains.

    Args:
        found: the checkpoints and their runs.
        allow: keys of the signatures that may differ although they make numbers incomparable.
        level: of intervals and tests.
        seed: of the random sign flips.

    Raises:
        InputError: when there is none, or two are of the same step, or their documents differ.
        ProtocolError: when the signatures differ in what makes numbers incomparable.
    """
    if not found:
        raise InputError("There is no finished run of a checkpoint to draw a curve of.")
    steps = _steps(found)
    for step in steps[1:]:
        refuse(steps[0].side, step.side, allow)
    finite = [place for place, step in enumerate(steps) if step.finite]
    best = min(finite, key=lambda place: steps[place].side.bits_per_byte, default=0)
    against = {
        place: compare(steps[best].side, steps[place].side, allow, level, seed).byte
        for place in finite
        if place != best
    }
    adjusted = dict(zip(against, holm([one.p_t for one in against.values()]), strict=True))
    forgetting = _forgetting(steps, allow, level, seed)
    return Curve(steps, best, against, adjusted, forgetting, level)


def _steps(found: Sequence[tuple[Checkpoint, Side]]) -> tuple[Step, ...]:
    sides = {id(checkpoint): side for checkpoint, side in found}
    out: list[Step] = []
    for checkpoint in in_order(checkpoint for checkpoint, _ in found):
        # What bears no step stands behind the last that does.
        step = checkpoint.step
        label = checkpoint.name if step is None else str(step)
        if step is None:
            step = out[-1].step + 1 if out else 1
        if out and out[-1].step == step:
            raise InputError(
                f"{out[-1].side.name} and {checkpoint.name} are both of step {step}; a curve "
                "takes the checkpoints of one training, each once."
            )
        out.append(Step(step, label, sides[id(checkpoint)]))
    return tuple(out)


def _forgetting(
    steps: Sequence[Step], allow: Collection[str], level: float, seed: int
) -> tuple[Forgetting, ...]:
    last = steps[-1]
    earlier = [place for place, step in enumerate(steps[:-1]) if step.finite]
    if not earlier or not last.finite:
        return ()
    lowest: dict[str, tuple[float, int]] = {}
    for place in earlier:
        for group in steps[place].side.report.groups:
            value = group.totals.per("bytes")
            if value < lowest.get(group.name, (math.inf, 0))[0]:
                lowest[group.name] = value, place
    bests = {
        group.name: lowest[group.name][1]
        for group in last.side.report.groups
        if group.name in lowest
    }
    compared = {
        place: compare(steps[place].side, last.side, allow, level, seed).groups
        for place in set(bests.values())
    }
    kept = [
        (name, place, compared[place][name])
        for name, place in bests.items()
        if name in compared[place]
    ]
    adjusted = holm([min(1.0, len(earlier) * one.p_t) for _, _, one in kept])
    return tuple(
        Forgetting(name, place, one, p)
        for (name, place, one), p in zip(kept, adjusted, strict=True)
    )
