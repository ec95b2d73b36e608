"""The conformance suite: every kind passes it, and each of its checks finds what is broken."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway import conformance, scorer
from fairway.errors import InputError
from fairway.scores import Score
from kinds import KINDS, bigram


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_conforms(name: str, plugin: Path, tmp_path: Path) -> None:
    build, options = KINDS[name]
    spec = build(tmp_path)

    def load() -> Any:
        return scorer.load(spec, **options)

    findings = conformance.examine(load(), load, scorer.split(spec)[0])
    assert [f.check for f in findings] == list(conformance.CHECKS)
    assert [f for f in findings if f.outcome == "defect"] == []
    assert sum(f.outcome == "ok" for f in findings) >= 12


# One scorer that keeps every rule, broken in one way each.


@pytest.fixture
def sound(plugin: Path, tmp_path: Path) -> Callable[[], Any]:
    spec = bigram(tmp_path)
    return lambda: scorer.load(spec)


class Broken:
    """A scorer whose scores are changed on their way out."""

    def __init__(self, inner: Any, change: Callable[[Score], Score]) -> None:
        self.inner, self.change = inner, change
        self.columns = inner.columns
        self.signature = inner.signature

    def score(self, documents: Any, want: Any = ()) -> Iterator[Score]:
        for document in documents:
            yield self.change(*self.inner.score([document], want))


def values(score: Score, change: Callable[[np.ndarray], Any]) -> Score:
    kept = score.logprobs.copy()
    out = change(kept)
    return replace(score, logprobs=kept if out is None else out)


def spread(score: Score) -> Score:
    """Offsets in bytes."""
    ends = np.cumsum([0, *(len(c.encode("utf-8", "replace")) for c in score.text)])
    return replace(score, offsets=ends[score.offsets])


def lost(score: Score) -> Score:
    """The last letter in no token."""
    last = len(score.text.rstrip()) - 1
    return replace(score, offsets=np.minimum(score.offsets, max(0, last)))


def shuffled(score: Score) -> Score:
    return replace(score, offsets=score.offsets[::-1].copy())


def padded(score: Score) -> Score:
    """Bytes from decoded tokens instead of the text."""
    return replace(score, token_bytes=np.full(len(score), 2), offsets=score.offsets)


def above(kept: np.ndarray) -> None:
    kept[-1:] = 0.5


CHANGES: dict[str, tuple[str, Callable[[Score], Score]]] = {
    "offsets in bytes": ("offsets", spread),
    "a letter in no token": ("offsets", lost),
    "offsets out of order": ("offsets", shuffled),
    "a probability above one": ("NaN rule", lambda s: values(s, above)),
    "nothing scored": ("NaN rule", lambda s: values(s, lambda v: np.full_like(v, np.nan))),
    "bytes of tokens": ("bytes", padded),
    "another id": ("documents", lambda s: replace(s, id="other")),
    "another text": ("documents", lambda s: replace(s, text=s.text.lower())),
    "half precision": ("documents", lambda s: values(s, lambda v: v.astype(np.float32))),
    "offsets of another length": ("documents", lambda s: replace(s, offsets=s.offsets[1:])),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_score_is_found(name: str, sound: Callable[[], Any]) -> None:
    check, change = CHANGES[name]
    found = outcomes(Broken(sound(), change))
    assert found[check] == "defect", found


def outcomes(broken: Any, again: Any = None, kind: str | None = "bigram") -> dict[str, str]:
    return {f.check: f.outcome for f in conformance.examine(broken, again, kind)}


def wrapped(inner: Any, **more: Any) -> Any:
    """A scorer like another one, some methods or attributes replaced."""
    kept = {"columns": inner.columns, "signature": inner.signature, "score": inner.score, **more}
    return type("Wrapped", (), {k: staticmethod(v) if callable(v) else v for k, v in kept.items()})


def only(found: dict[str, str], *checks: str) -> None:
    assert {check for check, outcome in found.items() if outcome == "defect"} == set(checks), found


def test_the_sound_scorer_is_sound(sound: Callable[[], Any]) -> None:
    only(outcomes(sound(), sound))
    only(outcomes(wrapped(sound())))


@pytest.mark.parametrize(
    "fields",
    [{"model": "/home/me/model"}, {"model": "C:\\models\\x"}, {"version": None}, {"kind": "gram"}],
)
def test_a_wrong_signature_is_found(fields: dict[str, Any], sound: Callable[[], Any]) -> None:
    inner = sound()
    only(outcomes(wrapped(inner, signature=inner.signature.with_(**fields))), "signature")


def test_a_prefix_that_is_not_there_is_found(sound: Callable[[], Any]) -> None:
    inner = sound()

    def first(score: Score, missing: bool) -> Score:
        return values(score, lambda v: v.__setitem__(slice(0, 1), np.nan)) if missing else score

    for named, missing in (("bos", True), ("none", False)):
        broken = Broken(inner, lambda s, m=missing: first(s, m))
        broken.signature = inner.signature.with_(prefix=named)
        assert outcomes(broken)["prefix"] == "defect"
        right = Broken(inner, lambda s, m=not missing: first(s, m))
        right.signature = broken.signature
        assert outcomes(right)["prefix"] == "ok"


def test_a_context_without_effect_is_found(sound: Callable[[], Any]) -> None:
    inner = sound()

    def deaf(documents: Any, want: Any = ()) -> Iterator[Score]:
        yield from inner.score([replace(one, context="") for one in documents], want)

    only(outcomes(wrapped(inner, score=deaf)), "context")
    only(outcomes(wrapped(inner, score=deaf, contextual=False)))


def test_a_context_that_is_scored_is_found(sound: Callable[[], Any]) -> None:
    inner = sound()

    def joined(documents: Any, want: Any = ()) -> Iterator[Score]:
        for one in documents:
            (score,) = inner.score([replace(one, text=one.context + one.text, context="")], want)
            yield replace(score, text=one.text)

    assert outcomes(wrapped(inner, score=joined))["context"] == "defect"


def test_spans_that_are_not_heeded_are_found(sound: Callable[[], Any]) -> None:
    inner = sound()

    def whole(documents: Any, want: Any = ()) -> Iterator[Score]:
        for one in documents:
            (score,) = inner.score([replace(one, scored=None)], want)
            yield replace(score, scored=one.scored)

    only(outcomes(wrapped(inner, score=whole)), "scored spans")


@pytest.mark.parametrize("what", ["ids", "windows"])
def test_a_crash_instead_of_a_refusal_is_found(what: str, sound: Callable[[], Any]) -> None:
    inner = sound()

    def rude(documents: Any, want: Any = ()) -> Iterator[Score]:
        for one in documents:
            if getattr(one, what) is not None:
                raise KeyError(what)
            yield from inner.score([one], want)

    only(outcomes(wrapped(inner, score=rude)), "ids and windows")


def noisy(inner: Any, size: float) -> Any:
    rolls = np.random.default_rng(0)

    def score(documents: Any, want: Any = ()) -> Iterator[Score]:
        for one in inner.score(documents, want):
            yield values(one, lambda v: v - rolls.random(len(v)) * size)

    return wrapped(inner, score=score)


def test_noise_is_found(sound: Callable[[], Any]) -> None:
    found = outcomes(noisy(sound(), 1e-3))
    assert found["determinism"] == found["batch invariance"] == found["resume"] == "defect"
    assert outcomes(noisy(sound(), 1e-11))["determinism"] == "note"


def test_another_number_when_loaded_afresh_is_found(sound: Callable[[], Any]) -> None:
    """As of a model with random weights: alike in a process, unlike in the next."""
    count = itertools.count()

    def again() -> Any:
        shift = next(count) * 1e-3
        return Broken(sound(), lambda s: values(s, lambda v: v - shift))

    found = outcomes(again(), again)
    only(found, "determinism", "resume")
    renamed = sound()
    renamed.signature = renamed.signature.with_(model="later")
    only(outcomes(sound(), lambda: renamed), "determinism")


def test_documents_that_reach_each_other_are_found(sound: Callable[[], Any]) -> None:
    """As where a state or a cache is not emptied."""
    inner = sound()

    def joined(documents: Any, want: Any = ()) -> Iterator[Score]:
        before = ""
        for one in documents:
            yield from inner.score([replace(one, context=one.context + before)], want)
            before += one.text

    found = outcomes(wrapped(inner, score=joined))
    assert found["batch invariance"] == found["additivity"] == "defect"
    assert found["determinism"] == "ok"


def test_a_number_that_depends_on_what_was_scored_before_is_found(
    sound: Callable[[], Any],
) -> None:
    """As where a vocabulary grows: in one process for a whole run, in two for a resumed one."""

    def again() -> Any:
        calls = itertools.count()
        inner = sound()

        def score(documents: Any, want: Any = ()) -> Iterator[Score]:
            shift = 1e-3 * (next(calls) > 2)
            for one in inner.score(documents, want):
                yield values(one, lambda v: v - shift)

        return wrapped(inner, score=score)

    assert outcomes(again(), again)["resume"] == "defect"


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("entropy", lambda v: -v),
        ("entropy", lambda v: v[1:]),
        ("entropy", lambda v: v * np.nan),
        ("rank", lambda v: v - 1),
        ("rank", lambda v: v + 0.5),
        ("rank", lambda v: v * 0),
    ],
)
def test_an_impossible_column_is_found(
    column: str, change: Callable[[Any], Any], sound: Callable[[], Any]
) -> None:
    def swap(score: Score) -> Score:
        if column not in score.extras:
            return score
        return replace(score, extras={**score.extras, column: change(score.extras[column])})

    assert outcomes(Broken(sound(), swap))["columns"] == "defect"


def test_a_column_that_is_declared_and_missing_is_found(sound: Callable[[], Any]) -> None:
    inner = sound()

    def score(documents: Any, want: Any = ()) -> Iterator[Score]:
        yield from inner.score(documents, set(want) & {"entropy", "rank"})

    only(outcomes(wrapped(inner, score=score, columns=("entropy", "rank", "top"))), "columns")


@pytest.mark.parametrize("odd", ["\x00", "\u2028", "\ufeff", "\u200d", "\r\n", "\ud83d", " " * 5])
def test_odd_text_that_crashes_is_found(odd: str, sound: Callable[[], Any]) -> None:
    inner = sound()

    def score(documents: Any, want: Any = ()) -> Iterator[Score]:
        for one in documents:
            if odd in one.text:
                raise ValueError("embedded null")
            yield from inner.score([one], want)

    only(outcomes(wrapped(inner, score=score)), "unicode")


def test_half_a_surrogate_pair_that_is_scored_is_found(sound: Callable[[], Any]) -> None:
    inner = sound()

    def score(documents: Any, want: Any = ()) -> Iterator[Score]:
        for one in documents:
            plain = one.text.encode("utf-8", "replace").decode()
            (made,) = inner.score([replace(one, text=plain)], want)
            yield replace(made, text=one.text)

    only(outcomes(wrapped(inner, score=score)), "unicode")


def test_odd_text_that_is_changed_is_found(sound: Callable[[], Any]) -> None:
    inner = sound()

    def score(documents: Any, want: Any = ()) -> Iterator[Score]:
        yield from inner.score([replace(o, text=o.text.replace("\r\n", "\n")) for o in documents])

    assert outcomes(wrapped(inner, score=score))["unicode"] == "defect"


def test_an_empty_text_that_crashes_or_weighs_is_found(sound: Callable[[], Any]) -> None:
    inner = sound()

    def crash(documents: Any, want: Any = ()) -> Iterator[Score]:
        for one in documents:
            if not one.text and one.ids is None:
                raise IndexError("list index out of range")
            yield from inner.score([one], want)

    only(outcomes(wrapped(inner, score=crash)), "empty text")


def test_a_scorer_that_scores_nothing_is_found(sound: Callable[[], Any]) -> None:
    def refuse(documents: Any, want: Any = ()) -> Iterator[Score]:
        raise ZeroDivisionError("division by zero")
        yield

    found = outcomes(wrapped(sound(), score=refuse))
    only(found, "documents")
    assert found["resume"] == found["unicode"] == "skipped"


def test_a_kind_that_needs_a_context_gets_one(sound: Callable[[], Any]) -> None:
    """As translation does: whether it says so or not."""
    inner = sound()

    def score(documents: Any, want: Any = ()) -> Iterator[Score]:
        for one in documents:
            if not one.context:
                raise InputError(f"{one.id} has no source.")
            yield from inner.score([one], want)

    only(outcomes(wrapped(inner, score=score)))
    only(outcomes(wrapped(inner, score=score, needs_context=True)))
    assert conformance.prepare(wrapped(inner, score=score)).source
