"""Perplexity you can compare."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "Document": "fairway.corpus",
    "FairwayError": "fairway.errors",
    "Report": "fairway.report",
    "Score": "fairway.scores",
    "Scorer": "fairway.scorer",
    "Signature": "fairway.signature",
    "Totals": "fairway.scores",
    "choose": "fairway.api",
    "compare": "fairway.api",
    "connect": "fairway.api",
    "evaluate": "fairway.api",
    "load": "fairway.api",
    "read": "fairway.corpus",
    "score": "fairway.api",
    "word_surprisals": "fairway.api",
}

__all__ = [
    "Document",
    "FairwayError",
    "Report",
    "Score",
    "Scorer",
    "Signature",
    "Totals",
    "__version__",
    "choose",
    "compare",
    "connect",
    "evaluate",
    "load",
    "read",
    "score",
    "word_surprisals",
]

if TYPE_CHECKING:
    from fairway.api import choose, compare, connect, evaluate, load, score, word_surprisals
    from fairway.corpus import Document, read
    from fairway.errors import FairwayError
    from fairway.report import Report
    from fairway.scorer import Scorer
    from fairway.scores import Score, Totals
    from fairway.signature import Signature


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fairway' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
