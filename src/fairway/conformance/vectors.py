"""Published log-probabilities, and how far a scorer is from them.

``data/vectors/NAME.json``; docs/conformance.md describes the fields, tools/vectors.py makes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import numpy as np

from fairway.conformance.case import shown
from fairway.corpus import Document
from fairway.errors import FairwayError, InputError
from fairway.finding import Finding
from fairway.protocol import convention, totals
from fairway.scorer import Scorer
from fairway.scores import Score

NAMES = ("builtin", "stories260K")
COUNTS = ("tokens", "words", "chars", "bytes")


def read(name: str) -> dict[str, Any]:
    """Read published vectors.

    Raises:
        InputError: when there are none of that name.
    """
    if name not in NAMES:
        raise InputError(f"There are no vectors {name!r}; --vectors takes {', '.join(NAMES)}.")
    path = files("fairway") / "data" / "vectors" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def examine(vectors: Mapping[str, Any], load: Callable[..., Scorer]) -> list[Finding]:
    """Hold a scorer against vectors, protocol by protocol.

    Args:
        vectors: as `read` gives them.
        load: gives the scorer under a protocol's settings (like, max_length, stride, prefix).

    Returns:
        One finding for each protocol with its settings.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for case in vectors["cases"]:
        groups.setdefault(_name(case), []).append(case)
    return [_hold(name, cases, vectors, load) for name, cases in groups.items()]


def _name(case: Mapping[str, Any]) -> str:
    """Name a protocol with its settings: ``fairway 48/24 none`` is length, stride, prefix."""
    settings = case["settings"]
    window = "/".join(str(settings[key]) for key in ("max_length", "stride") if key in settings)
    return " ".join(one for one in (case["protocol"], window, settings.get("prefix", "")) if one)


def _hold(
    name: str,
    cases: list[Mapping[str, Any]],
    vectors: Mapping[str, Any],
    load: Callable[..., Scorer],
) -> Finding:
    first = cases[0]
    label = f"as {name}"
    try:
        scorer = load(like=first["protocol"], **first["settings"])
        documents = [Document(case["text"], vectors["texts"][case["text"]]) for case in cases]
        scores = list(scorer.score(documents))
    except FairwayError as problem:
        return Finding(label, "skipped", f"the kind cannot be asked for it: {problem}")
    worst, tokens = 0.0, 0
    for case, score in zip(cases, scores, strict=True):
        wrong = _structure(case, score)
        if wrong:
            return Finding(
                label, "defect", f"{shown(score.text)}: {wrong}",
                f"These vectors are those of {vectors['model']['source']}, and of no other model.",
            )  # fmt: skip
        known = _known(case)
        done = ~np.isnan(known)
        tokens += int(done.sum())
        if done.any():
            worst = max(worst, float(np.abs(known - score.logprobs)[done].max()))
    if not worst <= vectors["tolerance"]:
        return Finding(
            label, "defect",
            f"log-probabilities differ by up to {worst:.2g} nats; {vectors['tolerance']:g} is "
            "rounding of float32",
            "A faster dtype, quantised weights or a float16 cache do this; so do other weights.",
        )  # fmt: skip
    count = f"{len(cases)} text{'s' * (len(cases) != 1)}, {tokens} tokens"
    return Finding(label, "ok", f"{count}: within {worst:.1g} nats each")


def _known(case: Mapping[str, Any]) -> Any:
    return np.asarray([np.nan if v is None else v for v in case["logprobs"]], dtype=np.float64)


def _structure(case: Mapping[str, Any], score: Score) -> str:
    """Say where a score's tokens and counts differ; empty where they are those expected."""
    if score.ids.tolist() != case["ids"]:
        return "other token ids"
    if score.offsets.tolist() != case["offsets"]:
        return "other offsets"
    known = _known(case)
    if not np.array_equal(np.isnan(known), np.isnan(score.logprobs)):
        return "other tokens are scored"
    sums = totals(convention(case["protocol"]), score)
    for what in COUNTS:
        if getattr(sums, what) != case["totals"][what]:
            return f"{getattr(sums, what)} {what}, where {case['totals'][what]} are right"
    return ""
