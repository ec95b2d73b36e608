"""What a causal model writes: its logits behind ever more tokens, its state kept between them.

Behind the positions that a model has, its window slides: the last of its tokens are read again for
each further one, since keys and values of other places cannot stand for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fairway.backends.transformers import chat, encode, forward, memory
from fairway.backends.transformers.carry import Carry
from fairway.backends.transformers.loading import Loaded
from fairway.errors import InputError, ModelError


@dataclass(slots=True)
class Pen:
    """Reads tokens one behind the other.

    Attributes:
        loaded: a causal language model.
        carry: how its state is handed on; without a name all is read again each time.
    """

    loaded: Loaded
    carry: Carry
    _state: Any = field(default=None, repr=False)
    _read: int = 0

    def logits(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Give the ``(vocabulary,)`` logits of the token behind ids, those of before among them.

        Raises:
            ModelError: where memory does not suffice.
        """
        try:
            with self.loaded.lock:
                return self._logits(ids)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as problem:
            if not memory.lacking(problem):
                raise
            self._state = None
            memory.release()
            raise ModelError(
                f"A text of {len(ids)} tokens does not fit into memory; write behind a shorter one."
            ) from None

    def _logits(self, ids: Sequence[int]) -> NDArray[np.float64]:
        model, positions = self.loaded.model, self.loaded.positions
        full = positions is not None and len(ids) > positions
        if positions is not None and full:
            self._state, self._read = None, 0
            ids = ids[-positions:]
        keep = self.carry.name is not None and not full
        begin = self._read if self._state is not None else 0
        device = model.get_input_embeddings().weight.device
        piece = torch.tensor([ids[begin:]], device=device)
        options: dict[str, Any] = {"use_cache": keep}
        if keep:
            options |= self.carry.options(self._state, begin, piece.shape[1], piece)
        if last_alone(model):
            options["logits_to_keep"] = 1
        with forward.gradless(model):
            out = model(input_ids=piece, **options)
            row = out.logits[0, -1].cpu().double().numpy()
        if keep:
            self._state, self._read = getattr(out, str(self.carry.name)), len(ids)
        return np.asarray(row, np.float64)


def last_alone(model: Any) -> bool:
    """Whether a model can be asked for the logits of the last token alone."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Find the tokens that end a text, those of chat models' turns too."""
    found: list[Any] = [tokenizer.eos_token_id]
    for config in (getattr(model, "generation_config", None), model.config.get_text_config()):
        named = getattr(config, "eos_token_id", None)
        found += named if isinstance(named, list | tuple) else [named]
    return frozenset(int(one) for one in found if one is not None)


def prompt(tokenizer: Any, messages: Sequence[Any]) -> list[int]:
    """Write messages out as the template does, up to where the assistant's answer begins.

    Raises:
        InputError: when there is no template, it refuses the messages, or a content spells one of
            the tokenizer's special tokens.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "This model's tokenizer has no chat template, so messages cannot be put to it; send "
            "plain text to /v1/completions."
        )
    chat.refuse_special(tokenizer, messages)
    text = chat.write_out(tokenizer, messages, answer=True)
    return [int(one) for one in encode.encode(tokenizer, text, parse_special=True).ids]
