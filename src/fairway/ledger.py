"""Which runs of checkpoints still stand, so that only what is new or changed is scored.

A folder of runs holds ``checkpoints.json``: for each run its model, and names, sizes and times of
change of the files that it was scored from. A run whose files are as they were is taken without
loading its model. So is one whose weights were deleted, as trainers do with old checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fairway import __version__
from fairway import run as runs
from fairway.checkpoints import Files, fingerprint, has_weights, local, matches
from fairway.errors import FairwayError, RunError
from fairway.request import IGNORED, Request

NOTES, REPLACED = "checkpoints.json", "replaced"
PACE = ("threads", "batch_tokens")
"""Options of loading that change no number."""
USUAL = {"dtype": "auto", "device": "auto", "text_field": "text"}
"""Options that say the same when they are left away."""


class Ledger:
    """The notes of a folder of runs.

    Args:
        folder: where the runs are; made where it is absent.

    Raises:
        RunError: when the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise RunError(runs.explain(folder, problem)) from None
        try:
            self.notes = dict(json.loads((folder / NOTES).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            # Without notes a model is loaded again to see whether its run still stands.
            self.notes = {}

    def stands(self, name: str, request: Request, digest: Callable[[], str]) -> bool:
        """Whether a run is finished, was asked for likewise, and its files are as they were.

        Args:
            name: of the run's folder.
            request: what is asked for now.
            digest: gives that of the corpus now.
        """
        try:
            settings, report = runs.read(self.folder / name)
        except FairwayError:
            return False
        if not alike(settings, request) or report.signature.get("digest") != digest():
            return False
        now = fingerprint(request.model)
        if not has_weights(now) and local(request.model) is not None:
            return True
        noted = self.notes.get(name)
        if report.version != __version__:
            return False
        return isinstance(noted, dict) and noted.get("files") == now

    def note(self, name: str, model: str, files: Files | None) -> None:
        """Note the files that a run is scored from.

        Args:
            name: of the run's folder.
            model: the checkpoint.
            files: their fingerprint, taken before they were read.

        Raises:
            RunError: when the notes cannot be written.
        """
        self.notes[name] = {"model": model, "files": files}
        path = self.folder / NOTES
        try:
            part = path.with_suffix(".part")
            part.write_text(json.dumps(self.notes, indent=1), "utf-8")
            part.replace(path)
        except OSError as problem:
            raise RunError(runs.explain(self.folder, problem)) from None

    def make_room(
        self, name: str, settings: Mapping[str, Any], digest: Callable[[], str]
    ) -> Path | None:
        """Move a run aside that other weights, settings or text gave.

        Args:
            name: of the run's folder.
            settings: what a run of now would keep; the signature holds the hash of the weights.
            digest: gives that of the corpus now.

        Returns:
            Where it is now; None where there was none, or where it goes on as it is.

        Raises:
            RunError: when it cannot be moved.
        """
        folder = self.folder / name
        if not (folder / runs.SETTINGS).exists() or _goes_on(folder, settings, digest):
            return None
        place, number = self.folder / REPLACED / name, 1
        while place.exists():
            number += 1
            place = self.folder / REPLACED / f"{name}-{number}"
        try:
            place.parent.mkdir(exist_ok=True)
            folder.rename(place)
        except OSError as problem:
            raise RunError(runs.explain(folder, problem)) from None
        return place

    def gone(self, spec: str, request: Request, digest: Callable[[], str]) -> list[tuple[str, str]]:
        """Give name and model of finished runs whose checkpoint a pattern no longer finds.

        Args:
            spec: the pattern.
            request: what is asked for now, whatever its model.
            digest: gives that of the corpus now.
        """
        found = []
        for name, noted in self.notes.items():
            model = str(noted.get("model")) if isinstance(noted, dict) else ""
            if not matches(model, spec) or local(model) is not None:
                continue
            try:
                settings, report = runs.read(self.folder / name)
            except FairwayError:
                continue
            if alike(settings, request) and report.signature.get("digest") == digest():
                found.append((name, model))
        return found


def _goes_on(folder: Path, wanted: Mapping[str, Any], digest: Callable[[], str]) -> bool:
    """Whether a run is of these settings and, if it is finished, of this text."""
    try:
        settings = json.loads((folder / runs.SETTINGS).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    if any(settings.get(key) != wanted[key] for key in set(wanted) - set(IGNORED)):
        return False
    if not (folder / runs.REPORT).exists():
        return True
    try:
        return runs.read(folder)[1].signature.get("digest") == digest()
    except FairwayError:
        return False


def alike(settings: Mapping[str, Any], request: Request) -> bool:
    """Whether a run was asked for as a request asks, whatever the model."""
    ask = settings.get("ask") or {}
    return (
        ask.get("data") == request.data
        and _told(ask.get("load")) == _told(request.load)
        and _told(settings.get("read")) == _told(request.read)
        and settings.get("group_by") == request.group_by
        and settings.get("precision") == request.precision
        and settings.get("seed") == request.seed
        and bool(settings.get("texts")) == request.texts
    )


def _told(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Leave out what is not set, what is as usual, and what only changes the pace."""
    return {
        key: value
        for key, value in (options or {}).items()
        if key not in PACE and value not in (None, False) and value != USUAL.get(key)
    }
