"""Checks of the seam itself: what goes in comes out, named, in order, or is refused in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from fairway.conformance.case import SOURCE, Case, gap, kept, shown
from fairway.corpus import Document
from fairway.errors import FairwayError
from fairway.finding import Finding
from fairway.scores import Score
from fairway.signature import Signature, parse

OTHER = "By noon the fish was sold: who knew?"


def documents(case: Case) -> Finding:
    """Does each document come back, in its place, with its id and its text?"""
    name = "documents"
    if case.problem:
        return Finding(
            name, "defect", f"plain text cannot be scored: {case.problem}",
            "score(documents) takes any plain text; where a text needs a context, set "
            "needs_context = True on the scorer.",
        )  # fmt: skip
    wrong = ""
    if len(case.scores) != len(case.documents):
        wrong = f"{len(case.documents)} documents give {len(case.scores)} scores"
    for document, score in zip(case.documents, case.scores, strict=False):
        wrong = wrong or _misfit(document, score)
    if wrong:
        return Finding(
            name, "defect", wrong,
            "score gives one Score for each document, in their order, with the document's id and "
            "text, a float64 log-probability, an integer id and a span for each token.",
        )  # fmt: skip
    tokens = sum(len(score) for score in case.scores)
    form = " behind a context" if case.source else ""
    if case.refused:
        form += f"; {len(case.refused)} refused in words ({case.refused[0][:160]})"
    return Finding(name, "ok", f"{len(case.scores)} documents of {tokens} tokens{form}")


def _misfit(document: Document, score: Any) -> str:
    if not isinstance(score, Score):
        return f"score gives a {type(score).__name__} and no Score"
    size = len(score.logprobs)
    if score.id != document.id or score.text != document.text:
        return f"the score of {document.id} has the id {score.id!r} and the text " + shown(
            score.text
        )
    if not kept(document, score):
        return f"the score of {document.id} does not keep which spans are scored"
    if score.offsets.shape != (size, 2) or score.ids.shape != (size,):
        return (
            f"{document.id} has {size} log-probabilities, offsets of shape {score.offsets.shape} "
            f"and ids of shape {score.ids.shape}"
        )
    if score.logprobs.dtype != np.float64 or score.logprobs.ndim != 1:
        return f"log-probabilities are {score.logprobs.dtype} of shape {score.logprobs.shape}"
    for what, array in (("offsets", score.offsets), ("ids", score.ids)):
        if not np.issubdtype(array.dtype, np.integer):
            return f"{what} are {array.dtype}"
    return ""


def signature(case: Case) -> Finding:
    """Does the signature name what it must, and can it be read back?"""
    name, wrong = "signature", ""
    found: Any = case.scorer.signature
    if not isinstance(found, Signature):
        wrong = f"the signature is a {type(found).__name__}"
        return Finding(name, "defect", wrong, "Give a fairway.signature.Signature.")
    if parse(str(found)) != found:
        wrong = "parse(str(signature)) gives another signature"
    lacking = [key for key in ("model", "protocol", "unit", "version") if not found.get(key)]
    if lacking:
        wrong = f"it does not name {', '.join(lacking)}"
    kind = found.get("kind") or "hf"
    asked = getattr(case.scorer, "kind", case.kind)
    if case.kind and kind != asked:
        wrong = f"it names the kind {kind!r}, and was loaded as {asked}:"
    for key, value in found:
        absolute = PurePosixPath(value).is_absolute() or PureWindowsPath(value).drive
        if absolute or value.startswith(("~", "./", "../")):
            wrong = f"{key} is a path ({value})"
    if str(case.scorer.signature) != str(found):
        wrong = "it changes from one call to the next"
    if wrong:
        return Finding(
            name, "defect", wrong,
            "A signature names kind, model (a name, never a path), protocol, unit and version, and "
            "whatever else changes the number; see fairway.signature.",
        )  # fmt: skip
    return Finding(name, "ok", str(found))


def context(case: Case) -> Finding:
    """Is a context read, not scored, and does it change the numbers?"""
    name = "context"
    text = " " + case.text
    plain = Document("plain", text, SOURCE if case.source else "")
    behind = replace(plain, id="behind", context=OTHER)
    try:
        one, other = case.score(behind, plain)
    except FairwayError as problem:
        return Finding(name, "skipped", f"the kind refuses a context: {problem}")
    wrong = _misfit(behind, other if other.id == "behind" else one)
    sizes = one.totals
    if not wrong and len(one) and int(one.offsets.max()) > len(text):
        wrong = "offsets count the context's characters too"
    if not wrong and sizes.bytes > len(text.encode()):
        wrong = f"{sizes.bytes} bytes are counted of a text of {len(text.encode())}"
    if wrong:
        return Finding(
            name, "defect", wrong,
            "A Score holds the tokens of document.text alone, with offsets in it; the context is "
            "only read.",
        )  # fmt: skip
    if gap(one, other)[0] > 0 or one.totals.nll != other.totals.nll:
        apart = (other.totals.nll - one.totals.nll) / max(1, sizes.tokens)
        return Finding(
            name, "ok", f"it is not scored, and moves the text by {apart:+.3f} nats per token"
        )
    if getattr(case.scorer, "contextual", True):
        return Finding(
            name, "defect", "a context is taken and changes nothing",
            "Read document.context before the text, refuse it with an InputError, or set "
            "contextual = False on a scorer whose tokens depend on nothing before the text.",
        )  # fmt: skip
    return Finding(name, "ok", "the kind's tokens depend on nothing before the text, as it says")


def refusals(case: Case) -> Finding:
    """Are token ids and windows taken, or refused in words?"""
    name, said = "ids and windows", []
    text = case.text
    ids = np.asarray([2, 3, 4, 3], np.int64)
    given = {
        "token ids": Document("ids", "", SOURCE if case.source else "", ids=ids),
        "windows": case.document(text, "windows", windows=((0, 0, 9), (4, 9, len(text)))),
        "a message": case.document(
            text, "chat", metadata={"messages": [{"role": "user", "content": text}]}
        ),
    }
    for what, document in given.items():
        try:
            (score,) = case.score(document)
        except FairwayError:
            said.append(f"{what} refused")
            continue
        except Exception as problem:  # a scorer under test raises whatever it likes
            return Finding(
                name, "defect", f"{what} give {type(problem).__name__}: {problem}",
                "Score them, or raise an InputError that says that the kind cannot.",
            )  # fmt: skip
        if what == "token ids" and not np.array_equal(score.ids[-len(ids) :], ids):
            return Finding(
                name, "defect", "a document of token ids gives a score of other ids",
                "Score document.ids, or raise an InputError.",
            )  # fmt: skip
        said.append(f"{what} scored")
    return Finding(name, "ok", ", ".join(said))
