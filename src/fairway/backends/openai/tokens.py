"""Token ids of a text: from the model's own tokenizer here, or from the server's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fairway.backends.openai.answer import Entry
from fairway.backends.openai.server import Server
from fairway.backends.openai.transport import Link, Refused
from fairway.errors import MissingExtra, ModelError


@dataclass(frozen=True, slots=True)
class Coded:
    """A text as token ids, without special ones.

    Attributes:
        ids: ``(n,)``.
        offsets: ``(n, 2)`` character spans, where they are known; None = the spelling tells.
        pieces: the tokens as the server spells them, or their bytes, where it does.
        lossy: whether the ids do not decode to the text; None = not known.
    """

    ids: tuple[int, ...]
    offsets: NDArray[np.int64] | None = None
    pieces: tuple[bytes | str, ...] | None = None
    lossy: bool | None = None

    def entries(self) -> tuple[Entry, ...] | None:
        """The tokens by their spelling, for `fairway.backends.openai.align`."""
        if self.pieces is None:
            return None
        return tuple(
            Entry(piece, id=i) if isinstance(piece, str) else Entry(raw=piece, id=i)
            for i, piece in zip(self.ids, self.pieces, strict=True)
        )


class Coder(Protocol):
    """Whatever makes ids of texts.

    Attributes:
        adds: ids that it puts before a text by itself.
        here: whether it needs no request.
        name: for the signature.
    """

    @property
    def adds(self) -> tuple[int, ...]: ...

    @property
    def here(self) -> bool: ...

    @property
    def name(self) -> str | None: ...

    def encode(self, text: str) -> Coded:
        """Give a text's ids; the spelling of special tokens in it is text, where that is known."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """A ``tokenizer.json``."""

    tokenizer: Any
    adds: tuple[int, ...]
    name: str | None
    here: bool = True

    def encode(self, text: str) -> Coded:
        """Give a text's ids and spans."""
        found = self.tokenizer.encode(text, add_special_tokens=False)
        offsets = np.asarray(found.offsets, np.int64).reshape(-1, 2)
        decoded = self.tokenizer.decode(found.ids, skip_special_tokens=False)
        return Coded(tuple(found.ids), offsets, None, decoded.removeprefix(" ") != text
                     and decoded != text)  # fmt: skip


def local(name: str) -> Local:
    """Load ``tokenizer.json``, or a folder that holds it.

    Raises:
        MissingExtra: when the tokenizers library is not installed.
        ModelError: when there is no such file, or it is damaged.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtra("A tokenizer beside a server", "hf") from None
    from fairway.hashes import file_hash

    path = Path(name)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise ModelError(
            f"There is no tokenizer at {name}; --model-arg tokenizer= takes a tokenizer.json, or a "
            "folder that holds one."
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as problem:  # the library raises bare Exception
        raise ModelError(f"{name} is no tokenizer.json that can be read: {problem}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return Local(tokenizer, _adds(tokenizer), file_hash([path]))


def _adds(tokenizer: Any) -> tuple[int, ...]:
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    return before(bare, whole)


def before(bare: list[int], whole: list[int]) -> tuple[int, ...]:
    """Give what stands before a text's ids when special tokens are added."""
    for size in range(len(whole) - len(bare) + 1):
        if whole[size : size + len(bare)] == bare:
            return tuple(whole[:size])
    return ()


@dataclass(frozen=True, slots=True)
class Remote:
    """The server's own tokenizer."""

    link: Link
    path: str
    body: Callable[[str, bool], dict[str, Any]]
    adds: tuple[int, ...]
    here: bool = False
    name: str | None = None

    def encode(self, text: str) -> Coded:
        """Ask for a text's ids."""
        data = self.link.post(self.path, self.body(text, False)).data
        found = _coded(data)
        return replace(found, offsets=_offsets(data.get("offsets"), len(found.ids), len(text)))


PATIENCE = 5
"""Repetitions before a server is taken to have no tokenizer: a run without it is another run."""


def remote(link: Link, server: Server) -> Remote | None:
    """Try the server's tokenizer; None where it has none that can be asked."""
    bodies: Mapping[str, Callable[[str, bool], dict[str, Any]]] = {
        "llama-server": lambda text, whole: {
            "content": text, "add_special": whole, "parse_special": False, "with_pieces": True,
        },
    }  # fmt: skip
    common: Callable[[str, bool], dict[str, Any]] = lambda text, whole: {  # noqa: E731
        "model": server.model, "prompt": text, "add_special_tokens": whole,
        "return_token_strs": True,
    }  # fmt: skip
    body = bodies.get(server.name, common)
    try:
        bare = _coded(link.post("/tokenize", body("a", False), retries=PATIENCE).data).ids
        whole = _coded(link.post("/tokenize", body("a", True), retries=PATIENCE).data).ids
    except (Refused, ModelError) as problem:
        if isinstance(problem, Refused) and problem.status in (401, 403):
            raise
        return None
    return Remote(link, "/tokenize", body, before(list(bare), list(whole)))


def _coded(data: Any) -> Coded:
    """Read ``{"tokens": [...]}``: ids, or llama-server's objects of an id and a piece.

    Beside ids stand fairway's ``pieces``, text or bytes, or vLLM's ``token_strs``, in the spelling
    of its vocabulary.

    Raises:
        ModelError: where it is none.
    """
    tokens = data.get("tokens") if isinstance(data, Mapping) else None
    if not isinstance(tokens, list):
        raise ModelError("The server's /tokenize gives no list of tokens.")
    if all(type(one) is int for one in tokens):
        told = data.get("pieces")
        if isinstance(told, list) and len(told) == len(tokens):
            return Coded(tuple(tokens), None, tuple(_bytes(piece) for piece in told))
        spelled = data.get("token_strs")
        if isinstance(spelled, list) and [isinstance(s, str) for s in spelled] == [True] * len(
            tokens
        ):
            return Coded(tuple(tokens), None, tuple(spelled))
        return Coded(tuple(tokens))
    ids, pieces = [], []
    for one in tokens:
        piece = one.get("piece") if isinstance(one, Mapping) else None
        if not isinstance(one, Mapping) or type(one.get("id")) is not int:
            raise ModelError("The server's /tokenize gives neither ids nor pieces.")
        ids.append(one["id"])
        pieces.append(_bytes(piece))
    return Coded(tuple(ids), None, tuple(pieces))


def _bytes(piece: Any) -> bytes:
    """Read a piece: text, or a list of bytes where it is none.

    Raises:
        ModelError: where it is neither.
    """
    if isinstance(piece, str):
        return piece.encode("utf-8", "surrogatepass")
    if isinstance(piece, list) and all(type(one) is int and 0 <= one < 256 for one in piece):
        return bytes(piece)
    raise ModelError("The server's /tokenize gives a piece that is neither text nor bytes.")


def _offsets(told: Any, size: int, length: int) -> NDArray[np.int64] | None:
    """Read character spans, as fairway's server tells them; None where they are none."""
    if not isinstance(told, list) or len(told) != size:
        return None
    try:
        found = np.asarray(told, np.int64).reshape(size, 2)
    except (TypeError, ValueError, OverflowError):
        return None
    inside = (found >= 0).all() and (found <= length).all() and (found[:, 0] <= found[:, 1]).all()
    return found if inside and (np.diff(found[:, 1]) >= 0).all() else None
