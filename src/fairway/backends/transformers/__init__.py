"""Causal language models of Hugging Face transformers: ``hf:NAME``, the default kind."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fairway.backends.transformers import quantised
from fairway.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from fairway.backends.transformers.loading import Loaded
    from fairway.backends.transformers.scoring import TransformersScorer


def load(
    name: str | Any = "builtin",
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    adapter: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: Any = None,
    trust_remote_code: bool = False,
    like: str = "fairway",
    prefix: str | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    special_tokens: str | None = None,
    chat: Sequence[str] | None = None,
    batch_tokens: int | None = None,
    threads: int | None = None,
    state: str | None = None,
    quantize: str | None = None,
) -> TransformersScorer:
    """Load a causal language model and fit a convention to it.

    Args:
        name: hub id (``ID@REVISION`` works), local folder, ``builtin``, or a model object.
        tokenizer: its tokenizer, with a model object.
        revision: commit, branch or tag on the hub.
        adapter: folder of a PEFT adapter, merged into the weights; beside quantised ones.
        dtype: auto (float32 on a CPU, the checkpoint's elsewhere), float32, bfloat16, float16.
        device: auto, cpu, cuda or mps.
        device_map: as transformers takes it, for a model larger than one device.
        trust_remote_code: run code that the checkpoint brings.
        like: the convention's name.
        prefix: auto, bos, eos or none; overrides the convention's.
        max_length: tokens in a window, prefix counted; overrides the convention's.
        stride: tokens by which windows advance; overrides the convention's.
        special_tokens: ``text`` (data is data) or ``parse``; overrides the convention's.
        chat: roles whose words are scored, in documents that hold messages.
        batch_tokens: tokens in a batch, padding counted; None = as memory allows.
        threads: of the processor; None = as torch chooses.
        state: of a recurrent model: ``restarted`` in each window, or ``carried`` from a document's
            first token to its last, without windows; None = restarted.
        quantize: scheme that the weights are rounded by while they are loaded, one of
            `fairway.backends.transformers.quantised.SCHEMES`; None = as the checkpoint is.

    Raises:
        MissingExtra: when torch or transformers are not installed, or a quantisation's package.
        ModelError: when the model cannot be loaded.
        ProtocolError: when settings contradict each other or the model.
    """
    loaded = obtain(
        name, tokenizer=tokenizer, revision=revision, adapter=adapter, dtype=dtype, device=device,
        device_map=device_map, trust_remote_code=trust_remote_code, threads=threads,
        quantize=quantize,
    )  # fmt: skip
    from fairway.backends.transformers import fitting, scoring

    fitted = fitting.fit(
        loaded, like, prefix, max_length, stride, special_tokens, chat, state
    )  # fmt: skip
    scorer = scoring.TransformersScorer(loaded, budget=batch_tokens or 0, **fitted)
    scorer.settle()
    return scorer


def obtain(
    name: str | Any,
    kind: str = "hf",
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    adapter: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: Any = None,
    trust_remote_code: bool = False,
    threads: int | None = None,
    quantize: str | None = None,
) -> Loaded:
    """Load a model of a kind that transformers has, or take an object; options as `load`.

    Raises:
        MissingExtra: when torch or transformers are not installed.
        InputError: for an option without sense, or an object without its tokenizer.
        ModelError: when the model cannot be loaded.
    """
    if threads is not None and threads < 1:
        raise InputError(f"--threads {threads} is below 1; leave it away to use all cores.")
    # Where torchao is installed, importing transformers imports it too.
    quantised.hush()
    with _collector_at_rest():
        try:
            import torch
            import transformers  # noqa: F401
        except ImportError:
            raise MissingExtra("Scoring with a Hugging Face model", "hf") from None
        from fairway.backends.transformers import loading, scoring  # noqa: F401

        if threads is not None:
            torch.set_num_threads(threads)
        if isinstance(name, str):
            base, at, commit = name.partition("@")
            return loading.load(
                base if at else name,
                revision=revision or commit or None,
                adapter=adapter,
                dtype=dtype,
                device=device,
                device_map=device_map,
                trust_remote_code=trust_remote_code,
                kind=kind,
                quantize=quantize,
            )
        if quantize:
            raise InputError("A model object is scored as it is; leave quantize away.")
        if tokenizer is None:
            raise InputError("A model object needs its tokenizer: load(model, tokenizer=...).")
        return loading.wrap(name, tokenizer)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Keep the garbage collector from searching the millions of objects that imports make.

    They live as long as the process; looking through them takes a fifth of a cold start.
    """
    busy = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if busy:
            gc.enable()
