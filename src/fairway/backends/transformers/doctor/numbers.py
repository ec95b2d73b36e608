"""Checks of the numbers that a model computes."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import torch

from fairway.backends.transformers import forward
from fairway.backends.transformers.doctor.case import (
    HALF,
    HALF_MEAN,
    Case,
    beyond,
    finite,
    gap,
    logprobs,
    padded,
    steps,
    together,
    unready,
)
from fairway.backends.transformers.doctor.spelling import conversation
from fairway.backends.transformers.loading import Loaded
from fairway.errors import FairwayError
from fairway.finding import Finding

GAP = 0.25
"""Nats per token that a BOS must give or cost to be a finding: perplexity off by 28%."""
ERRORS = 3.0
"""Standard errors, documents being the sampling unit, that it must be from 0."""
RELATIVE = 0.005
"""Relative difference in perplexity from float32 that is a defect."""


def fast_path(case: Case) -> Finding:
    """Say how log-probabilities are computed; either way they are the model's own."""
    return Finding("scoring path", "ok", case.path)


def finite_numbers(case: Case) -> Finding:
    """Are the log-probabilities of the sample finite?"""
    name = "finite numbers"
    if not case.rows:
        return Finding(name, "skipped", str(unready(case)))
    if case.alone is not None:
        tokens = sum(map(len, case.alone))
        return Finding(name, "ok", f"all {tokens:,} log-probabilities of the sample are finite")
    damaged = [
        key for key, value in case.model.named_parameters() if not bool(torch.isfinite(value).all())
    ]
    if not damaged and case.loaded.dtype in HALF:
        return Finding(name, "skipped", "see the check of the dtype")
    where = f"; {len(damaged)} weights hold such values, first {damaged[0]}" if damaged else ""
    return Finding(
        name, "defect", f"the sample gives log-probabilities that are NaN or infinite{where}",
        "Fetch or save the checkpoint again; if it is whole, the training diverged.",
    )  # fmt: skip


def bos_gap(case: Case) -> Finding:
    """Does text get much worse without a BOS that nobody adds, or with one that is added?"""
    name = "with and without BOS"
    if case.bos is None:
        return Finding(name, "skipped", "neither tokenizer nor configuration names a BOS")
    if not 0 <= case.bos < case.vocabulary:
        return Finding(name, "skipped", "the BOS is outside the vocabulary")
    reason = unready(case)
    if reason or case.alone is None:
        return Finding(name, "skipped", str(reason))
    after = finite(case.model, case.fast, [(case.bos, *row) for row in case.rows])
    if after is None:
        return Finding(
            name, "defect", "after a BOS the model gives no finite numbers, without it it does",
            "The embedding of the BOS is damaged: fetch the checkpoint again.",
        )  # fmt: skip
    # The first token has no number without BOS, so both sides leave it out.
    differences = [w[1:] - a for w, a in zip(after, case.alone, strict=True)]
    count = sum(map(len, differences))
    with_bos = -float(sum(w[1:].sum() for w in after)) / count
    without = -float(sum(a.sum() for a in case.alone)) / count
    gain = without - with_bos
    units = differences if len(differences) > 1 else [d[None] for d in differences[0]]
    spread = sum((float(d.sum()) - gain * len(d)) ** 2 for d in units)
    error = math.sqrt(len(units) / max(1, len(units) - 1) * spread) / count
    evidence = (
        f"{with_bos:.3f} nats per token after the BOS (id {case.bos}), {without:.3f} without it "
        f"(difference {gain:+.3f}, standard error {error:.3f}, {count:,} tokens)"
    )
    if abs(gain) <= GAP or abs(gain) <= ERRORS * error:
        return Finding(name, "ok", evidence)
    adds = case.bos in case.before
    if gain > 0 and not adds:
        return Finding(
            name, "defect", f"the tokenizer adds no BOS, and the model needs one: {evidence}",
            "Set add_bos_token to true in tokenizer_config.json, or put the BOS in front yourself; "
            "fairway does so by default where the tokenizer names one.",
        )  # fmt: skip
    rendered = conversation(case.tokenizer, "one", "two")
    if gain > 0 and isinstance(rendered, str) and not rendered.startswith(case.tokenizer.bos_token):
        return Finding(
            name, "defect",
            f"the chat template writes no BOS, and the model needs one: {evidence}",
            "Begin the chat template with {{ bos_token }}.",
        )  # fmt: skip
    if gain < 0 and adds:
        return Finding(
            name, "defect", f"the tokenizer adds a BOS that the model does not know: {evidence}",
            "Set add_bos_token to false in tokenizer_config.json, and use --prefix none.",
        )  # fmt: skip
    return Finding(name, "ok", evidence)


def padding_side(case: Case) -> Finding:
    """Does a tokenizer that pads on the left change what the model computes?"""
    name = "padding side"
    if case.tokenizer.padding_side != "left":
        return Finding(name, "ok", f"the tokenizer pads on the {case.tokenizer.padding_side}")
    reason = unready(case)
    pieces = steps(case)
    if reason or not pieces:
        return Finding(name, "skipped", reason or "the sample is too short")
    try:
        difference = gap(padded(case.model, pieces, _pad(case), True), _singly(case, pieces))
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as problem:
        return Finding(name, "skipped", f"the model takes no padded batch: {problem}")
    if not beyond(case, difference):
        return Finding(
            name, "ok", f"the tokenizer pads on the left, and that changes no number (largest "
            f"difference {difference[0]:.1g} nats)",
        )  # fmt: skip
    return Finding(
        name, "defect", "the tokenizer pads on the left, and with the attention mask alone that "
        f"shifts the model's positions: log-probabilities change by up to {difference[0]:.2f} nats",
        "Set padding_side to right for scoring, or pass position_ids made from the mask. fairway "
        "itself pads on the right.",
    )  # fmt: skip


def batch_invariance(case: Case) -> Finding:
    """Does a text get the same numbers alone and beside others?"""
    name = "batch invariance"
    reason = unready(case)
    pieces = steps(case)
    if reason or not pieces:
        return Finding(name, "skipped", reason or "the sample is too short")
    scorer = gap(
        together(case.model, case.fast, pieces),
        [logprobs(case.model, case.fast, piece) for piece in pieces],
    )
    try:
        own = gap(padded(case.model, pieces, _pad(case), False), _singly(case, pieces))
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as problem:
        own = 0.0, 0.0
        remark = f" (its own forward takes no padded batch: {problem})"
    else:
        remark = ""
    largest = max(scorer[0], own[0])
    if not beyond(case, scorer) and not beyond(case, own):
        return Finding(
            name, "ok",
            f"alone and in a batch differ by at most {largest:.1g} nats in a token{remark}",
        )  # fmt: skip
    safe = "" if beyond(case, scorer) else " fairway runs this model one text at a time."
    return Finding(
        name, "defect", f"a text's log-probabilities change by up to {largest:.3g} nats when "
        "longer and shorter texts stand in the same batch",
        "Something in the model looks across rows or at the padding (a mask that is not used, a "
        "statistic of the batch, experts with a capacity). Score in batches of one, "
        "--batch-tokens 1, until it is mended." + safe,
    )  # fmt: skip


def causality(case: Case) -> Finding:
    """Do numbers of earlier tokens stay as they are when later tokens change?"""
    name = "causality"
    reason = unready(case)
    pieces = steps(case)
    if reason or not pieces:
        return Finding(name, "skipped", reason or "the sample is too short")
    ids = pieces[0]
    cut = len(ids) * 2 // 3
    # Other tokens of the text itself: any id that differs will do, and these are known to be good.
    changed = (*ids[:cut], *reversed(ids[: len(ids) - cut]))
    if changed == ids:
        return Finding(name, "skipped", "the sample is one token over and over")
    before = logprobs(case.model, forward.Path(), ids)[: cut - 1]
    difference = gap([before], [logprobs(case.model, forward.Path(), changed)[: cut - 1]])
    if not beyond(case, difference):
        return Finding(
            name, "ok",
            f"changing later tokens changes earlier ones by at most {difference[0]:.1g} nats",
        )  # fmt: skip
    return Finding(
        name, "defect", "the model sees the future: changing the last third of a text changes the "
        f"log-probabilities before it by up to {difference[0]:.3g} nats, so that any perplexity is "
        "too good to be true",
        "Load it with its causal mask on (is_decoder=True in the configuration of an encoder). If "
        "it was trained as a masked model, it has no perplexity, only a pseudo-perplexity.",
    )  # fmt: skip


def dtype_error(case: Case) -> Finding:
    """How far are the numbers in half precision from those in float32?"""
    name = "dtype against float32"
    dtype = case.loaded.dtype
    if case.loaded.quant:
        return Finding(name, "skipped", f"the model is quantised ({case.loaded.quant})")
    if dtype not in HALF:
        return Finding(name, "skipped", f"the model runs in {dtype}; --dtype bfloat16 tests that")
    if not case.rows:
        return Finding(name, "skipped", str(unready(case)))
    try:
        exact = case.exact() if case.exact else _upcast(case.loaded)
        truth = finite(exact.model, forward.Path(), case.rows)
    except (FairwayError, MemoryError, RuntimeError) as problem:
        return Finding(name, "skipped", f"there is no float32 to compare with: {problem}")
    if truth is None:
        return Finding(name, "skipped", "float32 gives no finite numbers either")
    right = _perplexity(truth)
    mend = "Use --dtype float32" + (", or bfloat16." if dtype == "float16" else ".")
    if case.alone is None:
        return Finding(
            name, "defect",
            f"{dtype} overflows: log-probabilities are NaN or infinite, where float32 gives "
            f"perplexity {right:.4g}", mend,
        )  # fmt: skip
    here = _perplexity(case.alone)
    relative = here / right - 1
    largest, mean = gap(case.alone, truth)
    evidence = (
        f"perplexity {here:.6g} in {dtype}, {right:.6g} in float32 ({relative:+.3%}) on "
        f"{sum(map(len, truth)):,} tokens of the sample; single tokens differ by "
        f"{mean:.2g} nats on average, {largest:.2g} at most"
    )
    # Errors of both signs cancel in a corpus' mean, and not in the score of one text.
    if abs(relative) <= RELATIVE and mean <= HALF_MEAN:
        return Finding(name, "ok", evidence)
    return Finding(name, "defect", evidence, mend)


def _singly(case: Case, pieces: list[tuple[int, ...]]) -> list[np.ndarray]:
    return [logprobs(case.model, forward.Path(), piece) for piece in pieces]


def _pad(case: Case) -> int:
    for value in (case.tokenizer.pad_token_id, case.tokenizer.eos_token_id):
        if value is not None and 0 <= value < case.vocabulary:
            return int(value)
    return 0


def _perplexity(rows: tuple[np.ndarray, ...]) -> float:
    return math.exp(min(700.0, -float(np.concatenate(rows).mean())))


def _upcast(loaded: Loaded) -> Loaded:
    return replace(loaded, model=copy.deepcopy(loaded.model).float(), dtype="float32")
