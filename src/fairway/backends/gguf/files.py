"""Which files a model is, and what it is called."""

from __future__ import annotations

import re
from pathlib import Path

from fairway.errors import ModelError

SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
"""How the parts of a model are named."""
MOST_PARTS = 1000


def find(name: str) -> list[Path]:
    """Find the files of a model: one, or all its parts.

    Args:
        name: the file, its first part, or a folder that holds nothing else.

    Raises:
        ModelError: when there is no such file, or a part is missing.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        found = sorted(path.glob("*.gguf"))
        if not found or (len(found) > 1 and not SPLIT.fullmatch(found[0].name)):
            raise ModelError(
                f"{name} is a folder with {len(found) or 'no'} GGUF files; name the file itself."
            )
        path = found[0]
    if not path.is_file():
        raise ModelError(f"There is no file {name}; name a .gguf file on this machine.")
    match = SPLIT.fullmatch(path.name)
    if not match:
        return [path]
    stem, _, count = match.groups()
    parts = [
        path.with_name(f"{stem}-{number:05d}-of-{count}.gguf")
        for number in range(1, min(int(count), MOST_PARTS) + 1)
    ]
    missing = [part.name for part in parts if not part.is_file()]
    if missing or not parts:
        lacking = missing[0] if missing else "the first"
        raise ModelError(f"{path.name} is a part of a model, and {lacking} is not beside it.")
    return parts


def called(path: Path) -> str:
    """Name a model by its file, without the ending and the number of a part."""
    match = SPLIT.fullmatch(path.name)
    return match.group(1) if match else path.name.removesuffix(".gguf")
