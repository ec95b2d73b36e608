"""Run directories: append, resume after any interruption, read.

    run.json        settings, written before the first document
    scores.jsonl    a line per document; after each block a line ``{"block": k, ...}`` commits it
    report.json     written last

Lines behind the last commit are dropped when a run resumes: that block is scored again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fairway import record
from fairway.errors import InputError, RunError
from fairway.record import Record
from fairway.report import Report, dumps, from_json
from fairway.request import IGNORED

SETTINGS, SCORES, REPORT = "run.json", "scores.jsonl", "report.json"


class Run:
    """A run directory open for appending.

    Args:
        folder: where it is; made where it is absent.
        settings: all that decides the numbers; a run of other settings is refused.

    Raises:
        RunError: when the folder belongs to another run, is in use, or cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self.committed = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._claim()
            self._open()
        except FileExistsError:
            raise RunError(f"{folder} is a file; give --out a folder.") from None
        except OSError as problem:
            raise RunError(explain(folder, problem)) from None

    def _claim(self) -> None:
        path = self.folder / SETTINGS
        if not path.exists():
            if any(self.folder.iterdir()):
                raise RunError(f"{self.folder} holds other files; give --out a new folder.")
            _write(path, self._text())
            return
        try:
            earlier = json.loads(path.read_text("utf-8"))
        except ValueError:
            raise RunError(f"{path} is not readable; give --out another folder.") from None
        wrong = sorted(
            key
            for key in {*earlier, *self.settings} - set(IGNORED)
            if earlier.get(key) != self.settings.get(key)
        )
        if wrong:
            key = wrong[0]
            raise RunError(
                f"{self.folder} holds a run with another {key} ({earlier.get(key)!r}, now "
                f"{self.settings.get(key)!r}); give --out another folder."
            )
        self.settings = earlier

    def _open(self) -> None:
        path = self.folder / SCORES
        self.stream = path.open("a+b")
        try:
            _lock(self.stream, self.folder)
        except RunError:
            self.stream.close()
            raise
        self.stream.seek(0)
        keep = position = 0
        for line in self.stream:
            position += len(line)
            if line.startswith(b'{"block"') and line.endswith(b"\n"):
                self.committed += 1
                keep = position
        self.stream.truncate(keep)
        self.stream.seek(0, os.SEEK_END)

    def records(self) -> Iterator[list[Record]]:
        """Read the committed blocks back, in order."""
        return read_blocks(self.folder)

    def append(self, records: list[Record], engine: Mapping[str, Any] | None = None) -> None:
        """Write a block and commit it.

        Args:
            records: of the block.
            engine: what sets the scorer's pace now; noted where it changed, so that a resumed run
                plans its batches alike.

        Raises:
            RunError: when the disk is full or fails; what was committed before is kept.
        """
        lines = [json.dumps(kept.to_json(), ensure_ascii=False) for kept in records]
        lines.append(json.dumps({"block": self.committed, "documents": len(records)}))
        try:
            self.stream.write(("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
            self.stream.flush()
            os.fsync(self.stream.fileno())
            if engine is not None and engine != self.settings.get("engine"):
                self.settings["engine"] = dict(engine)
                _write(self.folder / SETTINGS, self._text())
        except OSError as problem:
            raise RunError(explain(self.folder, problem)) from None
        self.committed += 1

    def _text(self) -> str:
        return json.dumps(self.settings, ensure_ascii=False, indent=2)

    def finish(self, report: Report) -> None:
        """Write the report.

        Raises:
            RunError: when the disk is full or fails.
        """
        try:
            _write(self.folder / REPORT, dumps([report]) + "\n")
        except OSError as problem:
            raise RunError(explain(self.folder, problem)) from None

    def close(self) -> None:
        """Release the folder."""
        try:
            self.stream.close()
        except OSError as problem:
            raise RunError(explain(self.folder, problem)) from None


def explain(folder: Path, problem: OSError) -> str:
    """Say what is wrong with a folder, and the way out."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk of {folder} is full; what was scored so far is kept: make room and give "
            "the same command again."
        )
    return f"{folder} cannot be written: {problem.strerror or problem}."


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", errors="surrogatepass") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def _lock(stream: Any, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such lock on Windows
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise RunError(f"{folder} is in use by another process; wait for it to end.") from None


def read_blocks(folder: Path) -> Iterator[list[Record]]:
    """Read the committed blocks of a run directory, also while it is being written."""
    block: list[Record] = []
    with (folder / SCORES).open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                return
            data = json.loads(line)
            if "block" in data:
                yield block
                block = []
            else:
                block.append(record.from_json(data))


def read(folder: Path) -> tuple[dict[str, Any], Report]:
    """Read a finished run.

    Returns:
        Its settings and its report.

    Raises:
        InputError: when it is no run directory, or an unfinished one.
    """
    if not folder.exists():
        raise InputError(f"There is no {folder}; name a run directory or a report.json.")
    path = folder / REPORT if folder.is_dir() else folder
    if folder.is_dir() and not (folder / SETTINGS).exists():
        inner = sorted(p.name for p in folder.iterdir() if (p / SETTINGS).exists())
        more = f" It holds runs: {', '.join(inner)}." if inner else ""
        raise InputError(f"{folder} is not a run directory (it has no {SETTINGS}).{more}")
    if not path.exists():
        raise InputError(
            f"{folder} holds no report: the run is unfinished; give its eval command again."
        )
    settings = {}
    if folder.is_dir():
        settings = json.loads((folder / SETTINGS).read_text("utf-8"))
    try:
        return settings, from_json(json.loads(path.read_text("utf-8")))
    except ValueError:
        raise InputError(f"{path} is not JSON; give a run directory or a report.json.") from None
