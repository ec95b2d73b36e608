"""The calls behind the façade: load, score, evaluate."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairway import scorer as scorers
from fairway.cache import ScoreCache
from fairway.corpus import Corpus, Document, read
from fairway.errors import InputError
from fairway.evaluation import Progress
from fairway.evaluation import evaluate as run_evaluation
from fairway.protocol import convention
from fairway.report import Report, summarize
from fairway.request import Request
from fairway.run import Run
from fairway.scorer import Scorer
from fairway.scores import Score, draw_with
from fairway.signature import Signature

if TYPE_CHECKING:
    from fairway.accuracy import ChoiceReport
    from fairway.comparison import Comparison
    from fairway.corpus.choices import Item, Items
    from fairway.segmenters import Segmenter
    from fairway.words import Words

DEFAULT = "hf:builtin"


def _picture(score: Score) -> str:
    from fairway.render.html import heat_map

    return heat_map(score)


draw_with(_picture)


def load(model: Any = DEFAULT, *, kind: str = "hf", **options: Any) -> Scorer:
    """Load a scorer.

    Args:
        model: ``KIND:NAME``, a hub id, a folder, or a model object (give its ``tokenizer``).
        kind: of a model object: hf (a causal language model), masked or seq2seq.
        options: as the kind's loader takes them: like, prefix, max_length, stride, dtype, ...; a
            ``device`` that lists several (``cuda:0,cuda:1``) takes a process for each, and a script
            then needs ``if __name__ == "__main__":``.

    Raises:
        FairwayError: when the model cannot be loaded as asked.
    """
    devices = str(options.get("device") or "").split(",")
    if len(devices) > 1:
        if not isinstance(model, str | os.PathLike):
            raise InputError(
                "Several devices take a model by name: each process loads it for itself."
            )
        from fairway import spread

        others = {key: value for key, value in options.items() if key != "device"}
        return spread.load(os.fspath(model), [one.strip() for one in devices], **others)
    if isinstance(model, str | os.PathLike):
        return scorers.load(os.fspath(model), **options)
    if isinstance(model, Scorer) and not options:
        return model
    return scorers.load_as(kind, model, **options)


def score(
    text: str | Sequence[str],
    model: Any = DEFAULT,
    *,
    context: str = "",
    want: Sequence[str] = (),
    **options: Any,
) -> Score | list[Score]:
    """Score a text, or each of a list of texts.

    Args:
        text: what to score; a list gives a list.
        model: as `load` takes it.
        context: text that stands before and is not scored.
        want: further columns: entropy, rank, top, boundary.
        options: as `load` takes them.

    Raises:
        InputError: when a text is empty or not a string.
    """
    texts = [text] if isinstance(text, str) else list(text)
    for index, one in enumerate(texts):
        if not isinstance(one, str):
            raise InputError(f"Text {index + 1} is {type(one).__name__}, and not a string.")
    documents = [Document(f"text {i + 1}", one, context) for i, one in enumerate(texts)]
    scores = list(load(model, **options).score(documents, want))
    return scores[0] if isinstance(text, str) else scores


def connect(url: str, model: str | None = None, **settings: Any) -> Scorer:
    """Reach a model that a fairway server has (``fairway serve``), as a scorer like any other.

    Args:
        url: of the server, such as ``http://127.0.0.1:8080``; its token is read from FAIRWAY_TOKEN.
        model: its name there; None = the server's only or first one.
        settings: as `fairway.backends.remote.load` takes them: like, prefix, max_length, stride,
            ... for a protocol other than the server's, patience, timeout, parallel.

    Raises:
        FairwayError: when there is no such server or model, or settings do not fit it.
    """
    return scorers.load_as("fairway", url if model is None else f"{model}@{url}", **settings)


def report_of(
    scorer: Scorer,
    corpus: Corpus,
    scores: Iterable[Score],
    signature: Signature | None = None,
) -> Report:
    """Make a report of a few texts that are scored.

    Args:
        scorer: that scored them.
        corpus: the texts, read to the end.
        scores: theirs.
        signature: the scorer's, where it is at hand: making one may take a while.
    """
    signature = signature or scorer.signature
    report = summarize(scores, signature.with_(digest=corpus.digest))
    unknown = None if report.oov is None else report.oov.tokens
    said = (*getattr(scorer, "notes", ()), *scorers.remarks(scorer, report.totals, unknown))
    return replace(report, notes=(*report.notes, *said))


def word_surprisals(
    text: str | Sequence[str],
    model: Any = DEFAULT,
    *,
    context: str = "",
    corrected: bool = True,
    segment: Segmenter | str | None = None,
    **options: Any,
) -> Words | list[Words]:
    """Give the surprisal of each word of a text, or of each of a list of texts.

    Args:
        text: what to score; a list gives a list.
        model: as `load` takes it.
        context: text that stands before and is not scored.
        corrected: move what a beginning-of-word token says of the word before it to that word.
        segment: gives a text's words as spans or strings, or the name of a segmenter (``icu``,
            ``character``, ``MODULE:FUNCTION``); None = what stands between white space.
        options: as `load` takes them.

    Raises:
        InputError: when a text is empty or not a string, or when most of it is in a script without
            spaces and there is no segmenter.
        ModelError: when the tokenizer does not mark where words are.
    """
    from fairway import segmenters, words

    cut = segmenters.named(segment) if isinstance(segment, str) else segment
    want = (words.COLUMN,) if corrected and cut is None else ()
    found = score(text, model, context=context, want=want, **options)
    if isinstance(found, Score):
        return words.by_word(found, corrected, cut)
    return [words.by_word(one, corrected, cut) for one in found]


def evaluate(
    model: Any = DEFAULT,
    data: str | os.PathLike[str] | Iterable[str] | Corpus = "sample:all",
    *,
    like: str = "fairway",
    group_by: str | None = None,
    texts: bool = False,
    out: str | os.PathLike[str] | None = None,
    precision: float | None = None,
    seed: int = 0,
    companions: bool = True,
    corpus: dict[str, Any] | None = None,
    **options: Any,
) -> Report:
    """Evaluate a model on a corpus.

    Args:
        model: as `load` takes it.
        data: whatever ``--data`` takes, a list of texts, or a `Corpus`.
        like: the convention.
        group_by: field whose values get a part of the report each.
        texts: keep every token.
        out: run directory; a rerun resumes there.
        precision: stop at this relative half-width of perplexity's interval.
        seed: of sampling and the bootstrap.
        companions: report accuracy, entropy, calibration and the tail of surprisal too.
        corpus: options of `fairway.read`.
        options: as `load` takes them.

    Raises:
        FairwayError: for anything wrong with the model, the data or the settings.
    """
    options = {"like": like, **options}
    scorer = load(model, **options) if not isinstance(model, Scorer) else model
    reading = corpus or {}
    source = (
        data if isinstance(data, Corpus) else read(data, seed=seed, group_by=group_by, **reading)
    )
    request = Request(
        os.fspath(model) if isinstance(model, str | os.PathLike) else "",
        os.fspath(data) if isinstance(data, str | os.PathLike) else "",
        options,
        reading,
        group_by,
        texts,
        precision,
        seed,
        companions,
    )
    return perform(request, scorer, source, out=Path(out) if out is not None else None)


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    allow: Sequence[str] = (),
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two runs document by document.

    Args:
        first: run directory of the model that is the measure.
        second: run directory of the one that is held against it.
        allow: keys of the signature that may differ although they make numbers incomparable.
        level: of intervals and tests.
        seed: of the random sign flips.

    Raises:
        ProtocolError: when the runs' numbers are not comparable.
        InputError: when a document is scored in one run alone.
    """
    from fairway import comparable, comparison

    measure, other = comparable.read(Path(first)), comparable.read(Path(second))
    return comparison.compare(measure, other, allow, level, seed)


def choose(
    model: Any,
    data: str | os.PathLike[str] | Items | Sequence[Item],
    *,
    like: str = "fairway",
    delimiter: str = " ",
    unconditional: str | None = None,
    strict: bool = False,
    task: str | None = None,
    group_by: str | None = None,
    limit: int | None = None,
    per_group: int | None = None,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> ChoiceReport:
    """Let a model choose: multiple choice, minimal pairs, last words.

    Args:
        model: as `load` takes it.
        data: whatever `fairway.corpus.choices.read` takes, or its items.
        like: ``fairway`` encodes context and choice as one and scores the tokens that touch the
            choice; ``lm-eval`` does as lm-evaluation-harness.
        delimiter: what stands between a context and a choice.
        unconditional: a context behind which the choices are scored again, for mutual information;
            lm-eval's is empty.
        strict: stop at the first bad row.
        task: blimp, lambada, hellaswag, arc or jsonl; None = told by the rows' fields.
        group_by: field whose values get accuracies each.
        limit: the first so many items.
        per_group: the first so many items of each group.
        progress: called with the number of items done.
        options: as `load` takes them.

    Raises:
        FairwayError: for anything wrong with the model, the data or the settings.
    """
    from fairway import accuracy
    from fairway.choices import LM_EVAL, Rule
    from fairway.corpus import choices
    from fairway.protocol import PAIRS

    if like not in ("fairway", "lm-eval"):
        raise InputError(f"--like {like!r} does not say how to choose; take fairway or lm-eval.")
    theirs = like == "lm-eval"
    if isinstance(model, Scorer) and not options:
        protocol = model.signature.get("protocol")
        if theirs and protocol != PAIRS.name:
            raise InputError(f"This scorer reads as {protocol}; load it with like={PAIRS.name!r}.")
        scorer = model
    else:
        scorer = load(model, like=PAIRS.name if theirs else like, **options)
    items = data
    if isinstance(items, str | os.PathLike):
        items = choices.read(
            items, task, group_by=group_by, limit=limit, per_group=per_group, strict=strict
        )
    basis = LM_EVAL if theirs else Rule()
    rule = replace(basis, delimiter=delimiter, unconditional=unconditional)
    return accuracy.choose(scorer, items, rule, strict=strict, progress=progress)


def perform(
    request: Request,
    scorer: Scorer,
    corpus: Corpus,
    *,
    out: Path | None = None,
    cache: ScoreCache | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Evaluate a request with its model and corpus at hand.

    Args:
        request: what was asked for.
        scorer: its model.
        corpus: its documents.
        out: run directory; a rerun resumes there.
        cache: scores of earlier runs.
        progress: called after each block.

    Raises:
        FairwayError: for anything wrong with the corpus, the settings or the folder.
    """
    run = Run(out, request.settings(scorer, corpus)) if out is not None else None
    budget = (run.settings.get("engine") or {}).get("budget") if run is not None else None
    if budget and hasattr(scorer, "budget"):
        # Batches are planned as when the run began: a function of the corpus and this number.
        scorer.budget = budget
    try:
        report = run_evaluation(
            scorer,
            corpus,
            convention(request.load.get("like", "fairway")),
            group_by=request.group_by,
            texts=request.texts,
            run=run,
            cache=cache,
            precision=request.precision,
            seed=request.seed,
            companions=request.companions,
            overlapping=overlapping(scorer),
            progress=progress,
        )
        if run is not None:
            run.finish(report)
    finally:
        if run is not None:
            run.close()
    return report


def overlapping(scorer: Scorer) -> bool:
    """Whether a scorer's windows overlap."""
    return scorer.signature.get("stride") != scorer.signature.get("length")
