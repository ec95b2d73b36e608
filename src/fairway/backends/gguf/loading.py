"""A GGUF file as a model of llama.cpp: checked first, then loaded, or refused with a sentence."""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import subprocess
import sys
import weakref
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp as api

from fairway import hashes, store
from fairway.backends.gguf import files, header, probe
from fairway.backends.gguf.header import FLOATS, Header
from fairway.errors import InputError, ModelError

CACHES = {"float32": "GGML_TYPE_F32", "float16": "GGML_TYPE_F16", "bfloat16": "GGML_TYPE_BF16"}
"""Types that keys and values of attention can be kept in."""
FAMILY = re.compile(r"[A-Z]+\d+")
"""What names of quantisations of the same bits begin with, such as Q4."""
KEPT_LINES = 60
PATIENCE = 60.0
"""Seconds that the probe may take, and one more for every ten megabytes."""

_log: deque[str] = deque(maxlen=KEPT_LINES)


@api.llama_log_callback  # type: ignore[untyped-decorator]
def _collect(level: int, text: bytes, _: Any) -> None:
    _log.append((text or b"").decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Loaded:
    """A model of llama.cpp, and what the signature says of it.

    Attributes:
        model: pointer to it; freed with this object.
        vocabulary: pointer to its tokenizer.
        header: of the file, or of the first of several.
        name: the file's, without its ending.
        weights: hash of the files.
        dtype: of the weights, float32 where they are quantised (what is computed between them is).
        quant: such as Q4_K_M; None = none.
        positions: tokens that the model was made for; None = no limit.
        recurrent: whether it keeps a state that cannot be shared by texts.
        stored: bytes of its weights, and how many weights there are.
    """

    model: Any
    vocabulary: Any
    header: Header
    name: str
    weights: str
    dtype: str
    quant: str | None
    positions: int | None
    recurrent: bool
    stored: tuple[int, int]


def quiet() -> None:
    """Keep what llama.cpp prints, instead of printing it."""
    api.llama_log_set(_collect, ctypes.c_void_p(0))
    # What is freed when the interpreter goes must not call into it any more.
    atexit.unregister(_loud)
    atexit.register(_loud)


def _loud() -> None:
    api.llama_log_set(api.llama_log_callback(0), ctypes.c_void_p(0))


def said() -> str:
    """Give the line of llama.cpp's log that says what failed last."""
    lines = "".join(_log).splitlines()
    return probe.reason([(line + "\n").encode() for line in lines])


def load(name: str, device: str = "auto") -> Loaded:
    """Load a model.

    Args:
        name: path of the file, of its first part, or of a folder that holds just that.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        InputError: when this build of llama.cpp does not have the device.
        ModelError: when the file is damaged, no causal language model, or cannot be loaded.
    """
    layers, main = _device(device)
    parts = files.find(name)
    headers = [header.read(part) for part in parts]
    first = headers[0]
    tensors = [tensor for one in headers for tensor in one.tensors]
    if not tensors:
        raise ModelError(f"{parts[0].name} holds a vocabulary and no weights: it cannot score.")
    first.refuse(parts[0].name)
    weights = hashes.file_hash(parts)
    quiet()
    _try(parts, weights)
    settings = api.llama_model_default_params()
    settings.n_gpu_layers = layers
    if main is not None:
        settings.main_gpu = main
        settings.split_mode = api.LLAMA_SPLIT_MODE_NONE
    _log.clear()
    model = api.llama_model_load_from_file(os.fsencode(parts[0]), settings)
    if not model:
        raise ModelError(f"{parts[0].name} cannot be loaded: {said()}")
    if api.llama_model_has_encoder(model) or not api.llama_model_has_decoder(model):
        api.llama_model_free(model)
        raise ModelError(f"{parts[0].name} has an encoder: it is no causal language model.")
    recurrent = bool(api.llama_model_is_recurrent(model))
    mixed = recurrent or bool(api.llama_model_is_hybrid(model))
    whole = Header(first.fields, tuple(tensors), first.tokenizer)
    kind = whole.main_type()
    positions = int(api.llama_model_n_ctx_train(model))
    loaded = Loaded(
        model,
        api.llama_model_get_vocab(model),
        whole,
        files.called(parts[0]),
        weights,
        FLOATS.get(kind, "float32"),
        None if kind in FLOATS else _quant(int(api.llama_model_ftype(model)), kind),
        positions if positions > 0 and not recurrent else None,
        mixed,
        (int(api.llama_model_size(model)), int(api.llama_model_n_params(model))),
    )
    weakref.finalize(loaded, api.llama_model_free, model)
    return loaded


def _device(device: str) -> tuple[int, int | None]:
    """Give the layers that go to a GPU, and which one it is."""
    able = bool(api.llama_supports_gpu_offload())
    name, _, number = device.partition(":")
    if name == "cpu" or (name == "auto" and not able):
        return 0, None
    if name not in ("auto", "cuda", "mps", "gpu") or (number and not number.isdigit()):
        raise InputError(f"{device!r} is no device; use auto, cpu, cuda or mps.")
    if not able:
        raise InputError(
            f"This llama-cpp-python was built without {name}; use --device cpu, or build it anew "
            "(CMAKE_ARGS=-DGGML_CUDA=on pip install --force-reinstall llama-cpp-python)."
        )
    return 999, int(number) if number else None


def _quant(kind: int, main: str) -> str:
    """Name a quantisation as people do, Q4_K_M, where the file's own word fits its tensors."""
    names = {
        getattr(api, name): name.removeprefix("LLAMA_FTYPE_").removeprefix("MOSTLY_")
        for name in dir(api)
        if name.startswith("LLAMA_FTYPE_")
    }
    named = names.get(kind, "")
    family, other = FAMILY.match(main), FAMILY.match(named)
    return named if family and other and family[0] == other[0] else main


def _try(parts: list[Path], weights: str) -> None:
    """Load a file in another process before it is loaded in this one, unless that went well before.

    Raises:
        ModelError: when that process died or gave a reason.
    """
    key = f"{weights}-{api.__version__}"
    if store.recall("gguf", key) == "ok":
        return
    verdict = _probe(parts)
    if verdict != "ok":
        raise ModelError(f"{parts[0].name} cannot be loaded: {verdict}")
    store.note("gguf", key, verdict)


def _probe(parts: list[Path]) -> str:
    size = sum(part.stat().st_size for part in parts)
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", probe.__file__, str(parts[0])],
            capture_output=True, env=environment, timeout=PATIENCE + size / 1e7,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "llama.cpp does not come to an end with it"
    stages = done.stdout.decode("utf-8", "replace").strip().splitlines() or ["at once"]
    if done.returncode == 0:
        return stages[-1]
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    last = f" ({lines[-1].strip()[:300]})" if lines else ""
    return f"llama.cpp ends its process {stages[-1]}{last}. Fetch or convert the file again."
