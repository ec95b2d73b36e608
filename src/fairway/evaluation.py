"""Documents and a scorer give a report: in blocks, resumable, with memory that does not grow."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fairway import blocks, oov, record, statistics
from fairway.blocks import Begun, Work, begin_block, finish_block
from fairway.cache import ScoreCache
from fairway.companions import WANT, Pool, figures
from fairway.corpus import cut
from fairway.errors import InputError, ProtocolError, RunError
from fairway.oov import Oov
from fairway.protocol import Convention, normaliser, prepare
from fairway.record import Record
from fairway.report import REASONS, Group, Report, absent, renamed
from fairway.run import Run
from fairway.scorer import Scorer, fills, remarks
from fairway.scores import PERPLEXITY, Totals, exp, named
from fairway.statistics import Few, Interval, MacroBootstrap, Moments, intervals

if TYPE_CHECKING:
    from fairway.corpus import Corpus, Document

PILOT = 30
"""Documents before an estimate of precision is worth anything."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an evaluation is.

    Attributes:
        documents: documents done.
        tokens: tokens scored.
        fresh: tokens scored by the model in this process, the rest being known already.
        position: bytes of the source read.
        size: bytes of the source; None = not known.
        seconds: since the start.
        moments: for the precision reached so far.
    """

    documents: int
    tokens: int
    fresh: int
    position: int
    size: int | None
    seconds: float
    moments: Moments


@dataclass(slots=True)
class Sums:
    """All that a report needs of the documents so far; additive over documents."""

    group_by: str | None
    seed: int
    totals: Totals = field(default_factory=Totals)
    moments: Moments = field(default_factory=Moments)
    few: Few = field(default_factory=Few)
    groups: dict[str, tuple[Totals, Moments, Few]] = field(default_factory=dict)
    bootstrap: MacroBootstrap = field(default_factory=MacroBootstrap)
    published: tuple[float, int] = (0.0, 0)
    perplexities: tuple[float, int] = (0.0, 0)
    lossy: int = 0
    spelled: int = 0
    pool: Pool = field(default_factory=Pool)
    pools: dict[str, Pool] = field(default_factory=dict)
    oov: Oov | None = None
    oovs: dict[str, Oov | None] = field(default_factory=dict)

    def add(self, document: Document, kept: Record) -> None:
        """Add one document."""
        moments = Moments.of(kept.totals, kept.token_nll2)
        self.totals = self.totals + kept.totals
        self.moments = self.moments + moments
        self.few.add(kept.totals)
        self.lossy += kept.lossy
        self.spelled += document.ids is not None and document.byte_count is None
        self.pool.add(kept.companions)
        self.oov = oov.plus(self.oov, kept.oov)
        if kept.published is not None:
            self.published = (
                self.published[0] + kept.published[0],
                self.published[1] + kept.published[1],
            )
        if kept.totals.tokens:
            one = exp(kept.totals.per("tokens"))
            self.perplexities = self.perplexities[0] + one, self.perplexities[1] + 1
        if self.group_by:
            name = group_of(document, self.group_by)
            totals, earlier, few = self.groups.get(name, (Totals(), Moments(), Few()))
            few.add(kept.totals)
            self.groups[name] = totals + kept.totals, earlier + moments, few
            self.pools.setdefault(name, Pool()).add(kept.companions)
            self.oovs[name] = oov.plus(self.oovs.get(name), kept.oov)
            self.bootstrap.add(name, f"{document.id}\0{kept.key}", kept.totals)


def group_of(document: Document, field: str) -> str:
    """Give a document's group."""
    value = document.metadata.get(field)
    return "(none)" if value is None else str(value)


def is_wikitext(corpus: Corpus) -> bool:
    """Whether a corpus is WikiText in articles, as lm-eval's task of that name reads it."""
    return corpus.split == "wikitext" or corpus.name.startswith("wikitext-")


def evaluate(
    scorer: Scorer,
    corpus: Corpus,
    like: Convention,
    *,
    group_by: str | None = None,
    texts: bool = False,
    run: Run | None = None,
    cache: ScoreCache | None = None,
    precision: float | None = None,
    seed: int = 0,
    companions: bool = True,
    overlapping: bool = True,
    progress: Callable[[Progress], None] | None = None,
    block_bytes: int | None = None,
) -> Report:
    """Score a corpus and report.

    Args:
        scorer: any scorer.
        corpus: the documents.
        like: the convention whose windows the scorer was loaded with.
        group_by: metadata field; the report has a part for each of its values.
        texts: keep the tokens of every document.
        run: where blocks are committed; what it holds already is not scored again.
        cache: records of earlier runs.
        precision: stop when perplexity's interval has this relative half-width.
        seed: of the bootstrap.
        companions: report accuracy, entropy, calibration and the tail of surprisal, where the
            scorer has them; a run that was begun without them goes on without.
        overlapping: whether windows overlap.
        progress: called after each block.
        block_bytes: source bytes after which a block is closed; None = the scorer's own, else
            `blocks.BLOCK_BYTES`.

    Raises:
        RunError: when the run directory does not fit the corpus, or cannot be written.
        ProtocolError: when the convention cannot score a text.
        InputError: when there are documents and none of them can be scored.
    """
    own = normaliser(like, is_wikitext(corpus))
    if own is not None and corpus.normalisation != "none":
        raise ProtocolError(
            f"{like.name} puts WikiText through {own} by itself; leave --normalise away, or use "
            "--like fairway."
        )
    started = time.monotonic()
    sums = Sums(group_by, seed, bootstrap=MacroBootstrap(seed))
    without = _without(scorer, run, companions)
    signature = str(scorer.signature)
    if not getattr(scorer, "cacheable", True):
        cache = None
    work = Work(scorer, like, texts, cache, overlapping, corpus, signature, without is None)
    entries = []
    fresh = 0
    # A run that may stop early must not have read further than it scored: the digest would tell.
    ahead = getattr(scorer, "ahead", 0) if precision is None else 0
    size: int = block_bytes or getattr(scorer, "block_bytes", None) or blocks.BLOCK_BYTES
    source = cut(prepare(like, corpus, is_wikitext(corpus)), size)
    for begun in _ahead(_begin(source, work, run), ahead):
        records = begun.known
        documents = begun.documents
        if records is None:
            documents, records, done = finish_block(work, begun)
            fresh += done
            if group_by:
                records = [
                    replace(kept, group=group_of(document, group_by))
                    for document, kept in zip(documents, records, strict=True)
                ]
            if run is not None:
                run.append(records, getattr(scorer, "engine", None))
        else:
            assert run is not None
            documents = _match(documents, records, run)
        for document, kept in zip(documents, records, strict=True):
            sums.add(document, kept)
            work.remember(kept)
            if texts and kept.entry is not None:
                entries.append(kept.entry)
        if progress is not None:
            progress(
                Progress(
                    sums.totals.documents,
                    sums.totals.tokens,
                    fresh,
                    corpus.position,
                    corpus.size,
                    time.monotonic() - started,
                    sums.moments,
                )
            )
        if (
            precision is not None
            and sums.moments.documents >= PILOT
            and statistics.half_width(sums.moments, few=sums.few) <= precision
        ):
            break
    if corpus.documents and not sums.totals.documents and corpus.skipped:
        # Only rows that the model cannot score: there is no number to report.
        raise InputError(f"Nothing in {corpus.name} can be scored: {corpus.skipped[-1].reason}")
    report = _report(scorer, corpus, like, sums, without)
    return replace(report, texts=tuple(entries))


def _without(scorer: Scorer, run: Run | None, companions: bool) -> str | None:
    """Say why there are no companions; None where there are."""
    if not fills(scorer, WANT):
        return "this kind of model gives no entropy and no rank of a token"
    if run.settings.get("companions") if run is not None else companions:
        return None
    if companions:
        return "the run was begun without them; give --out another folder"
    return "they were not asked for"


def _begin(source: Iterator[list[Document]], work: Work, run: Run | None) -> Iterator[Begun]:
    """Take the committed blocks as they are, and begin the others."""
    known = run.records() if run is not None else iter(())
    committed = run.committed if run is not None else 0
    for number, block in enumerate(source):
        if number < committed:
            yield Begun(block, known=next(known))
        else:
            yield begin_block(work, block)


def _ahead(items: Iterator[Begun], count: int) -> Iterator[Begun]:
    """Take some items in advance; where that fails, what was taken before still comes out."""
    taken: deque[Begun] = deque()
    problem: Exception | None = None
    while problem is None:
        try:
            taken.append(next(items))
        except StopIteration:
            break
        except Exception as caught:  # whatever a reader raises, once the blocks before are done
            problem = caught
            break
        if len(taken) > count:
            yield taken.popleft()
    yield from taken
    if problem is not None:
        raise problem


def _match(block: list[Document], records: list[Record], run: Run) -> list[Document]:
    """Pair a committed block with the corpus, rows that were skipped left out.

    Raises:
        RunError: when the corpus is not the one that the run began with.
    """
    waiting = iter(block)
    matched = []
    for kept in records:
        for document in waiting:
            if record.key(document) == kept.key:
                matched.append(document)
                break
        else:
            raise RunError(
                f"{run.folder} was begun on other text than the corpus has now ({kept.id}); "
                "give --out another folder."
            )
    return matched


def _report(
    scorer: Scorer, corpus: Corpus, like: Convention, sums: Sums, without: str | None
) -> Report:
    signature = scorer.signature.with_(
        data=corpus.name,
        split=corpus.split,
        norm=normaliser(like, is_wikitext(corpus))
        or (None if corpus.normalisation == "none" else corpus.normalisation),
        digest=corpus.digest,
        documents=corpus.documents,
        seed=sums.seed if sums.group_by else None,
    )
    unknown = None if sums.oov is None else sums.oov.tokens
    notes = [
        *getattr(scorer, "notes", ()),
        *oov.note(sums.oov),
        *remarks(scorer, sums.totals, unknown),
    ]
    name = getattr(scorer, "perplexity", PERPLEXITY)
    reasons = absent(sums.totals, sums.moments, name)
    beside = figures(sums.pool)
    if beside is None:
        reasons["companions"] = without or (
            f"the model gave none for {sums.pool.missing} documents"
            if sums.pool.missing
            else REASONS["tokens"]
        )
    overrides: dict[str, float] = {}
    found = renamed(intervals(sums.moments, few=sums.few), name)
    if sums.spelled:
        signature = signature.with_(bytes="tokens")
        notes.append(
            f"{sums.spelled} documents are token ids without a count of bytes: bytes are those of "
            "the tokens' spelling in the vocabulary"
        )
    if sums.lossy:
        notes.append(
            f"the tokenizer does not give {sums.lossy} of {sums.totals.documents} texts back "
            "unchanged: it codes a changed text, while bytes are the source's"
        )
    if like.aggregate == "published" and sums.published[1]:
        overrides["perplexity"] = exp(sums.published[0] / sums.published[1])
        found.pop("perplexity", None)
    if like.aggregate == "mean" and sums.perplexities[1]:
        overrides["perplexity"] = sums.perplexities[0] / sums.perplexities[1]
        found.pop("perplexity", None)
        reasons["interval of perplexity"] = "a mean of perplexities is no ratio of sums"
        notes.append("perplexity is the mean of the texts' perplexities, as HF evaluate prints it")
    if like.error == "tokens" and sums.totals.tokens > 1:
        error = statistics.token_error(sums.totals, sums.moments.token_nll2)
        value = exp(sums.totals.per("tokens"))
        found["perplexity"] = Interval(
            value - value * error,
            value + value * error,
            0.683,
            "llama.cpp's own: plus and minus one standard error, tokens taken as independent",
        )
    if "doubled" in (scorer.signature.get("prefix") or ""):
        notes.append("BOS stands twice, as lm-eval has it with this tokenizer; P(BOS|BOS) counts")
    if sums.totals.tokens_skipped:
        notes.append(
            f"{sums.totals.tokens_skipped} tokens were not scored, and their bytes not counted"
        )
    return Report(
        model=scorer.signature.get("model") or "",
        data=corpus.name,
        protocol=like.name,
        signature=signature,
        totals=sums.totals,
        intervals=found,
        reasons=reasons,
        groups=tuple(
            Group(
                group,
                totals,
                renamed(intervals(moments, few=few), name),
                absent(totals, moments, name),
                moments.design_effect(),
                figures(sums.pools[group]),
                name,
                sums.oovs[group],
            )  # fmt: skip
            for group, (totals, moments, few) in sums.groups.items()
        ),
        macro={named(key, name): value for key, value in _macro(sums).items()},
        skipped_rows=tuple(
            {"source": row.source, "line": row.line, "reason": row.reason} for row in corpus.skipped
        ),
        skipped_total=getattr(corpus, "skipped_total", len(corpus.skipped)),
        design_effect=sums.moments.design_effect(),
        overrides=overrides,
        perplexity=name,
        notes=tuple(notes),
        companions=beside,
        oov=sums.oov,
    )


def _macro(sums: Sums) -> dict[str, tuple[float, float, float]]:
    """Average over groups, each weighing the same, with bootstrap intervals."""
    scored = [totals for totals, *_ in sums.groups.values() if totals.tokens]
    if len(scored) < 2:
        return {}
    out = {}
    bits = 1 / math.log(2)
    for unit, name, scale in (("bytes", "bits_per_byte", bits), ("tokens", "nll_per_token", 1.0)):
        mean = sum(totals.per(unit) for totals in scored) / len(scored)
        low, high = sums.bootstrap.interval(unit)
        out[name] = (mean * scale, low * scale, high * scale)
    value, low, high = out["nll_per_token"]
    out["perplexity"] = exp(value), exp(low), exp(high)
    return out
