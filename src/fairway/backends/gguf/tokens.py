"""llama.cpp's tokenizer: ids of texts, and where in the text each of them lies."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import llama_cpp as api
import numpy as np
from numpy.typing import NDArray

from fairway.backends.gguf.loading import Loaded
from fairway.errors import InputError, ModelError
from fairway.protocol import Tokenizing
from fairway.text import byte_lengths
from fairway.tokenizers.vocabulary import Coded

BLANK = "\u2581"
"""How SentencePiece writes a blank, also one that the text itself writes so."""
AHEAD = 64
"""Bytes within which the alignment of a changed text looks for the next token."""
KINDS = {
    "LLAMA_VOCAB_TYPE_SPM": "byte fallback",
    "LLAMA_VOCAB_TYPE_BPE": "byte-level",
    "LLAMA_VOCAB_TYPE_RWKV": "byte-level",
}


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of one text.

    Attributes:
        ids: ``(n,)`` vocabulary ids.
        offsets: ``(n, 2)`` character spans.
        lossy: whether the tokens do not spell the text.
    """

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    lossy: bool


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """The tokenizer of a GGUF file; also a `fairway.tokenizers.Vocabulary`.

    Attributes:
        name: what it is called.
        pointer: llama.cpp's vocabulary.
        owner: keeps the model that holds it.
    """

    name: str
    pointer: Any
    owner: Any = field(repr=False)
    _pieces: dict[int, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, loaded: Loaded) -> Tokenizer:
        """Take a loaded model's."""
        return cls(loaded.name, loaded.vocabulary, loaded)

    def __len__(self) -> int:
        return int(api.llama_vocab_n_tokens(self.pointer))

    @property
    def kind(self) -> str:
        """Whether it has a token for every byte."""
        number = api.llama_vocab_type(self.pointer)
        found = [kind for name, kind in KINDS.items() if getattr(api, name) == number]
        return found[0] if found else "characters"

    @property
    def spm(self) -> bool:
        """Whether it puts a blank before a text and writes blanks as U+2581."""
        return bool(api.llama_vocab_type(self.pointer) == api.LLAMA_VOCAB_TYPE_SPM)

    @property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of every id; empty where it stands for no text."""
        return [b"" if self._special(token) else self.piece(token) for token in range(len(self))]

    @property
    def unknown(self) -> int | None:
        """The token that stands for what the vocabulary lacks."""
        found = (t for t in range(len(self)) if self._attribute(t) & api.LLAMA_TOKEN_ATTR_UNKNOWN)
        return next(found, None)

    def _attribute(self, token: int) -> int:
        return int(api.llama_vocab_get_attr(self.pointer, token))

    def _special(self, token: int) -> bool:
        kinds = api.LLAMA_TOKEN_ATTR_CONTROL | api.LLAMA_TOKEN_ATTR_UNKNOWN
        return bool(self._attribute(token) & (kinds | api.LLAMA_TOKEN_ATTR_UNUSED))

    def piece(self, token: int) -> bytes:
        """Give the bytes that a token spells; special ones spell their name."""
        known = self._pieces.get(token)
        if known is not None:
            return known
        size = 64
        while True:
            room = ctypes.create_string_buffer(size)
            count = api.llama_token_to_piece(self.pointer, token, room, size, 0, True)
            if count >= 0:
                break
            size = -count
        self._pieces[token] = room.raw[:count]
        return self._pieces[token]

    def tokens(self, raw: bytes, special: bool, around: bool = False) -> NDArray[np.int64]:
        """Tokenize bytes that are UTF-8.

        Args:
            raw: the text.
            special: read the text of special tokens as those tokens.
            around: add the tokens that the model wants at the beginning and end.

        Raises:
            ModelError: when llama.cpp cannot.
        """
        size = len(raw) + 16
        for _ in range(2):
            room = np.empty(size, np.int32)
            place = room.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            count = api.llama_tokenize(self.pointer, raw, len(raw), place, size, around, special)
            if count >= 0:
                return room[:count].astype(np.int64)
            size = -count
        raise ModelError(f"{self.name}'s tokenizer cannot read a text of {len(raw):,} bytes.")

    def facts(self, loaded: Loaded) -> Tokenizing:
        """Find out what a protocol must know."""
        with_special = self.tokens(b"a", True, True).tolist()
        bare = self.tokens(b"a", True).tolist()
        adds: tuple[int, ...] = ()
        for size in range(len(with_special) - len(bare) + 1):
            if with_special[size : size + len(bare)] == bare:
                adds = tuple(with_special[:size])
                break
        bos = self._known(loaded, "bos", api.llama_vocab_bos(self.pointer))
        eos = self._known(loaded, "eos", api.llama_vocab_eos(self.pointer))
        return Tokenizing(bos, eos, adds, loaded.positions)

    def _known(self, loaded: Loaded, name: str, token: int) -> int | None:
        """Give a special token; None where llama.cpp only fills in what other files have."""
        if not 0 <= token < len(self):
            return None
        if f"tokenizer.ggml.{name}_token_id" in loaded.header.fields:
            return int(token)
        return int(token) if self._attribute(token) & api.LLAMA_TOKEN_ATTR_CONTROL else None

    def encode_text(self, text: str, special: bool = False) -> Encoded:
        """Tokenize a text without special tokens around it.

        Raises:
            InputError: when the text holds half a surrogate pair, which UTF-8 cannot write.
            ModelError: when llama.cpp cannot tokenize it.
        """
        try:
            raw = text.encode()
        except UnicodeEncodeError as problem:
            raise InputError(
                f"Character {problem.start} is half of a surrogate pair, which no UTF-8 text has; "
                "mend the text."
            ) from None
        ids = self.tokens(raw, special)
        written = [self.piece(token) for token in ids.tolist()]
        spelled = b"".join(written)
        if self.spm:
            # The blank that it puts first, and blanks that the text writes as U+2581.
            plain = text.replace(BLANK, " ")
            if spelled not in (raw, b" " + raw) and spelled in (
                plain.encode(),
                b" " + plain.encode(),
            ):
                spans, _ = align(written, plain)
                return Encoded(ids, spans, True)
        spans, exact = align(written, text)
        return Encoded(ids, spans, not exact)

    def encode(self, texts: Sequence[str]) -> list[Coded]:
        """Tokenize texts, as `fairway.tokenizers.Vocabulary` has it."""
        out = []
        for text in texts:
            one = self.encode_text(text)
            decoded = text if not one.lossy else self.decode(one.ids.tolist())
            out.append(Coded(one.ids, one.offsets, decoded))
        return out

    def decode(self, ids: Iterable[int]) -> str:
        """Spell ids; a blank that the tokenizer puts first is no text."""
        spelled = b"".join(self.piece(int(token)) for token in ids)
        if self.spm:
            spelled = spelled.removeprefix(b" ")
        return spelled.decode("utf-8", "replace")


def align(pieces: Sequence[bytes], text: str) -> tuple[NDArray[np.int64], bool]:
    """Lay the bytes of tokens over a text.

    Args:
        pieces: what each token spells.
        text: what they should spell together, perhaps behind one blank more.

    Returns:
        ``(n, 2)`` character spans, of a token inside a character the whole character; and whether
        the pieces spell the text.
    """
    raw = text.encode("utf-8", "surrogatepass")
    spelled = b"".join(pieces)
    lengths = np.fromiter((len(piece) for piece in pieces), np.int64, len(pieces))
    ends = np.cumsum(lengths)
    edges = np.stack((ends - lengths, ends), 1)
    exact = spelled in (raw, b" " + raw)
    if exact:
        edges = np.maximum(edges - (len(spelled) - len(raw)), 0)
        if len(spelled) > len(raw) and pieces[0]:
            # The blank that the text does not have goes with its first character.
            edges[0, 1] = max(edges[0, 1], min(1, len(raw)))
    else:
        edges = _follow(pieces, raw)
    return _characters(edges, text), exact


def _follow(pieces: Sequence[bytes], raw: bytes) -> NDArray[np.int64]:
    """Find pieces in a text that they do not quite spell, each soon behind the one before it.

    A piece that is not found stands for the bytes up to the next one that is.
    """
    edges = np.zeros((len(pieces), 2), np.int64)
    at = 0
    lost: list[int] = []
    for place, piece in enumerate(pieces):
        bare = piece.removeprefix(b" ") or piece
        reach = at + AHEAD if lost else at
        found, used = -1, piece
        for one in (piece, bare):
            where = raw.find(one, at, reach + len(one)) if one else -1
            if where >= 0 and (found < 0 or where < found):
                found, used = where, one
        if found < 0:
            edges[place] = at, at
            lost.append(place)
            continue
        for missing in lost:
            edges[missing] = at, found
        lost.clear()
        edges[place] = found, found + len(used)
        at = found + len(used)
    for missing in lost:
        edges[missing] = at, len(raw)
    return edges


def _characters(edges: NDArray[np.int64], text: str) -> NDArray[np.int64]:
    """Turn ``(n, 2)`` byte spans into spans of the characters that they touch."""
    starts = np.concatenate(([0], np.cumsum(byte_lengths(text))))
    first = np.searchsorted(starts, edges[:, 0], side="right") - 1
    last = np.searchsorted(starts, edges[:, 1], side="left")
    return np.stack((first, np.maximum(first, last)), 1)
