"""ARPA files from tables of probabilities and contexts."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fairway.errors import MissingExtra
from fairway.ngram.training.database import columns, rows

DIGITS = 7
"""Decimal places of log10: KenLM's float32 holds no more."""
ZERO = -99.0
"""What ARPA files hold for log10 of 0."""
ROWS = 1 << 18
"""Lines that are made at a time."""


def write(
    connection: Any,
    order: int,
    vocabulary: list[str],
    path: Path,
    show: Callable[[str, float], None],
) -> list[int]:
    """Write the model, n-grams sorted by where their words first occur in the text.

    Args:
        connection: of a database with the tables ``p1`` to ``pn`` and ``c1`` to ``cn``.
        order: words in the longest n-gram.
        vocabulary: words by id.
        path: gzip where it ends with .gz.
        show: takes a stage and how much of it is done.

    Returns:
        N-grams of each order.
    """
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
    except ImportError:
        raise MissingExtra("Writing an n-gram model", "ngram") from None
    sizes = [rows(connection, f"SELECT count(*) FROM p{k}")[0][0] for k in range(1, order + 1)]
    words = pa.array(vocabulary, pa.large_string())
    written = 0
    with stream(path) as out:
        out.write(b"\\data\\\n")
        for k, size in enumerate(sizes, 1):
            out.write(f"ngram {k}={size}\n".encode())
        for k in range(1, order + 1):
            out.write(f"\n\\{k}-grams:\n".encode())
            for batch in _rows(connection, k, order):
                text = [_decimals(pc, pa, batch.column("p")), "\t"]
                for name in columns(k):
                    text += [pc.take(words, batch.column(name)), " "]
                text.pop()
                if k < order:
                    text += ["\t", _decimals(pc, pa, batch.column("bow"))]
                text.append("\n")
                joined = pc.binary_join_element_wise(*map(_large(pa), text), _large(pa)(""))
                out.write(_bytes(joined))
                written += batch.num_rows
                show("writing", written / sum(sizes))
        out.write(b"\n\\end\\\n")
    return sizes


def _rows(connection: Any, k: int, order: int) -> Any:
    words = ", ".join(columns(k, table="p."))
    log = f"greatest({ZERO}, round(log10(nullif({{}}, 0)), {DIGITS}))"
    picked = f"{words}, coalesce(least(0.0, {log.format('p')}), {ZERO}) AS p"
    source = f"p{k} AS p"
    if k < order:
        same = " AND ".join(f"p.w{at} = c.w{at}" for at in range(1, k + 1))
        source += f" LEFT JOIN c{k + 1} AS c ON {same}"
        back = f"coalesce({log.format('gamma')}, {ZERO})"
        picked += f", CASE WHEN gamma IS NULL THEN 0.0 ELSE {back} END AS bow"
    return connection.sql(f"SELECT {picked} FROM {source} ORDER BY {words}").to_arrow_reader(ROWS)


def _decimals(pc: Any, pa: Any, numbers: Any) -> Any:
    # 0.0 is added to turn -0.0 into 0.0.
    return pc.cast(pc.add(numbers, 0.0), pa.large_string())


def _large(pa: Any) -> Callable[[Any], Any]:
    return lambda value: pa.scalar(value, pa.large_string()) if isinstance(value, str) else value


def _bytes(lines: Any) -> memoryview:
    """Give the text of a string array: its lines follow each other in memory."""
    import numpy as np

    _, offsets, data = lines.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])]


@contextmanager
def stream(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that is there only once it is whole; compressed where it ends with .gz.

    A compressed one holds no name and no time, so that it can be made again.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as raw:
            if path.suffix != ".gz":
                yield raw
            else:
                with (
                    gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
                    io.BufferedWriter(packed, 1 << 20) as out,
                ):
                    yield out
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
