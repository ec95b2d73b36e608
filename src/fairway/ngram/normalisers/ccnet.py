"""The normaliser of cc_net, as it ships and per line, and edugp's settings of it.

Source: ``cc_net/text_normalizer.py`` and ``cc_net/mine.py`` of facebookresearch/cc_net, bda555b;
``model.py`` of edugp/kenlm on the Hugging Face hub. They map a full-width one to a quotation mark,
but digits have become zeros by then.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable

from fairway.ngram.normalisers.characters import Mapped, Table, settle_marks, settle_sigmas

PUNCTUATION = {
    "，": ",", "。": ".", "、": ",", "„": '"', "”": '"', "“": '"', "«": '"', "»": '"', "１": '"',
    "」": '"', "「": '"', "《": '"', "》": '"', "´": "'", "∶": ":", "：": ":", "？": "?",
    "！": "!", "（": "(", "）": ")", "；": ";", "–": "-", "—": " - ", "．": ". ", "～": "~",
    "’": "'", "…": "...", "━": "-", "〈": "<", "〉": ">", "【": "[", "】": "]", "％": "%",
    "►": "-",
}  # fmt: skip
"""What punctuation becomes."""
UNPRINTABLE = frozenset(map(chr, (*range(32), *range(127, 160))))
"""Control characters that are taken away, newlines among them."""
DIGIT = re.compile(r"\d")


def without_marks(text: str) -> str:
    """Decompose (NFD) and take combining marks away."""
    return "".join(
        char for char in unicodedata.normalize("NFD", text) if unicodedata.category(char) != "Mn"
    )


@functools.cache
def table(lower: bool, accents: bool, digits: bool, punctuation: bool, kept: str) -> Table:
    """Give what becomes of single characters; see `whole`; control characters in kept stay."""

    def replace(char: str) -> str:
        made = char.lower() if lower else char
        made = made if accents else without_marks(made)
        made = made if digits else DIGIT.sub("0", made)
        if not punctuation:
            made = "".join(PUNCTUATION.get(one, one) for one in made)
        return "".join(one for one in made if one not in UNPRINTABLE or one in kept)

    return Table(replace)


def whole(
    text: str,
    lower: bool = True,
    accents: bool = False,
    digits: bool = False,
    punctuation: bool = False,
) -> Mapped:
    """Normalise a document as cc_net's pipeline does, its lines glued together.

    Args:
        text: a document.
        lower: write small letters.
        accents: keep accents and other combining marks.
        digits: keep digits; else each becomes a zero.
        punctuation: keep punctuation that ASCII has another character for.
    """
    given = _settled(Mapped.of(text).strip(), lower, accents)
    return table(lower, accents, digits, punctuation, "").apply(given)


def lines(
    text: str,
    lower: bool = True,
    accents: bool = False,
    digits: bool = False,
    punctuation: bool = False,
) -> Mapped:
    """Normalise each line of a document, as the models were trained; see `whole`."""
    given = _settled(Mapped.of(text).strip_lines(), lower, accents)
    return table(lower, accents, digits, punctuation, "\n").apply(given)


def _settled(given: Mapped, lower: bool, accents: bool) -> Mapped:
    """Settle what hangs on neighbours."""
    given = settle_sigmas(given) if lower else given
    return given if accents else settle_marks(given)


edugp: Callable[..., Mapped] = functools.partial(whole, lower=False, accents=True)
"""The models of edugp/kenlm are cased and accented."""
