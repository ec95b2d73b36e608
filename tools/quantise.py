"""Quantise the built-in model by every method that runs on a processor.

    .venv-quant/bin/python tools/quantise.py OUT [METHOD ...]

writes a folder OUT/METHOD for each: a checkpoint as others publish them. Methods that look at text
see the shipped held-out text (src/fairway/data/heldout), never the samples that are scored. Seeds
are fixed. ``make quant`` builds the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# GPTQModel starts two workers to load and, on two cores, allows for one.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

DATA = Path(__file__).resolve().parents[1] / "src" / "fairway" / "data"
SOURCE = DATA / "models" / "mini"
LENGTH = 512
GROUP = 128
Make = Callable[[Path, int], None]
"""Writes a checkpoint to a folder; methods that look at text see so many windows of it."""


def windows(tokenizer: Any, most: int) -> list[list[int]]:
    """Cut the held-out text into windows behind BOS, some of every domain."""
    out = []
    for file in sorted((DATA / "heldout").glob("*.jsonl")):
        for line in file.read_text("utf-8").splitlines():
            ids = tokenizer(json.loads(line)["text"], add_special_tokens=False)["input_ids"]
            room = LENGTH - 1
            cut = [ids[at : at + room] for at in range(0, len(ids) - room, room)]
            out += [[tokenizer.bos_token_id, *one] for one in cut]
    return [out[index * len(out) // most] for index in range(min(most, len(out)))]


def gptq(**options: Any) -> Make:
    """Quantise by GPTQ (Frantar et al. 2023), which looks at the windows."""

    def make(out: Path, most: int) -> None:
        from gptqmodel import GPTQModel, QuantizeConfig

        config = QuantizeConfig(group_size=GROUP, **options)
        model = GPTQModel.load(str(SOURCE), config, device="cpu", dtype=torch.float32)
        seen = windows(AutoTokenizer.from_pretrained(SOURCE), most)
        given = [{"input_ids": [ids], "attention_mask": [[1] * len(ids)]} for ids in seen]
        model.quantize(given, batch_size=1)
        model.save(str(out))

    return make


def transformers(scheme: str) -> Make:
    """Quantise while transformers loads the model: weights alone, no text."""

    def make(out: Path, most: int) -> None:
        from fairway.backends.transformers.quantising import prepare

        model = AutoModelForCausalLM.from_pretrained(
            SOURCE, dtype=torch.float32, quantization_config=prepare(scheme)
        )
        model.save_pretrained(out)

    return make


def auto_round(form: str, **options: Any) -> Make:
    """Quantise by AutoRound, which trains the roundings; to the nearest where it has no steps."""

    def make(out: Path, most: int) -> None:
        from auto_round import AutoRound

        tokenizer = AutoTokenizer.from_pretrained(SOURCE)
        model = AutoModelForCausalLM.from_pretrained(SOURCE, dtype=torch.float32)
        seen = [torch.tensor([ids]) for ids in windows(tokenizer, most)]
        rounder = AutoRound(
            model, tokenizer, group_size=GROUP, dataset=seen, seqlen=LENGTH, nsamples=len(seen),
            batch_size=4, device_map="cpu", seed=1, **options,
        )  # fmt: skip
        rounder.quantize_and_save(output_dir=str(out), format=form)
        for folder in [one for one in out.iterdir() if one.is_dir()]:
            for file in folder.iterdir():
                file.rename(out / file.name)
            folder.rmdir()

    return make


def compressed(bits: int, activations: bool) -> Make:
    """Round to the nearest, as compressed-tensors stores it."""

    def make(out: Path, most: int) -> None:
        from compressed_tensors.compressors import ModelCompressor
        from compressed_tensors.quantization import (
            QuantizationConfig,
            QuantizationStatus,
            apply_quantization_config,
        )

        scheme = {
            "targets": ["Linear"],
            "weights": {
                "num_bits": bits, "type": "int", "symmetric": True,
                **({"strategy": "channel"} if activations
                   else {"strategy": "group", "group_size": GROUP}),
            },
            "input_activations": {
                "num_bits": 8, "type": "int", "symmetric": True, "strategy": "token",
                "dynamic": True,
            } if activations else None,
        }  # fmt: skip
        packing = "int-quantized" if activations else "pack-quantized"
        config = QuantizationConfig.model_validate(
            {"config_groups": {"group_0": scheme}, "format": packing, "ignore": ["lm_head"],
             "quantization_status": "initialized"}
        )  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(SOURCE, dtype=torch.float32)
        apply_quantization_config(model, config)
        for module in model.modules():
            if hasattr(module, "weight_scale"):
                size = module.weight.shape[1] if activations else GROUP
                rows = module.weight.data.unflatten(1, (-1, size))
                most = 2 ** (bits - 1)
                module.weight_scale.data = (rows.abs().amax(-1) / (most - 0.5)).clamp_min(1e-8)
                module.quantization_status = QuantizationStatus.FROZEN
        compressor = ModelCompressor.from_pretrained_model(model, packing)
        compressor.compress_model(model)
        model.save_pretrained(out)
        compressor.update_config(str(out))

    return make


METHODS: dict[str, Make] = {
    "gptq-8bit": gptq(bits=8),
    "gptq-4bit": gptq(bits=4),
    "gptq-4bit-actorder": gptq(bits=4, desc_act=True),
    "gptq-3bit": gptq(bits=3),
    "gptq-2bit": gptq(bits=2),
    # AWQ's own search of scales needs CUDA in GPTQModel: its format, rounded to the nearest.
    "awq-4bit-nearest": auto_round("auto_awq", bits=4, sym=False, iters=0),
    "auto-round-4bit": auto_round("auto_round", bits=4, iters=30),
    "compressed-int8-act-int8": compressed(8, True),
    "compressed-int4": compressed(4, False),
    "torchao-int8wo": transformers("torchao-int8wo"),
    "torchao-int8-act-int8": transformers("torchao-int8-act-int8"),
    "torchao-fp8wo": transformers("torchao-fp8wo"),
    "torchao-intx4wo-g32": transformers("torchao-intx4wo-g32"),
    "bitsandbytes-int8": transformers("bitsandbytes-int8"),
    "bitsandbytes-nf4": transformers("bitsandbytes-nf4"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--windows", type=int, default=64, help="of held-out text")
    given = parser.parse_args()
    out = given.out.resolve()
    # GPTQModel writes its logs to where it runs.
    os.chdir(tempfile.mkdtemp())
    failed = 0
    for name in given.methods or METHODS:
        if name not in METHODS:
            parser.error(f"there is no method {name!r}; the methods are {', '.join(METHODS)}")
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(0)
        start = time.monotonic()
        try:
            METHODS[name](folder, given.windows)
        except Exception as problem:  # of any library; the others still run
            failed += 1
            print(f"{name}: {type(problem).__name__}: {problem}", file=sys.stderr, flush=True)
            continue
        AutoTokenizer.from_pretrained(SOURCE).save_pretrained(folder)
        print(f"{name}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
