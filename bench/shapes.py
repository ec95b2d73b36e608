"""Models of realistic shapes with random weights, and texts for them, the same everywhere.

Weights are scaled so that the distribution is peaked, as a trained model's is: a flat one hides
the errors of a head. The tokenizer knows the words ``t0``, ``t1``, ...; a text is such words, so
its tokens are known without any file from elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from common import BUILD

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2-124m": {"kind": "gpt2"},
    "llama-183m-128k": {
        "kind": "llama", "vocab_size": 128_256, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "num_key_value_heads": 4, "intermediate_size": 2048,
        "max_position_embeddings": 2048, "tie_word_embeddings": True,
    },
    "llama-213m-32k": {
        "kind": "llama", "vocab_size": 32_000, "hidden_size": 1024, "num_hidden_layers": 16,
        "num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 2816,
        "max_position_embeddings": 2048, "tie_word_embeddings": True,
    },
    "llama-1.2b": {
        "kind": "llama", "vocab_size": 128_256, "hidden_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192,
        "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
    "small-152k": {
        "kind": "llama", "vocab_size": 151_936, "hidden_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512,
        "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
}  # fmt: skip


def folder(name: str) -> str:
    """Make a model of a shape, or find it where it was made before."""
    path = BUILD / "models" / name
    if not (path / "done").exists():
        _make(name, path)
    return str(path)


def _make(name: str, path: Path) -> None:
    import torch
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers

    shape = dict(SHAPES[name])
    kind = shape.pop("kind")
    special = {"bos_token_id": 0, "eos_token_id": 0}
    config = t.GPT2Config(**special) if kind == "gpt2" else t.LlamaConfig(**shape, **special)
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(2.5)
        body = model.base_model(torch.arange(1, 200)[None]).last_hidden_state[0]
        weight = model.get_output_embeddings().weight
        spread = float((body[::20] @ weight.T).std())
        # A standard deviation of 4 between logits leaves a few nats of entropy.
        norm = getattr(model.base_model, "ln_f", None) or model.base_model.norm
        norm.weight.mul_(4 / spread)
    words = {f"t{index}": index for index in range(config.vocab_size)}
    core = Tokenizer(models.WordLevel(words, unk_token="t0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = t.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="t0", eos_token="t0", pad_token="t0"
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "done").write_text("", "utf-8")


def vocabulary(name: str) -> int:
    """Tokens that a shape's model knows."""
    return int(SHAPES[name].get("vocab_size", 50_257))


def lengths(count: int, longest: int = 1000, seed: int = 0) -> list[int]:
    """Draw lengths in tokens as texts of the web have them: median about 160, p95 about 620."""
    drawn = np.exp(np.random.default_rng(seed).normal(np.log(160), 0.83, count))
    return [int(n) for n in np.clip(drawn, 8, longest)]


def text(name: str, tokens: int, seed: int) -> str:
    """Write a text of so many tokens; never the token that stands for beginning and padding."""
    drawn = np.random.default_rng(seed).integers(1, vocabulary(name), tokens)
    return " ".join(f"t{token}" for token in drawn)


def texts(name: str, sizes: list[int]) -> list[str]:
    """Write texts of given lengths."""
    return [text(name, size, 1000 + index) for index, size in enumerate(sizes)]


def tokens(folder_name: str) -> dict[str, Any]:
    """Read a model folder's configuration."""
    out: dict[str, Any] = json.loads((Path(folder_name) / "config.json").read_text("utf-8"))
    return out
