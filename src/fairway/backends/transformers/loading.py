"""Model and tokenizer from a hub id, a local folder, an adapter, or objects in memory."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)
from transformers.utils import logging as hf_logging

from fairway import hub
from fairway.backends.transformers import identity, quantised, quantising
from fairway.errors import FairwayError, InputError, ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length")
BUILTIN = "builtin"
CLASSES = {
    "hf": (AutoModelForCausalLM, "causal language model"),
    "masked": (AutoModelForMaskedLM, "masked language model"),
    "seq2seq": (AutoModelForSeq2SeqLM, "encoder-decoder language model"),
}
"""By kind: what loads it, and what it is called."""


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
        quant: how the weights are quantised, see `fairway.backends.transformers.quantised`.
        positions: tokens the model can read; None = no limit.
        wrapped: whether the model came as an object, whose code may be anything.
        activations: over what they are rounded, see `quantised.activations`; None = they are not.
        stored: bytes of the weights' files, where the model has the dtype that they have, or that
            it was not asked to have another; None = not known.
        lock: held while the model runs, parts of which are changed for that time.
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
    activations: str | None = None
    stored: int | None = None
    lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)


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
    kind: str = "hf",
    quantize: str | None = None,
) -> Loaded:
    """Load a language model by name, a causal one or one of another kind (`CLASSES`).

    Raises:
        InputError: for an unknown dtype, device or scheme of quantisation.
        MissingExtra: when the weights are quantised and the packages for that are not installed.
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
        _fits(name, config, kind)
        settings = _settings(config)
        placed, options = device_map, dict(common)
        if settings is not None or quantize:
            # Packed weights are made for the device that they are loaded to.
            placed = device_map or ({"": device} if device != "cpu" else None)
            options |= quantising.options(name, config, settings, quantize, chosen, device)
        with quantising.quiet(settings is not None or bool(quantize)):
            model, info = CLASSES[kind][0].from_pretrained(
                source, dtype=chosen, device_map=placed, output_loading_info=True, **options
            )
            quantising.settle(model, chosen)
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
        why = quantising.unknown(settings) or (
            f"its architecture is {', '.join(config.architectures or ['unknown'])}"
        )
        raise ModelError(
            f"{name} lacks {len(missing)} weights of a {CLASSES[kind][1]} ({missing[0]}, ...), "
            f"which would be random; {why}"
            + (f": give --model seq2seq:{name}." if _paired(config, kind) else ".")
        )
    if placed is None:
        model = model.to(device)
    return Loaded(
        model.eval(),
        tokenizer,
        BUILTIN if name in ("", BUILTIN) else (path.name if local else name),
        commit,
        weights,
        adapted,
        str(model.dtype).removeprefix("torch."),
        **_quantisation(model, settings),
        positions=positions(model.config),
        stored=None if quantize else _stored(path if local else None, name, commit, config, dtype),
    )


def _fits(name: str, config: Any, kind: str) -> None:
    """Refuse an architecture that has no model of a kind, and name the kind that it has.

    Raises:
        ModelError: for such a one.
    """
    if getattr(config, "auto_map", None):
        return  # its own code says what it is
    fitting = [one for one, (auto, _) in CLASSES.items() if type(config) in auto._model_mapping]
    if kind in fitting or not fitting:
        return
    others = " or ".join(f"--model {one}:{name}" for one in fitting)
    raise ModelError(
        f"{name} is a {config.model_type} model, of which transformers has no {CLASSES[kind][1]}; "
        f"give {others}."
    )


def _paired(config: Any, kind: str) -> bool:
    """Whether a checkpoint has the encoder that the kind asked for has none of."""
    return kind != "seq2seq" and bool(getattr(config, "is_encoder_decoder", False))


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
        **_quantisation(model),
        positions=positions(model.config),
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


def _settings(config: Any) -> Any:
    """Give the settings of quantisation, the text model's own where they are there."""
    own = getattr(config.get_text_config(), "quantization_config", None)
    return getattr(config, "quantization_config", None) if own is None else own


def _quantisation(model: Any, settings: Any = None) -> dict[str, Any]:
    """Say how a model's weights are quantised: the checkpoint's settings, or the model's own."""
    made = _settings(model.config)
    given = made if settings is None else settings
    if given is None:
        return {"quant": None}
    found = dict(quantised.plain(given))
    if getattr(made, "dequantize", None) is True:
        # Decided while it was loaded, where there are no kernels for the device.
        found["dequantize"] = True
    if settings is not None and model.device.type == "cpu":
        found["device"] = "cpu"
    dtype = str(model.dtype).removeprefix("torch.")
    return {"quant": quantised.describe(found, dtype), "activations": quantised.activations(found)}


def _adapt(model: Any, adapter: str) -> tuple[Any, str]:
    from peft import PeftModel

    folder = Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{adapter} holds no adapter_config.json, so it is no PEFT adapter.")
    wrapped = PeftModel.from_pretrained(model, str(folder))
    # What is merged into packed weights would be rounded as they are; beside them it is exact.
    beside = getattr(model, "quantization_method", None) is not None
    adapted = wrapped.get_base_model() if beside else wrapped.merge_and_unload()
    return adapted, f"{folder.name}@{identity.folder_hash(folder)}"


def _explain(name: str, problem: Exception) -> str:
    reason = " ".join(str(problem).split())
    if isinstance(problem, KeyError):
        reason = f"its settings lack {reason}"
    if "ignore_mismatched_sizes" in reason:
        return (
            f"{name}'s weights have other shapes than its config.json says; of quantised ones, "
            "bits and group_size must be those of the weights."
        )
    if "`CONVERSION` entries" in reason:
        return (
            f"{name} cannot be quantised so on this machine: a weight's shape does not fit the "
            "groups, or the kernels want another device."
        )
    if "trust_remote_code" in reason:
        return (
            f"{name} wants to run its own code; pass --trust-remote-code if you trust its author."
        )
    if len(reason) > 240:
        reason = reason[:240].rsplit(" ", 1)[0] + " ..."
    return f"{name} cannot be loaded: {reason or type(problem).__name__}"
