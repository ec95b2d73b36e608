"""What a server writes by itself, at the default level: no text, no token, no address."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import arpas
from fairway.serve.settings import Settings
from guarded import ask, dial, parse, raw, rest

TOKEN = "sk-a-token-in-nobodys-log"
TEXT = "words of a user that stay his"
SERVER = """
import fairway
from fairway.serve import app, running
from fairway.serve.settings import Limits, Settings

model = fairway.load("arpa:" + FILE)

class Failing:
    signature, columns = model.signature, ()
    def score(self, documents, want=()):
        raise RuntimeError(documents[0].text)

settings = Settings(port=0, token=TOKEN, runs=".", limits=Limits(patience=1.0, body=5000))
built = app.build({"good": ("arpa", model), "bad": ("arpa", Failing())}, settings)
running.run(built, settings, None, lambda url: print(url, flush=True))
"""


def test_a_log_holds_no_text_token_or_query(tmp_path: Path) -> None:
    model = tmp_path / "model.arpa"
    model.write_text(arpas.write(arpas.draw(3, TEXT.split(), 2), 2), "utf-8")
    script = f"TOKEN = {TOKEN!r}\nFILE = {str(model)!r}\n{SERVER}"
    server = subprocess.Popen(
        [sys.executable, "-c", script], text=True, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert server.stdout is not None
    port = int(server.stdout.readline().rpartition(":")[2])
    body = json.dumps({"text": TEXT}).encode()
    bearer = f"Bearer {TOKEN}"
    query = TEXT.replace(" ", "+")
    with_text = json.dumps({"model": TEXT, "text": TEXT}).encode()
    crash = json.dumps({"model": "bad", "text": TEXT}).encode()
    answers = [
        ask(port, "/v1/score", "POST", body, authorization=bearer),
        ask(port, f"/v1/score?q={query}", "POST", with_text, authorization=bearer),
        ask(port, "/v1/score", "POST", crash, authorization=bearer),
        ask(port, "/v1/documents", "POST", body[:-3], authorization=bearer),
        ask(port, "/v1/score", "POST", body * 500, authorization=bearer),
        ask(port, f"/{query}", authorization=bearer),
        ask(port, f"/runs/{query}", authorization=bearer, cookie=f"a={TEXT}"),
        ask(port, f"/?token={TOKEN}"),
        ask(port, f"/?token={TOKEN}x", authorization=f"Bearer {TOKEN}x"),
        ask(port, "/health", host=f"{TOKEN}.example"),
        ask(port, "/health", origin=f"http://{TOKEN}.example"),
        parse(raw(port, f"{TEXT} {TOKEN}\r\n\r\n".encode())),
    ]
    assert [one[0] for one in answers] == [
        200, 404, 500, 400, 413, 404, 404, 303, 401, 421, 403, 400
    ]  # fmt: skip
    with dial(port) as line:
        line.sendall(f"POST /v1/score?{query} HTTP/1.1\r\nAuthorization: {bearer}\r\n".encode())
        assert rest(line).startswith(b"HTTP/1.1 408")
    with dial(port) as line:
        # One who leaves in the middle.
        line.sendall(f"POST /{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9".encode())
    server.terminate()
    out, log = server.communicate(timeout=30)
    assert "RuntimeError" in log
    for word in (TEXT, query, TOKEN, "words", "sk-a", "nobodys"):
        assert word not in log + out, word
    crashed = answers[2][2].decode()
    assert TEXT not in crashed and "RuntimeError" not in crashed
    # Answers repeat no token, whatever they were asked.
    assert not [one for one in answers if TOKEN in str(one)]


def test_settings_do_not_show_the_token() -> None:
    assert TOKEN not in repr(Settings(token=TOKEN))
