"""Tokenizers by themselves: by name, without a model's weights; the raw bytes of every id."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as hf_logging

from fairway import hub
from fairway.backends.transformers import encode, vocabulary
from fairway.backends.transformers.loading import BUILTIN, builtin_folder
from fairway.errors import ModelError
from fairway.tokenizers.vocabulary import Coded

MERGES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""Files of a GPT-2 tokenizer: as transformers writes them, and as OpenAI did."""
TOGETHER = 256
"""Texts that are tokenized in one call."""


@dataclass(frozen=True, slots=True)
class TransformersVocabulary:
    """A tokenizer of transformers; see `fairway.tokenizers.Vocabulary`."""

    tokenizer: Any
    name: str
    kind: str
    pieces: tuple[bytes, ...]
    unknown: int | None

    def encode(self, texts: Sequence[str]) -> list[Coded]:
        """Tokenize texts without special tokens around them.

        Raises:
            ModelError: when the tokenizer has no offsets and its output cannot be aligned.
        """
        found = []
        for start in range(0, len(texts), TOGETHER):
            part = texts[start : start + TOGETHER]
            for text, one in zip(part, encode.encode_many(self.tokenizer, part), strict=True):
                decoded = encode.decode(self.tokenizer, one.ids.tolist()) if one.lossy else text
                found.append(Coded(one.ids, one.offsets, decoded))
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """Decode without leaving out or tidying anything."""
        return encode.decode(self.tokenizer, list(ids))


def describe(tokenizer: Any, name: str) -> TransformersVocabulary:
    """Read the vocabulary of a tokenizer object."""
    words = tokenizer.get_vocab()
    byte_level = vocabulary.is_byte_level(tokenizer)
    kind = "byte-level" if byte_level else "byte fallback" if "<0x00>" in words else "characters"
    pieces = vocabulary.spell(tokenizer, range(max(words.values(), default=-1) + 1))
    return TransformersVocabulary(tokenizer, name, kind, tuple(pieces), tokenizer.unk_token_id)


def load(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> TransformersVocabulary:
    """Load a tokenizer alone.

    Args:
        name: hub id (``ID@REVISION`` works), folder, ``tokenizer.json``, or ``builtin``.
        revision: commit, branch or tag on the hub.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        ModelError: when there is no tokenizer that can be loaded.
    """
    base, _, commit = name.partition("@")
    path = builtin_folder() if name in ("", BUILTIN) else Path(name)
    before = hf_logging.get_verbosity()
    hf_logging.set_verbosity(logging.ERROR)
    try:
        if path.exists():
            tokenizer = _local(path, revision, trust_remote_code)
        elif name.startswith((".", "/", "~")) or name.endswith((".json", ".model")):
            raise ModelError(f"There is no {name}; name a folder, a tokenizer.json or a hub id.")
        else:
            tokenizer = AutoTokenizer.from_pretrained(
                base,
                revision=revision or commit or None,
                trust_remote_code=trust_remote_code,
                local_files_only=not hub.reachable(),
            )
    except ModelError:
        raise
    except Exception as problem:  # the libraries below raise every kind of error here
        raise ModelError(_explain(name, path, problem)) from problem
    finally:
        hf_logging.set_verbosity(before)
    return describe(tokenizer, BUILTIN if name in ("", BUILTIN) else _short(path, name))


def _local(path: Path, revision: str | None, trust_remote_code: bool) -> Any:
    if path.suffix == ".model":
        raise ModelError(
            f"{path} is a bare SentencePiece model; convert it to a tokenizer.json (transformers: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(...), with sentencepiece "
            "installed) and name that."
        )
    if path.is_file():
        return PreTrainedTokenizerFast(tokenizer_file=str(path))
    known = ("tokenizer_config.json", "config.json")
    if not any((path / one).is_file() for one in known):
        if (path / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
        for words, merges in MERGES:
            if (path / words).is_file() and (path / merges).is_file():
                return GPT2Tokenizer(vocab=str(path / words), merges=str(path / merges))
        raise ModelError(
            f"{path} holds no tokenizer: neither a tokenizer.json nor a tokenizer_config.json."
        )
    return AutoTokenizer.from_pretrained(
        str(path), revision=revision, trust_remote_code=trust_remote_code
    )


def _short(path: Path, name: str) -> str:
    """Call a folder by its name, a tokenizer.json by its folder's, a hub id by itself."""
    if not path.exists():
        return name
    folder = path.parent if path.name == "tokenizer.json" else path
    return folder.name or folder.resolve().name


def _explain(name: str, path: Path, problem: Exception) -> str:
    reason = " ".join(str(problem).split())
    if not path.exists() and not hub.reachable():
        return (
            f"{name} is no folder or file here and not in the hub's cache, and the hub cannot be "
            "reached; give a folder, or go online once."
        )
    if "trust_remote_code" in reason:
        return (
            f"{name} wants to run its own code; pass --trust-remote-code if you trust its author."
        )
    if len(reason) > 240:
        reason = reason[:240].rsplit(" ", 1)[0] + " ..."
    return f"The tokenizer of {name} cannot be loaded: {reason or type(problem).__name__}"
