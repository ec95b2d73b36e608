"""Tokenisers of bundles: from a text to the words that the model knows, with their places."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairway.errors import MissingExtra, ModelError

KINDS = ("none", "whitespace", "sentencepiece", "hf")
"""none: between ASCII white space, as KenLM splits; whitespace: between Unicode's; the others have
a file: a model of SentencePiece, a ``tokenizer.json`` of Hugging Face tokenizers."""
FILES = ("sentencepiece", "hf")
ASCII = re.compile(r"[^\t-\r ]+")
UNICODE = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a tokeniser makes of a text.

    Attributes:
        words: as the model's vocabulary spells them.
        begins: ``(n,)`` first characters in the text.
        stops: ``(n,)`` one past the last; equal to begins for a word that stands for nothing.
    """

    words: list[str]
    begins: NDArray[np.int64]
    stops: NDArray[np.int64]


Tokeniser: TypeAlias = Callable[[str], Pieces]


def load(kind: str, path: Path | None = None) -> Tokeniser:
    """Load a tokeniser, one of `KINDS`.

    Raises:
        ModelError: when its file cannot be read.
        MissingExtra: when its library is not installed.
    """
    if kind == "sentencepiece":
        assert path is not None
        return _sentencepiece(path)
    if kind == "hf":
        assert path is not None
        return _hf(path)
    pattern = ASCII if kind == "none" else UNICODE
    return lambda text: _matches(pattern, text)


def _matches(pattern: re.Pattern[str], text: str) -> Pieces:
    found = [(match.group(), *match.span()) for match in pattern.finditer(text)]
    places = np.array([place for _, *place in found], dtype=np.int64).reshape(-1, 2)
    return Pieces([word for word, *_ in found], places[:, 0], places[:, 1])


def _sentencepiece(path: Path) -> Tokeniser:
    try:
        import sentencepiece
    except ImportError:
        raise MissingExtra("A bundle with a SentencePiece model", "ngram") from None
    model = sentencepiece.SentencePieceProcessor()
    with _library(f"{path.name} is no SentencePiece model"):
        model.LoadFromFile(str(path))
    try:
        model.encode("a", return_type="offset_mapping")
    except (TypeError, ValueError):
        raise ModelError(
            f"sentencepiece {sentencepiece.__version__} does not tell where its pieces are; "
            "pip install 'sentencepiece>=0.2.3'."
        ) from None

    def tokenise(text: str) -> Pieces:
        with _library(f"{path.name} cannot cut a text"):
            words = model.encode(text, return_type=str)
            changed, places = model.normalize(text, with_offsets=True)
            edges = np.zeros(len(words) + 1, dtype=np.int64)
            np.cumsum(np.fromiter(map(len, words), np.int64, len(words)), out=edges[1:])
            # Pieces lie side by side in the changed text, but for those that spell single bytes.
            if edges[-1] == len(changed) and len(places) == len(changed) + 1:
                reached = np.fromiter(places, np.int64, len(places))[edges]
                return Pieces(words, reached[:-1], reached[1:])
            found = model.encode(text, return_type="offset_mapping")
        return _pieces(found["pieces"], found["offsets"])

    return tokenise


def _hf(path: Path) -> Tokeniser:
    try:
        import tokenizers
    except ImportError:
        raise MissingExtra("A bundle with a tokenizer.json", "hf") from None
    with _library(f"{path.name} is no tokenizer.json"):
        model: Any = tokenizers.Tokenizer.from_file(str(path))
        model.no_truncation()
        model.no_padding()

    def tokenise(text: str) -> Pieces:
        with _library(f"{path.name} cannot cut a text"):
            found = model.encode(text, add_special_tokens=False)
        return _pieces(found.tokens, found.offsets)

    return tokenise


@contextmanager
def _library(fact: str) -> Iterator[None]:
    """Turn whatever a library raises into a sentence; a panic of Rust's is no Exception.

    Raises:
        ModelError: in place of what the library raises.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as problem:
        raise ModelError(f"{fact}: {problem}") from None


def _pieces(words: list[str], offsets: list[tuple[int, int]]) -> Pieces:
    flat = itertools.chain.from_iterable(offsets)
    places = np.fromiter(flat, np.int64, 2 * len(offsets)).reshape(-1, 2)
    begins = places[:, 0]
    return Pieces(words, begins, np.maximum(begins, places[:, 1]))


def apart(given: Pieces, pattern: re.Pattern[str] = ASCII) -> Pieces:
    """Cut words at white space, as KenLM does with the string that tools give it.

    A word that takes the place of as many characters is cut in the text, too; parts of another
    have its whole place each.

    Args:
        given: words.
        pattern: finds the parts of a word.
    """
    words, begins, stops = [], [], []
    for word, begin, stop in zip(
        given.words, given.begins.tolist(), given.stops.tolist(), strict=True
    ):
        same = stop - begin == len(word)
        for match in pattern.finditer(word):
            words.append(match.group())
            begins.append(begin + match.start() if same else begin)
            stops.append(begin + match.end() if same else stop)
    return Pieces(words, np.array(begins, dtype=np.int64), np.array(stops, dtype=np.int64))
