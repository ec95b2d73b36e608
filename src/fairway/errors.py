"""What can go wrong, as one small tree. Every message states the fact and the way out.

    FairwayError
    ├── InputError      a file, text, option or row that the user gave is wrong
    ├── ModelError      a model or tokenizer cannot be loaded, or cannot score
    ├── ProtocolError   settings that contradict each other or the model
    ├── RunError        a run directory or the cache cannot be read or written
    └── MissingExtra    an optional dependency is not installed

The command line prints the message without a traceback and exits with code 2.
"""

from __future__ import annotations


class FairwayError(Exception):
    """Base of every error that fairway raises on purpose."""


class InputError(FairwayError):
    """A file, text, option or row given by the user is wrong."""


class ModelError(FairwayError):
    """A model or tokenizer cannot be loaded, or cannot score."""


class ProtocolError(FairwayError):
    """Settings that contradict each other, or that the model cannot meet."""


class RunError(FairwayError):
    """A run directory or the score cache cannot be read or written."""


class MissingExtra(FairwayError):
    """An optional dependency is not installed.

    Args:
        what: what needs it, as the start of a sentence.
        extra: the name of the extra that installs it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs packages that are not installed. "
            f"Install them with: pip install 'fairway[{extra}]'"
        )
        self.extra = extra
