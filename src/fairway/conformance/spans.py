"""Checks of what is scored: spans in characters, NaN, bytes."""

from __future__ import annotations

import re

import numpy as np

from fairway.conformance.case import Case, kept, shown, slack
from fairway.errors import FairwayError
from fairway.finding import Finding
from fairway.scores import Score
from fairway.text import mark

ABOVE = 1e-6
"""How far rounding may push a log-probability above zero, nats."""


def _spelled(score: Score) -> bool:
    """Whether tokens lie in a source text, and not only in ids."""
    return score.token_bytes is None


def misplaced(score: Score) -> str:
    """Say what is wrong with a score's offsets; empty where nothing is."""
    if not _spelled(score) or not len(score):
        return ""
    spans, size = score.offsets, len(score.text)
    if spans.min() < 0 or spans.max() > size:
        return (
            f"offsets of {shown(score.text)} reach to {int(spans.max())}, and the text has {size} "
            f"characters ({len(score.text.encode('utf-8', 'surrogatepass'))} bytes)"
        )
    if (spans[:, 1] < spans[:, 0]).any():
        return f"a token of {shown(score.text)} ends before it begins"
    if (np.diff(spans[:, 0]) < 0).any():
        return f"tokens of {shown(score.text)} do not stand in order"
    outside = ~mark(spans, size)
    lost = [c for c, out in zip(score.text, outside, strict=True) if out and c.isprintable()]
    lost = [c for c in lost if not c.isspace()]
    if lost and not score.lossy:
        return f"no token of {shown(score.text)} covers {ascii(''.join(lost[:5]))}"
    return ""


def offsets(case: Case) -> Finding:
    """Do offsets lie in the text, in order, in characters, and cover all of it?"""
    name = "offsets"
    wrong = next((said for score in case.scores if (said := misplaced(score))), "")
    if wrong:
        return Finding(
            name, "defect", wrong,
            "Offsets are character spans in document.text, ordered by their start; where a "
            "normaliser drops characters, set lossy=True on the Score.",
        )  # fmt: skip
    lossy = sum(bool(score.lossy) for score in case.scores)
    more = f"; {lossy} texts are coded lossily, and say so" if lossy else ""
    return Finding(name, "ok", f"in the text, ordered, in characters, nothing left out{more}")


def impossible(score: Score) -> str:
    """Say what no log-probability can be; empty where all can."""
    values = score.logprobs[~np.isnan(score.logprobs)]
    if len(values) and values.max() > ABOVE:
        return f"a log-probability of {shown(score.text)} is {values.max():.3g}, above zero"
    if score.totals.tokens != len(values):
        return f"{score.totals.tokens} tokens are counted and {len(values)} have a number"
    return ""


def not_scored(case: Case) -> Finding:
    """Is every log-probability at most zero, and NaN only where nothing was to be scored?"""
    name = "NaN rule"
    wrong = next((said for score in case.scores if (said := impossible(score))), "")
    if not wrong and not any(score.totals.tokens for score in case.scores):
        wrong = "no token of any text is scored"
    skipped = sum(score.totals.tokens_skipped for score in case.scores)
    if wrong:
        return Finding(
            name, "defect", wrong,
            "logprobs are natural logarithms of probabilities; NaN stands for not scored, and "
            "nothing else does.",
        )  # fmt: skip
    tokens = sum(len(score) for score in case.scores)
    return Finding(name, "ok", f"{tokens - skipped} of {tokens} tokens scored, {skipped} counted "
                   "as skipped")  # fmt: skip


def prefix(case: Case) -> Finding:
    """Is a text's first token scored if the signature names a prefix, and else not?"""
    name = "prefix"
    named = case.scorer.signature.get("prefix")
    kept = [score for score in case.scores if len(score)]
    first = [bool(np.isnan(score.logprobs[0])) for score in kept]
    if case.source:
        return Finding(name, "skipped", "the context stands before every text")
    if named is None:
        scored = len(first) - sum(first)
        return Finding(
            name, "skipped",
            f"the kind has none; the first token of {scored} of {len(first)} texts is scored",
        )  # fmt: skip
    if case.scorer.signature.get("protocol") != "fairway":
        return Finding(name, "skipped", "the convention's own windows decide what is scored")
    wanted = named == "none"
    odd = [score for score, missing in zip(kept, first, strict=True) if missing is not wanted]
    if odd:
        return Finding(
            name, "defect",
            f"prefix:{named}, and the first token of {shown(odd[0].text)} is "
            f"{'scored' if wanted else 'not scored'}",
            "With a prefix every first token has something before it; without one it has not, and "
            "is NaN.",
        )  # fmt: skip
    rest = [score for score in kept if np.isnan(score.logprobs[1:]).any()]
    if rest:
        return Finding(
            name, "defect", f"tokens behind the first of {shown(rest[0].text)} are not scored",
            "Windows of the fairway convention score each token once.",
        )  # fmt: skip
    state = "not scored" if wanted else "scored"
    return Finding(name, "ok", f"prefix:{named}, and first tokens are {state}")


def miscounted(score: Score) -> str:
    """Say where the bytes that count are not the source's; empty where they are."""
    sums = score.totals
    size = len(score.text.encode("utf-8", "surrogatepass"))
    whole = not np.isnan(score.logprobs).any() and len(score) > 0
    if whole and score.scored is None and (sums.bytes, sums.chars) != (size, len(score.text)):
        return (
            f"{shown(score.text)} is scored as a whole, and {sums.bytes} bytes and {sums.chars} "
            f"characters count of {size} and {len(score.text)}"
        )
    if sums.bytes > size:
        return f"{sums.bytes} bytes count of the {size} of {shown(score.text)}"
    return ""


def sizes(case: Case) -> Finding:
    """Are the bytes of a text that is scored as a whole its UTF-8 length?"""
    name = "bytes"
    wrong = next((said for score in case.scores if (said := miscounted(score))), "")
    if wrong:
        return Finding(
            name, "defect", wrong,
            "Bytes come from the source text through the offsets, never from decoded tokens: leave "
            "token_bytes and byte_count at None where there is a text.",
        )  # fmt: skip
    total = sum(score.totals.bytes for score in case.scores)
    return Finding(name, "ok", f"{total} bytes of {len(case.scores)} texts, as in UTF-8")


def scored(case: Case) -> Finding:
    """Are spans of a document heeded: nothing else scored, nothing else counted?"""
    name = "scored spans"
    text = case.text
    words = [found.span() for found in re.finditer(r"\S+", text)]
    if len(words) < 3:
        return Finding(name, "skipped", "no text of three words is taken")
    span = (words[1][0], words[-2][1])
    document = case.document(text, scored=(span,))
    try:
        part, whole = case.score(document, case.document(text))
    except FairwayError as problem:
        return Finding(name, "skipped", f"the kind refuses them: {problem}")
    done = ~np.isnan(part.logprobs)
    wrong = ""
    if not kept(document, part):
        wrong = "the Score does not keep the document's scored spans"
    elif (done & ~part.wanted).any():
        wrong = "tokens outside the span have a log-probability"
    elif not done.any():
        wrong = "no token of the span is scored"
    elif part.totals.bytes > len(text[slice(*span)].encode()):
        wrong = f"{part.totals.bytes} bytes count of a span of {len(text[slice(*span)].encode())}"
    elif len(part) == len(whole):
        both = done & ~np.isnan(whole.logprobs)
        apart = np.abs(part.logprobs[both] - whole.logprobs[both])
        if len(apart) and apart.max() > slack(case.scorer.signature)[0]:
            wrong = f"the span's tokens differ by {apart.max():.2g} nats from the whole text's"
    if wrong:
        return Finding(
            name, "defect", wrong,
            "document.scored are character spans: tokens that touch none of them are NaN, what is "
            "before them is still read.",
        )  # fmt: skip
    return Finding(name, "ok", f"{int(done.sum())} of {len(part)} tokens, {part.totals.bytes} "
                   "bytes")  # fmt: skip
