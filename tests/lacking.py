"""Why a test is skipped: the command that would have to work, and what it printed."""

from __future__ import annotations

import sys
from pathlib import Path


def gguf() -> str:
    """Say what `make gguf` printed, or that it was not run."""
    log = Path(sys.prefix) / "gguf.log"
    if not log.is_file():
        return "llama_cpp or gguf is not installed: make gguf, or pip install 'fairway[gguf]'"
    said = " ".join(log.read_text("utf-8", "replace").split())[-600:]
    return f"make gguf (pip install -e '.[gguf]') did not work; it printed: {said}"
