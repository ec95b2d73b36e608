"""Undoing WikiText's tokenisation: readable text, or exactly what lm-evaluation-harness scores."""

from __future__ import annotations

import re

LM_EVAL: tuple[tuple[str, str], ...] = (
    (re.escape("s '"), "s'"),
    # The slashes are part of the pattern there, so it hardly ever matches.
    ("/' [0-9]/", "/'[0-9]/"),
    (re.escape(" @-@ "), "-"),
    (re.escape(" @,@ "), ","),
    (re.escape(" @.@ "), "."),
    *((re.escape(f" {mark} "), f"{mark} ") for mark in ":;.!?,"),
    (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)
"""Replacements in lm-eval 0.4.13's order (``tasks/wikitext/preprocess_wikitext.py``)."""

READABLE: tuple[tuple[str, str], ...] = (
    (r" @([-,.])@ ", r"\1"),
    (r" ([,.;:!?%)\]])", r"\1"),
    (r"([(\[$£€]) ", r"\1"),
    (r" ('(?:s|t|re|ve|ll|d|m)\b)", r"\1"),
    (r"\" ([^\"\n]*?) \"", r'"\1"'),
    (r" – (?=\d)(?<=\d – )", "–"),
    (r"(?m)^ (=+(?: =)*) (.*?) \1 ?$", r"\1 \2 \1"),
    (r"(?m)^ | $", ""),
)


def apply(table: tuple[tuple[str, str], ...], text: str) -> str:
    """Apply replacements in order."""
    for pattern, replacement in table:
        text = re.sub(pattern, replacement, text)
    return text


def lm_eval_wikitext(page: str) -> str:
    """Give the text that lm-eval's ``wikitext`` task scores for a page."""
    return apply(LM_EVAL, page)


def readable_wikitext(page: str) -> str:
    """Give a page as a person would write it."""
    return apply(READABLE, page)
