"""A scorer that can be held, looked at and made to fail, around a real one."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from fairway.corpus import Document
from fairway.errors import ModelError
from fairway.scores import Score
from fairway.signature import Signature

FAILURES: dict[str, BaseException] = {
    "REFUSE": ModelError("this text is refused"),
    "BUG": IndexError("SECRET is in this error's words"),
    "MEMORY": MemoryError(),
    "EXIT": SystemExit(3),
}


class Watched:
    """Passes texts on to a scorer; those that hold a word of `FAILURES` fail so.

    Attributes:
        calls: the texts of each call.
        go: a call waits until it is set.
        begun: set when a call waits.
        lose: give one score too few.
    """

    def __init__(self, scorer: Any) -> None:
        self.scorer = scorer
        self.columns = scorer.columns
        self.calls: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()
        self.lose = False

    @property
    def signature(self) -> Signature:
        return self.scorer.signature

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        kept = list(documents)
        self.calls.append([one.text for one in kept])
        self.begun.set()
        assert self.go.wait(30)
        for word, failure in FAILURES.items():
            if any(word in one.text for one in kept):
                raise failure
        scores = list(self.scorer.score(kept, want))
        return iter(scores[:-1] if self.lose else scores)
