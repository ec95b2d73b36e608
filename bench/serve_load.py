"""Clients of ``fairway serve`` that are lean, and what they hold its answers against.

Used by bench/serve.py and by the tests.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORDS = (
    "river council budget theorem winter engine paper light garden of the and in by for was were"
)
RARE = ["adopted", "measured", "answered", "Straße", "naïve", "北京", "🙂", "-", "3.14"]


def texts(count: int, least: int, most: int, seed: int = 0) -> list[str]:
    """Make texts of so many words, short ones more often, none like another."""
    draw = random.Random(seed)
    span = math.log(most / least)
    sizes = [round(least * math.exp(draw.random() * span)) for _ in range(count)]
    words = WORDS.split() + RARE
    return [" ".join(draw.choices(words, k=size)) + f" {at}." for at, size in enumerate(sizes)]


class Connection(asyncio.Protocol):
    """One client's kept connection; lean, since it shares two cores with the server."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.buffer = bytearray()
        self.answer: asyncio.Future[tuple[int, bytes, bytes]] | None = None

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Read until an answer is whole."""
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0 or self.answer is None:
            return
        length = re.search(rb"content-length: (\d+)", self.buffer[:head], re.I)
        end = head + 4 + int(length.group(1) if length else 0)
        if len(self.buffer) >= end:
            whole = bytes(self.buffer)
            self.buffer.clear()
            self.answer.set_result((int(whole[9:12]), whole[:head], whole[head + 4 : end]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        """Close it."""
        assert self.transport is not None
        self.transport.close()

    async def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Send a request; give status, head and body of its answer."""
        assert self.transport is not None
        if self.transport.is_closing():
            raise ConnectionError("the server closed the connection")
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.answer


def post(text: str | list[str]) -> bytes:
    """Write a request for a report."""
    body = json.dumps({"text": text}).encode()
    head = (
        "POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def server(model: str, *options: str) -> Iterator[tuple[int, int]]:
    """Run ``fairway serve``; give its port and the number of its process."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["-m", "fairway", "serve", "--model", model, "--port", "0", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, *command, *options], stderr=subprocess.PIPE, text=True, env=env
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        match = re.search(r"http://[^ ]*:(\d+)", line)
        if match is None:
            process.terminate()
            raise RuntimeError(line + process.stderr.read())
        yield int(match.group(1)), process.pid
    finally:
        process.terminate()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


async def connect(port: int) -> Connection:
    """Open a connection."""
    loop = asyncio.get_running_loop()
    _, one = await loop.create_connection(Connection, "127.0.0.1", port)
    return one


@dataclass(slots=True)
class Load:
    """What some minutes of load gave.

    Attributes:
        answers: reports.
        rejected: answers of 429.
        wrong: other answers, and reports whose figures are not the engine's.
        worst: largest deviation of a figure, see `deviation`.
        perplexity: largest relative deviation of a report's or a text's perplexity itself.
        memory: bytes of the server by the second.
        seconds: latency of each report.
    """

    answers: int = 0
    rejected: int = 0
    wrong: list[str] = field(default_factory=list)
    worst: float = 0.0
    perplexity: float = 0.0
    memory: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Memory at the end over that after the first fifth, medians of a tenth of the time."""
        tenth = max(1, len(self.memory) // 10)
        return statistics.median(self.memory[-tenth:]) / statistics.median(
            self.memory[2 * tenth : 3 * tenth]
        )


def loading(
    port: int,
    pid: int,
    cases: Sequence[tuple[bytes, Any]],
    seconds: float,
    clients: int = 64,
    warm: float = 0.0,
) -> Load:
    """Have clients ask for reports for a while, and hold each against the one that is right.

    Args:
        port: of the server.
        pid: its process.
        cases: requests, with their reports.
        seconds: for how long.
        clients: at a time.
        warm: seconds until memory is watched.
    """
    load = Load()

    async def client(seed: int, end: float) -> None:
        draw = random.Random(seed)
        one = await connect(port)
        while time.perf_counter() < end:
            request, report = draw.choice(cases)
            start = time.perf_counter()
            status, head, body = await one.ask(request)
            if status == 429:
                load.rejected += 1
                wait = re.search(rb"retry-after: (\d+)", head, re.I)
                await asyncio.sleep(float(wait.group(1)) if wait else 0)
                # A connection at rest is closed by the server after a few seconds.
                one.close()
                one = await connect(port)
                continue
            load.seconds.append(time.perf_counter() - start)
            if status != 200:
                load.wrong.append(f"status {status}: {body[:200]!r}")
                continue
            load.answers += 1
            got = json.loads(body)
            load.worst = max(load.worst, deviation(got, report))
            load.perplexity = max(load.perplexity, apart(got, report))
            # Checking takes time of the one loop; others have their turn.
            await asyncio.sleep(0)
        one.close()

    async def watch(end: float) -> None:
        await asyncio.sleep(warm)
        while time.perf_counter() < end:
            load.memory.append(resident(pid))
            await asyncio.sleep(min(1.0, seconds / 60))

    async def main() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(watch(end), *(client(seed, end) for seed in range(clients)))

    asyncio.run(main())
    return load


EXPONENTIAL = ("perplexity",)
"""Ends of the names of figures that are exponentials of nats."""
LEVELS = ("surprisal_p50", "surprisal_p90", "surprisal_p99", "tokens_for_half_the_bits",
          "bits_in_top_1_percent")  # fmt: skip
"""Figures that are read from levels: rounding may move a token to the next one, 0.9% away."""
STEP = 0.01


def apart(got: Any, wanted: Any) -> float:
    """Give the largest relative deviation of the perplexity of a report and of its texts."""
    pairs = zip([got, *got["texts"]], [wanted, *wanted["texts"]], strict=True)
    found = [(a["metrics"]["perplexity"], b["metrics"]["perplexity"]) for a, b in pairs]
    return max(abs(a - b) / b for a, b in found)


def deviation(got: Any, wanted: Any, name: str = "") -> float:
    """Give the largest relative deviation of a number; infinity where anything else differs.

    An exponential is compared by its logarithm, the nats: a word's perplexity of e^40 magnifies
    what rounding did to them 40 times. What is near 0 is held against 1; `LEVELS` to a level.
    """
    if isinstance(wanted, dict) and isinstance(got, dict) and got.keys() == wanted.keys():
        return max((deviation(got[key], wanted[key], key) for key in wanted), default=0.0)
    if isinstance(wanted, list) and isinstance(got, list) and len(got) == len(wanted):
        return max((deviation(a, b, name) for a, b in zip(got, wanted, strict=True)), default=0.0)
    if isinstance(wanted, float) and isinstance(got, int | float):
        if name in LEVELS:
            return 0.0 if abs(got - wanted) <= STEP * abs(wanted) else math.inf
        if name.endswith(EXPONENTIAL) and got > 0 < wanted:
            got, wanted = math.log(got), math.log(wanted)
        return abs(got - wanted) / max(abs(wanted), 1.0)
    return 0.0 if got == wanted else math.inf


def cases(scorer: Any, count: int = 60, most: int = 3000) -> list[tuple[bytes, Any]]:
    """Make requests of texts of 1 to `most` words, some with several, and their reports."""
    from fairway.api import report_of
    from fairway.companions import WANT
    from fairway.corpus import Document, read

    made = texts(count, 1, most)
    groups: list[list[str]] = [[one] for one in made] + [made[at : at + 3] for at in range(0, 9, 3)]
    found = []
    for group in groups:
        documents = [Document(f"text {at + 1}", one) for at, one in enumerate(group)]
        corpus = read(documents)
        scores = [next(iter(scorer.score([one], WANT))) for one in corpus]
        report = report_of(scorer, corpus, scores).to_json()
        sent = group[0] if len(group) == 1 else group
        found.append((post(sent), json.loads(json.dumps(report))))
    return found


def resident(pid: int) -> int:
    """Give the bytes of memory that a process holds."""
    text = Path(f"/proc/{pid}/status").read_text("utf-8")
    match = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(match.group(1)) << 10 if match else 0
