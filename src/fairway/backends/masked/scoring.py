"""The scorer of masked language models."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fairway import __version__
from fairway.backends.masked import forward, reading
from fairway.backends.masked.forward import Filled, Path
from fairway.backends.masked.reading import Plan, Sheet
from fairway.backends.transformers import forward as causal
from fairway.backends.transformers import head as heads
from fairway.backends.transformers import identity, memory, products
from fairway.backends.transformers.loading import Loaded
from fairway.backends.transformers.tree import padded
from fairway.corpus import Document, cut
from fairway.errors import ModelError
from fairway.scores import PSEUDO, Score
from fairway.signature import Signature

if TYPE_CHECKING:
    from fairway.tokenizers import Vocabulary

GROUP_BYTES = 16 << 10
"""Bytes of documents whose rows are planned together."""


@dataclass(slots=True)
class MaskedScorer:
    """Gives each token's log-probability with the token masked and all else read.

    Their sum is a pseudo-log-likelihood: it ranks texts and masked models, and is no probability
    of the text.

    Attributes:
        loaded: the model and its identity.
        plan: how texts become rows.
        budget: tokens in a batch, padding counted; 0 = as memory allows. Halved when memory does
            not suffice.
        path: how rows go through the model.
        notes: what the run must say.
    """

    loaded: Loaded
    plan: Plan
    budget: int = 0
    path: Path = field(default_factory=Path)
    notes: list[str] = field(default_factory=list)

    columns = ("entropy", "rank", "top")
    """What `score` can be asked for besides log-probabilities."""
    perplexity = PSEUDO
    """What exp(nll / tokens) is called."""

    @property
    def signature(self) -> Signature:
        """The scorer's part."""
        kept, plan = self.loaded, self.plan
        return Signature.of(
            {
                "kind": "masked",
                "model": kept.name,
                "revision": kept.revision,
                "weights": kept.weights,
                "adapter": kept.adapter,
                "dtype": kept.dtype,
                "quant": kept.quant,
                "tok": identity.tokenizer_hash(kept.tokenizer),
                "protocol": "fairway",
                "special": "parsed" if plan.parse_special else "text",
                "length": "all" if plan.length is None else plan.length,
                "stride": 1,
                "windows": "centred",
                "pll": plan.pll,
                "words": plan.words,
                "unit": "token",
                "agg": "ratio",
                "version": __version__,
            }
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's tokenizer, as `fairway.tokenizers` takes one."""
        from fairway.backends.transformers import tokenizing

        return tokenizing.describe(self.loaded.tokenizer, self.loaded.name)

    @property
    def engine(self) -> dict[str, Any]:
        """What only changes speed and rounding, for a run's record."""
        return {
            "budget": self.budget,
            "head": "own" if self.path.head is None else "masked tokens",
            "kernels": self.path.products.name,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def settle(self) -> None:
        """Refuse a causal model; choose the fast path or the model's own logits.

        Raises:
            ModelError: when no later token moves an earlier log-probability.
        """
        model = self.loaded.model
        if not self.budget:
            self.budget = memory.budget(model)
        if forward.sight(model) <= forward.BLIND:
            raise ModelError(
                f"{self.loaded.name} does not see what stands behind a token, so it is no masked "
                f"language model; if it is a causal one, put hf: before its name."
            )
        pad = self.loaded.tokenizer.pad_token_id
        if pad is None:
            pad = getattr(model.config, "pad_token_id", None) or 0
        fast = Path(heads.find(model), products.choose(model), int(pad))
        self.path = replace(fast, head=None)
        if fast.head is None:
            self.notes.append("the model has no head of the usual form: its own logits are used")
            return
        gap = forward.probe(model, fast, self.plan.mask)
        if gap <= causal.tolerance(model.dtype):
            self.path = fast
        else:
            self.notes.append(
                f"the fast path differs from the model's own logits by {gap:.2g} nats: "
                "the model's own forward is used"
            )

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        """Score documents in their order; see `fairway.scorer.Scorer`.

        A document's context is read and never masked.

        Args:
            documents: what to score.
            want: ``entropy``, ``rank``, ``top`` (the most likely token), ``top5`` (the five most
                likely, and ``top5_logprob``; any number will do).

        Raises:
            InputError: for a wanted column that there is none of.
        """
        heads.check(want)
        groups = cut(documents, GROUP_BYTES)
        return chain.from_iterable(
            self._group(reading.prepare(self.plan, group), want) for group in groups
        )

    def _group(self, sheets: Sequence[Sheet], want: Collection[str]) -> Iterator[Score]:
        names = [
            (which, row) for which, one in enumerate(sheets) for row in range(len(one.rows.at))
        ]
        lengths = np.concatenate([one.rows.end - one.rows.begin for one in sheets])
        values = [np.full(len(one.encoded.ids), np.nan) for one in sheets]
        extras: list[dict[str, Any]] = [{} for _ in sheets]
        call = partial(forward.run, self.loaded.model, self.path, want=want)
        for batch in padded((lengths + self.plan.around).tolist(), self.budget):
            chosen = [names[index] for index in batch]
            rows = [Filled(*reading.fill(self.plan, sheets[a], b)) for a, b in chosen]
            done = memory.run(rows, call, self._smaller, lambda row: len(row.inputs))
            for (which, row), columns in zip(chosen, done, strict=True):
                at = int(sheets[which].rows.at[row])
                values[which][at] = float(columns.pop("logprob"))
                put(extras[which], at, len(values[which]), columns)
        for index, sheet in enumerate(sheets):
            yield reading.finish(sheet, values[index], extras[index])

    def _smaller(self) -> None:
        self.budget = max(memory.LEAST, self.budget // 2)


def put(extras: dict[str, Any], at: int, size: int, columns: dict[str, torch.Tensor]) -> None:
    """Write a token's columns to its place among the document's."""
    for key, value in columns.items():
        if key not in extras:
            extras[key] = np.full((size, *value.shape), np.nan)
        extras[key][at] = value.numpy()
