"""Checks of odd text: each is scored by the rules, or refused in words."""

from __future__ import annotations

from fairway.conformance.case import Case, shown
from fairway.conformance.spans import impossible, miscounted, misplaced
from fairway.errors import FairwayError
from fairway.finding import Finding

TEXTS = {
    "family emoji": "The \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 went home.",
    "flags and skin": "\U0001f1e8\U0001f1ed \U0001f44d\U0001f3fd!",
    "combining marks": "Zo\u0308e\u0301 a\u0300\u0301\u0302\u0303\u0304 cafe\u0301",
    "right to left": "\u0634\u0643\u0631\u0627\u064b \u05e9\u05dc\u05d5\u05dd \u202eabc\u202c 123",
    "NUL": "before\x00after",
    "control characters": "bell\x07 escape\x1b[31m delete\x7f",
    "line separators": "one\u2028two\u2029three\x85four\x0bfive\x0csix",
    "byte-order mark": "\ufeffThe first line",
    "replacement character": "a \ufffd b \ufffd\ufffd c",
    "CRLF": "one\r\ntwo\rthree\n\r\nfour",
    "tabs": "a\tb\t\tc\t",
    "only spaces": "     ",
    "only a newline": "\n",
    "wide spaces": "a\u00a0b\u2003c\u3000d\u200be",
    "one character": "q",
    "one wide character": "\U00013080",
    "private use": "\ue000 \U0010fffd",
    "no spaces": "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "special tokens": "<s> </s> <unk> <|endoftext|> [MASK] [CLS] <pad> \u2581",
    "compatibility forms": "\ufb01 \u00bd \u2460 \uff21 \u212b \u1e9b\u0323",
    "long": "z" * 10_000,
    "lone surrogate": "half \ud83d of one",
}
"""Odd texts by their names."""


def _halved(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _fault(case: Case, text: str) -> tuple[str, bool]:
    """Score a text; say what is wrong, and whether it was scored at all."""
    try:
        (score,) = case.score(case.document(text))
    except FairwayError as problem:
        return ("" if str(problem) else "an error without a sentence"), False
    except Exception as problem:  # a scorer under test raises whatever it likes
        return f"{type(problem).__name__}: {problem}"[:200], False
    if _halved(text):
        return "text that has no UTF-8 form is scored, and its bytes cannot be counted", True
    if score.text != text:
        return "the score's text is another one", True
    return misplaced(score) or impossible(score) or miscounted(score), True


def unicode(case: Case) -> Finding:
    """Is odd text scored by the rules, or refused in words?"""
    name = "unicode"
    refused = []
    for what, text in TEXTS.items():
        wrong, done = _fault(case, text)
        if wrong:
            return Finding(
                name, "defect", f"{what} ({shown(text)}): {wrong}",
                "Any string is scored by the rules of offsets, NaN and bytes, or refused with an "
                "InputError.",
            )  # fmt: skip
        if not done:
            refused.append(what)
    more = f"; refused in words: {', '.join(refused)}" if refused else ""
    return Finding(
        name, "ok", f"{len(TEXTS) - len(refused)} of {len(TEXTS)} odd texts scored{more}"
    )


def empty(case: Case) -> Finding:
    """Is an empty text a score of no tokens, or refused in words?"""
    name = "empty text"
    try:
        scores = case.score(case.document("", "empty"), case.documents[0])
    except FairwayError as problem:
        return Finding(name, "ok", f"refused: {problem}")
    except Exception as problem:  # a scorer under test raises whatever it likes
        return Finding(
            name, "defect", f"{type(problem).__name__}: {problem}",
            "Give a Score without tokens, or raise an InputError.",
        )  # fmt: skip
    sums = scores[0].totals
    end = sums.tokens  # such as an end of sentence
    if sums.bytes or sums.chars or sums.words or not sums.nll >= 0:
        return Finding(
            name, "defect", f"an empty text has {sums.bytes} bytes and {sums.nll:.3g} nats",
            "Nothing of it can be counted.",
        )  # fmt: skip
    return Finding(name, "ok", f"{end} tokens, 0 bytes")
