"""What a model of llama.cpp writes, and how messages are put to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import llama_cpp as api

from fairway.backends.gguf.decoding import Decoder
from fairway.backends.gguf.loading import Loaded
from fairway.backends.gguf.tokens import Tokenizer
from fairway.errors import InputError

TEMPLATE = "tokenizer.chat_template"
"""Key of a file's chat template."""


def reading(decoder: Decoder, positions: int | None) -> Callable[[Sequence[int]], Any]:
    """Give what computes the logits of the token behind ids, of those at most that it can read."""
    return lambda ids: decoder.following(ids if positions is None else ids[-positions:])


def ends(tokenizer: Tokenizer) -> frozenset[int]:
    """Find the tokens that end a text or a turn."""
    found = (t for t in range(len(tokenizer)) if api.llama_vocab_is_eog(tokenizer.pointer, t))
    return frozenset(found)


def prompt(
    loaded: Loaded, tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]
) -> list[int]:
    """Write messages out as the file's template does, up to where the answer begins.

    Raises:
        InputError: when there is no template, it refuses the messages, or a content spells one of
            the tokenizer's special tokens.
    """
    template = loaded.header.fields.get(TEMPLATE)
    if not isinstance(template, str) or not template:
        raise InputError(
            f"{loaded.name} holds no chat template, so messages cannot be put to it; send plain "
            "text to /v1/completions."
        )
    for message in messages:
        content = message["content"].encode("utf-8", "replace")
        if tokenizer.tokens(content, True).tolist() != tokenizer.tokens(content, False).tolist():
            raise InputError(
                "a message holds the text of a special token, which the template would turn into "
                "that token"
            )
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    bos, eos = api.llama_vocab_bos(tokenizer.pointer), api.llama_vocab_eos(tokenizer.pointer)
    words = [tokenizer.piece(t).decode("utf-8", "replace") if t >= 0 else "" for t in (bos, eos)]
    try:
        made = Jinja2ChatFormatter(template, eos_token=words[1], bos_token=words[0])(
            messages=[dict(one) for one in messages]
        )
    except Exception as problem:  # templates raise whatever their author wrote
        raise InputError(f"the chat template refuses the messages: {problem}") from None
    return [int(one) for one in tokenizer.encode_text(made.prompt, True).ids]
