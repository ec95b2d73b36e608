"""Faster equals of what torch and transformers would run: same mathematics, other kernels.

On processors that are not Intel's, MKL keeps to half of the vector width in float32 while oneDNN,
which torch ships too, uses all of it. Some activations of transformers are spelled out in a
handful of passes over memory where torch has the same function as one. Nothing of a model is
changed for good, and the probe compares the outcome with the model's own.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import activations

TWINS: dict[type, Callable[[torch.Tensor], torch.Tensor]] = {
    kind: partial(functional.gelu, approximate="tanh")
    for kind in (activations.NewGELUActivation, activations.FastGELUActivation)
}
"""Activations of transformers that torch has as one function (the tanh form of GELU)."""


@dataclass(frozen=True, slots=True)
class Products:
    """What replaces what while a model runs.

    Attributes:
        onednn: float32 matrix products go to oneDNN.
        twins: modules whose forward is replaced, and by what.
    """

    onednn: bool = False
    twins: tuple[tuple[Any, Callable[[torch.Tensor], torch.Tensor]], ...] = ()

    @property
    def name(self) -> str:
        """What decides the rounding, for records."""
        return ("onednn" if self.onednn else "torch") + ("+twins" if self.twins else "")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let a model's products and activations run on the faster equals."""
        for module, twin in self.twins:
            module.forward = twin
        try:
            if self.onednn:
                with _OneDNN():
                    yield
            else:
                yield
        finally:
            for module, _ in self.twins:
                del module.forward


def choose(model: Any) -> Products:
    """Find what of a model has a faster equal on this machine."""
    # A module that has a forward of its own already was changed by somebody, and stays as it is.
    twins = tuple(
        (module, TWINS[type(module)])
        for module in model.modules()
        if type(module) in TWINS and "forward" not in vars(module)
    )
    kinds = {(p.device.type, p.dtype) for p in model.parameters()}
    return Products(kinds == {("cpu", torch.float32)} and onednn_wins(), twins)


@cache
def onednn_wins() -> bool:
    """Whether oneDNN's float32 products are the faster ones: 512-bit vectors, not by Intel.

    Decided by the processor's maker and not by a clock, so that a machine always decides alike.
    """
    if (
        platform.machine().lower() not in ("x86_64", "amd64")
        or not torch.backends.mkl.is_available()
    ):
        return False
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    ):
        return False
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and "intel" not in maker().lower()


def maker() -> str:
    """Name the processor's maker, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("vendor_id"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()
    return platform.processor()


class _OneDNN(TorchFunctionMode):  # type: ignore[misc]
    """Sends float32 linear layers to oneDNN, wherever model code calls for one."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        if func is functional.linear and len(args) >= 2 and not options.keys() - {"bias"}:
            inputs, weight = args[:2]
            bias = args[2] if len(args) > 2 else options.get("bias")
            if _plain(inputs, weight):
                return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
        elif func is torch.addmm and len(args) == 3 and not options:
            bias, inputs, weight = args
            if bias.ndim == 1 and _plain(inputs, weight):
                return torch.ops.mkldnn._linear_pointwise(inputs, weight.t(), bias, "none", [], "")
        return func(*args, **options)


def _plain(inputs: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        inputs.dtype == weight.dtype == torch.float32
        and weight.ndim == 2
        and type(weight) in (torch.Tensor, torch.nn.Parameter)
        and inputs.numel() > 0
    )


def fast_half(device: str = "cpu") -> bool:
    """Whether the processor multiplies bfloat16 faster than float32."""
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    # Not every torch that is allowed has both.
    return device == "cpu" and any(getattr(torch.cpu, name, bool)() for name in tests)
