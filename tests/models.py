"""Small randomly made models of many architectures, and the slow loop that they are held to."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

WIDTH, LAYERS, HEADS, POSITIONS, VOCABULARY = 32, 2, 4, 64, 300


def tokenizer(bos: str | None = "<s>", adds: bool = False) -> Any:
    """A byte-level tokenizer with a few merges: 256 bytes, specials, nothing unknown."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{c: i + 2 for i, c in enumerate(alphabet)}}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("a", "n"), ("Ġ", "an")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    core = Tokenizer(models.BPE(vocabulary, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if adds:
        core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return t.PreTrainedTokenizerFast(tokenizer_object=core, bos_token=bos, eos_token="</s>")


COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 64,
    "max_position_embeddings": POSITIONS,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
GROUPED = {**COMMON, "num_key_value_heads": 2}

CONFIGS: dict[str, Any] = {
    "gpt2": lambda: t.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=POSITIONS,
        bos_token_id=0, eos_token_id=1,
    ),
    "gpt_neox": lambda: t.GPTNeoXConfig(**COMMON),
    "opt": lambda: t.OPTConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, ffn_dim=64,
        num_attention_heads=HEADS, max_position_embeddings=POSITIONS, word_embed_proj_dim=16,
        do_layer_norm_before=False, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    ),
    "bloom": lambda: t.BloomConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=LAYERS, n_head=HEADS, bos_token_id=0,
        eos_token_id=1, pad_token_id=None,
    ),
    "llama": lambda: t.LlamaConfig(**GROUPED),
    "llama_tied": lambda: t.LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "mistral": lambda: t.MistralConfig(**GROUPED, sliding_window=6),
    "qwen2": lambda: t.Qwen2Config(**GROUPED),
    "qwen3": lambda: t.Qwen3Config(**GROUPED, head_dim=8),
    "gemma2": lambda: t.Gemma2Config(
        **GROUPED, head_dim=8, sliding_window=6, final_logit_softcapping=12.0,
        attn_logit_softcapping=20.0,
    ),
    "gemma3": lambda: t.Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=6),
    "phi": lambda: t.PhiConfig(**COMMON),
    "mixtral": lambda: t.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2),
    "granite": lambda: t.GraniteConfig(**GROUPED, logits_scaling=3.0),
    "cohere": lambda: t.CohereConfig(**GROUPED, logit_scale=0.25),
    "falcon": lambda: t.FalconConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, alibi=True, new_decoder_architecture=False, bos_token_id=0,
        eos_token_id=1,
    ),
    "mamba": lambda: t.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, state_size=8,
        bos_token_id=0, eos_token_id=1, pad_token_id=None,
    ),
    "rwkv": lambda: t.RwkvConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS,
        attention_hidden_size=WIDTH, context_length=POSITIONS, bos_token_id=0, eos_token_id=1,
    ),
}  # fmt: skip


def build(name: str) -> Any:
    """Make a model with weights from a fixed seed, scaled until its logits span 10 nats."""
    torch.manual_seed(7)
    model = t.AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32).eval()
    generator = np.random.default_rng(11)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and name != "mamba":
                # Mamba's recurrence, so scaled, magnifies float32 rounding to 1e-3 by itself.
                parameter.mul_(4.0)
            elif "bias" in parameter_name:
                noise = generator.normal(0, 0.5, tuple(parameter.shape))
                parameter.add_(torch.as_tensor(noise, dtype=parameter.dtype))
        head = model.get_output_embeddings()
        for _ in range(40):
            logits = model(torch.arange(2, 30)[None]).logits
            if float((logits.max(-1).values - logits.min(-1).values).min()) >= 10:
                break
            head.weight.mul_(1.3)
    return model


def reference(model: Any, ids: list[int], first: int) -> np.ndarray:
    """Log-probabilities of ids[first:], by a float64 log-softmax of the model's own logits."""
    exact = copy.deepcopy(model).double() if not hasattr(model, "rwkv") else model
    if hasattr(model.config, "num_local_experts"):
        exact.set_experts_implementation("eager")
    with torch.no_grad():
        logits = exact(torch.tensor([ids]), use_cache=False).logits[0].double()
    logp = torch.log_softmax(logits, -1)
    return np.array([float(logp[i - 1, ids[i]]) for i in range(first, len(ids))])
