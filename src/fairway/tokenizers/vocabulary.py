"""The seam between text and whatever makes tokens of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Coded:
    """One text as tokens, and what decoding makes of them.

    Attributes:
        ids: ``(n,)`` vocabulary ids, no special tokens around them.
        offsets: ``(n, 2)`` character spans in the text.
        decoded: the text that the ids decode to.
    """

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    decoded: str


class Vocabulary(Protocol):
    """A tokenizer.

    Attributes:
        name: what it is called.
        kind: ``byte-level``, ``byte fallback``, or ``characters``, which has no token for every
            byte.
        pieces: the raw bytes of each id, from the vocabulary's own spelling; empty where an id
            stands for no text.
        unknown: id of the token that stands for what the vocabulary lacks.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def pieces(self) -> Sequence[bytes]: ...

    @property
    def unknown(self) -> int | None: ...

    def encode(self, texts: Sequence[str]) -> list[Coded]:
        """Tokenize texts; the spelling of special tokens in them is text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Decode without leaving out or tidying anything."""
        ...
