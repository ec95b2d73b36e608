"""Small GGUF files made here: random weights, a vocabulary of bytes and a few pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PIECES = ["▁", "▁the", "▁a", "in", "an", "th", "he", "er", "on", "▁of", "e", "t", "a", "o", "n"]
WIDTH, LAYERS, HEADS, HIDDEN, POSITIONS = 32, 2, 4, 64, 128
STATE, CONVOLUTION, INNER, RANK = 8, 4, 64, 2


def _vocabulary(writer: Any, bos: bool) -> int:
    import gguf

    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    kinds = gguf.TokenType
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * 259 + [-float(n) for n in range(len(PIECES))])
    writer.add_token_types(types + [kinds.NORMAL] * len(PIECES))
    writer.add_add_bos_token(bos)
    if bos:
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    return len(words)


def _write(
    path: Path, kind: str, fill: Callable[[Any, int, Any], None], bos: bool = True, part: int = 0
) -> Path:
    import gguf

    writer = gguf.GGUFWriter(str(path), kind, split_max_tensors=part)
    writer.add_name("made here")
    writer.add_file_type(0)
    writer.add_block_count(LAYERS)
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(WIDTH)
    writer.add_vocab_size(size := _vocabulary(writer, bos))
    draw = np.random.default_rng(0)

    def tensor(name: str, *shape: int, scale: float = 0.0, values: Any = None) -> None:
        if values is None:
            values = draw.normal(size=shape) * (scale or 2.5 / np.sqrt(shape[-1]))
        writer.add_tensor(name, np.asarray(values, np.float32))

    fill(writer, size, tensor)
    # Peaked logits, as a trained model has them.
    tensor("token_embd.weight", size, WIDTH, scale=1.0)
    tensor("output.weight", size, WIDTH, scale=0.6)
    tensor("output_norm.weight", WIDTH, values=np.ones(WIDTH))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama(
    path: Path, *, bos: bool = True, more: Callable[[Any], None] | None = None, part: int = 0
) -> Path:
    """Write a Llama; more adds keys to it, part is how many tensors a file holds (0 = all)."""

    def fill(writer: Any, size: int, tensor: Any) -> None:
        writer.add_feed_forward_length(HIDDEN)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(2)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_dimension_count(WIDTH // HEADS)
        if more is not None:
            more(writer)
        for layer in range(LAYERS):
            at = f"blk.{layer}."
            for name, rows, columns in (
                ("attn_q", WIDTH, WIDTH), ("attn_k", WIDTH // 2, WIDTH),
                ("attn_v", WIDTH // 2, WIDTH), ("attn_output", WIDTH, WIDTH),
                ("ffn_gate", HIDDEN, WIDTH), ("ffn_up", HIDDEN, WIDTH), ("ffn_down", WIDTH, HIDDEN),
            ):  # fmt: skip
                tensor(f"{at}{name}.weight", rows, columns)
            for name in ("attn_norm", "ffn_norm"):
                tensor(f"{at}{name}.weight", WIDTH, values=np.ones(WIDTH))

    return _write(path, "llama", fill, bos, part)


def mamba(path: Path) -> Path:
    """Write a Mamba."""

    def fill(writer: Any, size: int, tensor: Any) -> None:
        writer.add_feed_forward_length(0)
        writer.add_head_count(0)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_ssm_conv_kernel(CONVOLUTION)
        writer.add_ssm_inner_size(INNER)
        writer.add_ssm_state_size(STATE)
        writer.add_ssm_time_step_rank(RANK)
        for layer in range(LAYERS):
            at = f"blk.{layer}."
            tensor(f"{at}ssm_in.weight", 2 * INNER, WIDTH)
            tensor(f"{at}ssm_conv1d.weight", INNER, CONVOLUTION)
            tensor(f"{at}ssm_conv1d.bias", INNER, scale=0.1)
            tensor(f"{at}ssm_x.weight", RANK + 2 * STATE, INNER)
            tensor(f"{at}ssm_dt.weight", INNER, RANK)
            tensor(f"{at}ssm_dt.bias", INNER, scale=0.1)
            decay = -np.tile(np.arange(1, STATE + 1, dtype=np.float32), (INNER, 1))
            tensor(f"{at}ssm_a", INNER, STATE, values=decay)
            tensor(f"{at}ssm_d", INNER, values=np.ones(INNER))
            tensor(f"{at}ssm_out.weight", WIDTH, INNER)
            tensor(f"{at}attn_norm.weight", WIDTH, values=np.ones(WIDTH))

    return _write(path, "mamba", fill)
