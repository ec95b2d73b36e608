"""N-grams of all orders with their adjusted counts, from word ids on disk.

The count of an n-gram of the highest order, or of one that begins with ``<s>``, is how often it
occurs. That of any other is by how many words it is extended to the left: Heafield, Pouzyrevsky,
Clark and Koehn, Scalable Modified Kneser-Ney Language Model Estimation, ACL 2013, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.ngram.training.database import columns, once
from fairway.ngram.training.reading import BOS, UNK

CHUNK = 1 << 21
"""Places of the text whose n-grams are counted at a time."""

Ids = NDArray[np.int32]


def count(connection: Any, ids: Path, order: int, show: Callable[[str, float], None]) -> None:
    """Make the tables ``g1`` to ``gn``: the words, ``a`` (adjusted count), ``raw`` (occurrences).

    Args:
        connection: of the work folder's database.
        ids: what `fairway.ngram.training.reading.encode` wrote.
        order: words in the longest n-gram.
        show: takes a stage and how much of it is done.
    """
    once(connection, "count", lambda: _occurrences(connection, ids, order, show))
    for k in range(order - 1, 0, -1):
        show("adjusting counts", 1 - k / order)
        once(connection, f"adjust {k}", partial(_adjust, connection, k))
    once(connection, "specials", lambda: _specials(connection))


def _occurrences(
    connection: Any, ids: Path, order: int, show: Callable[[str, float], None]
) -> None:
    for k in (*range(2, order), order):
        typed = ", ".join(f"{name} INTEGER" for name in columns(k))
        connection.execute(f"CREATE TABLE parts{k} ({typed}, a BIGINT)")
    for block, length, done in _chunks(ids, order):
        for k in (*range(2, order), order):
            found = _ngrams(block, k, length, starts=k < order)
            connection.register("found", found)
            connection.execute(
                f"INSERT INTO parts{k} SELECT {', '.join(found)}, count(*) FROM found GROUP BY ALL"
            )
            connection.unregister("found")
        show("counting", done)
    words = ", ".join(columns(order))
    connection.execute(
        f"CREATE TABLE g{order} AS SELECT {words}, sum(a)::BIGINT AS a, sum(a)::BIGINT AS raw "
        f"FROM parts{order} GROUP BY {words}"
    )
    connection.execute(f"DROP TABLE parts{order}")


def _adjust(connection: Any, k: int) -> None:
    """Count an order by the next one's n-grams; those that begin with ``<s>`` by themselves."""
    below = ", ".join(f"w{place + 1} AS w{place}" for place in range(1, k + 1))
    text = (
        f"SELECT {below}, count(*) AS a, sum(raw)::BIGINT AS raw FROM g{k + 1} "
        f"GROUP BY {', '.join(columns(k + 1, 2))}"
    )
    if k > 1:
        words = ", ".join(columns(k))
        text += (
            f" UNION ALL SELECT {words}, sum(a)::BIGINT, sum(a)::BIGINT FROM parts{k} "
            f"GROUP BY {words}"
        )
    connection.execute(f"CREATE TABLE g{k} AS {text}")
    if k > 1:
        connection.execute(f"DROP TABLE parts{k}")


def _specials(connection: Any) -> None:
    """Give ``<s>`` the count 0, and ``<unk>`` where the text holds none."""
    connection.execute(f"DELETE FROM g1 WHERE w1 = {BOS}")
    connection.execute(f"INSERT INTO g1 VALUES ({BOS}, 0, 0)")
    connection.execute(
        f"INSERT INTO g1 SELECT {UNK}, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM g1 WHERE w1 = {UNK})"
    )


def _chunks(ids: Path, order: int) -> Iterator[tuple[Ids, int, float]]:
    """Cut the text; a chunk brings the words that its last n-grams go on with."""
    whole = np.memmap(ids, dtype=np.int32, mode="r")
    for start in range(0, len(whole), CHUNK):
        block = np.asarray(whole[start : start + CHUNK + order - 1])
        length = min(CHUNK, len(whole) - start)
        yield block, length, (start + length) / len(whole)


def _ngrams(block: Ids, k: int, length: int, starts: bool) -> dict[str, Ids]:
    """Give the columns of the n-grams that begin in the first so many places.

    Args:
        block: word ids.
        k: words in an n-gram.
        length: places where one may begin.
        starts: only those that begin with ``<s>``.
    """
    places = max(0, min(length, len(block) - k + 1))
    parts = [block[at : at + places] for at in range(k)]
    whole = np.ones(places, dtype=bool)
    if starts:
        whole &= parts[0] == BOS
    for part in parts[1:]:
        # A sentence begins after the first word: no n-gram.
        whole &= part != BOS
    return {name: part[whole] for name, part in zip(columns(k), parts, strict=True)}


def occurrences(ids: Path, words: tuple[int, ...]) -> int:
    """Count how often a sequence of words occurs."""
    total = 0
    for block, length, _ in _chunks(ids, len(words)):
        found = _ngrams(block, len(words), length, starts=False)
        same = np.ones(len(found["w1"]), dtype=bool)
        for name, word in zip(found, words, strict=True):
            same &= found[name] == word
        total += int(np.count_nonzero(same))
    return total
