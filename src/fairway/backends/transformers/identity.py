"""Hashes that say which weights and which tokenizer gave a number."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from fairway import store

DIGITS = 12


def file_hash(paths: list[Path]) -> str:
    """Hash the contents of files, remembered by path, size and time of change."""
    stamp = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    key = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()
    known = store.recall("weights", key)
    if isinstance(known, str):
        return known
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    value = digest.hexdigest()[:DIGITS]
    store.note("weights", key, value)
    return value


def folder_hash(folder: Path) -> str | None:
    """Hash a model folder's weights; None where it holds no weight files."""
    files = weight_files(folder)
    return file_hash(files) if files else None


def weight_files(folder: Path) -> list[Path]:
    """Find a model folder's weights; none where it holds no weight files."""
    for pattern in ("*.safetensors", "*.bin"):
        files = sorted(folder.glob(pattern))
        if files:
            return files
    return []


def module_hash(model: Any) -> str:
    """Hash the weights of a model in memory: names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        data = tensor.detach().cpu().contiguous()
        digest.update(data.flatten().view(torch.uint8).numpy().tobytes() if data.numel() else b"")
    return digest.hexdigest()[:DIGITS]


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash all that decides how text becomes tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = json.loads(backend.to_str())
        # Truncation and padding are settings of a call, not of the tokenizer.
        state.pop("truncation", None)
        state.pop("padding", None)
        content = json.dumps(state, sort_keys=True)
    else:
        content = json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    special = json.dumps([tokenizer.bos_token, tokenizer.eos_token])
    return hashlib.sha256((content + special).encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
