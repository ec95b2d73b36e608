"""What the checks look at: a model, its tokenizer, a sample of text, and their first numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fairway.backends.transformers import encode, forward, products
from fairway.backends.transformers import head as heads
from fairway.backends.transformers.loading import Loaded
from fairway.errors import ModelError

CHARACTERS = 20_000
"""Characters of each document that the tokenizer's checks read."""
LENGTH, PIECES = 256, 16
"""Tokens of a piece that the model's checks read, a BOS included, and how many pieces."""
TABLES = ("wpe", "embed_positions", "position_embedding", "position_embeddings", "pos_emb")
"""Names under which architectures keep learned positions."""
HALF = ("bfloat16", "float16")
FLOAT_MAX, HALF_MEAN = 1e-3, 0.1
"""Nats by which two computations of the same thing may differ: float32's largest difference,
and the mean of absolute differences in half precision, where single tokens may be far off."""

Logprobs = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Case:
    """One model under examination.

    Attributes:
        loaded: the model and its tokenizer.
        fast: how windows go through the model.
        path: which way that is, and why, in words.
        texts: the sample, each text cut to `CHARACTERS`.
        ids: token ids of each text, without special tokens.
        rows: pieces of those, at most `LENGTH` - 1 tokens each, that the model can read.
        alone: ``(tokens - 1,)`` log-probabilities (nats) of each row, without BOS; None where the
            model computes something that is no finite number.
        vocabulary: ids that the embedding and the head both have.
        bos: id of the BOS that tokenizer or configuration name, None where there is none.
        before: ids that the tokenizer puts before a text by itself.
        after: ids that it puts after one.
        table: positions in the model's learned table; None where it has none.
        exact: loads the same model in float32.
    """

    loaded: Loaded
    fast: forward.Path
    path: str
    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    rows: tuple[tuple[int, ...], ...]
    alone: tuple[Logprobs, ...] | None
    vocabulary: int
    bos: int | None
    before: tuple[int, ...]
    after: tuple[int, ...]
    table: int | None = None
    exact: Callable[[], Loaded] | None = None

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.loaded.tokenizer

    @property
    def model(self) -> Any:
        """The model."""
        return self.loaded.model


def prepare(
    loaded: Loaded, texts: Sequence[str], exact: Callable[[], Loaded] | None = None
) -> Case:
    """Tokenize the sample, choose the path, and compute the first numbers."""
    tokenizer, model = loaded.tokenizer, loaded.model
    fast, path = _path(model)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    if fast.head is not None:
        vocabulary = min(vocabulary, fast.head.vocabulary)
    sample = tuple(text[:CHARACTERS] for text in texts)
    ids = tuple(tuple(tokens(tokenizer, text)) for text in sample)
    table = learned(model)
    length = min(LENGTH, loaded.positions or LENGTH, table or LENGTH) - 1
    rows = tuple(
        piece for piece in _pieces(ids, length) if len(piece) > 1 and max(piece) < vocabulary
    )
    before, after = added(tokenizer)
    bos = tokenizer.bos_token_id
    if bos is None:
        bos = model.config.get_text_config().bos_token_id
    return Case(
        loaded, fast, path, sample, ids, rows, finite(model, fast, rows), vocabulary, bos, before,
        after, table, exact,
    )  # fmt: skip


def _pieces(ids: Sequence[tuple[int, ...]], length: int) -> Iterator[tuple[int, ...]]:
    """Cut about `PIECES` pieces, as evenly from all texts as their lengths allow."""
    share = -(-PIECES // max(1, len(ids)))
    for one in ids:
        for start in range(0, min(len(one), share * length), length):
            yield one[start : start + length]


def learned(model: Any) -> int | None:
    """Give the positions in the model's learned table, None where it has none."""
    for path, module in model.named_modules():
        if path.rpartition(".")[2] in TABLES and hasattr(module, "num_embeddings"):
            rows = int(module.num_embeddings)
            if module.padding_idx is not None:
                return rows - int(module.padding_idx) - 1
            return rows - int(getattr(module, "offset", 0))
    return None


def _path(model: Any) -> tuple[forward.Path, str]:
    own = forward.Path()
    head = heads.find(model)
    if head is None:
        return own, "the model's own forward is used: its head is not of the usual form"
    fast = forward.Path(head, products=products.choose(model))
    try:
        gap = forward.probe(model, fast)
    except ModelError:
        return own, "the model's own forward is used: it gives no finite numbers to compare with"
    if gap <= forward.tolerance(model.dtype):
        return fast, f"the fast path agrees with the model's own logits to {gap:.1g} nats"
    return own, f"the model's own forward is used: the fast path is off by {gap:.2g} nats"


def tokens(tokenizer: Any, text: str, special: bool = False) -> list[int]:
    """Tokenize a text; with ``special``, as a plain call of the tokenizer does it."""
    if special:
        return list(tokenizer(text, verbose=False)["input_ids"])
    out = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
    return list(out["input_ids"])


def added(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Find the ids that a plain call puts before and after a text."""
    whole, bare = tokens(tokenizer, "a", special=True), tokens(tokenizer, "a")
    for size in range(len(whole) - len(bare) + 1):
        if whole[size : size + len(bare)] == bare:
            return tuple(whole[:size]), tuple(whole[size + len(bare) :])
    return encode.facts(tokenizer, None).adds, ()


def logprobs(model: Any, fast: forward.Path, ids: Sequence[int]) -> Logprobs:
    """Score ``ids[1:]`` as a batch of one.

    Raises:
        ModelError: when the model gives NaN.
    """
    return together(model, fast, [ids])[0]


def together(model: Any, fast: forward.Path, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
    """Score sequences as one batch of the scorer.

    Raises:
        ModelError: when the model gives NaN.
    """
    rows = [forward.row(ids[:-1], ids[1:], 0, index) for index, ids in enumerate(sequences)]
    return [out["logprob"].numpy() for out in forward.run(model, fast, rows, ())]


def padded(model: Any, sequences: Sequence[Sequence[int]], pad: int, left: bool) -> list[Logprobs]:
    """Score sequences as one padded batch of the model's own forward, with an attention mask."""
    inputs = [list(sequence[:-1]) for sequence in sequences]
    longest = max(map(len, inputs))
    ids = torch.full((len(inputs), longest), pad)
    mask = torch.zeros_like(ids)
    spans = [slice(longest - len(i), longest) if left else slice(0, len(i)) for i in inputs]
    for index, (given, span) in enumerate(zip(inputs, spans, strict=True)):
        ids[index, span] = torch.tensor(given)
        mask[index, span] = 1
    device = model.get_input_embeddings().weight.device
    with forward.gradless(model):
        out = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
        values = torch.log_softmax(out.logits.float().cpu(), -1)
    scored: list[Logprobs] = []
    for index, (sequence, span) in enumerate(zip(sequences, spans, strict=True)):
        targets = torch.tensor(list(sequence[1:]))[:, None]
        scored.append(values[index, span].gather(1, targets)[:, 0].double().numpy())
    return scored


def finite(
    model: Any, fast: forward.Path, rows: Sequence[Sequence[int]]
) -> tuple[Logprobs, ...] | None:
    """Score each row by itself; None when a value is not finite."""
    try:
        out = tuple(logprobs(model, fast, row) for row in rows)
    except ModelError:
        return None
    return out if all(np.isfinite(one).all() for one in out) else None


def steps(case: Case) -> list[tuple[int, ...]]:
    """Give a long, a middling and a short piece of the sample's longest row; [] where too short."""
    longest = max(case.rows, key=len, default=())[:48]
    if len(longest) < 6:
        return []
    return [longest, longest[: len(longest) * 2 // 3], longest[-(len(longest) // 3) :]]


def gap(one: Sequence[Logprobs], other: Sequence[Logprobs]) -> tuple[float, float]:
    """Give the largest and the mean absolute difference, nats."""
    difference = np.abs(np.concatenate(list(one)) - np.concatenate(list(other)))
    return float(difference.max()), float(difference.mean())


def beyond(case: Case, difference: tuple[float, float]) -> bool:
    """Whether a difference, as `gap` gives it, is more than rounding."""
    largest, mean = difference
    if case.loaded.dtype in HALF or case.loaded.quant:
        return not mean <= HALF_MEAN
    return not largest <= FLOAT_MAX


def unready(case: Case) -> str | None:
    """Say why the model's checks cannot be run; None where they can."""
    if not case.rows:
        return "no text of the sample has two tokens that the model knows"
    if case.alone is None:
        return f"the model gives no finite numbers in {case.loaded.dtype}"
    return None
