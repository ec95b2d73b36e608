"""The scorer of causal language models in transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import transformers

from fairway import __version__, store
from fairway.backends.transformers import attention, chat, forward, identity
from fairway.backends.transformers import encode as encoding
from fairway.backends.transformers import head as heads
from fairway.backends.transformers.loading import Loaded
from fairway.backends.transformers.tree import Row, padded, plan
from fairway.corpus import Document
from fairway.errors import ModelError, ProtocolError
from fairway.protocol import Plan
from fairway.scores import Score
from fairway.signature import Signature

BUDGET = 4096
"""Tokens in a batch, padding counted, unless told otherwise."""
GROUP = 64
"""Documents that are planned together."""
BEYOND = 1e9
"""Stands for a probe that failed, nats; infinity is no JSON."""
EXTRAS = ("entropy", "rank", "top", "window")


@dataclass(slots=True)
class TransformersScorer:
    """Scores documents with a causal language model.

    Attributes:
        loaded: the model and its identity.
        plan: the protocol, fitted to it.
        parse_special: read the text of special tokens as those tokens.
        roles: chat roles whose words are scored.
        budget: tokens in a batch, padding counted.
        head: the fast path's head; None = the model's own logits are used.
        packed: windows are laid into rows without padding, and share what they begin with alike.
        notes: what the run must say.
    """

    loaded: Loaded
    plan: Plan
    parse_special: bool = False
    roles: tuple[str, ...] | None = None
    budget: int = BUDGET
    head: heads.Head | None = None
    packed: bool = False
    notes: list[str] = field(default_factory=list)

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
                "special": "parsed" if self.parse_special else "text",
                "chat": "+".join(self.roles) if self.roles else None,
                "unit": "token",
                "version": __version__,
            }
        )

    def settle(self) -> None:
        """Refuse a model that sees ahead; choose the fast path or the model's own logits.

        Raises:
            ModelError: when a later token moves an earlier log-probability.
        """
        model = self.loaded.model
        head = heads.find(model)
        key = self._probe_key()
        known = store.recall("probes", key) if key else None
        if isinstance(known, list) and len(known) == 3:
            gap, leak, packed_gap = known
        else:
            leak = forward.leak(model)
            gap = forward.probe(model, head) if head is not None else 0.0
            packed_gap = BEYOND
            if head is not None and attention.usable(model):
                packed_gap = min(BEYOND, forward.probe(model, head, packed=True))
            if key and gap != float("inf"):
                store.note("probes", key, [gap, leak, packed_gap])
        quantised = self.loaded.quant is not None
        if leak > (forward.HALF_TOLERANCE if quantised else forward.tolerance(model.dtype)):
            raise ModelError(
                f"{self.loaded.name} sees ahead: a later token moves an earlier log-probability "
                f"by {leak:.2g} nats, so it is no causal language model (perhaps a masked one)."
            )
        if head is None:
            self.notes.append("the model has no head of the usual form: its own logits are used")
        elif gap <= forward.tolerance(model.dtype):
            self.head = head
            self.packed = packed_gap <= forward.tolerance(model.dtype)
        else:
            self.notes.append(
                f"the fast path differs from the model's own logits by {gap:.2g} nats: "
                "the model's own forward is used"
            )

    def _probe_key(self) -> str | None:
        """Name what the probe's verdict rests on; None where it must be taken anew."""
        kept = self.loaded
        if kept.quant is not None or not kept.weights or kept.wrapped:
            return None
        parts = [
            kept.model.config.to_json_string(), kept.weights, str(kept.adapter), kept.dtype,
            torch.__version__, transformers.__version__, __version__,
        ]  # fmt: skip
        return hashlib.sha256("|".join(parts).encode()).hexdigest()

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        """Score documents in their order; see `fairway.scorer.Scorer`."""
        group: list[Document] = []
        for document in documents:
            group.append(document)
            if len(group) == GROUP:
                yield from self._group(group, want)
                group = []
        yield from self._group(group, want)

    def _group(self, documents: Sequence[Document], want: Collection[str]) -> Iterator[Score]:
        prepared = [
            chat.render(self.loaded.tokenizer, d, self.roles)
            if self.roles and "messages" in d.metadata
            else d
            for d in documents
        ]
        special = self.parse_special or self.roles is not None
        encoded = [
            self._without_prefix(d, encoding.encode_document(self.loaded.tokenizer, d, special))
            for d in prepared
        ]
        rows: list[Row] = []
        logprobs: list[Any] = []
        extras: list[dict[str, Any]] = []
        leads = [self._leading(item) for item in encoded]
        for index, (document, item) in enumerate(zip(prepared, encoded, strict=True)):
            ids = [*leads[index], *item.ids.tolist()]
            lead = len(leads[index])
            logprobs.append(np.full(len(ids), np.nan))
            extras.append({"window": np.full(len(ids), -1, dtype=np.int64)})
            touched = np.concatenate((np.ones(lead, bool), self._touched(document, item)))
            rows.extend(self._rows(index, ids, touched, document))
        if self.packed:
            batches = plan([row.inputs for row in rows], self.budget)
        else:
            batches = padded([len(row.inputs) for row in rows], self.budget)
        for batch in batches:
            chosen = [rows[index] for index in batch]
            for row, columns in zip(chosen, self._run(chosen, want), strict=True):
                span = slice(row.at, row.at + len(row.targets))
                logprobs[row.document][span] = columns["logprob"].numpy()
                extras[row.document]["window"][span] = row.window
                for key in want:
                    if key in columns:
                        column = extras[row.document].setdefault(
                            key, np.full(len(logprobs[row.document]), np.nan)
                        )
                        column[span] = columns[key].numpy()
        for index, (document, item) in enumerate(zip(prepared, encoded, strict=True)):
            yield self._finish(
                document, item, leads[index], logprobs[index], extras[index], "window" in want
            )

    def _without_prefix(self, document: Document, item: encoding.Encoded) -> encoding.Encoded:
        """Take away a prefix that a document's ids bring along: it stands in front anyway."""
        front = self.plan.leading or self.plan.prefix
        if document.ids is None or not front or tuple(item.ids[: len(front)].tolist()) != front:
            return item
        return replace(item, ids=item.ids[len(front) :], offsets=item.offsets[len(front) :])

    def _leading(self, item: encoding.Encoded) -> tuple[int, ...]:
        """The ids before a text's own; lm-eval lets no BOS be added to a text that begins so."""
        if self.plan.doubled and tuple(item.ids[:1].tolist()) == self.plan.prefix:
            return ()
        return self.plan.leading

    def _touched(self, document: Document, item: encoding.Encoded) -> Any:
        """Which tokens touch a character that is to be scored."""
        if document.ids is not None and not document.text:
            return np.ones(len(item.ids), dtype=bool)
        blank = Score(
            document.id,
            document.context + document.text,
            item.offsets,
            np.zeros(len(item.ids)),
            item.ids,
            _shifted(document),
        )
        return blank.wanted

    def _rows(self, index: int, ids: list[int], touched: Any, document: Document) -> Iterator[Row]:
        prefix = list(self.plan.prefix)
        if self.roles and prefix and ids[: len(prefix)] == prefix:
            # The template wrote the BOS itself; a second one would be an error.
            prefix = []
        if (
            prefix
            and not self.plan.leading
            and ids[: len(prefix)] == prefix
            and document.ids is None
            and self.parse_special
            and self.plan.convention.special == "text"
        ):
            raise ProtocolError(
                f"{document.id} begins with the prefix token already; a doubled BOS gives a wrong "
                "number: use --prefix none, or leave --special-tokens at text."
            )
        windows = self.plan.cut(len(ids))
        for number, window in enumerate(windows):
            front = prefix if window.prefix else []
            begin, end, start = window.begin, window.end, window.score_from
            if not front and start == begin:
                start += 1
            hit = np.flatnonzero(touched[start:end])
            if not len(hit):
                continue
            start, end = start + int(hit[0]), start + int(hit[-1]) + 1
            yield Row(
                index,
                number,
                [*front, *ids[begin : end - 1]],
                ids[start:end],
                len(front) + start - begin - 1,
                start,
            )

    def _run(self, rows: Sequence[Row], want: Collection[str]) -> list[dict[str, torch.Tensor]]:
        """Run a batch; where memory does not suffice, run its halves."""
        try:
            return forward.run(self.loaded.model, self.head, rows, want, self.packed)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as problem:
            if not _out_of_memory(problem):
                raise
            if len(rows) == 1:
                raise ModelError(
                    f"A single window of {len(rows[0].inputs)} tokens does not fit into memory; "
                    "give a smaller --max-length, or a smaller --dtype."
                ) from None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(rows) // 2
        return self._run(rows[:half], want) + self._run(rows[half:], want)

    def _finish(
        self,
        document: Document,
        item: encoding.Encoded,
        leading: tuple[int, ...],
        values: Any,
        more: Any,
        window: bool,
    ) -> Score:
        """Cut context and unscored leading tokens off, and give offsets in the text alone."""
        lead = len(leading)
        kept_lead = lead if lead and not np.isnan(values[:lead]).all() else 0
        values = values[lead - kept_lead :]
        more = {
            key: column[lead - kept_lead :]
            for key, column in more.items()
            if key != "window" or window
        }
        ids = np.concatenate((np.asarray(leading[lead - kept_lead :], np.int64), item.ids))
        offsets = np.concatenate((np.zeros((kept_lead, 2), np.int64), item.offsets))
        token_bytes = None
        text = document.text
        if document.ids is not None and not text:
            token_bytes = encoding.raw_bytes(self.loaded.tokenizer, ids)
        elif document.context:
            cut = len(document.context)
            inside = offsets[:, 1] > cut
            values, ids = values[inside], ids[inside]
            more = {key: column[inside] for key, column in more.items()}
            offsets = np.maximum(offsets[inside] - cut, 0)
        score = Score(
            document.id, text, offsets, values, ids, document.scored, token_bytes,
            item.lossy, more, document.metadata, byte_count=document.byte_count,
        )  # fmt: skip
        if document.scored is not None:
            unwanted = ~score.wanted
            if (unwanted & ~np.isnan(values)).any():
                score = replace(score, logprobs=np.where(unwanted, np.nan, values))
        return score


def _shifted(document: Document) -> tuple[tuple[int, int], ...] | None:
    """Scored spans in context + text."""
    cut = len(document.context)
    if document.scored is not None:
        return tuple((start + cut, end + cut) for start, end in document.scored)
    return ((cut, cut + len(document.text)),) if cut else None


def _out_of_memory(problem: BaseException) -> bool:
    text = str(problem)
    return isinstance(problem, torch.OutOfMemoryError | MemoryError) or (
        "not enough memory" in text or "can't allocate memory" in text or "out of memory" in text
    )
