"""From a corpus to an ARPA file, in stages that are kept in a work folder."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fairway.corpus import Corpus, read
from fairway.errors import InputError, RunError
from fairway.ngram.training import counting, database, estimating, lmplz, reading, writing
from fairway.ngram.training.discounts import Discounts
from fairway.ngram.training.settings import COUNTERS, Settings, settings, size

LAYOUT = 1
"""Of the tables in a work folder; another one's are not gone on with."""

Show = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """What was trained.

    Attributes:
        path: the ARPA file.
        order: words in the longest n-gram.
        ngrams: of each order in the file.
        discounts: of each order; empty where lmplz counted.
        text: what was read.
        settings: what was asked for.
        counter: fairway or lmplz.
        resumed: earlier stages were found done.
    """

    path: Path
    order: int
    ngrams: tuple[int, ...]
    discounts: tuple[Discounts, ...]
    text: reading.Text
    settings: Settings
    counter: str
    resumed: bool

    def to_json(self) -> dict[str, Any]:
        """Give it as plain data."""
        return {
            "path": str(self.path),
            "order": self.order,
            "ngrams": list(self.ngrams),
            "discounts": [one._asdict() for one in self.discounts],
            "text": asdict(self.text),
            "settings": asdict(self.settings),
            "counter": self.counter,
            "resumed": self.resumed,
        }


def train(
    data: str | os.PathLike[str] | Iterable[Any],
    out: str | os.PathLike[str],
    *,
    order: int = 5,
    prune: Sequence[int] = (),
    discount_fallback: Sequence[float] | None = None,
    interpolate_unigrams: bool = True,
    special_words: str = "error",
    memory: str = "2G",
    threads: int | None = None,
    work: str | os.PathLike[str] | None = None,
    counter: str = "fairway",
    lmplz_path: str | None = None,
    show: Show | None = None,
) -> Trained:
    """Train an interpolated modified Kneser-Ney model; the same text gives the same bytes.

    What is done is kept beside the result, and another call with the same text and settings goes
    on from there; at the end it is removed.

    Args:
        data: what `fairway.read` takes, a corpus, or a list of corpora.
        out: the ARPA file; gzip where it ends with .gz.
        order: words in the longest n-gram, 1 to 6.
        prune: a threshold an order, as ``--prune`` of lmplz; the last one holds for the rest.
        discount_fallback: discounts of counts 1, 2, and 3 and more, for orders that allow no
            estimate; None = such a text is refused.
        interpolate_unigrams: False gives ``<unk>`` all that unigrams' discounts leave, as SRILM.
        special_words: ``<s>``, ``</s>``, ``<unk>`` in the text: error, skip, or unk (count as
            ``<unk>``).
        memory: that the training may take, such as 2G; it goes to the disk beyond.
        threads: None = all cores.
        work: folder for the work folder; None = beside the result.
        counter: fairway or lmplz.
        lmplz_path: of the program; None = on PATH.
        show: takes a stage's name and how much of it is done, None where that is unknown.

    Raises:
        InputError: for settings that cannot be, or a text that allows no estimate.
        MissingExtra: where DuckDB or pyarrow is not installed.
        RunError: where memory or disk do not suffice, or the work folder is not usable.
    """
    asked = settings(order, prune, discount_fallback, interpolate_unigrams, special_words)
    bound = size(memory)
    if counter not in COUNTERS:
        raise InputError(f"--counter {counter!r} is not one of {', '.join(COUNTERS)}.")
    program = lmplz.find(lmplz_path) if counter == "lmplz" else None
    target = Path(out)
    if target.exists():
        raise InputError(f"{target} is there already; remove it, or name another --out.")
    folder = (Path(work) if work else target.parent) / f"{target.name}.work"
    fresh = not folder.exists()
    corpora = _corpora(data)
    say: Show = show or (lambda stage, share: None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise RunError(f"The folder {folder} cannot be made: {problem.strerror}.") from None
    begun = False
    try:
        with database.opened(folder, bound, threads) as connection:
            text, resumed = _read(connection, corpora, folder, asked, say)
            begun = True
            database.bound(connection, bound, text.types)
            found: list[Discounts] = []
            if program:
                say("lmplz", None)
                ngrams = lmplz.train(
                    program, folder / "ids", folder / "words", asked, bound, folder, target
                )
            else:
                counting.count(connection, folder / "ids", order, say)
                found = estimating.discounts(connection, folder / "ids", asked)
                estimating.estimate_all(connection, asked, found, say)
                ngrams = writing.write(
                    connection, order, reading.vocabulary(folder / "words"), target, say
                )
    except InputError:
        # A text that was refused leaves nothing to go on with.
        if fresh and not begun:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return Trained(target, order, tuple(ngrams), tuple(found), text, asked, counter, resumed)


def _corpora(data: Any) -> list[Corpus]:
    if isinstance(data, Corpus):
        return [data]
    if isinstance(data, list | tuple) and data and all(isinstance(one, Corpus) for one in data):
        return list(data)
    return [read(data)]


def _read(
    connection: Any, corpora: list[Corpus], folder: Path, asked: Settings, say: Show
) -> tuple[reading.Text, bool]:
    """Read the text; forget earlier stages unless they are of the same text and settings."""

    def told(position: int, whole: int | None) -> None:
        say("reading", position / whole if whole else None)

    say("reading", None)
    ids, words = folder / "ids.part", folder / "words.part"
    text = reading.encode(corpora, asked.special_words, ids, words, told)
    counted = json.dumps([LAYOUT, asked.order, asked.special_words, asdict(text)])
    _forget(connection, "counts", counted, "")
    # Another pruning or fallback needs no new counts.
    _forget(connection, "estimates", json.dumps(asdict(asked)), "[cp][0-9]+")
    ids.replace(folder / "ids")
    words.replace(folder / "words")
    return text, bool(database.rows(connection, "SELECT 1 FROM done LIMIT 1"))


def _forget(connection: Any, what: str, now: str, tables: str) -> None:
    """Drop the tables of earlier stages where these were made from something else.

    Args:
        connection: of the work folder's database.
        what: counts or estimates.
        now: what they are to be made from.
        tables: pattern of their names; empty = all.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS about (what VARCHAR, held VARCHAR)")
    if database.rows(connection, "SELECT held FROM about WHERE what = ?", what) == [(now,)]:
        return
    connection.execute("BEGIN")
    everything = "SELECT table_name FROM duckdb_tables() WHERE NOT internal"
    for (table,) in database.rows(connection, everything):
        if table not in ("about", "done") and (not tables or re.fullmatch(tables, table)):
            connection.execute(f"DROP TABLE {table}")
    stages = "stage LIKE 'contexts%' OR stage LIKE 'probabilities%'" if tables else "true"
    connection.execute(f"DELETE FROM done WHERE {stages}")
    connection.execute("DELETE FROM about WHERE what = ?", [what])
    connection.execute("INSERT INTO about VALUES (?, ?)", [what, now])
    connection.execute("COMMIT")
