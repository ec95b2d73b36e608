"""Whether the tokens of an answer make up the prompt: all of it, a part, or another text.

White space is left out of the comparison, and so is Unicode's form: engines trim and normalise, and
whether tokens can be placed in the text is for the alignment to say. Here it is told what a server
left away or put in.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from fairway.backends.openai.answer import Entry

WHOLE, UNKNOWN, HEAD, TAIL, MIDDLE = "whole", "unknown", "head", "tail", "middle"
TWICE, BYTES, SURPLUS, OTHER = "twice", "bytes", "surplus", "other"
LONGEST = 64
"""Characters of one token, at most."""
LOST = "\ufffd"
"""What stands where bytes were no UTF-8."""
SPECIAL = re.compile(r"<s>|<bos>|<\|[^<>|]{1,40}\|>|\[[A-Z]{2,5}\]|<[a-z_]{2,20}>|")
"""Spellings of tokens that stand for no text; the empty one among them."""
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def leading(entries: Sequence[Entry], text: str | None) -> int:
    """Count the entries in front that are no part of the text: a BOS, at most two."""
    count = 0
    for one in entries[:2]:
        if one.token is None or not SPECIAL.fullmatch(one.token):
            break
        if one.raw or (text and one.token and text.startswith(one.token)):
            break
        if not one.token and text and not text[0].isascii():
            break  # it may be the first bytes of a character
        count += 1
    return count


def covers(entries: Sequence[Entry], text: str) -> str:
    """Say how an answer's tokens stand to the prompt.

    Returns:
        ``whole``; ``head``, ``tail`` or ``middle`` = what is lost; ``bytes`` = characters beyond
        ASCII are lost; ``twice`` = tokens are repeated; ``surplus`` = more than the prompt;
        ``other`` = another text; ``unknown`` = tokens are not spelled.
    """
    entries = entries[leading(entries, text) :]
    # vLLM does not spell the first token, which has no number.
    bare = len(entries) > 1 and entries[0].token is None and entries[0].raw is None
    entries = entries[bare:]
    said = [reading for read in READINGS if (reading := read(entries)) is not None]
    if not said:
        return UNKNOWN
    found = [_compared(pieces, text, bare) for pieces in said]
    return min(found, key=ORDER.index)


def _compared(pieces: Sequence[str], text: str, bare: bool) -> str:
    """Say how spelled tokens stand to the prompt, the first of which may be lacking."""
    joined = "".join(pieces)
    fold = LOST not in joined
    got, want = _plainly(joined, fold), _plainly(text, fold)
    if got == want or _replaced(got, want):
        return WHOLE
    if not fold:
        got, want = _blurred(got), _blurred(want)
    if bare and want.endswith(got):
        return WHOLE if len(want) - len(got) <= LONGEST else HEAD
    if bare and got in want:
        return TAIL
    return _verdict(got, want, [piece if fold else _blurred(piece) for piece in pieces], fold)


def replaced(entries: Sequence[Entry], text: str) -> int:
    """Count the tokens that are spelled with a replacement character the text has not."""
    if LOST in text:
        return 0
    return sum(one.raw is None and LOST in (one.token or "") for one in entries)


ORDER = (WHOLE, TWICE, HEAD, TAIL, BYTES, SURPLUS, MIDDLE, OTHER)
"""Of several readings the most telling one counts."""


def _verdict(got: str, want: str, pieces: Sequence[str], fold: bool) -> str:
    once = _plainly(
        "".join(p for at, p in enumerate(pieces) if not at or p != pieces[at - 1]), fold
    )
    if got == want + want or (once if fold else _blurred(once)) == want:
        return TWICE
    if not got:
        return MIDDLE
    if want.endswith(got):
        return HEAD
    if want.startswith(got):
        return TAIL
    if got.startswith(want):
        return SURPLUS
    if _ascii(got) == _ascii(want) and _within(got.replace(LOST, ""), want):
        return BYTES
    return MIDDLE if 3 * len(got) > len(want) and _within(got, want) else OTHER


def _replaced(got: str, want: str) -> bool:
    """Whether texts are the same where replacement characters stand for some beyond ASCII."""
    if LOST not in got or _ascii(got) != _ascii(want):
        return False
    for mine, theirs in zip(GAP.split(got), GAP.split(want), strict=True):
        if LOST not in mine:
            if mine != theirs:
                return False
        elif not theirs or not _within(mine.replace(LOST, ""), theirs):
            return False
    return True


GAP = re.compile(r"[\x00-\x7f]")
"""What parts a text into its stretches beyond ASCII."""


def _ascii(text: str) -> str:
    return "".join(c for c in text if c.isascii())


def _within(part: str, whole: str) -> bool:
    """Whether the characters of one stand in the other, in their order."""
    rest = iter(whole)
    return all(one in rest for one in part)


def _plainly(text: str, fold: bool) -> str:
    """Leave white space and Unicode's form out; beside lost bytes ASCII's white space alone."""
    if fold:
        return "".join(unicodedata.normalize("NFKC", text).split())
    return text.translate(BLANKS)


BLANKS = dict.fromkeys(map(ord, " \t\n\r\v\f"))
"""White space of ASCII, as `str.translate` leaves it out."""


def _blurred(text: str) -> str:
    """Let one mark stand for each stretch beyond ASCII."""
    return WIDE.sub(LOST, text)


WIDE = re.compile(r"[^\x00-\x7f]+")


def _plain(entries: Sequence[Entry]) -> list[str] | None:
    """Read bytes where they are told, else spellings as text."""
    if any(one.token is None and one.raw is None for one in entries):
        return None
    if any(one.raw for one in entries):
        return _together([
            (one.token or "").encode("utf-8", "replace") if one.raw is None else one.raw
            for one in entries
        ])  # fmt: skip
    # An empty spelling stands for bytes that are no character: the decoder left them out.
    return [one.token or LOST for one in entries]


def _level(entries: Sequence[Entry]) -> list[str] | None:
    """Read the alphabet in which GPT-2's tokenizer spells bytes."""
    alphabet = byte_alphabet()
    pieces = []
    for one in entries:
        if one.token is None or any(c not in alphabet for c in one.token):
            return None
        pieces.append(bytes(alphabet[c] for c in one.token))
    return _together(pieces)


def _piece(entries: Sequence[Entry]) -> list[str] | None:
    """Read SentencePiece's spelling, ``<0xE2>`` among it."""
    if any(one.token is None for one in entries):
        return None
    tokens = [one.token or "" for one in entries]
    if not any("\u2581" in one or BYTE.search(one) for one in tokens):
        return None
    pieces = []
    for token in tokens:
        found = BYTE.fullmatch(token)
        pieces.append(
            bytes([int(found[1], 16)]) if found else token.replace("\u2581", " ").encode()
        )
    return _together(pieces)


def _together(pieces: Sequence[bytes]) -> list[str]:
    """Decode pieces, each as it stands where that can be done, else all of them as one."""
    try:
        return [one.decode() for one in pieces]
    except UnicodeDecodeError:
        return [b"".join(pieces).decode("utf-8", "replace")]


READINGS: tuple[Callable[[Sequence[Entry]], list[str] | None], ...] = (_plain, _level, _piece)


def byte_alphabet() -> dict[str, int]:
    """Give the byte that each character of the byte-level alphabet stands for.

    Source: GPT-2's ``bytes_to_unicode``: printable Latin-1 characters stand for themselves, the
    other bytes for the characters from U+0100 on, in their order.
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(shown)]
    return {
        **{chr(byte): byte for byte in shown},
        **{chr(256 + at): byte for at, byte in enumerate(hidden)},
    }
