"""Run directories below one folder: which there are, and what is in them.

A run is asked for by its name and found among those that are there: no path is ever made of what a
request says. Links are not followed, and only regular files of bounded size are read. What is in
them is anybody's: whatever is wrong with it is told in a sentence.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fairway.errors import FairwayError, InputError, ProtocolError
from fairway.run import REPORT, SCORES, SETTINGS
from fairway.scores import named

if TYPE_CHECKING:
    from fairway.checkpoints import Checkpoint
    from fairway.comparable import Side
    from fairway.comparison import Comparison
    from fairway.curve import Curve
    from fairway.report import Report
    from fairway.where import Where

DEPTH, RUNS, FOLDERS = 3, 2000, 20_000
"""Folders within folders, runs, and folders looked into; what is beyond is not listed."""
LARGEST = 64 << 20
"""Bytes of a file that is read."""
AT_ONCE = 4 << 20
"""Bytes of a report that is read for the list."""
BUDGET = 3.0
"""Seconds after which the list goes without the numbers of reports that were not read before."""
STEPS = 500
"""Runs on a curve."""


class Absent(InputError):
    """There is no run of that name."""


def check(folder: str) -> None:
    """Refuse a folder of runs that is none, when the server is started.

    Raises:
        InputError: for that.
    """
    if not os.path.isdir(folder):
        raise InputError(f"There is no folder {folder}; --runs takes one with run directories.")


@dataclass(frozen=True, slots=True)
class Found:
    """A run as the list shows it.

    Attributes:
        name: its folder's path below the folder of runs.
        model: as it was asked for.
        data: likewise.
        state: finished, unfinished or damaged.
        perplexity: name of exp(nll / tokens); empty where it was not read.
        value: of it; NaN likewise.
        bits_per_byte: NaN likewise.
        documents: 0 likewise.
        reason: why it is damaged.
    """

    name: str
    model: str = ""
    data: str = ""
    state: str = "finished"
    perplexity: str = ""
    value: float = math.nan
    bits_per_byte: float = math.nan
    documents: int = 0
    reason: str = ""


@dataclass(slots=True)
class Catalogue:
    """The runs below a folder.

    Attributes:
        root: the folder.
        known: what was read of a run, with the sizes and times of change of its files.
        lock: of that.
    """

    root: Path
    known: dict[str, tuple[tuple[int, ...], Found]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def list(self) -> tuple[list[Found], list[str], bool]:
        """List the runs.

        Returns:
            The runs by name, the folders whose runs make a curve, and whether some are left out.

        Raises:
            InputError: when the folder cannot be read.
        """
        folders = self._folders()
        end = time.monotonic() + BUDGET
        with self.lock:
            found = [self._look(name, path, end) for name, path in folders.items()]
            for gone in self.known.keys() - folders.keys():
                del self.known[gone]
        steps = Counter(_parent(one.name) for one in found if _is_step(one))
        curves = sorted(folder for folder, count in steps.items() if count > 1)
        return found, curves, len(folders) >= RUNS

    def report(self, name: str) -> Report:
        """Read a run's report.

        Raises:
            InputError: when there is no such run, or it is unfinished or damaged.
        """
        return self._report(name, self._path(name))

    def compare(
        self, first: str, second: str, allow: Sequence[str] = ()
    ) -> tuple[Comparison, Where | None]:
        """Compare two runs as ``fairway compare`` does.

        Args:
            first: name of the run that is the measure.
            second: of the other one.
            allow: keys of the signatures that may differ.

        Raises:
            InputError: as `report`, or when there is no such key.
            ProtocolError: when they cannot be compared.
        """
        from fairway.comparison import compare
        from fairway.where import locate

        if first == second:
            raise InputError("A run is not compared with itself; choose two.")
        ours = self._side(first, self._path(first))
        theirs = self._side(second, self._path(second))
        with self.telling(f"{first} or {second}"):
            found = compare(ours, theirs, allow)
            kept = all(any(one.entry for one in side.records) for side in (ours, theirs))
            return found, locate(ours, theirs) if kept else None

    def curve(self, folder: str) -> Curve:
        """Trace the finished runs in a folder as ``fairway curve`` does.

        Raises:
            InputError: when there are none, or too many.
            ProtocolError: when they cannot be compared.
        """
        from fairway.curve import trace

        runs = {
            name: path for name, path in self._folders().items()
            if _parent(name) == folder and (path / REPORT).exists()
        }  # fmt: skip
        if not runs or len(runs) > STEPS:
            raise InputError(
                f"A curve is of 1 to {STEPS} finished runs in one folder; here are {len(runs)}."
            )
        size = sum(_regular(path / part) for path in runs.values() for part in (REPORT, SCORES))
        if size > LARGEST:
            raise _too_large("These runs have")
        found = [self._checkpoint(name, path) for name, path in runs.items()]
        with self.telling("One of these runs"):
            return trace(found)

    def _report(self, name: str, path: Path) -> Report:
        from fairway.run import read

        _asked(path / SETTINGS)
        if not (path / REPORT).exists():
            raise InputError(f"{name} is unfinished: it has no report yet.")
        _regular(path / REPORT)
        with self.telling(name):
            return read(path)[1]

    def _side(self, name: str, path: Path) -> Side:
        from fairway.comparable import read

        self._report(name, path)
        _regular(path / SCORES)
        with self.telling(name):
            return read(path, name)

    def _checkpoint(self, name: str, path: Path) -> tuple[Checkpoint, Side]:
        """Read a run as a checkpoint's.

        Its step is that in a name: a file beside the model, which the run may name falsely, is
        none of the folder's.
        """
        from fairway.checkpoints import Checkpoint, step_of
        from fairway.comparable import Side

        side = self._side(name, path)
        asked, _ = _asked(path / SETTINGS)
        label = re.split(r"[/\\@:]", asked)[-1] or path.name
        step = step_of(label)
        step = step_of(path.name) if step is None else step
        return Checkpoint(asked, label, step), Side(
            label, side.signature, side.report, side.records
        )

    @contextlib.contextmanager
    def telling(self, name: str) -> Iterator[None]:
        """Turn whatever damaged files lead to into a sentence that names no path."""
        try:
            yield
        except FairwayError as problem:
            words = str(problem).replace(f"{self.root}{os.sep}", "")
            kind = ProtocolError if isinstance(problem, ProtocolError) else InputError
            raise kind(words) from None
        except Exception as problem:
            raise InputError(
                f"{name} is damaged and cannot be read ({type(problem).__name__})."
            ) from None

    def _path(self, name: str) -> Path:
        """Find a run.

        Raises:
            InputError: when there is none of that name.
        """
        path = self._folders().get(name)
        if path is None:
            raise Absent("There is no such run here; GET /v1/runs lists those that are.")
        return path

    def _folders(self) -> dict[str, Path]:
        """Find the folders that are run directories, by name."""
        found: dict[str, Path] = {}
        for path in _walk(self.root):
            name = path.relative_to(self.root).as_posix()
            if _writable(name):
                found[name] = path
            if len(found) >= RUNS:
                break
        return dict(sorted(found.items()))

    def _look(self, name: str, path: Path, end: float) -> Found:
        """Read what the list shows of a run, unless nothing has changed since."""
        state = _state(path)
        before = self.known.get(name)
        if before is not None and before[0] == state:
            return before[1]
        try:
            model, data = _asked(path / SETTINGS)
        except InputError as problem:
            found = Found(name, state="damaged", reason=str(problem))
        else:
            if not (path / REPORT).exists():
                return Found(name, model, data, "unfinished")
            if state[0] > AT_ONCE or time.monotonic() > end:
                return Found(name, model, data)
            found = self._numbers(name, path, model, data)
        self.known[name] = state, found
        return found

    def _numbers(self, name: str, path: Path, model: str, data: str) -> Found:
        try:
            report = self._report(name, path)
            with self.telling(name):
                metrics, kind = report.metrics, report.perplexity
                return Found(
                    name, model or str(report.model)[:300], data or str(report.data)[:300],
                    "finished", str(kind)[:40], float(metrics[kind]),
                    float(metrics[named("bits_per_byte", kind)]), int(report.totals.documents),
                )  # fmt: skip
        except FairwayError as problem:
            return Found(name, model, data, "damaged", reason=str(problem))


def _walk(root: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Give the folders with a run's settings, without following links.

    Raises:
        InputError: when the folder itself cannot be read.
    """
    waiting, looked = [(root, depth)], 0
    while waiting and looked < FOLDERS:
        folder, left = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                inner = [
                    Path(one.path) for one in entries
                    if one.is_dir(follow_symlinks=False) and not one.name.startswith(".")
                ]  # fmt: skip
        except OSError as problem:
            if folder == root:
                raise InputError(
                    f"The folder of runs cannot be read ({problem.strerror})."
                ) from None
            continue
        for path in sorted(inner, reverse=True):
            looked += 1
            if _is_regular(path / SETTINGS):
                yield path
            elif left > 1:
                waiting.append((path, left - 1))


def _writable(name: str) -> bool:
    """Whether a name can stand in an address: it is UTF-8, and one line."""
    try:
        return "\n" not in name and bool(name.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _is_step(one: Found) -> bool:
    """Whether a run is finished and a training step's by a name."""
    from fairway.checkpoints import step_of

    known = (step_of(one.name.rpartition("/")[2]), step_of(one.model))
    return one.state == "finished" and any(step is not None for step in known)


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _regular(path: Path, most: int | None = None) -> int:
    """Refuse what is no regular file, a link among it, or too large; give its size.

    Raises:
        InputError: for those.
    """
    try:
        found = os.lstat(path)
    except OSError:
        raise InputError(f"{path.parent.name} is damaged: it has no {path.name}.") from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path.parent.name} is damaged: its {path.name} is no regular file.")
    if found.st_size > (LARGEST if most is None else most):
        raise _too_large(f"{path.parent.name} has")
    return found.st_size


def _too_large(what: str) -> InputError:
    return InputError(
        f"{what} more than {LARGEST >> 20} MB, which this page does not read; fairway show, "
        "compare and curve do."
    )


def _state(path: Path) -> tuple[int, ...]:
    """Give size and time of change of a run's files; the report's size first."""
    out: list[int] = []
    for name in (REPORT, SETTINGS):
        try:
            found = os.lstat(path / name)
            out += [found.st_size, found.st_mtime_ns, found.st_ino]
        except OSError:
            out += [0, 0, 0]
    return tuple(out)


def _asked(path: Path) -> tuple[str, str]:
    """Read which model and data a run was asked for.

    Raises:
        InputError: when its settings are damaged.
    """
    _regular(path, 1 << 20)
    try:
        data = json.loads(path.read_text("utf-8"))
        asked = data.get("ask") or {}
        pair = asked.get("model"), asked.get("data", data.get("data"))
    except (OSError, ValueError, AttributeError, RecursionError) as problem:
        raise InputError(
            f"{path.parent.name} is damaged: its {path.name} cannot be read "
            f"({type(problem).__name__})."
        ) from None
    model, name = (one[:300] if isinstance(one, str) else "" for one in pair)
    return model, name
