"""Hashes that say which weights and which tokenizer gave a number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from fairway import __version__
from fairway.hashes import DIGITS, file_hash


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
    for name, tensor in leaves(model):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        data = tensor.detach().cpu().contiguous()
        digest.update(data.flatten().view(torch.uint8).numpy().tobytes() if data.numel() else b"")
    return digest.hexdigest()[:DIGITS]


def leaves(model: Any) -> Iterator[tuple[str, Any]]:
    """Give a model's weights by name, quantised ones as the plain tensors that they consist of."""
    for name, value in sorted(model.state_dict().items()):
        yield from _leaves(name, value)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    parts = getattr(value, "__tensor_flatten__", None)
    if parts is not None:
        for part in parts()[0]:
            yield from _leaves(f"{name}.{part}", getattr(value, part))
    elif isinstance(value, torch.Tensor):
        yield name, value


def held(model: Any) -> int:
    """Count the bytes of a model's weights in memory, those that two names share once."""
    sizes = {tensor.data_ptr(): tensor.nbytes for _, tensor in leaves(model)}
    return sum(sizes.values())


def count(model: Any) -> int:
    """Count a model's weights as they were before they were packed, shared ones once."""
    seen: set[int] = set()
    total = 0
    for module in model.modules():
        kept = dict(module.named_parameters(recurse=False))
        rows, columns = (getattr(module, name, None) for name in ("out_features", "in_features"))
        if isinstance(rows, int) and isinstance(columns, int):
            # Scales and zero points are no weights; packed weights have a shape of their own.
            kept = {name: one for name, one in kept.items() if name in ("weight", "bias")}
            if tuple(getattr(kept.get("weight"), "shape", ())) != (rows, columns):
                total += rows * columns
                kept.pop("weight", None)
        total += sum(one.numel() for one in kept.values() if id(one) not in seen)
        seen |= {id(one) for one in kept.values()}
    return total


def packing(model: Any) -> str | None:
    """Name the classes that multiply with packed weights; None where there are none."""
    found = set()
    for module in model.modules():
        if hasattr(module, "in_features"):
            weight = dict(module.named_parameters(recurse=False)).get("weight")
            if type(module) is not torch.nn.Linear:
                found.add(type(module).__name__)
            elif type(weight) is not torch.nn.Parameter:
                found.add(type(weight).__name__)
    return "+".join(sorted(found)) or None


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


def probe_key(kept: Any, kernels: str) -> str | None:
    """Name what the verdict of a probe rests on; None where it must be taken anew.

    Args:
        kept: the loaded model.
        kernels: name of its products.
    """
    if kept.quant is not None or not kept.weights or kept.wrapped:
        return None
    parts = [
        kept.model.config.to_json_string(), kept.weights, str(kept.adapter), kept.dtype,
        kernels, torch.__version__, transformers.__version__, __version__,
    ]  # fmt: skip
    return hashlib.sha256("|".join(parts).encode()).hexdigest()
