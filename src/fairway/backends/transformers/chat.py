"""Role-marked messages through the model's template: which characters are whose."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fairway.corpus import Document
from fairway.errors import InputError, ModelError


def render(tokenizer: Any, document: Document, roles: Collection[str]) -> Document:
    """Write a document's messages out as the template does, and score only some roles' words.

    The places of the contents are found by rendering once with marks in their stead, so a word
    that the template also uses cannot be mistaken for content.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        document: one whose metadata holds ``messages``.
        roles: the roles whose contents are scored.

    Raises:
        ModelError: when there is no template, or it changes the contents.
        InputError: when a content spells one of the tokenizer's special tokens.
    """
    messages: Sequence[Mapping[str, str]] = document.metadata["messages"]
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            "--chat was asked for, and this tokenizer has no chat template; score plain text, or "
            "use a chat model."
        )
    refuse_special(tokenizer, messages)
    text = write_out(tokenizer, messages)
    marks = [f"\x02{index}\x03" for index in range(len(messages))]
    marked = write_out(
        tokenizer,
        [{**m, "content": mark} for m, mark in zip(messages, marks, strict=True)],
    )
    for contents in ([m["content"] for m in messages], [m["content"].strip() for m in messages]):
        spans, built, rest = [], "", marked
        for mark, content, message in zip(marks, contents, messages, strict=True):
            before, found, rest = rest.partition(mark)
            if not found:
                break
            built += before
            if message["role"] in roles:
                spans.append((len(built), len(built) + len(content)))
            built += content
        else:
            if built + rest == text:
                return replace(document, text=text, scored=tuple(spans))
    raise ModelError(
        "The chat template changes the messages' contents, so that they cannot be found in its "
        "output; score plain text instead."
    )


def refuse_special(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> None:
    """Refuse contents that would become more than text.

    Raises:
        InputError: for one.
    """
    for message in messages:
        for special in tokenizer.all_special_tokens:
            if special in message["content"]:
                raise InputError(
                    f"a message holds the text of the special token {special!r}, which the "
                    "template would turn into that token"
                )


def write_out(tokenizer: Any, messages: Sequence[Mapping[str, str]], answer: bool = False) -> str:
    """Put messages through the template.

    Args:
        tokenizer: one with a template.
        messages: role and content.
        answer: write also what stands before an assistant's answer.

    Raises:
        InputError: when the template refuses them.
    """
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=answer
            )
        )
    except Exception as problem:  # templates raise whatever their author wrote
        raise InputError(f"the chat template refuses the messages: {problem}") from None
