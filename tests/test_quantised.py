"""Quantised weights: what the signature says of them, and refusals where their packages lack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.backends import transformers as backend
from fairway.backends.transformers import forward, head, identity, quantised
from fairway.cli import main
from fairway.cli.diverging import dtype_of
from fairway.errors import InputError, MissingExtra, ModelError
from models import build, tokenizer

ROOT = Path(__file__).parents[1]


def torchao(kind: str, **data: Any) -> dict[str, Any]:
    made = {"default": {"_type": kind, "_version": 2, "_data": data}}
    return {"quant_method": "torchao", "quant_type": made}


def compressed(weights: Any, acts: Any = None, **more: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": acts}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, **more}


INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
FP8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
TOKEN = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}
GROUP32 = {"_type": "PerGroup", "_version": 1, "_data": {"group_size": 32}}
LINES: list[tuple[dict[str, Any], str, str | None]] = [
    ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq-4bit-g128", None),
    ({"quant_method": "GPTQ", "bits": 8, "group_size": -1}, "gptq-8bit-channel", None),
    (
        {"quant_method": "gptq", "bits": 3, "group_size": 64, "sym": False, "desc_act": True},
        "gptq-3bit-g64-asym-actorder",
        None,
    ),
    (
        {"quant_method": "gptq", "bits": 4, "dynamic": {"-:lm_head": {}}, "lm_head": True},
        "gptq-4bit-g128-mixed-head",
        None,
    ),
    (
        {"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"},
        "gptq-4bit-g128-v2",
        None,
    ),
    ({"quant_method": "awq", "bits": 4, "zero_point": True}, "awq-4bit-g128", None),
    (
        {"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": False},
        "awq-4bit-g64-sym",
        None,
    ),
    ({"quant_method": "auto-round", "bits": 2, "sym": False}, "auto-round-2bit-g128-asym", None),
    (
        {"quant_method": "auto-round", "bits": 4, "data_type": "mx_fp", "act_bits": 8},
        "auto-round-4bit-mx_fp-g128-act-8bit",
        "token",
    ),
    (
        {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0},
        "bitsandbytes-int8-in-float16",
        "batch",
    ),
    (
        {"load_in_8bit": True, "llm_int8_threshold": 0.0},
        "bitsandbytes-int8-threshold0-in-float16",
        "token",
    ),
    (
        {
            "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16",
        },
        "bitsandbytes-nf4-double",
        None,
    ),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes-fp4", None),
    (
        {
            "quant_method": "hqq",
            "quant_config": {"weight_quant_params": {"nbits": 2, "group_size": 16, "axis": 0}},
        },
        "hqq-2bit-g16-axis0",
        None,
    ),
    ({"quant_method": "quanto", "weights": "int4"}, "quanto-int4", None),
    (
        {"quant_method": "quanto", "weights": "float8", "activations": "int8"},
        "quanto-fp8-act-int8",
        "batch",
    ),
    (torchao("Int8WeightOnlyConfig", group_size=None), "torchao-int8wo", None),
    (torchao("Int4WeightOnlyConfig", group_size=32), "torchao-int4wo-g32", None),
    (
        torchao(
            "IntxWeightOnlyConfig",
            weight_dtype={"_type": "torch.dtype", "_data": "int2"},
            granularity=GROUP32,
            mapping_type={"_type": "MappingType", "_data": "ASYMMETRIC"},
        ),
        "torchao-intx2wo-g32-asym",
        None,
    ),
    (torchao("Int8DynamicActivationInt8WeightConfig"), "torchao-int8-act-int8", "token"),
    (
        torchao("Float8DynamicActivationFloat8WeightConfig", granularity=[{"_type": "PerTensor"}]),
        "torchao-fp8-act-fp8",
        "batch",
    ),
    (torchao("SomethingNewConfig"), "torchao-somethingnew", None),
    (
        {
            "quant_method": "torchao", "quant_type": "int4_weight_only",
            "quant_type_kwargs": {"group_size": 64},
        },
        "torchao-int4wo-g64",
        None,
    ),
    (compressed(INT4), "compressed-tensors-int4-g128", None),
    (compressed(INT8, TOKEN), "compressed-tensors-int8-act-int8", "token"),
    (
        compressed(FP8, {**FP8, "strategy": "tensor", "dynamic": False}),
        "compressed-tensors-fp8-act-fp8-static",
        "token",
    ),
    (
        compressed(FP8, {**FP8, "strategy": "tensor", "dynamic": True}, kv_cache_scheme=FP8),
        "compressed-tensors-fp8-act-fp8-cache-fp8",
        "batch",
    ),
    (
        {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
        "fp8-b128x128-act-dynamic",
        "token",
    ),
    ({"quant_method": "mxfp4", "dequantize": True}, "mxfp4-dequantised", None),
    ({"quant_method": "higgs", "bits": 3, "group_size": 256}, "higgs-3bit-g256", None),
    ({"bits": 4}, "unknown-4bit", None),
]  # fmt: skip


@pytest.mark.parametrize(("given", "line", "over"), LINES, ids=[line for _, line, _ in LINES])
def test_what_the_signature_says(given: Any, line: str, over: str | None) -> None:
    assert quantised.describe(given) == line
    assert quantised.activations(given) == over
    assert len({one for _, one, _ in LINES}) == len(LINES)


def test_the_dtype_of_products_is_said_where_it_is_not_the_models() -> None:
    awq = {"quant_method": "awq", "bits": 4}
    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    assert quantised.describe(awq, "float32") == "awq-4bit-g128-in-float16"
    assert quantised.describe({**awq, "device": "cpu"}, "float32") == "awq-4bit-g128"
    assert quantised.describe(awq, "float16") == "awq-4bit-g128"
    assert quantised.describe(nf4, "float32") == "bitsandbytes-nf4"
    assert quantised.describe(nf4, "bfloat16") == "bitsandbytes-nf4-in-float32"


KEYS = sorted({key for given, _, _ in LINES for key in given} | {"num_bits", "act_bits", "_data"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["gptq", "int8", "tensor", "Int8WeightOnlyConfig", "PerTensor"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from([*quantised.PARTS, *quantised.OTHERS]) | VALUES,
    rest=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8),
)
def test_odd_settings_are_no_error(name: Any, rest: dict[str, Any]) -> None:
    for one in ({**rest, "quant_method": name}, rest, name):
        line = quantised.describe(one, "float32")
        assert line is None or (0 < len(line) <= 120 and not any(c.isspace() for c in line))
        assert quantised.activations(one) in (None, "token", "batch")
        assert isinstance(quantised.missing(one), tuple)


def changed(small: str, folder: Path, **settings: Any) -> str:
    shutil.copytree(small, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(
        json.dumps({**config, "quantization_config": settings}), "utf-8"
    )
    return str(folder)


@pytest.mark.parametrize("method", [*quantised.EXTRA, *quantised.OTHERS])
def test_a_method_that_is_not_installed(small: str, tmp_path: Path, method: str) -> None:
    if not quantised.missing({"quant_method": method}):
        pytest.skip(f"what {method} needs is installed")
    folder = changed(small, tmp_path / "model", quant_method=method, bits=4)
    error, line = (
        (MissingExtra, r"pip install 'fairway\[quant\]'")
        if method in quantised.EXTRA
        else (ModelError, r"pip install '")
    )
    with pytest.raises(error, match=line) as caught:
        backend.load(folder)
    assert method in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_line_says_it_in_a_sentence(
    small: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not quantised.missing({"quant_method": "gptq"}):
        pytest.skip("GPTQModel is installed")
    folder = changed(small, tmp_path / "model", quant_method="gptq", bits=4)
    for words in (["eval", "--model", folder], ["eval", "--model-arg", "quantize=quanto-int8"]):
        argv = ["fairway", *words, "--data", "sample:all", "--limit", "1"]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert stop.value.code == 2 and not said.out
        assert "fairway[quant]" in said.err and "Traceback" not in said.err


def test_a_method_that_nobody_knows(small: str, tmp_path: Path) -> None:
    """transformers would read packed weights as plain ones, and make up those that it misses."""
    from safetensors.torch import load_file, save_file

    folder = changed(small, tmp_path / "model", quant_method="quux", bits=4)
    weights = dict(load_file(Path(folder) / "model.safetensors"))
    weights["model.layers.0.mlp.up_proj.packed"] = weights.pop("model.layers.0.mlp.up_proj.weight")
    save_file(weights, Path(folder) / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="knows no quantisation by 'quux'"):
        backend.load(folder)


@pytest.mark.parametrize("settings", [[], "gptq", {}, [4]])
def test_settings_that_are_no_settings(small: str, tmp_path: Path, settings: Any) -> None:
    folder = Path(changed(small, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["quantization_config"] = settings
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match="empty or no mapping|cannot be loaded"):
        backend.load(str(folder))


def test_what_cannot_be_quantised(small: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="no scheme 'int3' to quantise by; the schemes are torchao-int8wo"
    ):
        backend.load(small, quantize="int3")
    folder = changed(small, tmp_path / "model", quant_method="gptq", bits=4)
    with pytest.raises(InputError, match=r"quantised already \(gptq-4bit-g128\)"):
        backend.load(folder, quantize="torchao-int8wo")
    with pytest.raises(InputError, match="scored as it is"):
        backend.load(build("llama"), tokenizer=tokenizer(), quantize="torchao-int8wo")


def test_a_scheme_is_named_behind_the_model() -> None:
    assert dtype_of("builtin:torchao-int8wo") == ("builtin", "torchao-int8wo")
    assert dtype_of("hf:gpt2:quanto-int4") == ("hf:gpt2", "quanto-int4")
    assert dtype_of("hf:gpt2:int4") == ("hf:gpt2:int4", None)


def test_a_head_of_packed_weights_is_not_read() -> None:
    model = build("llama")
    assert head.find(model) is not None
    packed = torch.nn.Parameter(torch.zeros(300, 16, dtype=torch.uint8), requires_grad=False)
    model.lm_head.weight = packed
    assert head.find(model) is None


class Wrapped(torch.Tensor):
    """A weight of a class of its own, made of two tensors, as torchao's are."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["data_part", "scale"], None


class Odd(torch.nn.Parameter):
    """A parameter of a class of its own."""


def test_weights_that_consist_of_tensors() -> None:
    model = build("llama")
    plain = identity.module_hash(model)
    assert identity.count(model) == sum(one.numel() for one in model.parameters())
    assert identity.held(model) == 4 * identity.count(model)
    assert isinstance(forward.gradless(model), torch.inference_mode)
    weight = model.model.layers[0].mlp.up_proj.weight.detach().as_subclass(Wrapped)
    weight.data_part, weight.scale = torch.ones(64, 32, dtype=torch.int8), torch.ones(64, 1)
    found = dict(identity._leaves("up", weight))
    assert {name: one.dtype for name, one in found.items()} == {
        "up.data_part": torch.int8,
        "up.scale": torch.float32,
    }
    model.model.layers[0].mlp.up_proj.weight = Odd(torch.zeros(64, 32), requires_grad=False)
    assert isinstance(forward.gradless(model), torch.no_grad)
    assert identity.module_hash(build("llama")) == plain


def test_shared_and_packed_weights_are_counted_once() -> None:
    tied = build("llama_tied")
    assert identity.count(tied) == sum(one.numel() for one in tied.parameters())
    before = identity.count(tied)
    layer = tied.model.layers[0].mlp.up_proj
    del layer.weight
    layer.register_buffer("qweight", torch.zeros(4, 64, dtype=torch.int32))
    assert identity.count(tied) == before


@pytest.mark.slow
def test_where_the_packages_are_installed() -> None:
    """Runs tests/quantised_real.py in an environment of its own, since GPTQModel wants one."""
    python = os.environ.get("FAIRWAY_QUANT_PYTHON")
    if not python:
        folder = ROOT / ".venv-quant"
        log = folder / "install.log"
        if not (folder / ".installed").is_file():
            said = log.read_text("utf-8", "replace")[-500:] if log.is_file() else "nothing: not run"
            pytest.skip(f"`make quant` did not install the packages; pip printed {said!r}")
        python = str(folder / "bin" / "python")
    probe = subprocess.run(
        [python, "-c", "import gptqmodel, torchao"], capture_output=True, text=True
    )
    if probe.returncode:
        pytest.skip(
            f"`{python} -c 'import gptqmodel, torchao'` fails and prints {probe.stderr[-500:]!r}"
        )
    words = ["-m", "pytest", "tests/quantised_real.py", "-W", "default", "--timeout=240"]
    source = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    made = subprocess.run(
        [python, *words],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": source},
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-1000:]
