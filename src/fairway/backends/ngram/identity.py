"""What a signature says of an n-gram model."""

from __future__ import annotations

from pathlib import Path

from fairway import __version__
from fairway.backends.ngram.scoring import Rule
from fairway.errors import ModelError
from fairway.hashes import file_hash
from fairway.signature import Signature


def file(name: str) -> Path:
    """Give the path of a model's file.

    Raises:
        ModelError: when there is no such file.
    """
    path = Path(name)
    if path.is_dir():
        raise ModelError(f"{name} is a folder; name the model's file in it.")
    if not path.is_file():
        raise ModelError(f"There is no file {name}; give the path of an ARPA file or a binary.")
    return path


def signature(kind: str, path: Path, order: int, rule: Rule) -> Signature:
    """Give the scorer's part: the file's name and hash, the order and the rule."""
    return Signature.of(
        {
            "kind": kind,
            "model": path.name,
            "weights": file_hash([path]),
            "order": order,
            **rule.fields(),
            "protocol": "fairway",
            "unit": "word",
            "agg": "ratio",
            "version": __version__,
        }
    )
