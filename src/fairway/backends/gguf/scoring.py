"""The scorer of GGUF files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import llama_cpp as api
import numpy as np
from numpy.typing import NDArray

from fairway import __version__
from fairway.backends.gguf import columns, distributions, reading, writing
from fairway.backends.gguf.decoding import Decoder
from fairway.backends.gguf.loading import Loaded
from fairway.backends.gguf.reading import Prepared, Reader
from fairway.corpus import Document, cut
from fairway.distributions import Distributions
from fairway.errors import InputError
from fairway.generation import Sampling, Step, bare_plan, write
from fairway.protocol import convention, resolve
from fairway.scores import Score
from fairway.signature import Signature
from fairway.tokenizers.vocabulary import Vocabulary

GROUP_BYTES = 64 << 10
"""Bytes of documents whose windows are planned together."""


@dataclass(slots=True)
class GgufScorer:
    """Scores documents with a model of llama.cpp.

    Attributes:
        loaded: the model and its identity.
        reader: how texts become windows.
        decoder: how windows go through the model.
        notes: what the run must say.
        fair: documents bring windows of their own, the same for all models compared.
    """

    loaded: Loaded
    reader: Reader
    decoder: Decoder
    notes: list[str] = field(default_factory=list)
    fair: bool = False
    _spelled: tuple[tuple[bytes, ...], frozenset[int]] | None = field(default=None, repr=False)

    columns = ("entropy", "rank", "top", "window")
    """What `score` can be asked for besides log-probabilities."""

    @property
    def signature(self) -> Signature:
        """The scorer's and the protocol's part."""
        kept = self.loaded
        return Signature.of(
            {
                "kind": "gguf",
                "model": kept.name,
                "weights": kept.weights,
                "dtype": kept.dtype,
                "quant": kept.quant,
                "cache": self.decoder.cache + ("+flash" if self.decoder.flash else ""),
                "tok": kept.header.tokenizer,
                **self.reader.plan.fields(),
                **({"windows": "fair", "length": None, "stride": None} if self.fair else {}),
                # What stands before a window is not known to it.
                "state": "restarted" if kept.recurrent else None,
                "special": "parsed" if self.reader.parse_special else "text",
                "unit": "token",
                "version": __version__,
            }
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's tokenizer."""
        return self.reader.tokenizer

    @property
    def budget(self) -> int:
        """Tokens in a batch."""
        return self.decoder.limit()

    @budget.setter
    def budget(self, tokens: int) -> None:
        self.decoder.budget = tokens

    @property
    def engine(self) -> dict[str, Any]:
        """What only changes speed and rounding, for a run's record."""
        return {
            "budget": self.budget,
            "threads": self.decoder.threads,
            "llama_cpp_python": api.__version__,
        }

    @property
    def stored(self) -> tuple[int, int]:
        """Bytes of the weights, and how many weights there are."""
        return self.loaded.stored

    @property
    def room(self) -> int | None:
        """Tokens that a window holds, the prefix not counted; None = any number."""
        plan = self.reader.plan
        return None if plan.max_length is None else plan.max_length - len(plan.prefix)

    def spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Tokenize texts and give their tokens' character spans, ``(n, 2)`` each."""
        reader = self.reader
        return [reader.tokenizer.encode_text(one, reader.parse_special).offsets for one in texts]

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        """Score documents in their order; see `fairway.scorer.Scorer`.

        Args:
            documents: what to score.
            want: ``entropy``, ``rank``, ``top`` (the most likely token), ``top5`` (the five most
                likely, and ``top5_logprob``; any number will do), ``window``.

        Raises:
            InputError: for a wanted column that there is none of, or a text that is no text.
            ModelError: when llama.cpp fails, or a log-probability is not a number.
        """
        columns.check(want)
        for group in cut(documents, GROUP_BYTES):
            yield from self._group(reading.prepare(self.reader, group), want)

    def under(
        self,
        *,
        like: str = "fairway",
        prefix: str | None = None,
        max_length: int | None = None,
        stride: int | None = None,
        special_tokens: str | None = None,
    ) -> GgufScorer:
        """Give another scorer of the same loaded file, as if it were loaded with these settings.

        Args:
            like: the convention's name; this and what follows as `fairway.backends.gguf.load` has.
            prefix: likewise.
            max_length: likewise.
            stride: likewise.
            special_tokens: likewise.

        Raises:
            InputError: for a setting without sense.
            ProtocolError: when settings contradict each other or the model.
        """
        tokenizer, named = self.reader.tokenizer, convention(like)
        if special_tokens not in (None, "text", "parse"):
            raise InputError(f"{special_tokens!r} is neither text nor parse.")
        plan = resolve(named, tokenizer.facts(self.loaded), prefix, max_length, stride)
        reader = Reader(tokenizer, plan, (special_tokens or named.special) == "parse")
        return replace(self, reader=reader, notes=list(self.notes))

    @property
    def prefix(self) -> tuple[int, ...]:
        """Ids that stand before a text."""
        return self.reader.plan.prefix

    def bare(self) -> GgufScorer:
        """Give a scorer of token ids as they are, see `fairway.generation`."""
        reader = Reader(self.reader.tokenizer, bare_plan(self.loaded.positions))
        return replace(self, reader=reader, notes=[], fair=False)

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end a text."""
        return self._known()[1]

    def _known(self) -> tuple[tuple[bytes, ...], frozenset[int]]:
        """Read what tokens spell, and which end a text, once."""
        if self._spelled is None:
            tokenizer = self.reader.tokenizer
            self._spelled = tuple(tokenizer.pieces), writing.ends(tokenizer)
        return self._spelled

    def generate(self, ids: Sequence[int], sampling: Sampling) -> Iterator[Step]:
        """Write behind ids, a step for each ``next``; see `fairway.generation`.

        Raises:
            InputError: when there is no id, or one that the tokenizer does not have.
        """
        read = writing.reading(self.decoder, self.loaded.positions)
        return write(read, ids, sampling, *self._known())

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Give the ids of messages up to where the answer begins.

        Raises:
            InputError: when there is no chat template, or it refuses the messages.
        """
        return writing.prompt(self.loaded, self.reader.tokenizer, messages)

    def distributions(self, documents: Iterable[Document]) -> Iterator[Distributions]:
        """Give whole distributions in the order of `score`; see `fairway.distributions`.

        Raises:
            ModelError: when llama.cpp fails, or a log-probability is not a number.
        """
        return distributions.walk(self.reader, self.decoder, documents)

    def _group(self, prepared: Sequence[Prepared], want: Collection[str]) -> Iterator[Score]:
        values = [np.full(len(item.ids), np.nan) for item in prepared]
        extras = [{} if item.rows else columns.blank(len(item.ids), want) for item in prepared]
        rows = [row for item in prepared for row in item.rows]
        for index, begun, logits in self.decoder.logits(rows):
            row = rows[index]
            span = slice(row.at + begun, row.at + begun + len(logits))
            found = columns.score(logits, row.targets[begun : begun + len(logits)], want)
            values[row.document][span] = found.pop("logprob")
            if "window" in want:
                found["window"] = np.full(len(logits), row.window)
            for name, column in found.items():
                _place(extras[row.document], name, column, span, len(values[row.document]))
        for item, column, more in zip(prepared, values, extras, strict=True):
            yield reading.finish(self.reader, item, column, more)


def _place(
    extras: dict[str, NDArray[Any]], name: str, column: NDArray[Any], span: slice, size: int
) -> None:
    """Write a window's column to its place among the document's tokens."""
    if name not in extras:
        shape = size, *column.shape[1:]
        extras[name] = np.full(shape, -1, np.int64) if name == "window" else np.full(shape, np.nan)
    extras[name][span] = column
