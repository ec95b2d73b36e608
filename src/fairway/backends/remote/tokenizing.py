"""The tokenizer of a model that a server has; see `fairway.tokenizers.Vocabulary`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from fairway import wire
from fairway.backends.remote.calling import Caller
from fairway.errors import ModelError
from fairway.tokenizers.vocabulary import Coded

TOGETHER = 64 << 10
"""Characters, or ids, that one request brings."""


@dataclass(frozen=True, slots=True)
class RemoteVocabulary:
    """A tokenizer at a server.

    Attributes:
        caller: asks the server.
        model: whose tokenizer it is.
        name: what it is called.
        kind: as the seam has it.
        pieces: bytes of each id.
        unknown: id of the token for what the vocabulary lacks.
    """

    caller: Caller
    model: str
    name: str
    kind: str
    pieces: tuple[bytes, ...]
    unknown: int | None
    _table: list[str] = field(default_factory=list, repr=False, compare=False)

    def encode(self, texts: Sequence[str]) -> list[Coded]:
        """Tokenize texts; the spelling of special tokens in them is text.

        Raises:
            ModelError: when the server answers with what is none of these texts.
        """
        found: list[Coded] = []
        for part in _parts(texts):
            answer = self.caller.ask(
                "/v1/vocabulary/encode", {"model": self.model, "texts": list(part)}
            )
            found += wire.coded_from_json(answer.get("coded"), part, len(self.pieces))
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """Decode without leaving out or tidying anything; single ids are asked for once, all."""
        if len(ids) != 1:
            return self._decode([list(map(int, ids))])[0]
        if not self._table:
            size = len(self.pieces)
            for start in range(0, size, TOGETHER):
                part = [[one] for one in range(start, min(size, start + TOGETHER))]
                self._table.extend(self._decode(part))
        return self._table[ids[0]]

    def _decode(self, ids: list[list[int]]) -> list[str]:
        answer = self.caller.ask("/v1/vocabulary/decode", {"model": self.model, "ids": ids})
        texts = answer.get("texts")
        if (
            not isinstance(texts, list)
            or len(texts) != len(ids)
            or not all(isinstance(one, str) for one in texts)
        ):
            raise ModelError(f"{self.caller.url} does not decode ids; is it of another version?")
        return texts


def read(caller: Caller, model: str) -> RemoteVocabulary:
    """Ask for a model's vocabulary.

    Raises:
        ModelError: when the server's answer is none.
    """
    told = caller.ask(f"/v1/vocabulary?model={quote(model, safe='')}")
    try:
        pieces = tuple(base64.b64decode(one, validate=True) for one in told["pieces"])
        unknown = told["unknown"]
        if not isinstance(unknown, int | None):
            raise TypeError(unknown)
        name, kind = wire.shown(told["name"]), str(told["kind"])
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise ModelError(
            f"{caller.url} does not give {model}'s vocabulary; is it of another version?"
        ) from None
    return RemoteVocabulary(caller, model, name, kind, pieces, unknown)


def _parts(texts: Sequence[str]) -> list[list[str]]:
    parts: list[list[str]] = []
    held = TOGETHER
    for text in texts:
        if held >= TOGETHER:
            parts.append([])
            held = 0
        parts[-1].append(text)
        held += len(text)
    return parts
