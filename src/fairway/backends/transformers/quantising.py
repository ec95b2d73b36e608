"""Loading quantised weights: kernels that compute in the dtype asked for, schemes made at load."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import transformers
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from fairway.backends.transformers import quantised
from fairway.errors import InputError, MissingExtra, ModelError

EXACT = {"gptq": "gptq_torch", "awq": "torch_awq", "auto-round": "torch"}
"""Backends that unpack the weights and multiply in the model's dtype, by method."""


def ready(name: str, settings: Any) -> None:
    """Refuse weights whose method's packages are not installed.

    Raises:
        MissingExtra: naming fairway's extra.
        ModelError: naming the package, where the extra does not bring it; for settings that are no
            mapping.
    """
    if not quantised.plain(settings):
        raise ModelError(
            f"{name}'s quantization_config is empty or no mapping; how its weights are quantised "
            "is not known."
        )
    lacking = quantised.missing(settings)
    if not lacking:
        return
    method = quantised.method(settings) or ""
    if method in quantised.EXTRA:
        raise MissingExtra(
            f"Scoring {name}, whose weights are quantised ({quantised.describe(settings)}),",
            "quant",
        )
    package = quantised.OTHERS[method][1]
    raise ModelError(
        f"{name} is quantised by {method}, whose package is not installed; "
        f"install it with: pip install '{package}'"
    )


def unknown(settings: Any) -> str | None:
    """Say that transformers knows no such method, and would take packed weights for plain ones."""
    method = quantised.method(settings)
    known = {
        one.removesuffix("_4bit").removesuffix("_8bit") for one in AUTO_QUANTIZATION_CONFIG_MAPPING
    }
    if method is None or method in known:
        return None
    return f"transformers {transformers.__version__} knows no quantisation by {method!r}"


def options(
    name: str, config: Any, settings: Any, scheme: str | None, dtype: Any, device: str
) -> dict[str, Any]:
    """Give what ``from_pretrained`` takes besides, for quantised weights or such to be.

    Args:
        name: the model's.
        config: the model's configuration.
        settings: its quantisation's, None = there are none.
        scheme: to quantise by; None = as the checkpoint is.
        dtype: that the model shall have.
        device: likewise.

    Raises:
        InputError: when there is no such scheme, or the weights are quantised already.
        MissingExtra: when the method's packages are not installed.
        ModelError: likewise, for a method that is not in fairway's extra.
    """
    if scheme:
        if settings is not None:
            raise InputError(
                f"{name} is quantised already ({quantised.describe(settings)}); leave quantize "
                "away."
            )
        return {"quantization_config": prepare(scheme)}
    ready(name, settings)
    changed = exact(settings, dtype, device)
    if changed is None:
        return {}
    config.quantization_config = changed
    return {"config": config}


def exact(settings: Any, dtype: Any, device: str) -> dict[str, Any] | None:
    """Choose kernels that compute in float32 or float16 where a processor's would not.

    GPTQModel's fastest ones on a processor round activations and scales to bfloat16, whatever the
    model's dtype: a log-probability of the built-in model moves by up to 0.04 nats.

    Returns:
        Settings to load with; None where those of the checkpoint will do.
    """
    method = quantised.method(settings)
    if method not in EXACT or not device.startswith("cpu") or dtype == torch.bfloat16:
        return None
    return {**quantised.plain(settings), "backend": EXACT[method]}


def settle(model: Any, dtype: Any) -> None:
    """Keep modules of quantised weights from what makes their outputs slow to begin or inexact.

    Args:
        model: as it was loaded.
        dtype: that it was asked to have; ``auto`` = as the checkpoint says.
    """
    method = getattr(model, "quantization_method", None)
    if method == "auto-round" and dtype != "auto":
        # AutoRound makes it float16 whatever was asked for; its scales lose nothing by that.
        model.to(dtype)
    if method == "compressed-tensors":
        # It unpacks its weights at the first tokens, and says so.
        with torch.no_grad():
            model(torch.zeros((1, 1), dtype=torch.long, device=model.device), use_cache=False)
    for module in model.modules():
        if (
            method in ("gptq", "awq")
            and model.dtype == torch.float32
            and hasattr(module, "qweight")
        ):
            # They are stored in float16, and what is unpacked would be rounded to that again.
            module.scales = module.scales.float()
            if method == "awq" and module.scales.device.type == "cpu":
                module.forward = partial(_multiply, module)
        # GPTQModel has the unpacking compiled, which takes a minute at the first batch.
        vars(module).pop("dequantize_weight", None)
        if getattr(module, "support_avx512bf16_for_cpu", False) and model.dtype != torch.bfloat16:
            # bitsandbytes would round activations and scales to bfloat16.
            module.support_avx512bf16_for_cpu = False


def _multiply(module: Any, inputs: Any) -> Any:
    """Multiply with AWQ's weights in float32, for which GPTQModel has no kernel."""
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    kept = module.qweight, module.qzeros, module.scales, module.bits, module.group_size
    out = inputs @ dequantize_gemm(*kept)
    return out if module.bias is None else out + module.bias


@contextlib.contextmanager
def quiet(needed: bool = True) -> Iterator[None]:
    """Keep banners and progress bars of quantisation libraries away from the terminal."""
    if not needed:
        yield
        return
    quantised.hush()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def prepare(name: str) -> Any:
    """Give the settings by which transformers quantises while it loads.

    Args:
        name: one of `fairway.backends.transformers.quantised.SCHEMES`.

    Raises:
        InputError: when there is no such scheme.
        MissingExtra: when its package is not installed.
    """
    if name not in quantised.SCHEMES:
        raise InputError(
            f"There is no scheme {name!r} to quantise by; the schemes are "
            f"{', '.join(quantised.SCHEMES)}."
        )
    method = name.partition("-")[0]
    if quantised.missing({"quant_method": method}):
        raise MissingExtra(f"Quantising by {name}", "quant")
    kind, given = quantised.SCHEMES[name]
    if method != "torchao":
        return getattr(transformers, kind)(**given)
    import torchao.quantization as ao

    options = dict(given)
    if "weight_dtype" in options:
        options["weight_dtype"] = getattr(torch, options["weight_dtype"])
        options["granularity"] = ao.PerGroup(options.pop("group_size"))
    return transformers.TorchAoConfig(getattr(ao, kind)(**options))
