"""``fairway serve`` as a process: how it starts, what it refuses, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guarded import ask, dial, rest

CLEAN = {key: value for key, value in os.environ.items() if key != "FAIRWAY_TOKEN"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "fairway", "serve", *words]


def refused(*words: str, **env: str) -> str:
    done = subprocess.run(
        command(*words), capture_output=True, text=True, timeout=120, env={**CLEAN, **env}
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("fairway: ") and len(done.stderr.splitlines()) == 1
    return done.stderr


@contextlib.contextmanager
def started(*words: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Start a server on a free port; give it, its port and its first line."""
    process = subprocess.Popen(
        command("--port", "0", *words), stderr=subprocess.PIPE, text=True, env=CLEAN
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        match = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert match, line + process.stderr.read()
        yield process, int(match.group(1)), line
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def slow(texts: int = 400) -> bytes:
    """A request that takes a few seconds."""
    return json.dumps({"text": [f"{i} " + "long " * 600 for i in range(texts)]}).encode()


def begin(port: int, body: bytes) -> socket.socket:
    """Send a request and wait until it is taken in."""
    line = dial(port, 60)
    head = (
        "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    line.sendall(head.encode() + body)
    while json.loads(ask(port, "/ready")[2])["waiting"] == 0:
        pass
    return line


def test_what_cannot_start_says_why(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "--port" in refused("--port", port)
    assert "no host" in refused("--host", "no.such.host.invalid")
    assert "of this machine" in refused("--host", "192.0.2.1")
    assert "2 times for 1 models" in refused("--name", "a", "--name", "b")
    assert "given twice" in refused("--model", "hf:builtin", "--model", "hf:builtin")
    assert "FAIRWAY_TOKEN" in refused("--host", "0.0.0.0", "--port", "0")
    empty = tmp_path / "token"
    empty.write_text("\n")
    assert "is empty" in refused("--token-file", str(empty))
    assert "cannot be read" in refused("--token-file", str(tmp_path / "none"))


def test_a_stop_answers_what_runs_and_takes_nothing_more(small: str) -> None:
    with started("--model", small) as (process, port, line):
        assert line == f"fairway: serving small-llama at http://127.0.0.1:{port} (Ctrl-C stops)\n"
        with begin(port, slow(10)) as asked:
            process.send_signal(signal.SIGTERM)
            answer = rest(asked)
        assert answer.startswith(b"HTTP/1.1 200 ") and b'"perplexity"' in answer
        assert process.wait(30) == 0
        with pytest.raises(ConnectionRefusedError):
            dial(port)
        assert process.stderr is not None and process.stderr.read() == ""


@pytest.mark.slow
def test_a_missing_model_is_one_sentence() -> None:
    assert "nowhere" in refused("--model", "./nowhere", "--port", "0")


@pytest.mark.slow
def test_what_runs_too_long_is_cut_and_told(small: str) -> None:
    with started("--model", small, "--farewell", "1") as (process, port, _):
        with begin(port, slow()) as asked:
            process.send_signal(signal.SIGINT)
            answer = rest(asked)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"stops" in answer
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_a_second_signal_ends_at_once(small: str) -> None:
    with started("--model", small) as (process, port, _), begin(port, slow()) as asked:
        process.send_signal(signal.SIGINT)
        reader = threading.Thread(target=rest, args=(asked,))
        reader.start()
        with pytest.raises(ConnectionRefusedError):
            while True:
                dial(port).close()
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        reader.join()
        assert process.stderr is not None and "at once" in process.stderr.read()
