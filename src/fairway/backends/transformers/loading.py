"""Model and tokenizer from a hub id, a local folder, an adapter, or objects in memory."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from fairway import hub
from fairway.backends.transformers import identity
from fairway.errors import FairwayError, InputError, ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length")
BUILTIN = "builtin"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to score, and what the signature says of it.

    Attributes:
        model: in evaluation mode.
        tokenizer: its tokenizer.
        name: hub id, folder name, or the class of an object.
        revision: commit of the hub's repository, where there is one.
        weights: hash of the weights.
        adapter: name and hash of a PEFT adapter.
        dtype: float32, bfloat16, float16, ...
        quant: method of quantisation.
        positions: tokens the model can read; None = no limit.
        wrapped: whether the model came as an object, whose code may be anything.
        stored: bytes of the weights' files, where the model has the dtype that they have, or that
            it was not asked to have another; None = not known.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str | None
    weights: str | None
    adapter: str | None
    dtype: str
    quant: str | None
    positions: int | None
    wrapped: bool = False
    stored: int | None = None


def builtin_folder() -> Path:
    """Give the folder of the built-in model.

    Raises:
        ModelError: when this installation was built without it.
    """
    folder = Path(str(files("fairway") / "data" / "models" / "mini"))
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            "This installation holds no built-in model; name one with --model, or train it as "
            "tools/builtin/README.md says."
        )
    return folder


def choose_device(device: str) -> str:
    """Resolve auto to what the machine has.

    Raises:
        InputError: when the device is unknown or absent.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise InputError(f"{device!r} is no device; use auto, cpu, cuda or mps.") from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(kind, True):
        raise InputError(f"This machine has no {kind} device; use --device cpu or auto.")
    return device


def load(
    name: str,
    *,
    revision: str | None = None,
    adapter: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: Any = None,
    trust_remote_code: bool = False,
) -> Loaded:
    """Load a causal language model by name.

    Raises:
        InputError: for an unknown dtype or device.
        ModelError: when nothing loadable is there, in one sentence.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise InputError(f"{dtype!r} is no dtype; use auto, {', '.join(DTYPES)}.")
    device = choose_device(device)
    path = builtin_folder() if name in ("", BUILTIN) else Path(name)
    local = path.is_dir()
    if not local and (path.exists() or name.startswith((".", "/", "~"))):
        raise ModelError(f"{name} is not a model folder; give a folder with a config.json.")
    if local and not (path / "config.json").is_file():
        raise ModelError(f"{name} holds no config.json, so it is not a Hugging Face model folder.")
    source = str(path) if local else name
    chosen = torch.float32 if dtype == "auto" and device == "cpu" else DTYPES.get(dtype, "auto")
    common = {"trust_remote_code": trust_remote_code, "revision": revision}
    if not local and not hub.reachable():
        common["local_files_only"] = True
    hf_logging.disable_progress_bar()
    before = hf_logging.get_verbosity()
    hf_logging.set_verbosity(logging.ERROR)
    try:
        config = AutoConfig.from_pretrained(source, **common)
        model, info = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=chosen,
            device_map=device_map,
            output_loading_info=True,
            **common,
        )
        tokenizer = AutoTokenizer.from_pretrained(source, **common)
        weights = identity.folder_hash(path) if local else None
        commit = None if local else _commit(config, name, revision)
        if not local and commit is None:
            weights = identity.module_hash(model)
        adapted = None
        if adapter:
            model, adapted = _adapt(model, adapter)
    except FairwayError:
        raise
    except Exception as problem:  # the libraries below raise every kind of error here
        if "local_files_only" in common:
            raise ModelError(
                f"{name} is no folder here and not in the hub's cache, and the hub cannot be "
                "reached; give a folder, or go online once."
            ) from problem
        raise ModelError(_explain(name, problem)) from problem
    finally:
        hf_logging.set_verbosity(before)
        hf_logging.enable_progress_bar()
    missing = sorted(info.get("missing_keys") or ())
    if missing:
        raise ModelError(
            f"{name} lacks {len(missing)} weights of a causal language model ({missing[0]}, ...), "
            "which would be random; its architecture is "
            f"{', '.join(config.architectures or ['unknown'])}."
        )
    if device_map is None:
        model = model.to(device)
    return Loaded(
        model.eval(),
        tokenizer,
        BUILTIN if name in ("", BUILTIN) else (path.name if local else name),
        commit,
        weights,
        adapted,
        str(model.dtype).removeprefix("torch."),
        _quantisation(model),
        positions(model.config),
        stored=_stored(path if local else None, name, commit, config, dtype),
    )


def _commit(config: Any, name: str, revision: str | None) -> str | None:
    # transformers noted it in the configuration until version 5.
    noted = getattr(config, "_commit_hash", None)
    return str(noted) if noted else hub.commit(name, revision)


def _stored(
    folder: Path | None, name: str, commit: str | None, config: Any, dtype: str
) -> int | None:
    """Give the bytes of a model's weights on disk; None where it is asked for in another dtype."""
    if dtype != "auto" and DTYPES.get(dtype) != getattr(config, "dtype", None):
        return None
    if folder is None:
        found = try_to_load_from_cache(name, "config.json", revision=commit)
        folder = Path(found).parent if isinstance(found, str) else None
    files = identity.weight_files(folder) if folder is not None else []
    return sum(path.stat().st_size for path in files) or None


def wrap(model: Any, tokenizer: Any, name: str | None = None) -> Loaded:
    """Take a model object and its tokenizer as they are."""
    return Loaded(
        model.eval(),
        tokenizer,
        name or type(model).__name__,
        None,
        identity.module_hash(model),
        None,
        str(model.dtype).removeprefix("torch."),
        _quantisation(model),
        positions(model.config),
        wrapped=True,
    )


def positions(config: Any) -> int | None:
    """Give the positions a model has, None where it has no such limit."""
    text = config.get_text_config()
    if getattr(text, "alibi", False) or text.model_type in ("bloom", "mamba", "mamba2", "rwkv"):
        return None
    for key in POSITIONS:
        value = getattr(text, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _quantisation(model: Any) -> str | None:
    settings = getattr(model.config, "quantization_config", None)
    if settings is None:
        return None
    method = (
        settings.get("quant_method")
        if isinstance(settings, dict)
        else getattr(settings, "quant_method", None)
    )
    return str(getattr(method, "value", method))


def _adapt(model: Any, adapter: str) -> tuple[Any, str]:
    from peft import PeftModel

    folder = Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{adapter} holds no adapter_config.json, so it is no PEFT adapter.")
    merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    return merged, f"{folder.name}@{identity.folder_hash(folder)}"


def _explain(name: str, problem: Exception) -> str:
    reason = " ".join(str(problem).split())
    if "trust_remote_code" in reason:
        return (
            f"{name} wants to run its own code; pass --trust-remote-code if you trust its author."
        )
    if len(reason) > 240:
        reason = reason[:240].rsplit(" ", 1)[0] + " ..."
    return f"{name} cannot be loaded: {reason or type(problem).__name__}"
