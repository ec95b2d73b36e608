"""One model's work, in one thread: requests that wait together are scored together.

The unit of work is a document. A batch takes one document of each waiting request in turn until it
is full, so that a request of a thousand texts holds no other up; a document larger than a batch is
scored alone, and behind it those that are not have their turn. A batch is as large as can be scored
within `Limits.turn` at the pace of the batches before it. A request that comes alone begins at
once. Where several came together a moment ago, as many are waited for, for `Limits.gather` at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from fairway.corpus import Document
from fairway.errors import FairwayError
from fairway.scorer import Scorer
from fairway.scores import Score
from fairway.serve.problems import Problem, where
from fairway.serve.settings import Limits

T = TypeVar("T")
Outcome = Score | FairwayError
Record = Callable[[Sequence[Document], Sequence["Outcome | Crash"], float], None]
"""Takes a batch's documents, what came of them, and the seconds that it took."""

LEAST = 1 << 10
"""Bytes of text that a batch may always hold: what costs little beside a lone sentence."""
MOMENT = 0.05
"""Seconds for which requests that came together are expected to come together again."""
LOG = logging.getLogger("fairway.serve")


@dataclass(frozen=True, slots=True)
class Crash:
    """What nobody foresaw.

    Attributes:
        where: it came about, see `fairway.serve.problems.where`.
    """

    where: str


@dataclass(slots=True, eq=False)
class Ticket:
    """A request's documents.

    Attributes:
        scorer: the lane's, or another of the same model.
        want: extra columns.
        documents: in their order.
        done: resolved when all have an outcome; cancelled when the request is given up.
        outcomes: of those that have one.
        begun: how many went into a batch.
        settled: how many have an outcome.
    """

    scorer: Scorer
    want: tuple[str, ...]
    documents: Sequence[Document]
    done: asyncio.Future[None]
    outcomes: list[Outcome | Crash | None]
    begun: int = 0
    settled: int = 0

    @property
    def size(self) -> int:
        """Characters of the next document, about."""
        return _characters(self.documents[self.begun])

    def settle(self, place: int, outcome: Outcome | Crash) -> None:
        """Take a document's outcome."""
        self.outcomes[place] = outcome
        self.settled += 1
        if self.settled == len(self.documents) and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True)
class Lane:
    """What goes to one model; all of it in one thread, since models are not made for two.

    Attributes:
        scorer: the model.
        limits: how long and how much is gathered.
        record: told of every batch, in the lane's thread.
        waiting: requests of which not all documents are begun, in the order of their turns.
        busy: whether a batch is being scored.
    """

    scorer: Scorer
    limits: Limits = field(default_factory=Limits)
    record: Record | None = field(default=None, repr=False)
    waiting: list[Ticket] = field(default_factory=list)
    busy: bool = False
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "fairway-lane"), repr=False
    )
    _task: asyncio.Task[None] | None = field(default=None, repr=False)
    _enough: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _recent: int = 1
    _ended: float = 0.0
    _pace: float = 0.0
    _large: bool = False

    async def score(
        self,
        documents: Sequence[Document],
        want: Collection[str] = (),
        scorer: Scorer | None = None,
    ) -> list[Outcome]:
        """Score documents beside those of other requests.

        Args:
            documents: of one request.
            want: extra columns.
            scorer: another scorer of the same model, see `fairway.generation`.

        Returns:
            A score for each document, or why there is none.

        Raises:
            Problem: where the model failed in a way that nobody foresaw; the log says where.
        """
        if not documents:
            return []
        loop = asyncio.get_running_loop()
        ticket = Ticket(
            scorer or self.scorer, tuple(sorted(want)), documents, loop.create_future(),
            [None] * len(documents),
        )  # fmt: skip
        self.waiting.append(ticket)
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._enough = asyncio.Event()
            self._task = loop.create_task(self._work())
        elif len(self.waiting) >= self._recent:
            self._enough.set()
        try:
            await ticket.done
        finally:
            ticket.done.cancel()
        return [_foreseen(one) for one in ticket.outcomes]

    async def call(self, function: Callable[[], T]) -> T:
        """Do something else with the model, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        """Score what waits, batch by batch, until nothing does."""
        # What came in the same instant is taken along.
        await asyncio.sleep(0)
        while True:
            await self._gather()
            batch = self._next()
            if not batch:
                return
            self.busy = True
            try:
                outcomes = await self.call(partial(self._score, batch))
            except Exception as problem:
                # The thread cannot be started, or is closed.
                outcomes = [_log(problem)] * len(batch)
            finally:
                self.busy = False
            self._recent = len({id(ticket) for ticket, _ in batch})
            self._ended = time.monotonic()
            for (ticket, place), outcome in zip(batch, outcomes, strict=True):
                ticket.settle(place, outcome)

    async def _gather(self) -> None:
        """Wait for requests that are likely to come: as many as came together a moment ago."""
        if len(self.waiting) >= self._recent or time.monotonic() - self._ended > MOMENT:
            return
        self._enough.clear()
        try:
            await asyncio.wait_for(self._enough.wait(), self.limits.gather)
        except TimeoutError:
            pass

    def _next(self) -> list[tuple[Ticket, int]]:
        """Take what can be scored in one call; requests that were given up fall away."""
        self.waiting = [one for one in self.waiting if not one.done.done()]
        if not self.waiting:
            return []
        most = self._most()
        small = [one for one in self.waiting if one.size <= most]
        first = small[0] if self._large and small else self.waiting[0]
        self._large = first.size > most
        batch: list[tuple[Ticket, int]] = []
        held = 0
        round_ = [first] + [
            one
            for one in self.waiting
            if one is not first and one.scorer is first.scorer and one.want == first.want
        ]
        while round_:
            still = []
            for ticket in round_:
                size = ticket.size
                if batch and held + size > most:
                    continue
                batch.append((ticket, ticket.begun))
                held += size
                ticket.begun += 1
                if ticket.begun < len(ticket.documents):
                    still.append(ticket)
            round_ = still
        had = {id(ticket) for ticket, _ in batch}
        rest = [one for one in self.waiting if one.begun < len(one.documents)]
        self.waiting = sorted(rest, key=lambda one: id(one) in had)
        return batch

    def _most(self) -> int:
        """Give the bytes of the next batch: as many as can be scored within a turn."""
        return max(LEAST, min(self.limits.batch, int(self._pace * self.limits.turn)))

    def _score(self, batch: Sequence[tuple[Ticket, int]]) -> list[Outcome | Crash]:
        """Score a batch, in the lane's thread."""
        first, _ = batch[0]
        documents = [ticket.documents[place] for ticket, place in batch]
        start = time.perf_counter()
        outcomes = run(first.scorer, documents, first.want)
        seconds = time.perf_counter() - start
        pace = sum(map(_characters, documents)) / max(seconds, 1e-6)
        # A short text costs what a few of them do: its pace says nothing of a full batch's.
        self._pace = max(pace, 0.9 * self._pace)
        if self.record is not None:
            self.record(documents, outcomes, seconds)
        return outcomes


def run(
    scorer: Scorer, documents: Sequence[Document], want: Collection[str]
) -> list[Outcome | Crash]:
    """Score documents in one call; where that fails halves of them, down to what is at fault."""
    try:
        scores = list(scorer.score(documents, want))
        if len(scores) != len(documents):
            raise RuntimeError(f"{len(documents)} documents gave {len(scores)} scores")
        return list(scores)
    except FairwayError as problem:
        if len(documents) == 1:
            return [problem]
    except BaseException as problem:
        # Memory that does not suffice, or a model's own exit: a lane outlives both.
        if len(documents) == 1:
            return [_log(problem)]
    half = len(documents) // 2
    return run(scorer, documents[:half], want) + run(scorer, documents[half:], want)


def _characters(document: Document) -> int:
    """Count a document's characters; ids stand for about four of them each."""
    ids = 0 if document.ids is None else len(document.ids)
    return len(document.text) + len(document.context) + 4 * ids


def _log(problem: BaseException) -> Crash:
    crash = Crash(where(problem))
    LOG.error("A model failed: %s", crash.where)
    return crash


def _foreseen(outcome: Outcome | Crash | None) -> Outcome:
    if isinstance(outcome, Crash) or outcome is None:
        raise Problem(
            500, "The model failed at this request; the server's log says where.", "crash"
        )
    return outcome
