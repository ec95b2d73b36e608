"""Documents and a scorer give a report of the context's use, block by block."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairway import windows
from fairway.blocks import BLOCK_BYTES
from fairway.corpus import Corpus, Document, cut
from fairway.errors import InputError, ProtocolError
from fairway.evaluation import Progress
from fairway.longcontext.depth import FIRST, Depths
from fairway.longcontext.gain import Gains, draw, limited
from fairway.longcontext.longppl import ALPHA, BETA, KeySums, shortened
from fairway.longcontext.report import ContextReport
from fairway.scorer import Scorer
from fairway.scores import PERPLEXITY, Score, Totals
from fairway.statistics import LEVEL, Moments

DRAWN = 16
"""Tokens of a document that are scored with every k."""
SHORTEST = 16
"""The smallest k by default; each further one is four times as large."""


@dataclass(frozen=True, slots=True)
class Frame:
    """How much context a scorer's windows give.

    Attributes:
        max_length: tokens in a window, prefix counted.
        stride: tokens by which windows advance.
        prefix: tokens in front of each.
    """

    max_length: int
    stride: int
    prefix: int

    @property
    def room(self) -> int:
        """Tokens of text in a window."""
        return self.max_length - self.prefix

    @property
    def sure(self) -> int:
        """Tokens of context that every token has, where as many stand before it."""
        return max(0, self.room - self.stride)

    def context(self, score: Score) -> NDArray[np.int64]:
        """Give the tokens of context of each token of a text: ``(n,)``, prefix not counted."""
        cuts = windows.rolling(len(score), self.max_length, self.stride, self.prefix)
        out = np.zeros(len(score), dtype=np.int64)
        for window in cuts:
            scored = np.arange(window.score_from, window.end)
            out[scored] = scored - window.begin
        return out


def frame(scorer: Scorer) -> Frame:
    """Read a scorer's windows from its signature.

    Raises:
        ProtocolError: when it does not cut texts as the fairway convention does.
    """
    signature = scorer.signature
    if getattr(scorer, "perplexity", PERPLEXITY) != PERPLEXITY:
        raise ProtocolError(
            f"{signature.get('model')} tells a token by more than what stands before it, so there "
            "is no such context to examine; give a causal model."
        )
    length, stride = signature.get("length") or "", signature.get("stride") or ""
    if signature.get("protocol") != "fairway" or not (length.isdigit() and stride.isdigit()):
        raise ProtocolError(
            f"{signature.get('model')} was loaded with another convention than fairway, whose "
            "windows this examination needs; load it with like='fairway'."
        )
    return Frame(int(length), int(stride), int(signature.get("prefix") != "none"))


def default_lengths(max_length: int) -> tuple[int, ...]:
    """Give 16, 64, 256, ... up to half of a window; a window below 32 has its quarter alone."""
    out = [SHORTEST]
    while out[-1] * 4 <= max_length // 2:
        out.append(out[-1] * 4)
    return tuple(out) if max_length // 2 >= SHORTEST else (max(1, max_length // 4),)


def examine(
    scorer: Scorer,
    corpus: Corpus,
    *,
    evaluator: Scorer | None = None,
    lengths: Sequence[int] | None = None,
    per_document: int | None = DRAWN,
    unit: str = "bytes",
    longppl: bool = True,
    short: int | None = None,
    alpha: float = ALPHA,
    beta: float = BETA,
    seed: int = 0,
    level: float = LEVEL,
    progress: Callable[[Progress], None] | None = None,
) -> ContextReport:
    """Examine whether a model uses its context, and how far back.

    Memory holds a block of documents, and a few numbers for each document before it. The model
    reads the corpus once as an evaluation does; besides, `per_document` tokens of a document once
    for each length; and for LongPPL the evaluator reads about five times the corpus in short
    windows.

    Args:
        scorer: the model, loaded with the fairway convention.
        corpus: documents with text.
        evaluator: the model that finds key tokens; None = the scorer.
        lengths: tokens of context to which the full context is compared; None = 16, 64, 256, ...
            up to half of a window.
        per_document: tokens drawn from each document; None = all that can be.
        unit: what positions count: ``bytes`` or ``tokens``.
        longppl: whether LongPPL is computed.
        short: tokens of its short context; None = a quarter of the evaluator's window.
        alpha: a key token gains more than this from the long context, nats.
        beta: its log-probability given the long context is above this, nats.
        seed: of the tokens drawn.
        level: of the intervals of gains.
        progress: called after each block.

    Raises:
        ProtocolError: when a length does not fit into the model's windows.
        InputError: when there is no text to score, or a document has a context of its own.
    """
    if unit not in FIRST:
        raise InputError(f"{unit!r} is no unit of positions; use {' or '.join(FIRST)}.")
    if per_document is not None and per_document < 1:
        raise InputError(f"{per_document} tokens per document are none; draw at least one.")
    if not (math.isfinite(alpha) and math.isfinite(beta)):
        raise InputError(f"alpha {alpha} and beta {beta} must be finite numbers of nats.")
    own = frame(scorer)
    ks = _lengths(lengths, own)
    judge = evaluator or scorer
    short, step = _short(short, frame(judge)) if longppl else (0, 1)
    started = time.monotonic()
    depths, gains, keys = Depths(unit), Gains(ks), KeySums(short, alpha, beta)
    totals, moments, lossy = Totals(), Moments(), 0
    for block in cut(_texts(corpus), BLOCK_BYTES):
        scores = list(scorer.score(block))
        samples = [draw(one, own.context(one), max(ks), per_document, seed) for one in scores]
        jobs = zip(scores, samples, strict=True)
        for score, sample, values in zip(scores, samples, limited(scorer, jobs, ks), strict=True):
            depths.add(score)
            gains.add(score, sample, values)
            sums = score.totals
            totals, moments = totals + sums, moments + Moments.of(sums, 0.0)
            lossy += bool(score.lossy)
        if longppl:
            long = scores if evaluator is None else list(evaluator.score(block))
            found = shortened(judge, long, short, step)
            for score, theirs, values in zip(scores, long, found, strict=True):
                keys.add(score, keys.spans(theirs, values))
        if progress is not None:
            seconds = time.monotonic() - started
            progress(
                Progress(totals.documents, totals.tokens, totals.tokens, corpus.position,
                         corpus.size, seconds, moments)
            )  # fmt: skip
    if not totals.tokens:
        raise InputError(f"{corpus.name} holds no text that could be scored; give other --data.")
    signature = scorer.signature.with_(
        data=corpus.name, split=corpus.split, digest=corpus.digest, documents=corpus.documents,
        norm=None if corpus.normalisation == "none" else corpus.normalisation, seed=seed,
        lengths="+".join(map(str, ks)), drawn="all" if per_document is None else per_document,
        position=unit, evaluator=judge.signature.get("model") if longppl else None,
        short=short or None, alpha=f"{alpha:g}" if longppl else None,
        beta=f"{beta:g}" if longppl else None,
    )  # fmt: skip
    notes = [*getattr(scorer, "notes", ())]
    notes += [n for n in getattr(judge, "notes", ()) if n not in notes]
    if lossy:
        notes.append(f"the tokenizer does not give {lossy} texts back unchanged: bytes are theirs")
    if totals.tokens_skipped:
        notes.append(f"{totals.tokens_skipped} tokens were not scored, and their bytes not counted")
    if corpus.skipped_total:
        notes.append(f"{corpus.skipped_total} rows of the corpus were skipped")
    return ContextReport(
        signature.get("model") or "", corpus.name, signature, totals, own.room, own.sure, unit,
        depths.buckets(), gains.curve(seed, level),
        keys.finish(judge, step, evaluator is None) if longppl else None, tuple(notes),
    )  # fmt: skip


def _lengths(lengths: Sequence[int] | None, own: Frame) -> tuple[int, ...]:
    """Order and check the lengths.

    Raises:
        InputError: for none, or one below 1.
        ProtocolError: for one that leaves no token to predict behind it.
    """
    ks = tuple(sorted(set(default_lengths(own.max_length) if lengths is None else lengths)))
    if not ks or ks[0] < 1:
        raise InputError("--lengths takes numbers of tokens from 1 up, such as 16,64,256.")
    if ks[-1] >= own.room:
        raise ProtocolError(
            f"A context of {ks[-1]} tokens and one to predict do not fit into the model's window "
            f"of {own.room}; give --lengths up to {own.room - 1}."
        )
    return ks


def _short(short: int | None, theirs: Frame) -> tuple[int, int]:
    """Settle the short context and the tokens that share one: a quarter of it, as published.

    Raises:
        ProtocolError: when a short context could be longer than a long one.
    """
    asked = max(1, theirs.max_length // 4) if short is None else short
    if asked < 1:
        raise InputError(f"--short {asked} is no context; give at least 1 token.")
    step = max(1, asked // 4)
    if asked + step - 1 > theirs.sure:
        raise ProtocolError(
            f"The short context of {asked} to {asked + step - 1} tokens may be longer than the "
            f"long one, of which windows assure {theirs.sure}; give a smaller --short, or a "
            "smaller --stride."
        )
    return asked, step


def _texts(corpus: Corpus) -> Iterator[Document]:
    """Pass documents on.

    Raises:
        InputError: for one without text, or with a context.
    """
    for document in corpus:
        if document.ids is not None and not document.text:
            raise InputError(
                f"{document.id} holds token ids and no text; positions and key spans are counted "
                "in text, so give data that has it."
            )
        if document.context:
            raise InputError(
                f"{document.id} has a context of its own; put it into the text, where its use is "
                "what is examined."
            )
        yield document
