"""What bytes a server may mean by the way in which it spells a token."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from fairway.backends.openai.answer import Entry

LOST = "\ufffd"
"""What decoders write for bytes that are no whole character."""
BLANK = "\u2581"
"""How SentencePiece writes a blank."""
PARTS = 3
"""Bytes of a cut character, at most, at each end of a token."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to spell tokens.

    Attributes:
        name: of it.
        exact: the bytes that a spelling stands for; none where it can stand for none.
        lost: how a decoder treats bytes that are no whole character, ``replace``, ``ignore`` or
            ``late``, which gives a character to its last token; None = no byte is lost.
        blank: whether a token's leading blank may be left away; then no token has one.
        told: whether only bytes count that the server tells, and spellings that lose none.
    """

    name: str
    exact: Callable[[str], bytes | None]
    lost: str | None = None
    blank: bool = False
    told: bool = False

    def speaks(self, entries: Sequence[Entry]) -> bool:
        """Whether an answer can be spelled so at all."""
        return not self.blank or not any((e.token or "").startswith(" ") for e in entries[1:])

    def ends(self, entry: Entry, body: bytes, at: int) -> set[int]:
        """Give the places at which a token that begins at a place of the text can end."""
        found = set()
        token = entry.token
        if entry.raw is not None and body.startswith(entry.raw, at):
            found.add(at + len(entry.raw))
        if token is None or (self.told and (entry.raw is not None or LOST in token)):
            return found
        exact = self.exact(token)
        if exact and body.startswith(exact, at):
            found.add(at + len(exact))
        if entry.raw is not None and LOST.encode() not in entry.raw:
            return found  # its bytes are told, and are whole
        if self.blank and exact is not None and body.startswith(b" " + exact, at):
            found.add(at + len(exact) + 1)
        if self.lost == "replace" and LOST in token:
            found |= _replaced(token, body, at)
        if self.lost == "ignore":
            found |= _ignored(token, body, at)
        if self.lost == "late":
            found |= _late(token, body, at)
        return found


def plain(token: str) -> bytes | None:
    """Read a spelling as the text itself."""
    return token.encode("utf-8", "surrogatepass")


def pieces(token: str) -> bytes | None:
    """Read a piece of SentencePiece: U+2581 is a blank, ``<0xE2>`` a byte."""
    byte = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token)
    if byte is not None:
        return bytes([int(byte.group(1), 16)])
    return token.replace(BLANK, " ").encode("utf-8", "surrogatepass")


def byte_level(token: str) -> bytes | None:
    """Read a spelling in the alphabet of byte-level vocabularies (GPT-2's), a character a byte.

    Tokens that were added to such a vocabulary are written as they are.
    """
    table = _alphabet()
    try:
        return bytes(table[char] for char in token)
    except KeyError:
        return plain(token)


@cache
def _alphabet() -> Mapping[str, int]:
    """GPT-2's ``bytes_to_unicode``, read backwards.

    Printable bytes of Latin-1 stand for themselves, the others for the characters from U+0100 on.
    """
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {
        chr(0x100 + place): byte for place, byte in enumerate(others)
    }


DIALECTS: tuple[tuple[Dialect, ...], ...] = (
    (Dialect("bytes", plain, told=True),),
    (
        Dialect("text", plain, "replace"),
        Dialect("pieces", pieces, "replace"),
        Dialect("byte-level", byte_level),
    ),
    (
        Dialect("text without blanks", plain, "replace", True),
        Dialect("text without cut characters", plain, "ignore"),
        Dialect("text with characters at their last token", plain, "late"),
    ),
)
"""Dialects in groups: a later group is tried only where none of an earlier one fits."""


def _replaced(token: str, body: bytes, at: int) -> set[int]:
    """Ends such that the bytes between decode to a spelling with replacement characters.

    Decoders differ in how many of them stand for bytes in a row: a run counts as one.
    """
    short = _runs(token)
    size = len(short.replace(LOST, "").encode("utf-8", "surrogatepass"))
    last = min(len(body), at + size + 2 * PARTS)
    return {
        end
        for end in range(at + max(1, size), last + 1)
        if _runs(body[at:end].decode("utf-8", "replace")) == short
    }


def _ignored(token: str, body: bytes, at: int) -> set[int]:
    """Ends such that the bytes between decode to a spelling without those that are cut off."""
    size = len(token.encode("utf-8", "surrogatepass"))
    last = min(len(body), at + size + 2 * PARTS)
    return {
        end
        for end in range(at + max(1, size), last + 1)
        if body[at:end].decode("utf-8", "ignore") == token
    }


def _late(token: str, body: bytes, at: int) -> set[int]:
    """Ends such that a spelling is the characters that end between; vLLM decodes so."""
    begin = at
    while begin and at < len(body) and body[begin] & 0xC0 == 0x80:
        begin -= 1
    size = len(token.encode("utf-8", "surrogatepass"))
    last = min(len(body), begin + size + PARTS)
    return {
        end for end in range(at + 1, last + 1) if body[begin:end].decode("utf-8", "ignore") == token
    }


def _runs(text: str) -> str:
    return re.sub(f"{LOST}+", LOST, text)
