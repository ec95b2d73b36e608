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


def tokenizer(
    bos: str | None = "<s>", adds: bool = False, specials: tuple[str, ...] = ("<s>", "</s>")
) -> Any:
    """A byte-level tokenizer with a few merges: 256 bytes, specials, nothing unknown."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate((*specials, *alphabet))}
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
SCAN = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "state_size": 8,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
}  # fmt: skip
SSD = {
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
}  # fmt: skip
DELTA = {
    "head_dim": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip

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
    "mamba": lambda: t.MambaConfig(**SCAN),
    "mamba2": lambda: t.Mamba2Config(**SCAN, num_heads=8, head_dim=8, n_groups=2, chunk_size=16),
    "falcon_mamba": lambda: t.FalconMambaConfig(**SCAN),
    "rwkv": lambda: t.RwkvConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS,
        attention_hidden_size=WIDTH, context_length=POSITIONS, bos_token_id=0, eos_token_id=1,
    ),
    "xlstm": lambda: t.xLSTMConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_heads=4,
        chunk_size=16, mode="inference", bos_token_id=0, eos_token_id=1, pad_token_id=None,
    ),
    "recurrent_gemma": lambda: t.RecurrentGemmaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=HEADS,
        num_key_value_heads=1, intermediate_size=64, lru_width=WIDTH, attention_window_size=16,
        head_dim=8, bos_token_id=0, eos_token_id=1, pad_token_id=None,
    ),
    "jamba": lambda: t.JambaConfig(
        **GROUPED, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
        expert_layer_offset=1, num_experts=2, num_experts_per_tok=1, mamba_d_state=8,
    ),
    "zamba": lambda: t.ZambaConfig(
        **{**COMMON, "num_hidden_layers": 6}, num_key_value_heads=4, mamba_d_state=8,
        n_mamba_heads=2, layers_block_type=["mamba", "hybrid"] * 3,
    ),
    "zamba2": lambda: t.Zamba2Config(
        **{**COMMON, "num_hidden_layers": 4}, num_key_value_heads=4, mamba_d_state=8,
        n_mamba_heads=8, mamba_headdim=8, mamba_ngroups=1, chunk_size=16, num_mem_blocks=1,
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
    ),
    "bamba": lambda: t.BambaConfig(**GROUPED, **SSD, attn_layer_indices=[1]),
    "falcon_h1": lambda: t.FalconH1Config(**GROUPED, **SSD, head_dim=8, mamba_d_ssm=64),
    "granite_hybrid": lambda: t.GraniteMoeHybridConfig(
        **GROUPED, **SSD, layer_types=["mamba", "attention"], num_local_experts=2,
        num_experts_per_tok=1, shared_intermediate_size=64,
    ),
    "nemotron_h": lambda: t.NemotronHConfig(
        **{**GROUPED, "num_hidden_layers": 3}, head_dim=8, mamba_num_heads=8, mamba_head_dim=8,
        ssm_state_size=8, n_groups=1, chunk_size=16,
        layers_block_type=["mamba", "mlp", "attention"],
    ),
    "qwen3_next": lambda: t.Qwen3NextConfig(
        **GROUPED, **DELTA, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    ),
    "qwen3_5": lambda: t.Qwen3_5TextConfig(**GROUPED, **DELTA),
    "olmo_hybrid": lambda: t.OlmoHybridConfig(
        **GROUPED, **{**DELTA, "linear_num_key_heads": 4},
    ),
    "kimi_linear": lambda: t.KimiLinearConfig(
        **COMMON, num_key_value_heads=4, layer_types=["linear_attention", "full_attention"],
        linear_head_dim=8, linear_num_heads=4, kv_lora_rank=8, qk_nope_head_dim=8,
        qk_rope_head_dim=8, v_head_dim=8, num_local_experts=2, num_experts_per_tok=1,
        moe_intermediate_size=32,
    ),
    "bailing_hybrid": lambda: t.BailingHybridConfig(
        **COMMON, num_key_value_heads=4, head_dim=8,
        layer_types=["linear_attention", "full_attention"], num_experts=2,
        num_experts_per_tok=1, moe_intermediate_size=32, n_group=1, topk_group=1,
    ),
    "lfm2": lambda: t.Lfm2Config(**GROUPED, layer_types=["conv", "full_attention"]),
    "minimax": lambda: t.MiniMaxConfig(
        **GROUPED, head_dim=8, layer_types=["linear_attention", "full_attention"],
        num_local_experts=2, num_experts_per_tok=1, block_size=16,
    ),
}  # fmt: skip

STATEFUL = list(CONFIGS)[list(CONFIGS).index("mamba") :]
"""Those with a recurrent state, hybrids with attention included."""


def build(name: str) -> Any:
    """Make a model with weights from a fixed seed, scaled until its logits span 10 nats."""
    torch.manual_seed(7)
    model = t.AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32).eval()
    # Scaled recurrences of these magnify float32 rounding by themselves.
    scale = name not in ("mamba", "zamba2")
    return _peak(model, lambda one: one(torch.arange(2, 30)[None], use_cache=False).logits, scale)


def _peak(model: Any, run: Any, scale: bool = True) -> Any:
    """Scale weights and fill biases, until logits span 10 nats."""
    generator = np.random.default_rng(11)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and scale:
                parameter.mul_(4.0)
            elif "bias" in parameter_name:
                noise = generator.normal(0, 0.5, tuple(parameter.shape))
                parameter.add_(torch.as_tensor(noise, dtype=parameter.dtype))
        head = model.get_output_embeddings()
        for _ in range(40):
            logits = run(model)
            if float((logits.max(-1).values - logits.min(-1).values).min()) >= 10:
                break
            head.weight.mul_(1.3)
    return model


def reference(model: Any, ids: list[int], first: int) -> np.ndarray:
    """Log-probabilities of ids[first:], by a float64 log-softmax of the model's own logits."""
    exact = copy.deepcopy(model).double() if not hasattr(model, "rwkv") else model
    if hasattr(model.config, "num_local_experts") or hasattr(model.config, "num_experts"):
        exact.set_experts_implementation("eager")
    with torch.no_grad():
        logits = exact(torch.tensor([ids]), use_cache=False).logits[0].double()
    logp = torch.log_softmax(logits, -1)
    return np.array([float(logp[i - 1, ids[i]]) for i in range(first, len(ids))])


def wordpiece() -> Any:
    """A BERT tokenizer: a lower-cased WordPiece of few words, letters and their continuations."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'é"
    words = ["the", "cat", "hen", "garden", "and", "in", "##den", "##ing", "##s", "gar", "line"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, *words])}
    return t.BertTokenizer(vocab=vocabulary, do_lower_case=True)


def bytelevel() -> Any:
    """A RoBERTa tokenizer: bytes with a few merges, ``<s> ... </s>`` around, a mask."""
    core = tokenizer(specials=("<s>", "<pad>", "</s>", "<unk>", "<mask>")).backend_tokenizer
    core.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return t.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", cls_token="<s>",
        sep_token="</s>", pad_token="<pad>", mask_token="<mask>", unk_token="<unk>",
    )  # fmt: skip


MASKED: dict[str, Any] = {
    "bert": lambda: t.BertConfig(**{**COMMON, "pad_token_id": 0}),
    "roberta": lambda: t.RobertaConfig(
        **{**COMMON, "pad_token_id": 1, "eos_token_id": 2}, type_vocab_size=1,
    ),
    "distilbert": lambda: t.DistilBertConfig(
        vocab_size=VOCABULARY, dim=WIDTH, n_layers=LAYERS, n_heads=HEADS, hidden_dim=64,
        max_position_embeddings=POSITIONS, pad_token_id=0,
    ),
    "electra": lambda: t.ElectraConfig(**{**COMMON, "pad_token_id": 0}, embedding_size=16),
    "albert": lambda: t.AlbertConfig(**{**COMMON, "pad_token_id": 0}, embedding_size=16),
    "mpnet": lambda: t.MPNetConfig(**{**COMMON, "pad_token_id": 1}),
    "deberta": lambda: t.DebertaV2Config(
        **{**COMMON, "pad_token_id": 0}, relative_attention=True, pos_att_type=["c2p", "p2c"],
        position_biased_input=False,
    ),
    "modernbert": lambda: t.ModernBertConfig(
        **{**COMMON, "pad_token_id": 0}, global_attn_every_n_layers=2, local_attention=8,
    ),
}  # fmt: skip


def masked(name: str) -> Any:
    """Make a masked model likewise, its predictions peaked: logits span 10 nats."""
    torch.manual_seed(5)
    model = t.AutoModelForMaskedLM.from_config(MASKED[name](), dtype=torch.float32).eval()
    return _peak(model, lambda one: one(torch.arange(5, 33)[None]).logits)


def pieces(kind: Any, *specials: str, **options: Any) -> Any:
    """A SentencePiece tokenizer of some kind: a few words and letters."""
    words = ["▁the", "▁cat", "▁in", "▁garden", "▁", *"abcdefghijklmnopqrstuvwxyz.,"]
    vocabulary = [(piece, -1.0 - 0.1 * at) for at, piece in enumerate((*specials, *words))]
    return kind(vocab=vocabulary, **options)


def ending(*codes: str) -> Any:
    """A T5 tokenizer on bytes: ``</s>`` behind a text, and then a language's code, if any."""
    specials = ("<pad>", "</s>", "<unk>", "<s>", *codes)
    core = tokenizer(specials=specials).backend_tokenizer
    core.post_processor = TemplateProcessing(
        single=" ".join(["$A", "</s>", *codes[:1]]),
        special_tokens=[(piece, index) for index, piece in enumerate(specials)],
    )
    return t.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<unk>", extra_special_tokens=list(codes),
    )  # fmt: skip


_BART = {
    "vocab_size": VOCABULARY, "d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "max_position_embeddings": POSITIONS, "bos_token_id": 0,
}  # fmt: skip
_T5 = {
    "vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": LAYERS,
    "num_heads": HEADS, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
}  # fmt: skip
ENDING = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 3}

SEQ2SEQ: dict[str, tuple[Any, Any]] = {
    "t5": (lambda: t.T5Config(**_T5), ending),
    "t5_untied": (
        lambda: t.T5Config(
            **_T5, tie_word_embeddings=False, feed_forward_proj="gated-gelu",
        ),
        ending,
    ),
    "bart": (
        lambda: t.BartConfig(
            **{**_BART, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
        ),
        bytelevel,
    ),
    "mbart": (
        lambda: t.MBartConfig(**{**_BART, **ENDING, "decoder_start_token_id": None}),
        lambda: ending("en_XX"),
    ),
    "marian": (
        lambda: t.MarianConfig(**{**_BART, **ENDING, "decoder_start_token_id": 0}),
        ending,
    ),
    "pegasus": (
        lambda: t.PegasusConfig(**{**_BART, **ENDING, "decoder_start_token_id": 0}),
        ending,
    ),
}  # fmt: skip


def seq2seq(name: str) -> tuple[Any, Any]:
    """Make an encoder-decoder model likewise, and its tokenizer."""
    torch.manual_seed(3)
    config, words = SEQ2SEQ[name]
    model = t.AutoModelForSeq2SeqLM.from_config(config(), dtype=torch.float32).eval()
    ids = torch.arange(5, 33)[None]
    # T5 begins with weights of the size that the others are scaled to.
    scale = not name.startswith("t5")
    model = _peak(model, lambda one: one(input_ids=ids, decoder_input_ids=ids).logits, scale)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_(0, 2, generator=torch.Generator().manual_seed(1))
    return model, words()
