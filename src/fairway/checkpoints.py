"""Several checkpoints under one name: a pattern of folders, or revisions of a model."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from fairway.errors import InputError

MAGIC = re.compile(r"[*?[]")
"""What makes a name a pattern."""
STEP = re.compile(r"(?:^|[^a-z])(?:global_?step|step|checkpoint|ckpt|iter)[-_=]?(\d+)", re.I)
"""checkpoint-500, step_500, step500, global_step500, stage1-step500-tokens2B, iter_0000500."""
KIND = re.compile(r"[A-Za-z_]\w+:")
STATE = "trainer_state.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
ASIDE = re.compile(r"optimizer|scheduler|rng_state|training_args|scaler|trainer_state|sampler")
"""Files of a trainer that a model is not loaded from."""

Files = dict[str, list[int]]
"""Size and time of change (ns) by name."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on the way of its training.

    Attributes:
        model: as `fairway.load` takes it.
        name: its folder or revision.
        step: of the training; None where nothing says it.
    """

    model: str
    name: str
    step: int | None


def _split(spec: str) -> tuple[str, str]:
    """Split ``KIND:NAME`` into ``KIND:`` and the name; one letter is a drive of Windows."""
    found = KIND.match(spec)
    return (found[0], spec[found.end() :]) if found else ("", spec)


def local(model: str) -> Path | None:
    """Give the folder that a model is loaded from; None where it is no folder here."""
    path = _split(model)[1]
    return Path(path) if os.path.isdir(path) else None


def several(spec: str) -> bool:
    """Whether a model's name stands for several checkpoints."""
    name = _split(spec)[1]
    if "://" in name or os.path.exists(name):
        return False  # a server's address, or a folder of that very name
    base, _, revisions = name.partition("@")
    return MAGIC.search(base) is not None or "," in revisions


def expand(spec: str, none: bool = False) -> list[Checkpoint]:
    """Give the checkpoints that a name stands for, by their steps.

    Args:
        spec: ``DIR/checkpoint-*``, ``MODEL@REVISION,REVISION``, or one model.
        none: let a pattern match nothing.

    Raises:
        InputError: when a pattern matches no folder, or no revision is named.
    """
    if not several(spec):
        return [describe(spec)]
    kind, name = _split(spec)
    base, at, revisions = name.partition("@")
    if at and not MAGIC.search(base):
        named = [one.strip() for one in revisions.split(",")]
        if not all(named):
            raise InputError(f"{spec} names an empty revision; write MODEL@REVISION,REVISION.")
        return in_order(describe(f"{kind}{base}@{one}") for one in dict.fromkeys(named))
    matches = sorted(glob.glob(name, recursive=True))
    found = [one for one in matches if _is_checkpoint(Path(one))]
    if not found and not none:
        there = f" ({len(matches)} match, and are no model folders)" if matches else ""
        raise InputError(
            f"No checkpoint matches {spec}{there}; give a quoted pattern of folders that hold a "
            "config.json, such as 'out/checkpoint-*'."
        )
    return in_order(describe(kind + one) for one in found)


def _is_checkpoint(path: Path) -> bool:
    """Whether a folder is a model's, or called like a checkpoint, whatever it lacks."""
    named = STEP.search(path.name) is not None
    return path.is_dir() and (named or (path / "config.json").is_file())


def describe(model: str) -> Checkpoint:
    """Read a checkpoint's step from its name, else from its ``trainer_state.json``."""
    base, _, revision = _split(model)[1].partition("@")
    path = Path(base)
    name = revision or path.name or model
    return Checkpoint(model, name, step_of(name) if revision else step_of(name, path))


def step_of(name: str, folder: Path | None = None) -> int | None:
    """Give the step that a name bears, or that the trainer noted in a folder; else None."""
    found = STEP.findall(name)
    if found:
        return int(found[-1])
    if folder is None:
        return None
    try:
        return int(json.loads((folder / STATE).read_text("utf-8"))["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def in_order(items: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Sort by step; those without one come last, numbers in their names read as numbers."""
    return sorted(
        items,
        key=lambda one: (
            one.step is None,
            one.step or 0,
            [
                (part.isdigit(), int(part) if part.isdigit() else 0, part)
                for part in re.split(r"(\d+)", one.name)
            ],
            one.model,
        ),
    )


def matches(model: str, spec: str) -> bool:
    """Whether a model's name is one that a pattern or a list of revisions stands for."""
    ours, theirs = _split(model)[1], _split(spec)[1]
    base, at, revisions = theirs.partition("@")
    if at:
        return ours in [f"{base}@{one.strip()}" for one in revisions.split(",")]
    if not MAGIC.search(theirs):
        return ours == theirs
    first, second = Path(ours).parts, Path(theirs).parts
    return len(first) == len(second) and all(
        fnmatch(a, b) for a, b in zip(first, second, strict=True)
    )


def fingerprint(model: str) -> Files | None:
    """Give size and time of change (ns) of each file that a model is loaded from, by its name.

    Nothing is read, so this is cheap whatever the size of the weights.

    Returns:
        None where the model is no folder here: a revision on a hub stays what it is.
    """
    path = local(model)
    if path is None:
        return None
    found: Files = {}
    for one in sorted(path.iterdir()):
        if one.is_file() and not ASIDE.search(one.name):
            state = one.stat()
            found[one.name] = [state.st_size, state.st_mtime_ns]
    return found


def has_weights(files: Files | None) -> bool:
    """Whether a fingerprint holds a file of weights."""
    return any(name.endswith(WEIGHTS) for name in files or ())
