"""Files as streams of bytes, decompressed by their ending, whose end is never taken on trust."""

from __future__ import annotations

import bz2
import gzip
import io
import sys
from pathlib import Path
from typing import IO, Any, cast

from fairway.corpus.document import Corpus
from fairway.errors import InputError, MissingExtra

COMPRESSED = {".gz", ".bz2", ".zst"}
CHUNK = 1 << 16
FED = 1 << 12
"""Compressed bytes given to zstandard at a time: what comes out of them is held at once."""
WINDOW = 1 << 31
"""Bytes that a frame of zstandard may look back on, as ``zstd --long=31`` makes it."""

_begun: list[IO[bytes]] = []


class Counted(io.RawIOBase):
    """Bytes of a file, whose place is the corpus' position as they are read."""

    def __init__(self, path: Path, corpus: Corpus) -> None:
        self.stream = path.open("rb")
        self.corpus = corpus
        self.base = corpus.position
        self.place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self.stream.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = self.stream.seek(offset, whence)
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        self.place += len(data)
        self.corpus.position = max(self.corpus.position, self.base + self.place)
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


class _Zstandard(io.RawIOBase):
    """Frames of zstandard, one after another; its own reader takes a file that breaks off as whole.

    Raises:
        OSError: when the bytes are not zstandard's.
        EOFError: when they end within a frame.
    """

    def __init__(self, raw: IO[bytes], library: Any) -> None:
        self.raw = raw
        self.library = library
        self.frame: Any = None
        self.unread = b""
        self.ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready:
            data = self.unread or self.raw.read(FED)
            self.unread = b""
            if not data:
                if self.frame is not None:
                    raise EOFError("Compressed file ended before the end of its last frame")
                return 0
            if self.frame is None:
                self.frame = self.library.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
            try:
                self.ready = memoryview(self.frame.decompress(data))
            except self.library.ZstdError as problem:
                raise OSError(str(problem)) from None
            if self.frame.eof:
                self.unread, self.frame = self.frame.unused_data, None
        size = min(len(buffer), len(self.ready))
        buffer[:size] = self.ready[:size]
        self.ready = self.ready[size:]
        return size


def opened(path: Path, corpus: Corpus) -> IO[bytes]:
    """Open a file for reading, decompressed by its ending.

    Raises:
        InputError: when it cannot be read.
        MissingExtra: for .zst without zstandard.
    """
    try:
        raw: IO[bytes] = io.BufferedReader(Counted(path, corpus), CHUNK)
    except OSError as problem:
        raise InputError(f"{path} cannot be read: {problem.strerror}.") from None
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if path.suffix == ".bz2":
        return cast(IO[bytes], bz2.BZ2File(raw))
    if path.suffix == ".zst":
        try:
            import zstandard
        except ImportError:
            raise MissingExtra("Reading .zst files", "data") from None
        return io.BufferedReader(_Zstandard(raw, zstandard), CHUNK)
    return raw


def standard_input() -> IO[bytes]:
    """Give standard input.

    Raises:
        InputError: the second time, when nothing would be left in it.
    """
    stream = sys.stdin.buffer
    if stream in _begun:
        raise InputError(
            "Standard input can be read only once; save it as a file, and name that file to "
            "evaluate it more than once."
        )
    _begun[:] = [stream]
    return stream


def random_access(stream: IO[bytes]) -> IO[bytes]:
    """Give a stream that can go back; a compressed one or a pipe is held in memory."""
    raw = getattr(stream, "raw", None)
    plain = isinstance(raw, Counted) and raw.seekable()
    return stream if plain else io.BytesIO(stream.read())
