"""Make variants of a model by rounding its weights to the nearest of few levels, for tables.

    python bench/variants.py MODEL FOLDER

writes FOLDER/int8, FOLDER/int4, ...: every matrix of the layers is rounded in groups of 32 weights
of a row with a scale of its own (round to nearest, symmetric, as llama.cpp's Q8_0 and, roughly,
Q4_0); embeddings, head and norms stay. The values are stored in float16, so that the files do not
shrink: only the loss is that of a quantised model, not the size.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

GROUP = 32
LEVELS = {"int8": 127, "int4": 7, "int3": 3}


def rounded(weight: torch.Tensor, levels: int) -> torch.Tensor:
    """Round to the nearest of ``2 levels + 1`` multiples of each group's scale."""
    rows, columns = weight.shape
    size = GROUP if columns % GROUP == 0 else columns
    groups = weight.float().reshape(rows, -1, size)
    scale = groups.abs().amax(-1, keepdim=True).clamp_min(1e-12) / levels
    return ((groups / scale).round() * scale).reshape(rows, columns)


def make(model: object, name: str) -> None:
    """Round a model's matrices in place."""
    kept = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2 and id(parameter) not in kept:
                parameter.copy_(rounded(parameter, LEVELS[name]))


def main() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, folder = sys.argv[1], Path(sys.argv[2])
    if source == "builtin":
        from fairway.backends.transformers.loading import builtin_folder

        source = str(builtin_folder())
    for name in LEVELS:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        make(model, name)
        model.half().save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder / name)


if __name__ == "__main__":
    main()
