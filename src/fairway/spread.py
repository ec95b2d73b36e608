"""One model on several devices: a process for each, blocks in turn, scores in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from fairway import scorer as scorers
from fairway.corpus import cut
from fairway.errors import InputError, ModelError
from fairway.scores import PERPLEXITY
from fairway.signature import Signature, parse

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

    from fairway.corpus import Document
    from fairway.scores import Score

PIECE_BYTES = 64 << 10
"""Bytes of documents that a process takes at a time."""
DIED = (
    "A process that scores has died (killed, or out of memory); what was scored before is kept: "
    "give fewer devices, or a smaller --batch-tokens."
)


@dataclass(slots=True)
class Spread:
    """A scorer that has others do the work, each in a process and on a device of its own.

    Attributes:
        devices: one for each process.
        signature: what the scorers and their protocol contribute to the signature.
        budget: tokens in a batch.
        facts: what sets the pace of one of them, for a run's record.
        notes: what the run must say.
        columns: what `score` can be asked for besides log-probabilities.
        perplexity: what exp(nll / tokens) is called.
    """

    devices: tuple[str, ...]
    signature: Signature
    budget: int
    facts: dict[str, Any]
    notes: list[str]
    columns: tuple[str, ...]
    perplexity: str
    _pool: ProcessPoolExecutor = field(repr=False)

    @property
    def ahead(self) -> int:
        """Calls of `score` that keep every process busy while the first is waited for."""
        return 2 * len(self.devices) - 1

    @property
    def engine(self) -> dict[str, Any]:
        """What only changes speed and rounding, for a run's record."""
        return {**self.facts, "budget": self.budget, "devices": ",".join(self.devices)}

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        """Score documents in their order; the processes begin at once.

        Raises:
            ModelError: when a process dies.
        """
        pieces = cut(documents, PIECE_BYTES)
        begun = deque(self._submit(piece, want) for piece in islice(pieces, len(self.devices)))
        return self._flow(begun, pieces, want)

    def _submit(self, piece: list[Document], want: Collection[str]) -> Future[Any]:
        try:
            return self._pool.submit(_score, piece, tuple(want), self.budget)
        except BrokenProcessPool:
            raise ModelError(DIED) from None

    def _flow(
        self, begun: deque[Future[Any]], pieces: Iterator[list[Document]], want: Collection[str]
    ) -> Iterator[Score]:
        try:
            while begun:
                scores, budget = begun.popleft().result()
                self.budget = min(self.budget, budget)
                for piece in islice(pieces, 1):
                    begun.append(self._submit(piece, want))
                yield from scores
        except BrokenProcessPool:
            raise ModelError(DIED) from None
        except KeyboardInterrupt:
            self.stop()
            raise

    def stop(self) -> None:
        """End the processes, whatever they are at."""
        running = list((getattr(self._pool, "_processes", None) or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.terminate()


def load(spec: str, devices: Sequence[str], **options: Any) -> Spread:
    """Load a scorer on each of several devices.

    Args:
        spec: as `fairway.scorer.load` takes it.
        devices: such as ``cuda:0`` and ``cuda:1``; on a CPU the threads are shared out.
        options: of the kind's loader.

    Raises:
        InputError: when a device is empty.
        FairwayError: when the model cannot be loaded on one of them.
    """
    if not all(devices):
        raise InputError("--device holds an empty name; separate devices with single commas.")
    if all(device == "cpu" for device in devices) and not options.get("threads"):
        options["threads"] = max(1, (os.cpu_count() or 1) // len(devices))
    context = multiprocessing.get_context("spawn")
    waiting = context.Queue()
    for device in devices:
        waiting.put(device)
    pool = ProcessPoolExecutor(
        len(devices), context, initializer=_start, initargs=(waiting, spec, options)
    )
    try:
        begun = [pool.submit(_describe) for _ in devices]
        signature, facts, notes, columns, name = [one.result() for one in begun][0]
    except BrokenProcessPool:
        raise ModelError(DIED) from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    budget = facts.get("budget", 0)
    return Spread(tuple(devices), parse(signature), budget, facts, notes, columns, name, pool)


_mine: dict[str, Any] = {}
"""In a process that scores: what it was told to load, and the scorer once it is loaded."""


def _start(waiting: Queue[str], spec: str, options: dict[str, Any]) -> None:
    """Begin a process: take a device, leave Ctrl-C to the parent, end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()
    _mine["spec"] = spec
    _mine["options"] = {**options, "device": waiting.get()}


def _follow(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _scorer() -> Any:
    # Not while the process begins, where an error would reach nobody.
    if "scorer" not in _mine:
        _mine["scorer"] = scorers.load(_mine["spec"], **_mine["options"])
    return _mine["scorer"]


def _describe() -> tuple[str, dict[str, Any], list[str], tuple[str, ...], str]:
    scorer = _scorer()
    facts, notes = getattr(scorer, "engine", {}), list(getattr(scorer, "notes", ()))
    name = getattr(scorer, "perplexity", PERPLEXITY)
    return str(scorer.signature), facts, notes, tuple(getattr(scorer, "columns", ())), name


def _score(
    documents: list[Document], want: tuple[str, ...], budget: int
) -> tuple[list[Score], int]:
    scorer = _scorer()
    if budget and hasattr(scorer, "budget"):
        scorer.budget = budget
    scores = list(scorer.score(documents, want))
    return scores, int(getattr(scorer, "budget", budget))
