"""DuckDB under a training: sorting and counting within a bound of memory, on disk beyond it.

Tables of an order hold a column a word, ``w1`` to ``wk``, int32 ids.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fairway.errors import MissingExtra, RunError

OVERHEAD = 344 << 20
"""Bytes that Python, the libraries and a block of lines take beside DuckDB, as measured."""
WORD = 256
"""Bytes that a word of the vocabulary takes, as a list for writing and as a column."""
LEAST = 96 << 20
"""Bytes below which DuckDB cannot work."""
FILE = "counts.duckdb"


@contextmanager
def opened(folder: Path, memory: int, threads: int | None) -> Iterator[Any]:
    """Open the database of a work folder.

    Args:
        folder: the work folder.
        memory: bytes that the whole training may take.
        threads: None = all cores.

    Raises:
        MissingExtra: where DuckDB is not installed.
        RunError: where the database is in use or damaged.
    """
    try:
        import duckdb
    except ImportError:
        raise MissingExtra("Training an n-gram model", "ngram") from None
    config = {
        "memory_limit": _limit(memory, 0),
        "temp_directory": str(folder / "spill"),
        "preserve_insertion_order": "false",
        "allow_unsigned_extensions": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    if threads:
        config["threads"] = str(threads)
    with sentences(folder):
        connection = duckdb.connect(str(folder / FILE), config=config)
        try:
            # Left to itself, it joins contexts with suffixes by the word that they share: far
            # more pairs than there are n-grams.
            connection.execute("SET disabled_optimizers = 'join_order'")
            connection.execute("CREATE TABLE IF NOT EXISTS done (stage VARCHAR)")
            yield connection
        finally:
            connection.close()


def _limit(memory: int, types: int) -> str:
    return f"{max(LEAST, memory - OVERHEAD - types * WORD) >> 20}MiB"


def bound(connection: Any, memory: int, types: int) -> None:
    """Leave room for a vocabulary of so many words, once it is known."""
    connection.execute(f"SET memory_limit = '{_limit(memory, types)}'")


@contextmanager
def sentences(folder: Path) -> Iterator[None]:
    """Turn what the disk, the memory or the database refuses into one sentence.

    Raises:
        RunError: with the way out.
    """
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as problem:
        if "max_temp_directory_size" in str(problem) or "No space left" in str(problem):
            raise RunError(_full(folder)) from None
        raise RunError(
            "The training needs more memory than --memory allows; give it more. "
            "What is done is kept, and the same command goes on."
        ) from None
    except duckdb.IOException as problem:
        if "No space left" in str(problem):
            raise RunError(_full(folder)) from None
        if "lock" in str(problem):
            raise RunError(
                f"Another training works in {folder}; wait for it, or name another --work."
            ) from None
        raise RunError(f"The work folder {folder} cannot be used: {_first(problem)}") from None
    except (duckdb.SerializationException, duckdb.InternalException) as problem:
        raise RunError(
            f"The work folder {folder} is damaged ({_first(problem)}); remove it and start again."
        ) from None
    except RuntimeError as problem:
        # How DuckDB tells of Ctrl-C.
        if "interrupted" in str(problem).lower():
            raise KeyboardInterrupt from None
        raise
    except OSError as problem:
        if problem.errno == errno.ENOSPC:
            raise RunError(_full(folder)) from None
        raise RunError(f"{problem.filename or folder}: {problem.strerror or problem}.") from None


def _full(folder: Path) -> str:
    return (
        f"There is no space left for {folder}; make some, and the same command goes on, or name "
        "a folder elsewhere with --work."
    )


def _first(problem: Exception) -> str:
    return str(problem).splitlines()[0]


def rows(connection: Any, query: str, *given: object) -> list[tuple[Any, ...]]:
    """Give all rows of a small result."""
    found: list[tuple[Any, ...]] = connection.execute(query, list(given)).fetchall()
    return found


def once(connection: Any, stage: str, work: Callable[[], object]) -> None:
    """Do a stage wholly or not at all, and not again once it is done."""
    if rows(connection, "SELECT 1 FROM done WHERE stage = ?", stage):
        return
    import duckdb

    try:
        _whole(connection, stage, work)
    except duckdb.OutOfMemoryException:
        # Each thread holds buffers of its own.
        connection.execute("SET threads = 1")
        _whole(connection, stage, work)


def _whole(connection: Any, stage: str, work: Callable[[], object]) -> None:
    connection.execute("BEGIN")
    try:
        work()
        connection.execute("INSERT INTO done VALUES (?)", [stage])
    except BaseException:
        # A transaction that failed by itself is over already.
        with suppress(Exception):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def columns(order: int, first: int = 1, table: str = "") -> list[str]:
    """Name an order's columns from a place on: ``w1`` to ``wk``."""
    return [f"{table}w{place}" for place in range(first, order + 1)]
