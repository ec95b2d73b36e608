"""Three tiny models that are the same on every machine, for golden records of the peers.

Weights come from Python's own generator, whose stream is fixed across versions, so no binary file
is stored; `digest` proves that a reader built what the peers ran.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Fast

POSITIONS = 64
VOCABULARY = 272
MERGES = [("t", "h"), ("th", "e"), ("i", "n"), ("a", "n"), ("e", "r"), ("Ġ", "the"), ("o", "n")]

NAMES = ("adds-bos", "adds-none", "no-bos")
"""A Llama whose tokenizer adds BOS; a GPT-2 with one token for BOS and EOS; one with EOS only."""


def tokenizer(bos: str | None, eos: str, adds: bool) -> Any:
    """A byte-level tokenizer: two special tokens, 256 bytes, a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {"<s>": 0, "</s>": 1, **{char: i + 2 for i, char in enumerate(alphabet)}}
    for left, right in MERGES:
        words[left + right] = len(words)
    core = Tokenizer(models.BPE(words, MERGES))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if adds:
        core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    specials = {"eos_token": eos, "pad_token": eos}
    if bos is not None:
        specials["bos_token"] = bos
    return Fast(tokenizer_object=core, **specials)


def fill(model: Any, seed: int) -> None:
    """Give every weight a value from ``random.Random``, wide enough for peaked predictions."""
    draw = random.Random(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.ndim == 1:
                centre, reach = (1.0, 0.2) if "weight" in name else (0.0, 0.2)
            else:
                centre, reach = 0.0, 0.35
            values = [centre + reach * (2 * draw.random() - 1) for _ in range(parameter.numel())]
            parameter.copy_(torch.tensor(values, dtype=torch.float32).view_as(parameter))


def build(name: str) -> tuple[Any, Any]:
    """Give the model and tokenizer of one of `NAMES`."""
    if name == "adds-bos":
        words = tokenizer("<s>", "</s>", adds=True)
        model: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, intermediate_size=64, max_position_embeddings=POSITIONS,
                bos_token_id=0, eos_token_id=1, pad_token_id=None,
            )
        )  # fmt: skip
    else:
        bos = "</s>" if name == "adds-none" else None
        words = tokenizer(bos, "</s>", adds=False)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=POSITIONS,
                bos_token_id=1, eos_token_id=1,
            )
        )  # fmt: skip
    fill(model, 11 if name == "adds-bos" else 12)
    return model.float().eval(), words


def digest(model: Any) -> str:
    """Hash names and float32 values of all weights: 16 hexadecimal digits."""
    out = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        out.update(name.encode())
        out.update(parameter.detach().float().numpy().astype("<f4").tobytes())
    return out.hexdigest()[:16]


def save(name: str, folder: Path) -> Path:
    """Write a model and its tokenizer as Hugging Face folders."""
    model, words = build(name)
    place = folder / name
    model.save_pretrained(place)
    words.save_pretrained(place)
    return place
