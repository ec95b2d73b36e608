"""Several documents at a time, their scores in order."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from queue import SimpleQueue

from fairway import record
from fairway.corpus import Document
from fairway.errors import InputError
from fairway.scores import Score

AHEAD = 2
"""Documents that are asked for before they are read, for each request at a time."""
KEPT = 1024
"""Scores of a call that are kept for the case that another document of it is refused."""

Work = Callable[[Document, Collection[str]], Score]


class Pool:
    """Threads that nobody waits for when the process ends, as one would for those of `concurrent`.

    An interrupted run would else stay until a server has answered, which may take minutes.
    """

    def __init__(self, size: int) -> None:
        self._tasks: SimpleQueue[tuple[Future[Score], Callable[[], Score]] | None] = SimpleQueue()
        self._size = size
        for number in range(size):
            name = f"fairway-openai-{number}"
            threading.Thread(target=_work, args=(self._tasks,), name=name, daemon=True).start()

    def submit(self, task: Callable[[], Score]) -> Future[Score]:
        """Have something done."""
        future: Future[Score] = Future()
        self._tasks.put((future, task))
        return future

    def close(self) -> None:
        """Let the threads end behind what was submitted and not cancelled."""
        for _ in range(self._size):
            self._tasks.put(None)


def _work(tasks: SimpleQueue[tuple[Future[Score], Callable[[], Score]] | None]) -> None:
    while (item := tasks.get()) is not None:
        future, task = item
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(task())
        except BaseException as problem:  # raised again where the result is read
            future.set_exception(problem)


@dataclass(slots=True)
class Crew:
    """Asks for several documents at a time and gives their scores in order.

    Attributes:
        work: scores one document.
        size: requests at a time.
        left: scores of a call that failed at another document, by the document's key.
    """

    work: Work
    size: int
    left: dict[str, Score] = field(default_factory=dict)

    def score(self, documents: Iterable[Document], want: Collection[str]) -> Iterator[Score]:
        """Begin with the first documents, and give the scores of all of them in order."""
        pool = Pool(self.size)
        waiting: deque[tuple[Document, Future[Score]]] = deque()
        source = iter(documents)

        def begin(count: int) -> None:
            for document in islice(source, count):
                waiting.append((document, pool.submit(partial(self._one, document, tuple(want)))))

        begin(self.size * AHEAD)
        given = self._give(pool, waiting, begin)
        # One that is never read would keep its threads.
        weakref.finalize(given, pool.close)
        return given

    def _one(self, document: Document, want: Collection[str]) -> Score:
        known = self.left.pop(_key(document, want), None) if self.left else None
        return self.work(document, want) if known is None else known

    def _give(
        self,
        pool: Pool,
        waiting: deque[tuple[Document, Future[Score]]],
        begin: Callable[[int], None],
    ) -> Iterator[Score]:
        given: deque[tuple[Document, Score]] = deque(maxlen=KEPT)
        try:
            while waiting:
                document, future = waiting.popleft()
                score = future.result()
                given.append((document, score))
                yield score
                begin(1)
        except InputError:
            # The caller tries each by itself: what was answered is not asked for again.
            self._keep(given, waiting)
            raise
        finally:
            for _, future in waiting:
                future.cancel()
            pool.close()

    def _keep(
        self,
        given: Iterable[tuple[Document, Score]],
        waiting: Iterable[tuple[Document, Future[Score]]],
    ) -> None:
        done = list(given)
        for document, future in waiting:
            if not future.cancel() and future.exception() is None:
                done.append((document, future.result()))
        self.left |= {_key(document, one.extras): one for document, one in done}
        while len(self.left) > KEPT:
            del self.left[next(iter(self.left))]


def _key(document: Document, want: Iterable[str]) -> str:
    columns = sorted(name for name in want if not name.endswith("_logprob"))
    return " ".join((record.key(document), document.id, *columns))
