"""A convention fitted to a loaded model, and to one that is loaded already another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fairway.backends.transformers import carry, encode
from fairway.backends.transformers.loading import Loaded
from fairway.errors import InputError, ProtocolError
from fairway.protocol import convention, resolve

if TYPE_CHECKING:
    from fairway.backends.transformers.scoring import TransformersScorer

S = TypeVar("S", bound="TransformersScorer")


def fit(
    loaded: Loaded,
    like: str = "fairway",
    prefix: str | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    special_tokens: str | None = None,
    chat: Sequence[str] | None = None,
    state: str | None = None,
) -> dict[str, Any]:
    """Fit a convention to a model; options as `fairway.backends.transformers.load` has them.

    Returns:
        What a scorer is made with besides the model.

    Raises:
        InputError: for a setting without sense.
        ProtocolError: when settings contradict each other or the model.
    """
    if special_tokens not in (None, "text", "parse"):
        raise InputError(f"{special_tokens!r} is neither text nor parse.")
    if state not in (None, "restarted", "carried"):
        raise InputError(f"{state!r} is neither restarted nor carried.")
    named = convention(like)
    facts = encode.facts(loaded.tokenizer, loaded.positions)
    plan = resolve(named, facts, prefix, max_length, stride)
    if state is not None and not carry.stateful(loaded.model):
        raise ProtocolError(
            f"{loaded.name} has no recurrent state, so it cannot be {state}; leave state away."
        )
    if state == "carried":
        asked = max_length is not None or stride is not None
        plan = carry.whole(plan, loaded.positions, asked)
    return {
        "plan": plan,
        "parse_special": (special_tokens or named.special) == "parse",
        "roles": tuple(chat) if chat else None,
        "carried": state == "carried",
    }


def under(
    scorer: S,
    *,
    like: str = "fairway",
    prefix: str | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    special_tokens: str | None = None,
    chat: Sequence[str] | None = None,
    state: str | None = None,
) -> S:
    """Give another scorer of the same loaded model, as if it were loaded with these settings.

    Args:
        scorer: of the model; it stays as it is.
        like: the convention's name; this and what follows as `fit` takes it.
        prefix: likewise.
        max_length: likewise.
        stride: likewise.
        special_tokens: likewise.
        chat: likewise.
        state: likewise.

    Raises:
        InputError: for a setting without sense.
        ProtocolError: when settings contradict each other or the model.
    """
    fitted = fit(scorer.loaded, like, prefix, max_length, stride, special_tokens, chat, state)
    made = type(scorer)(scorer.loaded, budget=scorer.budget, **fitted)
    # Both tokenize in one thread: they share the tokenizer, and tokenizers share no thread.
    made._thread = scorer._thread = scorer._tokenizing()
    made.settle()
    return made
