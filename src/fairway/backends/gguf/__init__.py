"""GGUF files through llama.cpp: ``gguf:FILE``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fairway.errors import InputError, MissingExtra
from fairway.protocol import convention, resolve

if TYPE_CHECKING:
    from fairway.scorer import Scorer

DTYPES = ("float32", "bfloat16", "float16")


def load(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    like: str = "fairway",
    prefix: str | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    special_tokens: str | None = None,
    batch_tokens: int | None = None,
    threads: int | None = None,
    engine: str = "llama.cpp",
    flash: bool = False,
) -> Scorer:
    """Load a GGUF file and fit a convention to it.

    Args:
        name: the file, the first of its parts, or a folder that holds nothing else.
        dtype: of the cache of keys and values: auto (float32), float32, bfloat16, float16. The
            weights are what the file holds.
        device: auto, cpu, cuda or mps; whatever llama-cpp-python was built for.
        like: the convention's name.
        prefix: auto, bos, eos or none; overrides the convention's.
        max_length: tokens in a window, prefix counted; overrides the convention's.
        stride: tokens by which windows advance; overrides the convention's.
        special_tokens: ``text`` (data is data) or ``parse``; overrides the convention's.
        batch_tokens: tokens in a batch, at most.
        threads: of the processor; None = ``OMP_NUM_THREADS``, else all cores.
        engine: llama.cpp, or transformers: the file's weights, dequantised, in the engine of
            ``hf:``; dtype is theirs then.
        flash: flash attention, as llama.cpp's own programs have it; less exact.

    Raises:
        InputError: for a setting that there is none of.
        MissingExtra: when llama-cpp-python is not installed.
        ModelError: when the file is damaged, or no causal language model.
        ProtocolError: when settings contradict each other or the model.
    """
    if special_tokens not in (None, "text", "parse"):
        raise InputError(f"{special_tokens!r} is neither text nor parse.")
    if dtype != "auto" and dtype not in DTYPES:
        raise InputError(f"{dtype!r} is no dtype; use auto, {', '.join(DTYPES)}.")
    for option, value in (("--threads", threads), ("--batch-tokens", batch_tokens)):
        if value is not None and value < 1:
            raise InputError(f"{option} {value} is below 1; leave it away for the default.")
    if not name:
        raise InputError("gguf: takes a file, such as gguf:model.gguf.")
    common: dict[str, Any] = {
        "like": like, "prefix": prefix, "max_length": max_length, "stride": stride,
        "special_tokens": special_tokens, "batch_tokens": batch_tokens, "threads": threads,
    }  # fmt: skip
    if engine == "transformers":
        from fairway.backends.gguf import dequantised

        return dequantised.load(name, dtype, device, **common)
    if engine != "llama.cpp":
        raise InputError(f"{engine!r} is no engine; use llama.cpp or transformers.")
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        raise MissingExtra("Scoring with a GGUF file", "gguf") from None
    from fairway.backends.gguf import loading
    from fairway.backends.gguf.decoding import Decoder
    from fairway.backends.gguf.reading import Reader
    from fairway.backends.gguf.scoring import GgufScorer
    from fairway.backends.gguf.tokens import Tokenizer

    named = convention(like)
    loaded = loading.load(name, device)
    tokenizer = Tokenizer.of(loaded)
    plan = resolve(named, tokenizer.facts(loaded), prefix, max_length, stride)
    reader = Reader(tokenizer, plan, (special_tokens or named.special) == "parse")
    cache = "float32" if dtype == "auto" else dtype
    decoder = Decoder(loaded, cache, threads or cores(), batch_tokens or 0, flash)
    return GgufScorer(loaded, reader, decoder)


def cores() -> int:
    """Threads to use: ``OMP_NUM_THREADS`` where it is set, else the cores of this process."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
