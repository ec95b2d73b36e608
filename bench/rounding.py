"""What rounding does to log-probabilities: kinds of products and dtypes against float64.

    make bench NAME=rounding

The built-in model on the shipped samples; nats per token. The reference is a plain loop over the
model in float64 (but for norms and rotary angles, which transformers keeps in float32). A model of
another folder can be named as the only argument.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from common import versions, write

import fairway as fw
from fairway.backends.transformers.products import Products
from fairway.corpus import read

MODEL = sys.argv[1] if len(sys.argv) > 1 else "hf:builtin"


def scores(scorer: Any) -> list[np.ndarray]:
    """Score the samples."""
    return [score.logprobs for score in scorer.score(read("sample:all"))]


def reference(scorer: Any) -> list[np.ndarray]:
    """Score the samples with the model's own forward in float64, a window at a time."""
    model, out = scorer.loaded.model.double(), []
    for document in read("sample:all"):
        text = scorer.loaded.tokenizer(
            document.text, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        values = np.full(len(text), np.nan)
        for window in scorer.plan.cut(len(text)):
            front = scorer.plan.prefix if window.prefix else ()
            ids = torch.tensor([*front, *text[window.begin : window.end]])
            first = len(front) + window.score_from - window.begin
            with torch.inference_mode():
                logp = torch.log_softmax(model(ids[None, :-1]).logits[0], -1)
            chosen = logp.gather(1, ids[1:, None])[first - 1 :, 0]
            values[window.score_from : window.end] = chosen.numpy()
        out.append(values)
    return out


def compare(name: str, found: list[np.ndarray], exact: list[np.ndarray]) -> dict[str, Any]:
    """Sum up differences by token, document and corpus."""
    gaps = [a - b for a, b in zip(found, exact, strict=True)]
    tokens = np.concatenate(gaps)
    return {
        "scored in": name,
        "tokens": len(tokens),
        "corpus": float(-tokens.mean()),
        "worst_document": float(max(abs(one.mean()) for one in gaps)),
        "mean_absolute": float(np.abs(tokens).mean()),
        "largest": float(np.abs(tokens).max()),
    }


def main() -> None:
    """Run the comparison."""
    plain = Products()
    wide: Any = fw.load(MODEL)
    kernels = wide.path.products.name
    single = scores(wide)
    wide.path = replace(wide.path, products=plain)
    default = scores(wide)
    exact = reference(wide)
    rounded: Any = fw.load(MODEL)
    with torch.no_grad():
        for parameter in rounded.loaded.model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    rows = [
        compare(f"float32, {kernels} (as chosen here)", single, exact),
        compare("float32, torch's default products", default, exact),
        compare("float32, weights rounded to bfloat16", scores(rounded), exact),
        compare("bfloat16", scores(fw.load(MODEL, dtype="bfloat16")), exact),
    ]
    name = "rounding" if MODEL == "hf:builtin" else "rounding_other"
    write(name, rows, {}, versions("torch", "transformers", "fairway"))


if __name__ == "__main__":
    main()
