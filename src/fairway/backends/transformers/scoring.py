"""The scorer of causal language models in transformers."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fairway import __version__, store
from fairway.backends.transformers import (
    attention,
    boundary,
    carry,
    columns,
    distributions,
    encode,
    fitting,
    forward,
    identity,
    memory,
    products,
    reading,
    trial,
    vocabulary,
    writing,
)
from fairway.backends.transformers import head as heads
from fairway.backends.transformers.carry import Carry
from fairway.backends.transformers.forward import Path
from fairway.backends.transformers.loading import Loaded
from fairway.backends.transformers.reading import Prepared, Reader
from fairway.backends.transformers.tree import Row, padded, plan
from fairway.backends.transformers.trial import Trial
from fairway.backends.transformers.vocabulary import WordMarks
from fairway.corpus import Document, cut
from fairway.distributions import Distributions
from fairway.errors import ModelError
from fairway.generation import Sampling, Step, bare_plan, write
from fairway.protocol import Plan
from fairway.scores import Score
from fairway.signature import Signature

if TYPE_CHECKING:
    from fairway.tokenizers import Vocabulary

GROUP_BYTES = 64 << 10
"""Bytes of documents that are planned together."""
T = TypeVar("T")
BEYOND = 1e9
"""Stands for a probe that failed, nats; infinity is no JSON."""


@dataclass(slots=True)
class TransformersScorer:
    """Scores documents with a causal language model.

    Attributes:
        loaded: the model and its identity.
        plan: the protocol, fitted to it.
        parse_special: read the text of special tokens as those tokens.
        roles: chat roles whose words are scored.
        budget: tokens in a batch, padding counted; 0 = as memory allows. Halved when memory does
            not suffice.
        path: how windows go through the model.
        notes: what the run must say.
        carried: texts are read whole, a recurrent model's state handed on.
        fair: documents bring windows of their own, the same for all models compared.
    """

    loaded: Loaded
    plan: Plan
    parse_special: bool = False
    roles: tuple[str, ...] | None = None
    budget: int = 0
    path: Path = field(default_factory=Path)
    notes: list[str] = field(default_factory=list)
    fair: bool = False
    carried: bool = False
    _thread: tuple[int, ThreadPoolExecutor] | None = field(default=None, repr=False)
    _marks: WordMarks | None = field(default=None, repr=False)
    _vocabulary: Vocabulary | None = field(default=None, repr=False)
    _steps: Carry | None = field(default=None, repr=False)

    ahead = 1
    """Calls of `score` that should be begun before an earlier one is read to its end."""
    columns = ("entropy", "rank", "top", "window")
    """What `score` can be asked for besides log-probabilities."""

    @property
    def signature(self) -> Signature:
        """The scorer's and the protocol's part."""
        kept = self.loaded
        return Signature.of(
            {
                "model": kept.name,
                "revision": kept.revision,
                "weights": kept.weights,
                "adapter": kept.adapter,
                "dtype": kept.dtype,
                "quant": kept.quant,
                "tok": identity.tokenizer_hash(kept.tokenizer),
                **self.plan.fields(),
                **({"windows": "fair", "length": None, "stride": None} if self.fair else {}),
                "state": self.state,
                "special": "parsed" if self.parse_special else "text",
                "chat": "+".join(self.roles) if self.roles else None,
                "unit": "token",
                "version": __version__,
            }
        )

    @property
    def state(self) -> str | None:
        """What becomes of a recurrent model's state at a window's end; None = it has none."""
        if not carry.stateful(self.loaded.model):
            return None
        return "carried" if self.carried else "restarted"

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's tokenizer, as `fairway.tokenizers` takes one."""
        from fairway.backends.transformers import tokenizing

        if self._vocabulary is None:
            self._vocabulary = tokenizing.describe(self.loaded.tokenizer, self.loaded.name)
        return self._vocabulary

    @property
    def engine(self) -> dict[str, Any]:
        """What only changes speed and rounding, for a run's record."""
        return {
            "budget": self.budget,
            "packed": self.path.packed,
            "kernels": self.path.products.name,
            **({"packing": identity.packing(self.loaded.model)} if self.loaded.quant else {}),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    @property
    def stored(self) -> tuple[int, int]:
        """Bytes of the weights, on disk or as they are held, and how many weights there are."""
        model = self.loaded.model
        size = self.loaded.stored or identity.held(model)
        return size, identity.count(model)

    under = fitting.under
    """Another scorer of the same model, under settings of its own."""

    def settle(self) -> None:
        """Refuse a model that sees ahead; choose the fast path or the model's own logits.

        Raises:
            ModelError: when a later token moves an earlier log-probability.
        """
        model = self.loaded.model
        if not self.budget:
            self.budget = memory.budget(model)
        fast = Path(heads.find(model), False, products.choose(model))
        with self.loaded.lock:
            gap, leak, packed_gap = self._probe(fast)
        if leak > forward.leak_tolerance(self.loaded):
            raise ModelError(
                f"{self.loaded.name} sees ahead: a later token moves an earlier log-probability "
                f"by {leak:.2g} nats, so it is no causal language model; if it is a masked one, "
                "put masked: before its name."
            )
        if self.loaded.activations:
            self.notes.append(
                "activations are quantised, which makes large differences of other batches' small "
                "ones: windows are run one by one"
            )
            if self.loaded.activations == "batch":
                self.notes.append(
                    "activations are quantised over all tokens of a window: later ones moved "
                    f"earlier ones by {leak:.2g} nats in the probe"
                )
        elif fast.head is None:
            self.notes.append("the model has no head of the usual form: its own logits are used")
        elif gap <= forward.tolerance(model.dtype):
            self.path = replace(fast, packed=packed_gap <= forward.tolerance(model.dtype))
        else:
            self.notes.append(
                f"the fast path differs from the model's own logits by {gap:.2g} nats: "
                "the model's own forward is used"
            )
        if self.carried:
            with self.loaded.lock:
                chosen = carry.choose(model, self.loaded.quant is not None)
            self.path = replace(self.path, packed=False, carry=chosen)

    def _probe(self, fast: Path) -> tuple[float, float, float]:
        """Compare the fast path, its packed form, and a model that sees ahead, with the model."""
        model = self.loaded.model
        key = identity.probe_key(self.loaded, fast.products.name)
        known = store.recall("probes", key) if key else None
        if isinstance(known, list) and len(known) == 3:
            return float(known[0]), float(known[1]), float(known[2])
        leak = self._leak()
        gap, packed_gap = 0.0, BEYOND
        if fast.head is not None:
            gap = min(BEYOND, forward.probe(model, fast))
            if attention.usable(model):
                packed_gap = min(BEYOND, forward.probe(model, replace(fast, packed=True)))
        if key:
            store.note("probes", key, [gap, leak, packed_gap])
        return gap, leak, packed_gap

    def _leak(self) -> float:
        """Run the model for the first time, see `forward.leak`.

        Raises:
            ModelError: when quantised weights are not what the checkpoint says they are.
        """
        try:
            return forward.leak(self.loaded.model)
        except forward.BROKEN as problem:
            if self.loaded.quant is None:
                raise
            raise ModelError(
                f"{self.loaded.name} cannot compute with its weights as {self.loaded.quant}: "
                f"{' '.join(str(problem).split())[:160] or type(problem).__name__}."
            ) from problem

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        """Score documents in their order; see `fairway.scorer.Scorer`.

        The first of them are tokenized at once, in a thread; the rest as the result is read.

        Args:
            documents: what to score.
            want: ``entropy``, ``rank``, ``top`` (the most likely token), ``top5`` (the five most
                likely, and ``top5_logprob``; any number will do), ``window``, ``boundary`` (with
                ``begins``, see `fairway.backends.transformers.boundary.fold`).

        Raises:
            InputError: for a wanted column that there is none of.
            ModelError: for ``boundary``, when the tokenizer does not mark where words are.
        """
        columns.check(want)
        if "boundary" in want:
            self._words()
        groups = cut(documents, GROUP_BYTES)
        return self._flow(self._begin(next(groups, None)), groups, want)

    @property
    def room(self) -> int | None:
        """Tokens that a window holds, the prefix not counted; None = any number."""
        length = self.plan.max_length
        return None if length is None else length - len(self.plan.prefix)

    def spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Tokenize texts and give their tokens' character spans, ``(n, 2)`` each."""
        made = encode.encode_many(self.loaded.tokenizer, texts, self.parse_special)
        return [one.offsets for one in made]

    def distributions(self, documents: Iterable[Document]) -> Iterator[Distributions]:
        """Give whole distributions in the order of `score`; see `fairway.distributions`.

        Raises:
            ModelError: when a log-probability is not a number.
        """
        model, path = self.loaded.model, self.path
        run = partial(self._run, call=partial(forward.states, model, path))
        return distributions.walk(model, path, self._reader(), lambda: self.budget, run, documents)

    @property
    def prefix(self) -> tuple[int, ...]:
        """Ids that stand before a text."""
        return self.plan.prefix

    def bare(self) -> TransformersScorer:
        """Give a scorer of token ids as they are, see `fairway.generation`."""
        plan = bare_plan(self.loaded.positions)
        return replace(self, plan=plan, parse_special=False, roles=None, notes=[], fair=False)

    def generate(self, ids: Sequence[int], sampling: Sampling) -> Iterator[Step]:
        """Write behind ids, a step for each ``next``; see `fairway.generation`.

        Raises:
            InputError: when there is no id, or one that the tokenizer does not have.
        """
        if self._steps is None:
            with self.loaded.lock:
                self._steps = carry.choose_steps(self.loaded.model, self.loaded.quant is not None)
        pen = writing.Pen(self.loaded, self._steps)
        return write(pen.logits, ids, sampling, self.vocabulary.pieces, self.ends)

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end a text."""
        return writing.ends(self.loaded.model, self.loaded.tokenizer)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Give the ids of messages up to where the answer begins.

        Raises:
            InputError: when there is no chat template, or it refuses the messages.
        """
        return writing.prompt(self.loaded.tokenizer, messages)

    def trial(self, documents: Sequence[Document]) -> Trial | None:
        """Try on some documents what bfloat16 would gain and cost, as the last use of the scorer.

        Returns:
            None where bfloat16 cannot be faster.
        """
        return trial.compare(self, documents) if trial.worthwhile(self) else None

    def _words(self) -> WordMarks:
        """Sort the vocabulary, once."""
        if self._marks is None:
            self._marks = vocabulary.read(self.loaded.tokenizer)
            self.path = replace(self.path, sets=boundary.sets(self._marks, self.loaded.model))
        return self._marks

    def _begin(self, group: list[Document] | None) -> Future[list[Prepared]] | None:
        if group is None:
            return None
        return self._tokenizing()[1].submit(reading.prepare, self._reader(), group)

    def _tokenizing(self) -> tuple[int, ThreadPoolExecutor]:
        if self._thread is None or self._thread[0] != os.getpid():
            # A fork takes no thread along; one for all calls, since tokenizers share no thread.
            self._thread = os.getpid(), ThreadPoolExecutor(1, "fairway-tokenizer")
        return self._thread

    def _reader(self) -> Reader:
        return Reader(self.loaded.tokenizer, self.plan, self.parse_special, self.roles)

    def _flow(
        self,
        waiting: Future[list[Prepared]] | None,
        groups: Iterator[list[Document]],
        want: Collection[str],
    ) -> Iterator[Score]:
        while waiting is not None:
            prepared = waiting.result()
            waiting = self._begin(next(groups, None))
            yield from self._group(prepared, want)

    def _group(self, prepared: Sequence[Prepared], want: Collection[str]) -> Iterator[Score]:
        logprobs = [np.full(item.size, np.nan) for item in prepared]
        extras: list[dict[str, Any]] = [{} for _ in prepared]
        kinds = list(chain.from_iterable(item.rows for item in prepared))
        alike: dict[tuple[bytes, bytes, int], list[Row]] = {}
        for row in kinds:
            name = row.inputs.tobytes(), row.targets.tobytes(), row.first
            alike.setdefault(name, []).append(row)
        families = list(alike.values())
        firsts = [family[0] for family in families]
        words = self._words() if "boundary" in want else None
        if words is not None:
            firsts = [boundary.ahead(row, self.plan.max_length) for row in firsts]
        inputs = [row.inputs for row in firsts]
        if self.path.packed:
            batches = plan(inputs, self.budget)
        else:
            batches = padded([len(ids) for ids in inputs], self.budget)
        for batch in batches:
            chosen = [families[index] for index in batch]
            call = partial(forward.run, self.loaded.model, self.path, want=want)
            done = self._run([firsts[index] for index in batch], call)
            for family, values in zip(chosen, done, strict=True):
                if words is not None:
                    values = boundary.cut(values, len(family[0].targets))
                for row in family:
                    columns.fill(row, values, logprobs[row.document], extras[row.document], want)
        for index, item in enumerate(prepared):
            if not item.rows:
                columns.blank(extras[index], item.size, want)
            if words is not None:
                masses = extras[index].pop("boundary", None)
                extras[index] |= boundary.fold(words, item.ids, masses)
            yield reading.finish(item, logprobs[index], extras[index])

    def _run(self, rows: Sequence[Row], call: Callable[[Sequence[Row]], list[T]]) -> list[T]:
        way = "leave state=carried away" if self.carried else "give a smaller --max-length"
        with self.loaded.lock:
            return memory.run(rows, call, self._smaller, lambda row: len(row.inputs), way)

    def _smaller(self) -> None:
        self.budget = max(memory.LEAST, self.budget // 2)
