"""Damage a GGUF file's header in many ways and use what is left, each time in a process of its own.

    python tests/gguf_fuzz.py FILE MUTANTS USED SEED

Prints counts of what became of the mutants. Whatever the header check lets through goes to the
probe, and what the probe lets through is loaded and scored; this process loads nothing itself, so
that forking it costs milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# Before any fork, which then need not import anything.
import llama_cpp  # noqa: F401

import fairway
from fairway.backends.gguf import header, loading, probe, scoring  # noqa: F401
from fairway.errors import FairwayError

TEXT = "Hello there, \u65e5\u672c little <s> one. " * 3
NUMBERS = (0, 1, 2, 3, 7, 64, 255, 256, 257, 4096, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
PATIENCE = 60


def damage(whole: bytes, end: int, draw: random.Random) -> bytes:
    """Change some bytes before end: bits, bytes, numbers, lengths."""
    out = bytearray(whole)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 8))):
        at = draw.randrange(min(end, len(out)))
        way = draw.randrange(10)
        if way < 3:
            out[at] = draw.randrange(256)
        elif way < 5:
            out[at] ^= 1 << draw.randrange(8)
        elif way < 6:
            out[at : at + 4] = struct.pack("<I", draw.choice(NUMBERS))
        elif way < 7:
            out[at : at + 8] = struct.pack("<Q", draw.choice((*NUMBERS, 2**62, 2**64 - 1)))
        elif way < 8:
            del out[at : at + draw.choice((1, 4, 8, 100))]
        elif way < 9:
            out[at:at] = draw.randbytes(draw.choice((1, 4, 8)))
        else:
            del out[max(1, at) :]
    return bytes(out)


def apart(run: Callable[[], int]) -> str:
    """Run in a child; give its exit status, or how it ended."""
    child = os.fork()
    if not child:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        code = 9
        try:
            code = run()
        finally:
            os._exit(code)
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            died = os.WIFSIGNALED(status)
            return f"killed {os.WTERMSIG(status)}" if died else str(os.WEXITSTATUS(status))
        time.sleep(0.002)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "hangs"


def use(path: Path) -> int:
    """Score with a file that the probe has seen; 3 = an error that fairway raises on purpose."""
    loading._try = lambda *_: None
    try:
        scorer = fairway.load(f"gguf:{path}", threads=1)
        documents = [fairway.Document("a", TEXT)]
        list(scorer.score(documents, ("entropy", "rank", "top3")))
        str(scorer.signature)
        list(scorer.vocabulary.pieces)
    except FairwayError:
        return 3
    return 0


def main(file: str, mutants: int, used: int, seed: int) -> None:
    """Damage and use."""
    os.environ["GGML_NO_BACKTRACE"] = "1"
    source = Path(file)
    whole = source.read_bytes()
    sizes = sum(one.size for one in header.read(source).tensors)
    # The last tensors' bytes are weights, whatever they are.
    end = len(whole) - sizes
    draw = random.Random(seed)
    found: Counter[str] = Counter()
    path = source.with_name(f"mutant-{seed}.gguf")
    for _ in range(mutants):
        path.write_bytes(damage(whole, end, draw))
        try:
            header.read(path).refuse(path.name)
        except FairwayError:
            found["header"] += 1
            continue
        if not used:
            found["passed"] += 1
            continue
        used -= 1
        tried = apart(lambda: 0 if probe.main(str(path)) == "ok" else 4)
        if tried != "0":
            found["probe " + ("refuses" if tried == "4" else tried)] += 1
            continue
        found["use " + apart(lambda: use(path))] += 1
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
