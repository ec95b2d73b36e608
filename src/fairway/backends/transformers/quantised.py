"""What a checkpoint's ``quantization_config`` says: method, bits, groups, and what it needs.

Nothing here loads a model or imports torch; odd settings give a shorter answer and no error.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

Settings = Mapping[str, Any]

EXTRA = {
    "gptq": ("gptqmodel", "optimum"),
    "awq": ("gptqmodel",),
    "torchao": ("torchao",),
    "quanto": ("optimum.quanto",),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
    "auto-round": ("auto_round",),
}
"""Methods that fairway's extra ``quant`` installs, and the modules that they need."""
OTHERS = {
    "hqq": ("hqq", "hqq"),
    "aqlm": ("aqlm", "aqlm[cpu,gpu]"),
    "vptq": ("vptq", "vptq"),
    "eetq": ("eetq", "eetq"),
    "spqr": ("spqr_quant", "spqr_quant[gpu]"),
    "quark": ("quark", "amd-quark"),
    "fp_quant": ("fp_quant", "fp_quant"),
    "sinq": ("sinq", "sinq"),
    "fouroversix": ("fouroversix", "fouroversix"),
}
"""Methods outside it: the module each needs, and what installs that."""
TORCHAO = {
    "Int8WeightOnlyConfig": "int8wo",
    "Int4WeightOnlyConfig": "int4wo",
    "IntxWeightOnlyConfig": "{}wo",
    "Float8WeightOnlyConfig": "fp8wo",
    "Int8DynamicActivationInt8WeightConfig": "int8-act-int8",
    "Int8StaticActivationInt8WeightConfig": "int8-act-int8-static",
    "Int8DynamicActivationInt4WeightConfig": "int4-act-int8",
    "Int8DynamicActivationIntxWeightConfig": "{}-act-int8",
    "Float8DynamicActivationFloat8WeightConfig": "fp8-act-fp8",
    "Float8StaticActivationFloat8WeightConfig": "fp8-act-fp8-static",
    "Float8DynamicActivationInt4WeightConfig": "int4-act-fp8",
    "FqnToConfig": "mixed",
    "ModuleFqnToConfig": "mixed",
}
"""torchao's configurations by a short name; braces stand for the weights' dtype."""
STRINGS = {
    "int8_weight_only": "int8wo",
    "int4_weight_only": "int4wo",
    "float8_weight_only": "fp8wo",
    "int8_dynamic_activation_int8_weight": "int8-act-int8",
    "autoquant": "autoquant",
}
"""The same as older checkpoints name them."""


def hush() -> None:
    """Let the libraries' loggers print errors alone."""
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)


def plain(settings: Any) -> Settings:
    """Give a configuration object's or mapping's entries; empty where it is neither."""
    if not isinstance(settings, Mapping):
        try:
            settings = settings.to_dict()
        except Exception:  # an object of any library, at any stage of being loaded
            settings = getattr(settings, "__dict__", {})
    return settings if isinstance(settings, Mapping) else {}


def method(settings: Any) -> str | None:
    """Name the method of quantisation; None where the settings name none."""
    found = plain(settings)
    name = found.get("quant_method")
    name = getattr(name, "value", name)
    if name is None and (found.get("load_in_8bit") or found.get("load_in_4bit")):
        name = "bitsandbytes"
    return str(name).lower() if isinstance(name, str) and name else None


def describe(settings: Any, dtype: str | None = None) -> str | None:
    """Say in a word what a model's weights, and perhaps its activations, were rounded to.

    Args:
        settings: a ``quantization_config``: the mapping of a config.json, or transformers' object.
        dtype: that the model has, where it is known.

    Returns:
        Such as ``gptq-4bit-g128``; None where there are no settings. What is usual is left away:
        symmetric GPTQ in the order of columns, asymmetric AWQ. ``-act-int8`` means that
        activations are rounded too, ``-in-float16`` that products are computed in that dtype,
        whatever the model's.
    """
    found = plain(settings)
    if not found:
        return None if settings is None else "unknown"
    name = method(found) or "unknown"
    known = PARTS.get(name, _any)
    parts = [name, *(part for part in known(found, dtype) if part)]
    return re.sub(r"\s+", "_", "-".join(parts))[:LONGEST]


def missing(settings: Any) -> tuple[str, ...]:
    """Name the modules that a method needs and that are not installed."""
    name = method(settings) or ""
    needed = EXTRA.get(name) or OTHERS.get(name, ())[:1]
    return tuple(one for one in needed if not _there(one))


def activations(settings: Any) -> str | None:
    """Say over what activations are rounded while the model runs.

    Returns:
        None where they are not, ``token`` where each token's are by themselves, ``batch`` where one
        scale, or one choice of outlying columns, is taken over all tokens of a batch, so that a
        token's log-probability depends on the others there, later ones too.
    """
    found = plain(settings)
    name = method(found)
    if found.get("dequantize") is True:
        return None
    if name == "bitsandbytes" and found.get("load_in_8bit"):
        # LLM.int8() (Dettmers et al. 2022, section 3.2) takes a column out if any row exceeds
        # the threshold there; without a threshold rows are by themselves.
        return "token" if _number(found, "llm_int8_threshold", 6.0) == 0 else "batch"
    if name == "compressed-tensors":
        schemes = [plain(group.get("input_activations")) for group in _groups(found)]
        moving = [one for one in schemes if one.get("dynamic") is not False]
        wide = any(one and _text(one.get("strategy")) == "tensor" for one in moving)
        return "batch" if wide else "token" if any(schemes) else None
    if name == "torchao":
        kind = _torchao_type(found)
        if "Activation" not in kind and "_activation_" not in kind:
            return None
        return "batch" if "PerTensor" in str(found.get("quant_type")) else "token"
    if name == "quanto" and found.get("activations"):
        return "batch"
    acts = found.get("act_bits")
    return "token" if name == "fp8" or acts in range(1, 16) else None


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # its parent package is absent
        return False


def _gptq(found: Settings, _: str | None) -> Iterator[str]:
    yield _bits(found.get("bits"))
    yield _size(found.get("group_size", 128))
    yield "asym" if found.get("sym") is False else ""
    yield "actorder" if found.get("desc_act") is True else ""
    # Zero points are stored as they are; the first format stores them less one.
    form = _text(found.get("checkpoint_format") or found.get("format")).lower()
    yield "v2" if form == "gptq_v2" else ""
    yield "mixed" if found.get("dynamic") else ""
    yield "head" if found.get("lm_head") is True else ""


def _awq(found: Settings, dtype: str | None) -> Iterator[str]:
    yield _bits(found.get("bits", found.get("w_bit", 4)))
    yield _size(found.get("group_size", found.get("q_group_size", 128)))
    yield "sym" if found.get("zero_point") is False else ""
    # GPTQModel has no kernel of AWQ in float32; on a processor fairway multiplies itself.
    yield "in-float16" if dtype == "float32" and found.get("device") != "cpu" else ""


def _auto_round(found: Settings, _: str | None) -> Iterator[str]:
    kind = _text(found.get("data_type") or "int")
    yield _bits(found.get("bits", 4))
    yield "" if kind == "int" else kind
    yield _size(found.get("group_size", 128))
    yield "asym" if found.get("sym") is False else ""
    acts = found.get("act_bits")
    yield f"act-{_bits(acts)}" if acts in range(1, 16) else ""
    yield "mixed" if found.get("extra_config") else ""


def _bitsandbytes(found: Settings, dtype: str | None) -> Iterator[str]:
    if found.get("load_in_8bit") or found.get("_load_in_8bit"):
        threshold = _number(found, "llm_int8_threshold", 6.0)
        yield "int8"
        yield "" if threshold == 6.0 else f"threshold{threshold:g}"
        yield "in-float16"
        return
    yield _text(found.get("bnb_4bit_quant_type") or "fp4")
    yield "double" if found.get("bnb_4bit_use_double_quant") is True else ""
    computed = _text(found.get("bnb_4bit_compute_dtype") or "float32").rpartition(".")[2]
    yield f"in-{computed}" if dtype and computed != dtype else ""


def _hqq(found: Settings, _: str | None) -> Iterator[str]:
    config = plain(found.get("quant_config"))
    weights = plain(config.get("weight_quant_params"))
    if not weights:
        yield "mixed" if config else ""
        return
    yield _bits(weights.get("nbits"))
    yield _size(weights.get("group_size", 64))
    yield "axis0" if weights.get("axis") == 0 else ""


def _quanto(found: Settings, _: str | None) -> Iterator[str]:
    yield _text(found.get("weights") or "int8").replace("float", "fp")
    acts = found.get("activations")
    yield f"act-{_text(acts)}".replace("float", "fp") if acts else ""


def _torchao(found: Settings, _: str | None) -> Iterator[str]:
    kind = _torchao_type(found)
    data = plain(plain(plain(found.get("quant_type")).get("default")).get("_data"))
    data = data or plain(found.get("quant_type_kwargs"))
    weights = _torch_dtype(data.get("weight_dtype")).replace("int", "intx")
    short = TORCHAO.get(kind) or STRINGS.get(kind) or kind.removesuffix("Config").lower()
    yield short.replace("{}", weights or "intx")
    size = data.get("group_size")
    if size is None:
        size = plain(plain(data.get("granularity")).get("_data")).get("group_size")
    yield _size(size)
    yield "asym" if "ASYMMETRIC" in str(data.get("mapping_type")) else ""


def _compressed(found: Settings, _: str | None) -> Iterator[str]:
    groups = list(_groups(found))
    for group in groups[:1]:
        weights, acts = plain(group.get("weights")), plain(group.get("input_activations"))
        if weights:
            yield _grid(weights)
            sizes = weights.get("block_structure") or weights.get("group_size")
            yield _size(sizes)
            yield "asym" if weights.get("symmetric") is False else ""
            yield "actorder" if weights.get("actorder") else ""
        if acts:
            yield f"act-{_grid(acts)}" + ("-static" if acts.get("dynamic") is False else "")
    yield "mixed" if len(groups) > 1 else ""
    cache = plain(found.get("kv_cache_scheme"))
    yield f"cache-{_grid(cache)}" if cache else ""


def _fp8(found: Settings, _: str | None) -> Iterator[str]:
    yield _size(found.get("weight_block_size"))
    yield f"act-{_text(found.get('activation_scheme') or 'dynamic')}"
    yield "dequantised" if found.get("dequantize") is True else ""


def _mxfp4(found: Settings, _: str | None) -> Iterator[str]:
    yield "dequantised" if found.get("dequantize") is True else ""


def _any(found: Settings, _: str | None) -> Iterator[str]:
    bits = next((found[k] for k in ("bits", "nbits", "num_bits", "w_bit") if k in found), None)
    yield _bits(bits)
    yield _size(found.get("group_size"))
    yield "dequantised" if found.get("dequantize") is True else ""


PARTS: dict[str, Callable[[Settings, str | None], Iterator[str]]] = {
    "gptq": _gptq,
    "awq": _awq,
    "auto-round": _auto_round,
    "bitsandbytes": _bitsandbytes,
    "hqq": _hqq,
    "quanto": _quanto,
    "torchao": _torchao,
    "compressed-tensors": _compressed,
    "fp8": _fp8,
    "mxfp4": _mxfp4,
}
"""What is said of each method behind its name."""
SCHEMES: Mapping[str, tuple[str, Settings]] = {
    "torchao-int8wo": ("Int8WeightOnlyConfig", {}),
    "torchao-int8-act-int8": ("Int8DynamicActivationInt8WeightConfig", {}),
    "torchao-fp8wo": ("Float8WeightOnlyConfig", {}),
    "torchao-int4wo-g128": ("Int4WeightOnlyConfig", {"group_size": 128}),
    "torchao-intx4wo-g128": ("IntxWeightOnlyConfig", {"weight_dtype": "int4", "group_size": 128}),
    "torchao-intx4wo-g32": ("IntxWeightOnlyConfig", {"weight_dtype": "int4", "group_size": 32}),
    "torchao-intx2wo-g32": ("IntxWeightOnlyConfig", {"weight_dtype": "int2", "group_size": 32}),
    "quanto-int8": ("QuantoConfig", {"weights": "int8"}),
    "quanto-fp8": ("QuantoConfig", {"weights": "float8"}),
    "quanto-int4": ("QuantoConfig", {"weights": "int4"}),
    "quanto-int2": ("QuantoConfig", {"weights": "int2"}),
    "bitsandbytes-int8": ("BitsAndBytesConfig", {"load_in_8bit": True}),
    "bitsandbytes-nf4": (
        "BitsAndBytesConfig",
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    ),
    "bitsandbytes-fp4": (
        "BitsAndBytesConfig",
        {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    ),
}
"""What a model can be rounded to while it is loaded, without text: name, class and its settings."""
LOUD = ("torchao", "torch.utils._pytree", "bitsandbytes", "gptqmodel", "auto_round", "optimum")
"""Loggers that print what no user of fairway can act on: at each import, or at every product."""
MOST = 1_000_000
"""No number of bits and no group is as large: what is, is no such number."""
LONGEST = 120
"""Characters of a description; settings are files of others."""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MOST


def _bits(value: Any) -> str:
    if isinstance(value, float) and 0 < value < MOST:
        return f"{value:g}bit"
    return f"{value}bit" if _whole(value) else ""


def _size(value: Any) -> str:
    """Name the size of a group; -1 is a whole row of weights, a pair a block of them."""
    if isinstance(value, list | tuple) and value and all(_whole(one) for one in value):
        return "b" + "x".join(map(str, value[:2]))
    if not _whole(value):
        return ""
    return f"g{value}" if value > 0 else "channel"


def _grid(scheme: Settings) -> str:
    """Name the numbers that weights or activations are rounded to, such as ``int4``, ``fp8``."""
    bits = scheme.get("num_bits")
    kind = "fp" if _text(scheme.get("type")) == "float" else "int"
    return f"{kind}{bits}" if _whole(bits) else kind


def _groups(found: Settings) -> Iterator[Settings]:
    groups = found.get("config_groups")
    values = groups.values() if isinstance(groups, Mapping) else ()
    yield from (plain(one) for one in values if not isinstance(one, list | str))


def _torchao_type(found: Settings) -> str:
    kind = found.get("quant_type")
    if isinstance(kind, Mapping):
        kind = plain(kind.get("default")).get("_type")
    return kind if isinstance(kind, str) else type(kind).__name__ if kind is not None else ""


def _torch_dtype(value: Any) -> str:
    data = value.get("_data") if isinstance(value, Mapping) else value
    return _text(data).rpartition(".")[2] if data is not None else ""


def _number(found: Settings, key: str, default: float) -> float:
    value = found.get(key, default)
    return float(value) if _whole(value) or isinstance(value, float) else default


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))
