"""Undoing WikiText's tokenisation: readable text, or exactly what lm-evaluation-harness scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Source = TypeVar("Source")

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


def lm_eval_pages(pieces: Iterable[tuple[Source, str]]) -> Iterator[tuple[Source, str]]:
    """Cut WikiText into the pages of lm-eval's data set.

    A page begins at every line that looks like a top-level heading once runs of equals signs are
    drawn together; in the test part two formulas do, so it has 62 pages and not 60. The newline
    before a heading belongs to no page, nor do blank lines before the first.

    Source: the loading script of ``EleutherAI/wikitext_document_level``.

    Args:
        pieces: the file in order, in pieces with a name each; one that lacks its last newline
            gets it.

    Yields:
        The name of the piece that the page begins in, and the page.
    """
    held: list[str] = []
    begun: Source | None = None
    for source, text in pieces:
        for line in text.removesuffix("\n").split("\n"):
            bare = line.replace("= = =", "===").replace("= =", "==").strip()
            if bare.startswith("= ") and bare.endswith(" ="):
                if begun is not None and any(one.strip() for one in held):
                    yield begun, "\n".join(held)
                held, begun = [], source
            held.append(line)
            begun = source if begun is None else begun
    if begun is not None:
        yield begun, "\n".join([*held, ""])


def rows(text: str) -> list[str]:
    """Cut a text into the rows of the WikiText data set: lines with newline, blank ones empty."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    return [line if line.strip() else "" for line in lines]


def readable_wikitext(page: str) -> str:
    """Give a page as a person would write it."""
    return apply(READABLE, page)


NORMALISERS: dict[str, Callable[[str], str]] = {
    "readable-wikitext": readable_wikitext,
    "lm-eval-wikitext": lm_eval_wikitext,
}
"""By the names that the signature has."""
