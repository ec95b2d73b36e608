"""Records of documents by text and signature, so that nothing is scored twice across runs."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path

from fairway import record, store
from fairway.errors import RunError
from fairway.record import Record


class ScoreCache:
    """An SQLite file of records; one that cannot be opened or written is left aside."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or store.folder() / "scores.sqlite"
        self.problem: str | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.connection: sqlite3.Connection | None = sqlite3.connect(self.path, timeout=10)
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute(
                "CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value BLOB NOT NULL)"
            )
        except (OSError, sqlite3.Error) as problem:
            self.connection = None
            self.problem = f"the score cache {self.path} is not used: {problem}"

    @staticmethod
    def name(signature: str, text: str, entry: bool, companions: bool = False) -> str:
        """Give the key of a text under a signature."""
        kind = ("entry" if entry else "sums") + "+companions" * companions
        return hashlib.sha256(f"{signature}\0{text}\0{kind}".encode()).hexdigest()

    def get(self, name: str) -> Record | None:
        """Look a record up; None where it is absent or unreadable."""
        if self.connection is None:
            return None
        try:
            row = self.connection.execute(
                "SELECT value FROM records WHERE key = ?", (name,)
            ).fetchone()
            return record.from_json(json.loads(zlib.decompress(row[0]))) if row else None
        except (sqlite3.Error, zlib.error, ValueError, KeyError) as problem:
            self.problem = f"the score cache {self.path} could not be read: {problem}"
            return None

    def put(self, items: Iterable[tuple[str, Record]]) -> None:
        """Keep records, in one transaction."""
        if self.connection is None:
            return
        rows = [
            (name, zlib.compress(json.dumps(kept.to_json()).encode("utf-8")))
            for name, kept in items
        ]
        try:
            with self.connection:
                self.connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?)", rows)
        except sqlite3.Error as problem:
            self.problem = f"the score cache {self.path} could not be written: {problem}"
            self.connection = None

    def clear(self) -> None:
        """Forget everything.

        Raises:
            RunError: when the file cannot be written.
        """
        try:
            if self.connection is not None:
                with self.connection:
                    self.connection.execute("DELETE FROM records")
        except sqlite3.Error as problem:
            raise RunError(f"The score cache {self.path} cannot be cleared: {problem}") from None

    def close(self) -> None:
        """Close the file."""
        if self.connection is not None:
            self.connection.close()
