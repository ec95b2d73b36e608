"""KenLM's lmplz in the place of our own counting, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fairway.errors import InputError, ModelError
from fairway.ngram.training.reading import BOS, EOS, vocabulary
from fairway.ngram.training.settings import Settings
from fairway.ngram.training.writing import stream

BLOCK = 1 << 20
"""Ids that are spelled at a time."""


def find(named: str | None) -> str:
    """Find the program.

    Args:
        named: its path; None = on PATH.

    Raises:
        InputError: where there is none.
    """
    found = shutil.which(named or "lmplz")
    if found is None:
        raise InputError(
            f"There is no program {named or 'lmplz on PATH'}; build KenLM's and name it with "
            "--lmplz, or leave --counter lmplz out: fairway's own counting gives the same model."
        )
    return found


def train(
    program: str, ids: Path, words: Path, settings: Settings, memory: int, folder: Path, out: Path
) -> list[int]:
    """Train with lmplz on the same sentences.

    Args:
        program: what `find` found.
        ids: what `fairway.ngram.training.reading.encode` wrote.
        words: likewise.
        settings: of the training.
        memory: bytes that lmplz may take to sort.
        folder: for what it writes meanwhile.
        out: the ARPA file; gzip where it ends with .gz.

    Returns:
        N-grams of each order.

    Raises:
        InputError: where lmplz refuses the text.
        ModelError: where it fails otherwise.
    """
    if settings.special_words == "unk":
        raise InputError("lmplz cannot count <unk>; leave --counter lmplz or --special-words out.")
    made = folder / "lmplz.arpa"
    command = [
        program, "-o", str(settings.order), "-S", f"{memory}b", "-T", f"{folder}/",
        "--arpa", str(made), "--interpolate_unigrams", str(int(settings.interpolate_unigrams)),
        "--prune", *map(str, settings.prune),
    ]  # fmt: skip
    if settings.fallback is not None:
        command += ["--discount_fallback", *map(str, settings.fallback)]
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
        ) as running:
            assert running.stdin is not None
            try:
                for text in _sentences(ids, words):
                    running.stdin.write(text)
                running.stdin.close()
            except BrokenPipeError:
                pass
            except BaseException:
                running.kill()
                raise
        said.seek(0)
        told = said.read().decode("utf-8", "replace")
    if running.returncode:
        if "BadDiscountException" in told or "discount_fallback" in told:
            raise InputError(
                "lmplz can estimate no Kneser-Ney discounts from this text; remove repeated lines, "
                "or pass --discount-fallback."
            )
        last = next((one for one in reversed(told.splitlines()) if one.strip()), "it said nothing")
        raise ModelError(f"lmplz ended with {running.returncode}: {last.strip()}")
    sizes = []
    with made.open("rb") as read, stream(out) as write:
        for line in read:
            write.write(line)
            if line.startswith(b"ngram "):
                sizes.append(int(line.partition(b"=")[2]))
            if not line.strip():
                break
        shutil.copyfileobj(read, write, 1 << 20)
    made.unlink()
    return sizes


def _sentences(ids: Path, words: Path) -> Iterator[bytes]:
    """Spell the text, a sentence a line."""
    names = vocabulary(words)
    names[BOS], names[EOS] = "", "\n"
    whole = np.memmap(ids, dtype=np.int32, mode="r")
    for start in range(0, len(whole), BLOCK):
        spelled = " ".join([names[one] for one in whole[start : start + BLOCK].tolist()])
        yield spelled.encode("utf-8") + b" "
