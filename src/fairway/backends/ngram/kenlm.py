"""KenLM's own module as a model, its silent defects kept away from it.

Of the module (kpu/kenlm, ``python/kenlm.pyx``): words are passed as C strings, so a NUL would cut
them; `score` adds in float32 and counts words as Python splits them; a damaged binary can end the
process. Here each word is scored by itself, NULs never come in (`fairway.backends.ngram.lines`),
and a binary is first tried in a process of its own.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway import store
from fairway.backends.ngram.arpa import counts
from fairway.backends.ngram.reading import Lines
from fairway.corpus import Corpus
from fairway.corpus.compressed import COMPRESSED, opened
from fairway.errors import InputError, MissingExtra, ModelError
from fairway.hashes import file_hash

MAGIC = b"mmap lm http://kheafield.com/code"
"""How KenLM's binaries begin (``lm/binary_format.cc``)."""
PATIENCE = 300.0
"""Seconds after which a binary's trial is given up."""
TAIL = 1 << 16
"""Bytes at a binary's end that are looked at for words: build_binary puts the vocabulary there."""
TRIED = 1000
"""Words that a binary's trial looks up, in an order that makes n-grams likely."""
SHORTEST = 4
"""Bytes of the shortest line of an n-gram: a digit, a tab, a letter and a newline."""
MISSING = -100.0
REASON = re.compile(r"threw [\w:]+(?: because `.*?'+)?\.\s*(.*)", re.DOTALL)
TRIAL = """
import json, sys
path, words, sys.path = json.load(sys.stdin)
import kenlm
config = kenlm.Config()
config.load_method = kenlm.LoadMethod.LAZY
model = kenlm.Model(path, config)
for start in range(0, len(words), 50):
    list(model.full_scores(" ".join(words[start:start + 50])))
"""


class Kenlm:
    """A loaded model.

    Args:
        model: of the module kenlm.

    Attributes:
        order: words in the longest n-gram.
        listed: whether the model lists the unknown word.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.order: int = model.order
        self.listed = next(iter(model.full_scores("<unk>", False, False)))[0] != MISSING

    def score_lines(
        self, lines: Sequence[bytes], bos: bool, eos: bool, before: bytes | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Score sentences; see `fairway.backends.ngram.scoring.Model`."""
        full = self.model.full_scores
        log10 = array("d")
        oov: list[int] = []
        add = log10.append
        for number, line in enumerate(lines):
            rows = full(line, bos, eos)
            if number == 0 and before:
                skip = len(before.split())
                rows = itertools.islice(full(before + b" " + line, bos, eos), skip, None)
            # Keeping the rows would cost more than computing them.
            for value, _, unknown in rows:
                add(value)
                if unknown:
                    oov.append(len(log10) - 1)
        missing = np.zeros(len(log10), dtype=bool)
        missing[oov] = True
        return np.array(log10), missing


def load(path: Path) -> Kenlm:
    """Load a file: ARPA, a binary, or either compressed.

    Raises:
        MissingExtra: when the module is not installed.
        ModelError: when the file cannot be loaded.
    """
    try:
        import kenlm  # noqa: F401
    except ImportError:
        raise MissingExtra("Scoring with KenLM", "ngram") from None
    if path.suffix not in COMPRESSED:
        return _load(path, path.name, file_hash([path]))
    with tempfile.TemporaryDirectory(prefix="fairway-", ignore_cleanup_errors=True) as folder:
        plain = Path(folder) / "model"
        _decompress(path, plain)
        return _load(plain, path.name, file_hash([path]))


def _decompress(path: Path, to: Path) -> None:
    try:
        with opened(path, Corpus(path.name, lambda _: iter(()))) as stream, to.open("wb") as out:
            shutil.copyfileobj(stream, out, 1 << 20)
    except InputError as problem:
        raise ModelError(str(problem)) from None
    except (OSError, EOFError, zlib.error) as problem:
        raise ModelError(
            f"{path.name} cannot be decompressed: {problem}. Fetch or compress it anew."
        ) from None


def _load(path: Path, name: str, digest: str) -> Kenlm:
    import kenlm

    with path.open("rb") as stream:
        binary = stream.read(len(MAGIC)) == MAGIC
    if binary:
        _try(path, name, digest)
    else:
        _check(path, name)
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return Kenlm(kenlm.Model(str(path), config))
    except UnicodeDecodeError as problem:
        raise _refused(name, problem.object.decode("utf-8", "backslashreplace"), binary) from None
    except (OSError, RuntimeError, ValueError, MemoryError) as problem:
        raise _refused(name, str(problem), binary) from None


def _check(path: Path, name: str) -> None:
    """Read an ARPA file's head, whose counts KenLM trusts: of a negative one the process dies.

    Raises:
        ModelError: when the file is none, or its counts cannot be true.
    """
    lines = Lines(path, name)
    try:
        total = sum(counts(lines))
    finally:
        lines.close()
    if total * SHORTEST > path.stat().st_size:
        raise ModelError(
            f"The head of {name} promises {total:,} n-grams, for which the file is too short; it "
            "is damaged or was cut off."
        )


def _try(path: Path, name: str, digest: str) -> None:
    """Load a binary and look words up in a process of its own, once for each file.

    Raises:
        ModelError: when that process dies or does not come to an end.
    """
    if store.recall("kenlm", digest):
        return
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - TAIL))
        tail = stream.read()
    found = [word.decode("utf-8", "replace") for word in tail.split(b"\0") if 0 < len(word) < 64]
    words = random.Random(0).choices(["the", "<unk>", *found], k=TRIED)
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRIAL],
            input=json.dumps([str(path.resolve()), words, sys.path]).encode(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"KenLM found no end of looking up words in {name}; the file is damaged, fetch or "
            "build it anew."
        ) from None
    # An exception of KenLM's own, exit code 1, comes again when this process loads the file.
    if done.returncode not in (0, 1):
        raise ModelError(f"KenLM crashes on {name}; the file is damaged, fetch or build it anew.")
    if done.returncode == 0:
        store.note("kenlm", digest, True)


def _refused(name: str, message: str, binary: bool) -> ModelError:
    """Say what KenLM found, without its source lines, and what may help."""
    match = REASON.search(message)
    reason = (match[1] if match else message).strip().removesuffix(")").strip().rstrip(".")
    lines = " ".join(reason.split())
    if binary:
        return ModelError(f"KenLM refuses {name}: {lines}. Fetch or build it anew.")
    return ModelError(
        f"KenLM refuses {name}: {lines}. Try arpa: in place of kenlm:, which takes any white "
        "space, lines before \\data\\ and any order, and names the line that is wrong."
    )
