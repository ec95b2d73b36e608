"""The same target text under several prompts: what stands before it is read, it alone is scored."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fairway.corpus import Document
from fairway.errors import InputError

TARGET = "{text}"
CHAT = "chat:"
"""How a template begins that goes through the model's chat template."""
_FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt with a place for the target.

    Attributes:
        source: as it was given.
        before: what stands before the target, with ``{field}`` for a row's other fields.
        messages: of a chat, contents likewise; None = plain text.
    """

    source: str
    before: str = ""
    messages: tuple[tuple[str, str], ...] | None = None

    @property
    def name(self) -> str:
        """The template on one line, cut short."""
        line = " ".join(self.source.split())
        return f"“{line if len(line) <= 40 else line[:39] + '…'}”"

    def fill(self, document: Document) -> Document:
        """Put a document's text and fields in.

        Raises:
            InputError: when the document lacks a field, or has a context of its own.
        """
        if document.context or document.ids is not None:
            raise InputError(
                f"{document.id} has a context or token ids of its own; a template takes plain text."
            )
        fields = {**document.metadata, "text": document.text}
        if self.messages is None:
            return replace(document, context=_filled(self.before, fields, document.id))
        messages = [
            {"role": role, "content": _filled(content, fields, document.id)}
            for role, content in self.messages
        ]
        return replace(document, metadata={**document.metadata, "messages": messages})


def read(source: str) -> Template:
    """Read a template.

    Args:
        source: text with ``{text}`` where the target goes; with ``chat:`` in front the rest is the
            user's message and the target the assistant's answer, or a JSON list of messages, the
            last of them ``{text}`` alone.

    Raises:
        InputError: when there is no place for the target, or text behind it.
    """
    if source.startswith(CHAT):
        return _chat(source)
    before, found, after = source.partition(TARGET)
    if not found or after.strip():
        raise InputError(
            f"The template {source!r} must end with {TARGET}: what is scored is the target, and a "
            "causal model does not see what stands behind it."
        )
    return Template(source, before)


def _chat(source: str) -> Template:
    rest = source.removeprefix(CHAT).strip()
    if not rest.startswith("["):
        user = rest.removesuffix(TARGET).rstrip()
        if TARGET in user:
            raise InputError(
                f"In a chat template {TARGET} is the assistant's answer; leave it out."
            )
        return Template(source, messages=(("user", user), ("assistant", TARGET)))
    try:
        rows = json.loads(rest)
        messages = tuple((str(row["role"]), str(row["content"])) for row in rows)
    except (ValueError, TypeError, KeyError):
        raise InputError(
            f"The chat template {source!r} is no JSON list of messages with role and content."
        ) from None
    if not messages or messages[-1] != ("assistant", TARGET):
        raise InputError(
            f'A chat\'s last message must be {{"role": "assistant", "content": "{TARGET}"}}.'
        )
    return Template(source, messages=messages)


def _filled(template: str, fields: Mapping[str, Any], name: str) -> str:
    def one(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group()[0]
        if match.group(1) not in fields:
            raise InputError(
                f"{name} has no field {match.group(1)!r} for the template; its fields are "
                f"{', '.join(sorted(fields))}."
            )
        return str(fields[match.group(1)])

    return _FIELD.sub(one, template)
