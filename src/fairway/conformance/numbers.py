"""Checks of the numbers: the same alone and together, twice, added up, and beside columns."""

from __future__ import annotations

import numpy as np

from fairway.conformance.case import Case, far, gap, nats, shown, slack
from fairway.errors import FairwayError
from fairway.finding import Finding
from fairway.scores import Score, add


def determinism(case: Case) -> Finding:
    """Does a second call, and a scorer loaded afresh, give the same bytes?"""
    name = "determinism"
    second = case.score(*case.documents)
    beyond, worst, text = far(case, list(zip(case.scores, second, strict=True)))
    if beyond:
        return Finding(
            name, "defect", f"a second call differs {nats(worst)} ({text})",
            "A score is a function of the document alone: keep no state between calls, seed "
            "whatever is random, and put the model in evaluation mode.",
        )  # fmt: skip
    same = all(
        a.logprobs.tobytes() == b.logprobs.tobytes()
        for a, b in zip(case.scores, second, strict=True)
    )
    if case.again is not None:
        fresh = case.again()
        if str(fresh.signature) != str(case.scorer.signature):
            return Finding(
                name, "defect", f"loaded afresh, its signature is {fresh.signature}",
                "The same name and options give the same signature.",
            )  # fmt: skip
        third = list(fresh.score(case.documents))
        beyond, worst, text = far(case, list(zip(case.scores, third, strict=True)))
        if beyond:
            return Finding(
                name, "defect", f"loaded afresh, it differs {nats(worst)} ({text})",
                "What changes the number belongs into the signature, and randomness is seeded.",
            )  # fmt: skip
        same &= all(
            a.logprobs.tobytes() == b.logprobs.tobytes()
            for a, b in zip(case.scores, third, strict=True)
        )
    if not same:
        return Finding(
            name, "note", "a second call agrees but for rounding, and not byte by byte",
            "A resumed run will then equal an uninterrupted one only but for rounding.",
        )  # fmt: skip
    return Finding(name, "ok", "twice, and loaded afresh, the same bytes" if case.again
                   else "twice the same bytes")  # fmt: skip


def batches(case: Case) -> Finding:
    """Is a document's score the same alone, in company, in any order, and behind itself?"""
    name = "batch invariance"
    ways = {
        "alone": [case.score(document)[0] for document in case.documents],
        "in reverse order": case.score(*case.documents[::-1])[::-1],
        "twice in a call": case.score(*case.documents, *case.documents)[len(case.documents) :],
    }
    most = 0.0
    for way, scores in ways.items():
        beyond, worst, text = far(case, list(zip(case.scores, scores, strict=True)))
        if beyond:
            return Finding(
                name, "defect", f"scored {way}, a text differs {nats(worst)} ({text})",
                "Nothing of one document may reach another: padding, states and caches are the "
                "usual ways.",
            )  # fmt: skip
        most = max(most, worst)
    return Finding(name, "ok", f"alone, reversed and repeated alike, to {most:.1g} nats per token")


def additivity(case: Case) -> Finding:
    """Are the sums of some documents those of each of them, added up?"""
    name = "additivity"
    alone = add(case.score(document)[0].totals for document in case.documents)
    together = add(score.totals for score in case.scores)
    exact = -sum(float(np.nansum(score.logprobs)) for score in case.scores)
    counts = [
        (what, getattr(alone, what), getattr(together, what))
        for what in ("documents", "tokens", "tokens_skipped", "words", "chars", "bytes")
    ]
    wrong = next((f"{a} {what} one by one and {b} together" for what, a, b in counts if a != b), "")
    room = slack(case.scorer.signature)[1] * max(1, together.tokens)
    for what, one, other in (
        ("one by one", alone.nll, together.nll), ("summed by hand", exact, together.nll),
    ):  # fmt: skip
        if not wrong and one != other and not abs(one - other) <= room:
            wrong = f"{one:.6f} nats {what} and {other:.6f} together"
    if wrong:
        return Finding(
            name, "defect", wrong,
            "Totals are sums over a document's own tokens; a report adds them up and divides once.",
        )  # fmt: skip
    return Finding(
        name, "ok",
        f"{together.nll:.3f} nats, {together.tokens} tokens and {together.bytes} bytes either way",
    )  # fmt: skip


def _filled(score: Score, name: str, vocabulary: int | None) -> str:
    """Say what is wrong with a column that was asked for; empty where nothing is."""
    column = score.extras.get(name)
    if column is None:
        return f"{name} was asked for and is not there"
    column = np.asarray(column)
    if column.shape[:1] != (len(score),):
        return f"{name} has the shape {column.shape} beside {len(score)} tokens"
    done = ~np.isnan(score.logprobs)
    values = column[done].astype(np.float64)
    if np.isnan(values).any():
        return f"{name} is NaN where a token is scored"
    if name == "entropy" and len(values):
        if values.min() < 0:
            return f"an entropy is {values.min():.3g}, below zero"
        if vocabulary and values.max() > np.log(vocabulary) + 1e-3:
            return f"an entropy is {values.max():.3g}, above the logarithm of {vocabulary} tokens"
    if name == "rank" and len(values):
        if values.min() < 0 or (values != np.floor(values)).any():
            return "a rank is below zero or no whole number (0 = the most likely token)"
        if "entropy" in score.extras and (values == 0).any():
            best = score.logprobs[done][values == 0]
            spread = np.asarray(score.extras["entropy"])[done][values == 0]
            # -log of the largest probability is at most the entropy.
            if (-best > spread + 1e-2).any():
                return "a token of rank 0 is less likely than the entropy allows"
    if name == "top" and len(values) and ((values < -1) | (values != np.floor(values))).any():
        return "top holds what is no id"
    return ""


def columns(case: Case) -> Finding:
    """Are the columns that it declares filled, one row for each token, with possible values?"""
    name = "columns"
    declared = tuple(getattr(case.scorer, "columns", ()))
    if not declared:
        return _undeclared(case, name)
    vocabulary = getattr(getattr(case.scorer, "vocabulary", None), "size", None)
    # No window is asked for with the others: it says of a token where it was read.
    want = list(dict.fromkeys((*declared, *(("top5",) if "top" in declared else ()))))
    scores = case.score(*case.documents, want=want)
    wrong = ""
    for plain, score in zip(case.scores, scores, strict=True):
        for column in want:
            said = _filled(score, column, vocabulary if isinstance(vocabulary, int) else None)
            wrong = wrong or (said and f"{said} ({shown(score.text)})")
        if not wrong and far(case, [(plain, score)])[0]:
            wrong = f"with columns, {shown(score.text)} differs {nats(gap(plain, score)[0])}"
    if wrong:
        return Finding(
            name, "defect", wrong,
            "Score.extras has a row for each token: entropy (nats), rank (tokens that are more "
            "likely), top (ids); leave out of columns what the kind cannot fill.",
        )  # fmt: skip
    return Finding(name, "ok", f"{', '.join(want)} filled for each scored token")


def _undeclared(case: Case, name: str) -> Finding:
    try:
        case.score(case.documents[0], want=("no-such-column",))
    except FairwayError:
        return Finding(name, "skipped", "the kind declares none, and refuses to fill any")
    return Finding(name, "skipped", "the kind declares none")
