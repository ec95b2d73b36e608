"""Which tokens are read and which are scored: integers only.

A window reads ``[begin, end)`` of a text's tokens, behind a prefix where it has one, and scores
``[score_from, end)``. The model's input leaves the window's last token out: it is only predicted.
"""

from __future__ import annotations

from typing import NamedTuple

from fairway.errors import InputError, ProtocolError


class Window(NamedTuple):
    """One forward pass over one text.

    Attributes:
        begin: first token read.
        end: one past the last token predicted.
        score_from: first token scored; at ``begin`` only behind a prefix.
        prefix: whether the prefix tokens stand in front.
    """

    begin: int
    end: int
    score_from: int
    prefix: bool


def check(max_length: int, stride: int, prefix: int) -> None:
    """Refuse lengths that cannot give windows.

    Raises:
        ProtocolError: when stride is below 1 or above max_length, or max_length leaves no room
            for one token that is read and one that is predicted.
    """
    if max_length < 2 or max_length <= prefix:
        raise ProtocolError(
            f"max_length {max_length} leaves no room for a token to predict; use at least "
            f"{max(2, prefix + 1)}."
        )
    if not 1 <= stride <= max_length:
        raise ProtocolError(
            f"stride {stride} must lie between 1 and max_length ({max_length}); "
            f"half of max_length is the default."
        )


def rolling(tokens: int, max_length: int, stride: int, prefix: int = 0) -> list[Window]:
    """Cut a text into overlapping windows that score each token once.

    Every window after the first gives its first scored token at least ``max_length - stride``
    tokens of context, the prefix included. Without a prefix the text's first token has no
    context and is not scored; at ``stride == max_length`` the same holds in each window.

    Args:
        tokens: tokens in the text, the prefix not counted.
        max_length: tokens a window may hold, the prefix counted.
        stride: tokens by which windows advance.
        prefix: tokens put in front of every window.

    Raises:
        ProtocolError: as `check`.
    """
    check(max_length, stride, prefix)
    room = max_length - prefix
    step = min(stride, room)
    windows: list[Window] = []
    done = 0
    begin = 0
    while done < tokens:
        end = min(begin + room, tokens)
        score_from = done if prefix or done > begin else done + 1
        if score_from < end:
            windows.append(Window(begin, end, score_from, prefix > 0))
        done = end
        begin += step
    return windows


def single(tokens: int, prefix: int = 0) -> list[Window]:
    """Read a text in one piece, however long it is."""
    first = 0 if prefix else 1
    return [Window(0, tokens, first, prefix > 0)] if tokens > first else []


def harness(tokens: int, max_length: int) -> list[Window]:
    """Cut as lm-evaluation-harness does: disjoint predictions, the prefix only at the start.

    The first window predicts max_length tokens from the prefix and all but the last of them;
    every further one reads one token before those it predicts, and the last one is filled up
    with earlier tokens as context. The model's input is at most max_length tokens.

    Source: ``get_rolling_token_windows`` with ``context_len=1``, lm-eval 0.4.13.

    Args:
        tokens: tokens in the text, the prefix not counted.
        max_length: tokens in the model's input, one prefix token counted.
    """
    check(max_length, max_length, 1)
    if tokens == 0:
        return []
    windows = [Window(0, min(tokens, max_length), 0, True)]
    done = windows[0].end
    while done < tokens:
        end = min(done + max_length, tokens)
        windows.append(Window(max(0, end - max_length - 1), end, done, False))
        done = end
    return windows


def second_halves(tokens: int, length: int, replaced: bool) -> list[Window]:
    """Cut as llama.cpp's perplexity does: disjoint chunks, only their second half is scored.

    Source: ``tools/perplexity/perplexity.cpp``; the tail shorter than a chunk is dropped.

    Args:
        tokens: tokens in the text, with those that the tokenizer puts first.
        length: tokens in a chunk (``n_ctx``).
        replaced: whether the prefix stands in for the first token of every chunk.
    """
    check(length, length, 0)
    first = 1 if replaced else 0
    return [
        Window(begin + first, begin + length, begin + length // 2 + 1, replaced)
        for begin in range(0, tokens - length + 1, length)
    ]


def rows(tokens: int, length: int, prefix: int = 0) -> list[Window]:
    """Cut as the GPTQ papers do: disjoint rows, the first token of each is only read.

    Args:
        tokens: tokens in the text, with those that the tokenizer puts first.
        length: tokens in a row, the prefix counted; the tail shorter than a row is dropped.
        prefix: tokens put in front of every row; behind them the first token is scored too.
    """
    check(length, length, prefix)
    room = length - prefix
    first = 0 if prefix else 1
    return [
        Window(begin, begin + room, begin + first, prefix > 0)
        for begin in range(0, tokens - room + 1, room)
    ]


def pair(tokens: int, context: int, max_length: int) -> Window:
    """Cut a context and what continues it as lm-evaluation-harness does: one window, cut off left.

    Source: ``_loglikelihood_tokens``, lm-eval 0.4.13: the last ``max_length + 1`` tokens are kept.

    Args:
        tokens: tokens of both, with those put in front.
        context: how many of them are only read.
        max_length: tokens in the model's input.

    Raises:
        InputError: when the first scored token would have nothing before it, when there is
            none, or when the scored tokens alone exceed max_length.
    """
    if not 0 < context < tokens:
        why = "the continuation adds no token" if context else "no token stands before it"
        raise InputError(f"lm-eval cannot score this: {why}.")
    if tokens - context > max_length:
        raise InputError(
            f"lm-eval does not cut continuations, and one of {tokens - context} tokens exceeds "
            f"the {max_length} positions there are; use --like fairway."
        )
    return Window(max(0, tokens - max_length - 1), tokens, context, False)
