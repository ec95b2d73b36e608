"""The scorer of encoder-decoder models."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fairway import __version__
from fairway.backends.seq2seq import forward, reading
from fairway.backends.seq2seq.forward import Path, Row
from fairway.backends.seq2seq.reading import Pair, Plan
from fairway.backends.transformers import forward as causal
from fairway.backends.transformers import head as heads
from fairway.backends.transformers import identity, memory, products
from fairway.backends.transformers.loading import Loaded
from fairway.backends.transformers.tree import padded
from fairway.corpus import Document, cut
from fairway.scores import CONDITIONAL, Score
from fairway.signature import Signature

if TYPE_CHECKING:
    from fairway.tokenizers import Vocabulary

GROUP_BYTES = 64 << 10
"""Bytes of documents that are planned together, their sources' states held meanwhile."""


@dataclass(slots=True)
class Seq2SeqScorer:
    """Gives the log-probability of a target given its source, under teacher forcing.

    A document's context is the source, its text the target.

    Attributes:
        loaded: the model and its identity.
        plan: how texts become sources and targets.
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
    perplexity = CONDITIONAL
    """What exp(nll / tokens) is called."""

    @property
    def signature(self) -> Signature:
        """The scorer's part."""
        kept, plan = self.loaded, self.plan
        return Signature.of(
            {
                "kind": "seq2seq",
                "model": kept.name,
                "revision": kept.revision,
                "weights": kept.weights,
                "adapter": kept.adapter,
                "dtype": kept.dtype,
                "quant": kept.quant,
                "tok": identity.tokenizer_hash(kept.tokenizer),
                "protocol": "fairway",
                "special": "parsed" if plan.parse_special else "text",
                "eos": plan.eos is not None,
                "context": reading.NAMES[plan.source],
                "start": plan.start,
                "src_lang": getattr(plan.tokenizer, "src_lang", None),
                "tgt_lang": getattr(plan.tokenizer, "tgt_lang", None),
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
            "head": "own" if self.path.head is None else "scored tokens",
            "kernels": self.path.products.name,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def settle(self) -> None:
        """Choose the fast path or the model's own logits."""
        model = self.loaded.model
        if not self.budget:
            self.budget = memory.budget(model)
        if self.plan.source == "empty":
            self.notes.append(
                "the source is empty: a model of targets given sources, such as T5, defines no "
                "probability of a text by itself, and these numbers say only what it makes of "
                "nothing"
            )
        fast = Path(forward.find(model), products.choose(model))
        if fast.head is None:
            self.notes.append("the model has no head of the usual form: its own logits are used")
            return
        gap = forward.probe(model, fast)
        if gap <= causal.tolerance(model.dtype):
            self.path = fast
        else:
            self.notes.append(
                f"the fast path differs from the model's own logits by {gap:.2g} nats: "
                "the model's own forward is used"
            )

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        """Score documents in their order; see `fairway.scorer.Scorer`.

        Args:
            documents: targets, their contexts being the sources.
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

    def _group(self, pairs: Sequence[Pair], want: Collection[str]) -> Iterator[Score]:
        states = self._encode([pair.source for pair in pairs])
        rows = [
            Row(one.source, one.inputs, one.targets, one.first, states.get(one.source.tobytes()))
            for one in pairs
        ]
        done: list[dict[str, torch.Tensor]] = [{} for _ in pairs]
        call = partial(forward.run, self.loaded.model, self.path, want=want)
        scored = [index for index, pair in enumerate(pairs) if pair.size]
        lengths = [len(rows[index].source) + len(rows[index].inputs) for index in scored]
        for batch in padded(lengths, self.budget):
            chosen = [scored[index] for index in batch]
            made = self._run([rows[index] for index in chosen], call, _tokens)
            for index, columns in zip(chosen, made, strict=True):
                done[index] = columns
        for pair, columns in zip(pairs, done, strict=True):
            extras = {key: value.numpy() for key, value in columns.items()}
            values = extras.pop("logprob", np.zeros(0))
            yield reading.finish(pair, values, extras)

    def _encode(self, sources: Sequence[NDArray[Any]]) -> dict[bytes, torch.Tensor]:
        """Encode each source once."""
        if self.path.head is None:
            return {}
        known = {source.tobytes(): source for source in sources}
        unlike = list(known.values())
        call = partial(forward.encode, self.loaded.model, self.path)
        found: dict[bytes, torch.Tensor] = {}
        for batch in padded([len(source) for source in unlike], self.budget):
            chosen = [unlike[index] for index in batch]
            for source, state in zip(chosen, self._run(chosen, call, len), strict=True):
                found[source.tobytes()] = state
        return found

    def _run(self, rows: Sequence[Any], call: Any, size: Any) -> list[Any]:
        return memory.run(rows, call, self._smaller, size)

    def _smaller(self) -> None:
        self.budget = max(memory.LEAST, self.budget // 2)


def _tokens(row: Row) -> int:
    return len(row.source) + len(row.inputs)
