"""Masked language models of Hugging Face transformers: ``masked:NAME``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairway.backends.transformers import obtain
from fairway.errors import InputError

if TYPE_CHECKING:
    from fairway.backends.masked.scoring import MaskedScorer

PLLS = ("within-word-l2r", "original")
"""Pseudo-log-likelihoods: Kauf and Ivanova's (2023), Salazar et al.'s (2020)."""
WORDS = ("tokenizer", "whitespace")
"""Whose words are masked from left to right."""


def load(
    name: str | Any,
    *,
    tokenizer: Any = None,
    pll: str = PLLS[0],
    words: str | None = None,
    revision: str | None = None,
    adapter: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: Any = None,
    trust_remote_code: bool = False,
    max_length: int | None = None,
    stride: int | None = None,
    special_tokens: str | None = None,
    batch_tokens: int | None = None,
    threads: int | None = None,
) -> MaskedScorer:
    """Load a masked language model.

    Args:
        name: hub id (``ID@REVISION`` works), local folder, or a model object.
        tokenizer: its tokenizer, with a model object.
        pll: ``within-word-l2r`` masks a token and what follows it in its word (Kauf and Ivanova
            2023, arXiv 2305.10588), ``original`` the token alone (Salazar et al. 2020, 1910.14659).
        words: ``tokenizer``: what its pre-tokenizer splits; ``whitespace``: what stands between
            white space; None = the tokenizer's, where it tells them.
        revision: commit, branch or tag on the hub.
        adapter: folder of a PEFT adapter, merged into the weights.
        dtype: auto (float32 on a CPU, the checkpoint's elsewhere), float32, bfloat16, float16.
        device: auto, cpu, cuda or mps.
        device_map: as transformers takes it, for a model larger than one device.
        trust_remote_code: run code that the checkpoint brings.
        max_length: tokens in a window, special ones counted; None = the model's positions, at
            most 512; 0 = all its positions.
        stride: 1 or None: every token has a window of its own.
        special_tokens: ``text`` (data is data) or ``parse``: read, and not scored.
        batch_tokens: tokens in a batch, padding counted; None = as memory allows.
        threads: of the processor; None = as torch chooses.

    Raises:
        MissingExtra: when torch or transformers are not installed.
        InputError: for a setting without sense.
        ModelError: when the model cannot be loaded, or is no masked one.
        ProtocolError: when settings contradict each other or the model.
    """
    if pll not in PLLS:
        raise InputError(f"{pll!r} is no pseudo-log-likelihood; pll takes {' or '.join(PLLS)}.")
    if words not in (None, *WORDS):
        raise InputError(f"words takes {' or '.join(WORDS)}, and not {words!r}.")
    if words is not None and pll != PLLS[0]:
        raise InputError(f"words goes with pll={PLLS[0]}; the original one knows no words.")
    if special_tokens not in (None, "text", "parse"):
        raise InputError(f"{special_tokens!r} is neither text nor parse.")
    loaded = obtain(
        name, "masked", tokenizer=tokenizer, revision=revision, adapter=adapter, dtype=dtype,
        device=device, device_map=device_map, trust_remote_code=trust_remote_code, threads=threads,
    )  # fmt: skip
    from fairway.backends.masked import reading, scoring

    plan = reading.plan(loaded, pll, words, max_length, stride, special_tokens == "parse")
    scorer = scoring.MaskedScorer(loaded, plan, batch_tokens or 0)
    scorer.settle()
    return scorer
