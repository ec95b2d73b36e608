"""What the tokens of a vocabulary spell, and what that says of words."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.convert_slow_tokenizer import bytes_to_unicode

from fairway.errors import ModelError

WORD_END = "</w>"
"""How vocabularies that mark the end of a word spell the mark, where they do not say."""


@dataclass(frozen=True, slots=True)
class WordMarks:
    """What each token says of words.

    Attributes:
        begins: ``(v,)`` booleans: its first character is white space.
        ends: ``(v,)`` booleans: its last character is white space, or it marks the end of a word.
        special: ``(v,)`` booleans: it spells no text.
        eos: id of the token that ends a text; None = there is none.
    """

    begins: NDArray[np.bool_]
    ends: NDArray[np.bool_]
    special: NDArray[np.bool_]
    eos: int | None


def read(tokenizer: Any) -> WordMarks:
    """Sort a vocabulary by where its tokens have white space.

    A token that begins with a piece of a character is no beginning of a word: the bytes of white
    space beyond ASCII are also those of other characters, and which it will be the model does not
    say yet.

    Raises:
        ModelError: when the vocabulary holds no white space at all, as WordPiece's.
    """
    size = 1 + max(tokenizer.get_vocab().values())
    begins, ends, special = (np.zeros(size, dtype=bool) for _ in range(3))
    special[sorted(_special(tokenizer))] = True
    for token, spelled in enumerate(spell(tokenizer, range(size))):
        begins[token] = _first(spelled).isspace()
        ends[token] = _last(spelled).isspace()
    if not begins.any() and not ends.any():
        raise ModelError(
            "This tokenizer marks neither where words begin nor where they end, so the probability "
            "of a word cannot be corrected; take plain sums (--uncorrected)."
        )
    return WordMarks(begins, ends, special, tokenizer.eos_token_id)


def spell(tokenizer: Any, ids: Sequence[int] | range) -> list[bytes]:
    """Give the bytes of each token from the vocabulary's own spelling, not by decoding it.

    Byte-level vocabularies spell each byte as one character; SentencePiece ones spell a lone
    byte ``<0xNN>`` and a blank as U+2581; the mark of a word's end is a blank. Tokens that were
    added later are spelled as they are, special ones are no text.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = _special(tokenizer)
    letters = {char: byte for byte, char in bytes_to_unicode().items()}
    byte_level = is_byte_level(tokenizer)
    suffix = _word_end(tokenizer)
    found = []
    for token, spelled in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True):
        if token in special or spelled is None:
            found.append(b"")
        elif isinstance(spelled, bytes):
            found.append(spelled)
        elif token in added:
            found.append(spelled.encode("utf-8", "surrogatepass"))
        elif byte_level and all(char in letters for char in spelled):
            found.append(bytes(letters[char] for char in spelled))
        elif len(spelled) == 6 and spelled.startswith("<0x") and spelled.endswith(">"):
            found.append(bytes([int(spelled[3:5], 16)]))
        else:
            if suffix and spelled.endswith(suffix):
                spelled = spelled.removesuffix(suffix) + " "
            found.append(spelled.replace("▁", " ").encode("utf-8", "surrogatepass"))
    return found


def _special(tokenizer: Any) -> set[int]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {*tokenizer.all_special_ids, *(token for token, one in added.items() if one.special)}


def _word_end(tokenizer: Any) -> str | None:
    """How the vocabulary spells the end of a word; None where it does not mark it."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        return WORD_END
    return getattr(core.model, "end_of_word_suffix", None) or None


def _first(spelled: bytes) -> str:
    """The first character; nothing where it is not whole."""
    head = codecs.getincrementaldecoder("utf-8")("replace").decode(spelled[:4])
    return head[:1]


def _last(spelled: bytes) -> str:
    """The last character; nothing where it is not whole."""
    tail = spelled[-4:].decode("utf-8", "replace")
    return tail[-1:]


def is_byte_level(tokenizer: Any) -> bool:
    """Whether the vocabulary spells bytes as characters: a blank becomes U+0120."""
    ids = tokenizer(" ", add_special_tokens=False)["input_ids"]
    return "Ġ" in "".join(tokenizer.convert_ids_to_tokens(list(ids)))
