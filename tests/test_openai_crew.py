"""Several documents at a time: in order, each asked for once, nobody waited for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.backends.openai.crew import AHEAD, Crew
from fairway.corpus import Document
from fairway.errors import InputError, ModelError
from fairway.scores import Score


class Asked:
    """Work that counts, fails where it is told to, and ends in an order of its own."""

    def __init__(self, bad: Collection[int] = (), size: int = 1) -> None:
        self.bad, self.count = set(bad), Counter[str]()
        self.gate = threading.Semaphore(size)
        self.most = self.now = 0
        self.lock = threading.Lock()

    def __call__(self, document: Document, want: Collection[str]) -> Score:
        with self.lock:
            self.count[document.id] += 1
            self.now += 1
            self.most = max(self.most, self.now)
        with self.gate:
            number = int(document.id)
        with self.lock:
            self.now -= 1
        if number in self.bad:
            raise InputError(f"{number} is too long")
        none = np.zeros(1, np.int64)
        return Score(
            document.id, document.text, np.asarray([[0, 1]]), -np.ones(1) * number, none
        )  # fmt: skip


def documents(count: int) -> list[Document]:
    return [Document(str(n), f"x{n}") for n in range(count)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(1, 8))
def test_in_order_and_once(count: int, size: int) -> None:
    work = Asked()
    found = list(Crew(work, size).score(documents(count), ()))
    assert [one.id for one in found] == [str(n) for n in range(count)]
    assert all(times == 1 for times in work.count.values()) and len(work.count) == count
    assert work.most <= size


def test_the_first_are_asked_for_at_once_and_the_rest_as_they_are_read() -> None:
    taken = []

    def source() -> Any:
        for one in documents(100):
            taken.append(one.id)
            yield one

    found = Crew(Asked(), 3).score(source(), ())
    assert len(taken) == 3 * AHEAD
    next(found)
    next(found)
    assert len(taken) <= 3 * AHEAD + 2


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 19), min_size=1, max_size=4), st.integers(1, 6))
def test_a_bad_row_does_not_ask_for_the_others_again(bad: set[int], size: int) -> None:
    """An evaluation tries each row of a block by itself where one is bad."""
    work = Asked(bad)
    crew = Crew(work, size)
    kept = []
    with pytest.raises(InputError):
        list(crew.score(documents(20), ()))
    for one in documents(20):
        try:
            kept += [score.id for score in crew.score([one], ())]
        except InputError:
            continue
    assert kept == [str(n) for n in range(20) if n not in bad]
    assert all(work.count[str(n)] == 1 for n in range(20) if n not in bad)


def test_nobody_is_waited_for() -> None:
    """A document that fails otherwise ends the call, though another is still on its way."""
    held = threading.Event()

    def work(document: Document, want: Collection[str]) -> Score:
        if document.id == "0":
            raise ModelError("gone")
        held.wait(60)
        raise ModelError("never read")

    with pytest.raises(ModelError, match="gone"):
        list(Crew(work, 4).score(documents(10), ()))
    assert not held.is_set()
    held.set()
