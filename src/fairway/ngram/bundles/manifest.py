"""A bundle's manifest: ``bundle.json`` in its folder, read with suspicion."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fairway import store
from fairway.errors import InputError, ModelError
from fairway.ngram import normalisers
from fairway.ngram.bundles.calibration import Calibration, Figure
from fairway.ngram.bundles.cutting import SEGMENTERS
from fairway.ngram.bundles.tokenisers import FILES, KINDS

NAME = "bundle.json"
FORMAT = "fairway-ngram-bundle"
VERSION = 1
LARGEST = 1 << 24
"""Bytes of a manifest that is read."""
LONGEST = 100_000
"""Characters of a golden text."""
REMEMBERED = 1 << 26
"""Bytes of a file from which its hash is remembered, by path, size and time of change."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class File:
    """A file in the folder.

    Attributes:
        file: its name there.
        sha256: of its content: 64 hexadecimal digits.
    """

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Golden:
    """What the model gave a text when the bundle was made.

    Attributes:
        text: the text.
        log10: its log-probability, to base 10.
        tokens: words and sentence ends that were scored.
        oov: of them, those that the vocabulary lacks.
    """

    text: str
    log10: float
    tokens: int
    oov: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that decides what number a text gets.

    Attributes:
        name: of the bundle.
        lm: the language model.
        normaliser: one of `fairway.ngram.normalisers.NORMALISERS`.
        settings: of the normaliser, where they are not its own.
        tokeniser: one of `fairway.ngram.bundles.tokenisers.KINDS`.
        tokeniser_file: its file, where it has one.
        segmenter: one of `fairway.ngram.bundles.cutting.SEGMENTERS`.
        bos: ``<s>`` stands before each sentence, as context.
        eos: ``</s>`` is scored at each sentence's end.
        golden: texts whose scores are checked on loading.
        calibration: the numbers of a reference text.
        licence: of the model.
        notes: whatever its maker wants to say.
        made_with: program and version.
    """

    name: str
    lm: File
    normaliser: str = "none"
    settings: dict[str, bool] = field(default_factory=dict)
    tokeniser: str = "none"
    tokeniser_file: File | None = None
    segmenter: str = "lines"
    bos: bool = True
    eos: bool = True
    golden: tuple[Golden, ...] = ()
    calibration: Calibration | None = None
    licence: str = ""
    notes: str = ""
    made_with: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give plain data."""
        out = asdict(self)
        tokeniser = {"kind": out.pop("tokeniser"), **(out.pop("tokeniser_file") or {})}
        normaliser = {"name": out.pop("normaliser"), "settings": out.pop("settings")}
        head = {"format": FORMAT, "version": VERSION, "name": out.pop("name"), "lm": out.pop("lm")}
        return {**head, "normaliser": normaliser, "tokeniser": tokeniser, **out}


def write(folder: Path, manifest: Manifest) -> None:
    """Write a manifest into a folder."""
    text = json.dumps(manifest.to_json(), ensure_ascii=False, indent=2, allow_nan=False)
    (folder / NAME).write_text(text + "\n", "utf-8")


def read(folder: Path) -> Manifest:
    """Read a folder's manifest; its files are not looked at.

    Raises:
        ModelError: when there is none, or it is damaged.
    """
    path = folder / NAME
    try:
        if not path.is_file():
            raise ModelError(
                f"{folder} is no bundle: it has no {NAME}; make one with fairway ngram bundle, or "
                "give a model's file as kenlm:FILE."
            )
        if path.stat().st_size > LARGEST:
            raise ModelError(f"{path} is larger than {LARGEST >> 20} MB, so it is no manifest.")
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as problem:
        raise ModelError(f"{path} cannot be read: {problem}") from None
    try:
        return parse(data)
    except ModelError as problem:
        raise ModelError(f"{path} is damaged: {problem}") from None


def parse(data: Any) -> Manifest:
    """Read a manifest from plain data.

    Raises:
        ModelError: for what is missing, of the wrong type, or unknown.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ModelError(f'it lacks "format": "{FORMAT}".')
    version = _take(data, "version", int)
    if version != VERSION:
        raise ModelError(f"it has version {version}, and this fairway reads {VERSION}.")
    normaliser, tokeniser = _take(data, "normaliser", dict), _take(data, "tokeniser", dict)
    settings = _take(normaliser, "settings", dict, {})
    kind = _one_of(tokeniser, "kind", KINDS)
    try:
        normalisers.named(_take(normaliser, "name", str), settings)
    except InputError as problem:
        raise ModelError(str(problem)) from None
    golden = _take(data, "golden", list, [])
    calibration = _take(data, "calibration", dict, None)
    return Manifest(
        name=_take(data, "name", str),
        lm=_file(_take(data, "lm", dict)),
        normaliser=normaliser["name"],
        settings=settings,
        tokeniser=kind,
        tokeniser_file=_file(tokeniser) if kind in FILES else None,
        segmenter=_one_of(data, "segmenter", SEGMENTERS),
        bos=_take(data, "bos", bool),
        eos=_take(data, "eos", bool),
        golden=tuple(_golden(one) for one in golden),
        calibration=None if calibration is None else _calibration(calibration),
        licence=_take(data, "licence", str, ""),
        notes=_take(data, "notes", str, ""),
        made_with=_take(data, "made_with", str, ""),
    )


_MISSING: Any = object()


def _take(data: dict[str, Any], key: str, kind: type[T], default: Any = _MISSING) -> T:
    """Take a value of one type; one that is absent or null has the default, if there is one."""
    value = data.get(key)
    if value is None:
        if default is _MISSING:
            raise ModelError(f"it lacks {key!r}.")
        return default  # type: ignore[no-any-return]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ModelError(f"{key!r} is {value!r:.60}, where a {kind.__name__} belongs.")
    if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        raise ModelError(f"{key!r} is no valid Unicode.")
    return value


def _one_of(data: dict[str, Any], key: str, known: tuple[str, ...]) -> str:
    value = _take(data, key, str)
    if value not in known:
        raise ModelError(f"{key!r} is {value!r:.60}, and not one of {', '.join(known)}.")
    return value


def _number(data: dict[str, Any], key: str) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelError(f"{key!r} is {value!r:.60}, where a number belongs.")
    try:
        made = float(value)
    except OverflowError:
        made = math.inf
    if not math.isfinite(made):
        raise ModelError(f"{key!r} is no finite number.")
    return made


def _file(data: dict[str, Any]) -> File:
    name, sha256 = _take(data, "file", str), _take(data, "sha256", str)
    parts = name.replace("\\", "/").split("/")
    if os.path.isabs(name) or ":" in parts[0] or "\0" in name or {"", ".", ".."} & set(parts):
        raise ModelError(f"the file {name!r:.80} does not lie inside the folder.")
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ModelError(f"the sha256 of {name!r:.80} is no hash: {sha256!r:.80}.")
    return File(name, sha256)


def _golden(data: Any) -> Golden:
    if not isinstance(data, dict):
        raise ModelError(f"a golden score is {data!r:.60}.")
    text = _take(data, "text", str)
    if len(text) > LONGEST:
        raise ModelError(f"a golden text has {len(text):,} characters, and {LONGEST:,} may be.")
    tokens, oov = _take(data, "tokens", int), _take(data, "oov", int)
    return Golden(text, _number(data, "log10"), tokens, oov)


def _calibration(data: dict[str, Any]) -> Calibration:
    figures = {}
    for key, one in _take(data, "figures", dict).items():
        if not isinstance(one, dict):
            raise ModelError(f"the calibration's {key!r:.60} is {one!r:.60}.")
        value, spread = _number(one, "value"), _number(one, "spread")
        if value < 0 or spread < 0:
            raise ModelError(f"the calibration's {key!r:.60} is negative.")
        figures[key] = Figure(value, spread)
    return Calibration(
        _take(data, "reference", str),
        _take(data, "digest", str),
        _take(data, "documents", int),
        _take(data, "bytes", int),
        _take(data, "tokens", int),
        figures,
    )


def digest(path: Path) -> str:
    """Hash a file: 64 hexadecimal digits; a large one's is remembered."""
    state = path.stat()
    key = None
    if state.st_size >= REMEMBERED:
        stamp = [str(path.resolve()), state.st_size, state.st_mtime_ns]
        key = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()
        known = store.recall("sha256", key)
        if isinstance(known, str):
            return known
    with path.open("rb") as stream:
        value = hashlib.file_digest(stream, "sha256").hexdigest()
    if key is not None:
        store.note("sha256", key, value)
    return value


def check_files(folder: Path, manifest: Manifest) -> None:
    """Hold the files against their hashes.

    Raises:
        ModelError: when one is missing, or has other content.
    """
    for one in (manifest.lm, manifest.tokeniser_file):
        if one is None:
            continue
        path = folder / one.file
        try:
            found = digest(path)
        except OSError as problem:
            raise ModelError(
                f"The bundle {folder.name} lacks {one.file}: {problem.strerror}."
            ) from None
        if found != one.sha256:
            raise ModelError(
                f"{one.file} of the bundle {folder.name} is not the file that it was made with: "
                f"sha256 {found[:12]}, expected {one.sha256[:12]}. Get the bundle again, or make a "
                "new one."
            )
