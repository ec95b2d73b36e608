"""Windows through llama.cpp, several in a batch; memory that does not grow with texts."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import llama_cpp as api
import numpy as np
from numpy.typing import NDArray

from fairway.backends.gguf import loading
from fairway.backends.gguf.loading import CACHES, Loaded
from fairway.backends.gguf.reading import Row
from fairway.errors import ModelError

BATCH = 512
"""Tokens that go through the model at a time, as llama.cpp has it."""
LOGITS = 1 << 26
"""Numbers that a batch's logits may be: 256 MiB."""
LEAST = 32
"""Tokens of the smallest batch."""
TEXTS = 64
"""Windows in a batch."""


@dataclass(slots=True, weakref_slot=True)
class Decoder:
    """A context of llama.cpp that grows to the longest window that it meets.

    Attributes:
        loaded: the model.
        cache: what keys and values are kept in: float32, float16 or bfloat16.
        threads: of the processor.
        budget: tokens in a batch.
        flash: flash attention, which computes in float16 on a processor.
    """

    loaded: Loaded
    cache: str
    threads: int
    budget: int = 0
    flash: bool = False
    _context: Any = field(default=None, repr=False)
    _length: int = 0
    _made: int = 0
    _held: list[int] = field(default_factory=list, repr=False)
    _free: Any = field(default=None, repr=False)

    @property
    def vocabulary(self) -> int:
        """Logits of a token."""
        return int(api.llama_vocab_n_tokens(self.loaded.vocabulary))

    @property
    def alone(self) -> bool:
        """Whether each window has a batch of its own.

        Beside others a token's sums are rounded otherwise. Where that happens in float32, a
        log-probability moves by 1e-5; where activations are rounded to eight bits, by 0.1 in a
        small model, and the number would depend on which texts stand beside it.
        """
        loaded = self.loaded
        exact = loaded.quant is None and loaded.dtype == "float32" and self.cache == "float32"
        return loaded.recurrent or self.flash or not exact

    def limit(self) -> int:
        """Tokens in a batch, so that its logits stay within bounds."""
        most = max(LEAST, LOGITS // self.vocabulary // LEAST * LEAST)
        return min(self.budget or BATCH, most)

    def logits(self, rows: Sequence[Row]) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
        """Run windows; give the logits of their targets in pieces.

        Yields:
            Index of the window, index of the first target, and ``(k, vocabulary)`` logits, which
            are overwritten when the next piece is asked for.

        Raises:
            ModelError: when llama.cpp fails.
        """
        size = self.limit()
        for batch in plan([len(row.inputs) for row in rows], size, self.alone):
            longest = max(len(rows[index].inputs) for index in batch)
            self._ensure(max(longest, size))
            self._clear()
            ids = np.concatenate([rows[index].inputs for index in batch])
            places = np.concatenate([np.arange(len(rows[index].inputs)) for index in batch])
            texts = np.repeat(np.arange(len(batch)), [len(rows[index].inputs) for index in batch])
            wanted = np.concatenate([_wanted(rows[index]) for index in batch])
            for at in range(0, len(ids), size):
                part = slice(at, at + size)
                hit = wanted[part]
                self._decode(ids[part], places[part], texts[part], hit)
                count = int(hit.sum())
                if not count:
                    continue
                found = _view(self._context, count, self.vocabulary)
                begun = 0
                for text, index in enumerate(batch):
                    mine = hit & (texts[part] == text)
                    many = int(mine.sum())
                    if many:
                        place = int(places[part][mine][0]) - rows[index].first
                        yield index, place, found[begun : begun + many]
                        begun += many

    def following(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Give the ``(vocabulary,)`` logits of the token behind some ids.

        Where the context still holds what stands before, only the rest is read; all of it where a
        token's sums are rounded otherwise beside others, see `alone`.

        Raises:
            ModelError: when llama.cpp fails.
        """
        size = self.limit()
        self._ensure(max(len(ids), size))
        held, self._held = self._held, []
        kept = len(held) if not self.alone and held == list(ids[: len(held)]) else 0
        if not 0 < kept < len(ids):
            self._clear()
            kept = 0
        rest, places = np.asarray(ids[kept:], np.int64), np.arange(kept, len(ids))
        wanted = np.zeros(len(rest), bool)
        wanted[-1] = True
        for at in range(0, len(rest), size):
            part = slice(at, at + size)
            self._decode(rest[part], places[part], np.zeros_like(rest[part]), wanted[part])
        self._held = list(ids)
        found: NDArray[np.float64] = _view(self._context, 1, self.vocabulary)[0].astype(np.float64)
        return found

    def _clear(self) -> None:
        """Forget what was read."""
        self._held = []
        api.llama_memory_clear(api.llama_get_memory(self._context), self.loaded.recurrent)

    def _decode(
        self,
        ids: NDArray[np.int64],
        places: NDArray[np.int64],
        texts: NDArray[np.int64],
        wanted: NDArray[np.bool_],
    ) -> None:
        """Read tokens, and compute the logits of those that are wanted."""
        token, place, text = (one.astype(np.int32) for one in (ids, places, texts))
        ones = np.ones(len(token), np.int32)
        pointers = text.ctypes.data + 4 * np.arange(len(token), dtype=np.uintp)
        marks = wanted.astype(np.int8)
        batch = api.llama_batch()
        batch.n_tokens = len(token)
        batch.token = _pointer(token, ctypes.c_int32)
        batch.pos = _pointer(place, ctypes.c_int32)
        batch.n_seq_id = _pointer(ones, ctypes.c_int32)
        batch.seq_id = _pointer(pointers, ctypes.POINTER(ctypes.c_int32))
        batch.logits = _pointer(marks, ctypes.c_int8)
        code = api.llama_decode(self._context, batch)
        if code:
            raise ModelError(
                f"llama.cpp cannot read a batch of {len(token)} tokens (code {code}): "
                f"{loading.said()}"
            )

    def _ensure(self, length: int) -> None:
        """Have a context for so many tokens.

        Raises:
            ModelError: when memory does not suffice.
        """
        size = self.limit()
        if self._context is not None and self._length >= length and self._made == size:
            return
        self.close()
        room = max(256, 1 << (length - 1).bit_length())
        if self.loaded.positions is not None:
            room = max(min(room, self.loaded.positions), length)
        self._check(room)
        options = api.llama_context_default_params()
        options.n_ctx = room
        options.n_batch = options.n_ubatch = size
        options.n_seq_max = 1 if self.alone else min(TEXTS, size)
        options.n_threads = options.n_threads_batch = self.threads
        options.type_k = options.type_v = getattr(api, CACHES[self.cache])
        options.flash_attn_type = (
            api.LLAMA_FLASH_ATTN_TYPE_ENABLED if self.flash else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        options.kv_unified = True
        options.swa_full = True
        options.embeddings = False
        context = api.llama_init_from_model(self.loaded.model, options)
        if not context:
            raise ModelError(
                f"llama.cpp cannot make room for {room} tokens ({loading.said()}); give a smaller "
                "--max-length, or --dtype float16."
            )
        self._free = weakref.finalize(self, api.llama_free, context)
        self._context, self._length, self._made = context, room, size
        if not api.llama_get_causal_attn(context):
            raise ModelError(f"{self.loaded.name} sees ahead: it is no causal language model.")

    def _check(self, room: int) -> None:
        """Refuse a cache larger than the machine's memory: it would be filled before it fails."""
        own = self.loaded.header.own
        model = self.loaded.model
        heads = int(api.llama_model_n_head(model)) or 1
        width = int(api.llama_model_n_embd(model)) // heads
        keys = own("attention.key_length")
        width = int(keys) if isinstance(keys, int) else width
        bytes_each = 4 if self.cache == "float32" else 2
        layers = int(api.llama_model_n_layer(model))
        need = 2 * room * layers * width * int(api.llama_model_n_head_kv(model)) * bytes_each
        there = _memory()
        if there is not None and need > there and not self.loaded.recurrent:
            raise ModelError(
                f"The cache for {room:,} tokens takes {need / 1e9:.1f} GB, more than this machine "
                "has; give a smaller --max-length, or --dtype float16."
            )

    def close(self) -> None:
        """Free the context."""
        if self._free is not None:
            self._free()
        self._context = self._free = None
        self._held = []


def _memory() -> int | None:
    """Bytes of the machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def plan(sizes: Sequence[int], budget: int, alone: bool = False) -> list[list[int]]:
    """Group windows, long ones first, so that a batch reads no more than a budget of tokens.

    A pure function of its arguments; a window above the budget has a batch of its own.

    Args:
        sizes: tokens of each window.
        budget: tokens in a batch.
        alone: whether each window has a batch of its own.
    """
    order = sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))
    batches: list[list[int]] = []
    filled = 0
    for index in order:
        fits = batches and not alone and filled + sizes[index] <= budget
        if fits and len(batches[-1]) < TEXTS:
            batches[-1].append(index)
            filled += sizes[index]
        else:
            batches.append([index])
            filled = sizes[index]
    return batches


def _wanted(row: Row) -> NDArray[np.bool_]:
    """Mark the inputs whose outputs predict targets."""
    out = np.zeros(len(row.inputs), bool)
    out[row.first : row.first + len(row.targets)] = True
    return out


def _pointer(values: NDArray[Any], kind: Any) -> Any:
    return values.ctypes.data_as(ctypes.POINTER(kind))


def _view(context: Any, rows: int, vocabulary: int) -> NDArray[np.float32]:
    """See llama.cpp's logits as an array, without a copy."""
    place = api.llama_get_logits(context)
    if not place:
        raise ModelError(f"llama.cpp gives no logits: {loading.said()}")
    return np.ctypeslib.as_array(place, (rows, vocabulary))
