"""What a request may cost: the size of its head and body, and how long it may take to come."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fairway.serve.gate import guard
from fairway.serve.settings import Settings
from guarded import LIMITS, ROUTES, WIDE, ask, dial, parse, raw, rest, serving


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving({}, Settings(limits=LIMITS), ROUTES) as found:
        yield found


def test_a_body_has_a_limit_however_it_comes(port: int) -> None:
    most = LIMITS.body
    head = f"POST /echo HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    head += "Content-Type: application/json\r\n"
    assert ask(port, "/echo", "POST", b"x" * most)[0] == 200
    assert ask(port, "/echo", "POST", b"x" * (most + 1))[0] == 413
    said = f"{head}Content-Length: {10**30}\r\n\r\n".encode()
    assert parse(raw(port, said))[0] in (400, 413)
    waits = f"{head}Content-Length: {most + 1}\r\nExpect: 100-continue\r\n\r\n".encode()
    assert raw(port, waits).startswith(b"HTTP/1.1 413")
    chunks = b"400\r\n" + b"x" * 1024 + b"\r\n"
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
    assert parse(raw(port, chunked + 4 * chunks + b"0\r\n\r\n"))[0] == 200
    assert parse(raw(port, chunked + 5 * chunks + b"0\r\n\r\n"))[0] == 413
    both = f"{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    after = b"0\r\n\r\nGET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = raw(port, both.replace(b"Connection: close\r\n", b"") + after)
    assert parse(answer)[0] == 400 and answer.count(b"HTTP/1.1") == 1
    assert parse(raw(port, chunked + b"zz\r\nhello\r\n"))[0] == 400


def test_heads_have_limits(port: int) -> None:
    head = f"GET /echo HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    many = "".join(f"a{n}: b\r\n" for n in range(101))
    assert parse(raw(port, f"{head}{many}\r\n".encode()))[0] == 431
    assert parse(raw(port, f"{head}a: {'b' * (40 << 10)}\r\n\r\n".encode()))[0] == 431
    with dial(port) as line:
        line.sendall(f"{head}a: ".encode())
        for _ in range(40):
            try:
                line.sendall(b"b" * 1024)
            except OSError:
                break
        assert rest(line)[:12] in (b"HTTP/1.1 431", b"")
    assert parse(raw(port, f"GET /{'a' * (64 << 10)} HTTP/1.1\r\n".encode()))[0] in (400, 431)


def drip(port: int, start: bytes, again: bytes) -> tuple[float, bytes]:
    """Send the start, then a little again and again; give how long that went on, and the answer."""
    begun = time.monotonic()
    with dial(port) as line:
        line.sendall(start)
        line.settimeout(0.1)
        got = b""
        while time.monotonic() - begun < 15:
            try:
                part = line.recv(65536)
                if not part:
                    break
                got += part
            except TimeoutError:
                try:
                    line.sendall(again)
                except OSError:
                    break
            except ConnectionResetError:
                break
        return time.monotonic() - begun, got


HELLO = b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("start", "again", "said"),
    [
        (b"", b"", b""),
        (b"GET /echo HTTP/1.1\r\n", b"a: b\r\n", b"HTTP/1.1 408"),
        (HELLO + b"Content-Length: 4000\r\n\r\n", b"x", b"HTTP/1.1 408"),
        (HELLO + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", b"HTTP/1.1 408"),
        (HELLO + b"Content-Length: 1\r\n\r\nxPOST ", b"x", b"HTTP/1.1 200"),
    ],
    ids=["nothing", "head", "body", "chunks", "second request"],
)
def test_slow_requests_are_cut(port: int, start: bytes, again: bytes, said: bytes) -> None:
    lasted, got = drip(port, start, again)
    assert got.startswith(said)
    assert LIMITS.patience * 0.8 <= lasted < LIMITS.patience + 3
    assert ask(port, "/echo")[0] == 200


def test_the_rest_of_a_refused_request_is_not_waited_for(port: int) -> None:
    big = b"x" * (4 << 20)
    said = f"Content-Length: {len(big)}\r\n\r\n".encode()
    for head, status in ((HELLO, 413), (HELLO + b"Origin: null\r\n", 403)):
        # A client that sends all before it reads is answered, and not reset.
        assert parse(raw(port, head + said + big))[0] == status
        # One who never ends is not listened to for long.
        begun = time.monotonic()
        with dial(port) as line:
            line.sendall(head + said)
            assert rest(line).startswith(b"HTTP/1.1 %d" % status)
            with pytest.raises(OSError):
                while time.monotonic() - begun < 15:
                    line.sendall(b"x")
                    time.sleep(0.05)
        assert time.monotonic() - begun < LIMITS.patience + 3


def test_a_connection_is_kept_for_many_requests(port: int) -> None:
    request = HELLO + b"Content-Length: 2\r\n\r\n{}"
    with dial(port) as line:
        for _ in range(8):
            line.sendall(request)
            got = line.recv(65536)
            while not got.endswith(b"\r\n\r\n2"):
                part = line.recv(65536)
                assert part, got
                got += part
            # Together more than the patience that each request has.
            time.sleep(LIMITS.patience / 4)


def test_many_slow_ones_hold_nobody_up(port: int) -> None:
    lines = [dial(port) for _ in range(150)]
    try:
        for place, line in enumerate(lines):
            line.sendall(HELLO[: place % len(HELLO)])
        begun = time.monotonic()
        for _ in range(20):
            assert ask(port, "/echo", "POST", b"{}")[0] == 200
        assert time.monotonic() - begun < 10
        for line in lines:
            assert rest(line)[:12] in (b"", b"HTTP/1.1 408")
    finally:
        for line in lines:
            line.close()


def test_bodies_that_are_held_have_a_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "ROOM", 0)
    most = LIMITS.body
    head = HELLO + b"Content-Length: %d\r\n\r\n" % most
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serving({}, Settings(limits=LIMITS), ROUTES))
        lines = [stack.enter_context(dial(port)) for _ in range(guard.HELD)]
        for line in lines:
            line.sendall(head + b"x" * (most - 1))
        status, headers, _ = ask(port, "/echo", "POST", b"x" * most)
        assert status == 429 and headers["retry-after"] == "1"
        assert ask(port, "/echo")[0] == 200
        for line in lines:
            assert rest(line).startswith(b"HTTP/1.1 408")
        # What was held is free again.
        assert ask(port, "/echo", "POST", b"x" * most)[0] == 200


def test_a_stop_while_a_body_comes_is_told() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def never() -> Any:
        await asyncio.Event().wait()

    async def try_it() -> None:
        guarded = guard.Guard(ROUTES[0], Settings())
        head = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "scheme": "http", "method": "POST", "path": "/echo",
                 "query_string": b"", "headers": head}  # fmt: skip
        task = asyncio.create_task(guarded(scope, never, send))
        await asyncio.sleep(0)
        task.cancel()
        await task

    asyncio.run(try_it())
    assert sent[0]["status"] == 503 and b"stops" in sent[1]["body"]


def slow_reader(port: int) -> socket.socket:
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.settimeout(20)
    line.connect(("127.0.0.1", port))
    line.sendall(b"GET /wide HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    return line


def test_an_answer_that_nobody_reads_is_given_up(port: int) -> None:
    with slow_reader(port) as line:
        time.sleep(LIMITS.patience * 2.5)
        assert len(rest(line)) < WIDE
    assert len(ask(port, "/wide")[2]) == WIDE


def test_an_answer_that_is_read_slowly_is_sent_to_its_end(port: int) -> None:
    with slow_reader(port) as line:
        size, begun = 0, time.monotonic()
        while part := line.recv(WIDE // 24):
            size += len(part)
            if size > WIDE:
                break
            # In all it lasts longer than the patience.
            time.sleep(max(0.0, begun + 2.5 * LIMITS.patience * size / WIDE - time.monotonic()))
        assert size > WIDE and time.monotonic() - begun > 2 * LIMITS.patience


def test_what_follows_a_refused_head_is_not_taken_for_http(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    head = HELLO + b"Origin: null\r\nTransfer-Encoding: chunked\r\n\r\n"
    with dial(port) as line:
        line.sendall(head)
        assert rest(line).startswith(b"HTTP/1.1 403")
        line.sendall(b"no chunk\r\n")
        time.sleep(0.1)
    assert ask(port, "/echo")[0] == 200 and not caplog.text
    assert parse(raw(port, head.replace(b"Origin: null\r\n", b"") + b"no chunk\r\n"))[0] == 400
    assert "Invalid HTTP" in caplog.text
