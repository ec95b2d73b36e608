"""ARPA files as blocks of whole lines: decompressed, numbered, section after section."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import IO

from fairway.corpus import Corpus
from fairway.corpus.compressed import opened
from fairway.errors import InputError, ModelError

BLOCK = 1 << 22
"""Bytes that are read at a time."""
LONGEST = 1 << 24
"""Bytes of the longest line: what is longer is no ARPA file."""


class Lines:
    """The lines of a file, numbered from 1, in blocks or one by one.

    Args:
        path: of the file; .gz, .bz2 and .zst are decompressed.
        name: what messages call it; None = its own name.

    Raises:
        ModelError: when it cannot be read or is damaged.
        MissingExtra: for .zst without zstandard.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.name = name or path.name
        self.number = 0
        self.data = b""
        self.at = 0
        self.ended = False
        try:
            self.stream: IO[bytes] = opened(path, Corpus(path.name, lambda _: iter(())))
        except InputError as problem:
            raise ModelError(str(problem)) from None

    def close(self) -> None:
        """Close the file."""
        self.stream.close()

    def wrong(self, what: str, line: int | None = None) -> ModelError:
        """Give the error that names the file and a line, by default the one read last."""
        return ModelError(f"{self.name}:{line or self.number}: {what}")

    def line(self) -> bytes | None:
        """Read a line, its end left away; None at the end of the file."""
        while (end := self.data.find(b"\n", self.at)) < 0 and not self.ended:
            self._fill()
        if end < 0:
            end = len(self.data)
            if self.at == end:
                return None
        found = self.data[self.at : end]
        self.at = min(end + 1, len(self.data))
        self.number += 1
        return found.removesuffix(b"\r")

    def rows(self) -> tuple[int, bytes]:
        """Read some lines that do not begin with a backslash.

        Returns:
            The first one's number, and the lines; nothing where the next begins with a backslash,
            or at the end of the file.
        """
        while True:
            if self.data[self.at : self.at + 1] == b"\\":
                return self.number + 1, b""
            stop = self.data.find(b"\n\\", self.at)
            if stop < 0:
                stop = self.data.rfind(b"\n", self.at)
            if stop >= 0 or self.ended:
                break
            self._fill()
        end = stop + 1 if stop >= 0 else len(self.data)
        found = self.data[self.at : end]
        first = self.number + 1
        self.at = end
        self.number += found.count(b"\n") + (bool(found) and not found.endswith(b"\n"))
        return first, found

    def _fill(self) -> None:
        if len(self.data) - self.at > LONGEST:
            raise self.wrong("a line of many megabytes; this is no ARPA file.", self.number + 1)
        try:
            more = self.stream.read(BLOCK)
        except (OSError, EOFError, zlib.error) as problem:
            raise ModelError(
                f"{self.name} cannot be read to its end: {problem}. Fetch or compress it anew."
            ) from None
        self.ended = not more
        self.data = self.data[self.at :] + more
        self.at = 0


def shown(data: bytes, most: int = 60) -> str:
    """Show bytes of a file in a message."""
    text = data.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= most else text[:most] + "…")
