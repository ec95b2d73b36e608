"""Encoder-decoder models of Hugging Face transformers: ``seq2seq:NAME``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairway.backends.transformers import obtain
from fairway.errors import InputError

if TYPE_CHECKING:
    from fairway.backends.seq2seq.scoring import Seq2SeqScorer

SOURCES = ("required", "bare", "empty")
"""What the encoder reads: a source with the special tokens that the tokenizer puts around it, one
without them, or nothing but them."""


def load(
    name: str | Any,
    *,
    tokenizer: Any = None,
    source: str = SOURCES[0],
    eos: bool = True,
    src_lang: str | None = None,
    tgt_lang: str | None = None,
    revision: str | None = None,
    adapter: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: Any = None,
    trust_remote_code: bool = False,
    max_length: int | None = None,
    special_tokens: str | None = None,
    batch_tokens: int | None = None,
    threads: int | None = None,
) -> Seq2SeqScorer:
    """Load an encoder-decoder model.

    Args:
        name: hub id (``ID@REVISION`` works), local folder, or a model object.
        tokenizer: its tokenizer, with a model object.
        source: ``required``: a document's context, with special tokens around it; ``bare``:
            without them; ``empty``: there is none, and the encoder reads special tokens alone.
        eos: whether the end of the target is scored, too.
        src_lang: language of sources, where the tokenizer has languages.
        tgt_lang: language of targets, likewise.
        revision: commit, branch or tag on the hub.
        adapter: folder of a PEFT adapter, merged into the weights.
        dtype: auto (float32 on a CPU, the checkpoint's elsewhere), float32, bfloat16, float16.
        device: auto, cpu, cuda or mps.
        device_map: as transformers takes it, for a model larger than one device.
        trust_remote_code: run code that the checkpoint brings.
        max_length: tokens that a source and a target may have each, special ones counted; None =
            the model's positions, where they are relative 2048; 0 = as many as there can be.
        special_tokens: ``text`` (data is data) or ``parse``.
        batch_tokens: tokens in a batch, padding counted; None = as memory allows.
        threads: of the processor; None = as torch chooses.

    Raises:
        MissingExtra: when torch or transformers are not installed.
        InputError: for a setting without sense.
        ModelError: when the model cannot be loaded, or has no encoder and decoder.
        ProtocolError: when settings contradict each other or the model.
    """
    if source not in SOURCES:
        raise InputError(f"source takes {', '.join(SOURCES)}, and not {source!r}.")
    if not isinstance(eos, bool):
        raise InputError(f"eos takes yes or no, and not {eos!r}.")
    if special_tokens not in (None, "text", "parse"):
        raise InputError(f"{special_tokens!r} is neither text nor parse.")
    loaded = obtain(
        name, "seq2seq", tokenizer=tokenizer, revision=revision, adapter=adapter, dtype=dtype,
        device=device, device_map=device_map, trust_remote_code=trust_remote_code, threads=threads,
    )  # fmt: skip
    from fairway.backends.seq2seq import reading, scoring

    reading.speak(loaded, src_lang, tgt_lang)
    plan = reading.plan(loaded, source, eos, max_length, special_tokens == "parse")
    scorer = scoring.Seq2SeqScorer(loaded, plan, batch_tokens or 0)
    scorer.settle()
    return scorer
