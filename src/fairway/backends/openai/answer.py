"""What a server said of a prompt's tokens, in one form for all of them; nothing is mended yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt as it was sent.

    Attributes:
        text: the prompt; None where ids were sent alone.
        ids: token ids, where they were sent or are known from the server's tokenizer.
        route: by which it was sent.
        hidden: special tokens that the server counts and leaves out of its answers; None = not
            known.
    """

    text: str | None
    ids: tuple[int, ...] | None = None
    route: str = ""
    hidden: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One token of the prompt.

    Attributes:
        token: its spelling as the server writes it.
        raw: its bytes, where the server tells them.
        id: in the vocabulary, where it is told.
        start: its first character in the prompt, where it is told.
        logprob: natural logarithm as it was sent; None = null.
        given: False where the key of the logprob was absent.
        rank: among all tokens, counted from 1, where it is told.
        top: alternatives and their logprobs, by spelling or id, as sent.
    """

    token: str | None = None
    raw: bytes | None = None
    id: int | None = None
    start: int | None = None
    logprob: float | None = None
    given: bool = True
    rank: int | None = None
    top: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer for one prompt.

    Attributes:
        entries: of the prompt's tokens, in order; what was generated is cut off.
        generated: entries that were cut off.
        rest: those entries, where they are kept.
        prompt_tokens: as the server counted them, where it did.
        echoed: the prompt's text as the server gave it back, where it did.
        odd: numbers that JSON has not (NaN, Infinity), found where logprobs stand.
    """

    entries: tuple[Entry, ...]
    generated: int = 0
    prompt_tokens: int | None = None
    echoed: str | None = None
    odd: tuple[str, ...] = ()
    rest: tuple[Entry, ...] = ()
