"""N-gram models: ``kenlm:PATH`` through KenLM, ``arpa:PATH`` through a reader of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.errors import ModelError

if TYPE_CHECKING:
    from fairway.backends.ngram.scoring import NgramScorer


def load_kenlm(
    name: str,
    *,
    bos: bool | str = True,
    eos: bool | str = True,
    segment: str = "lines",
    blank: str = "scored",
) -> NgramScorer:
    """Load a model with KenLM: an ARPA file, also compressed, or a binary of its own.

    Args:
        name: path of the file.
        bos: begin each sentence with ``<s>`` as context.
        eos: score ``</s>`` at each sentence's end.
        segment: ``lines`` (each line is a sentence) or ``document`` (all of it is one).
        blank: ``scored`` (a blank line is a sentence without words, as KenLM's query has it) or
            ``skip``.

    Raises:
        InputError: for a setting that there is none of.
        MissingExtra: when KenLM's module is not installed.
        ModelError: when the file cannot be loaded.
    """
    from fairway.backends.ngram import identity, kenlm, scoring

    rule = scoring.rule(bos, eos, segment, blank)
    path = identity.file(name)
    model = kenlm.load(path)
    scorer = scoring.NgramScorer(model, identity.signature("kenlm", path, model.order, rule), rule)
    if not model.listed:
        scorer.notes.append(scoring.UNLISTED)
    return scorer


def load_arpa(
    name: str,
    *,
    bos: bool | str = True,
    eos: bool | str = True,
    segment: str = "lines",
    blank: str = "scored",
) -> NgramScorer:
    """Load an ARPA file, also compressed, without KenLM.

    Args:
        name: path of the file.
        bos: begin each sentence with ``<s>`` as context.
        eos: score ``</s>`` at each sentence's end.
        segment: ``lines`` (each line is a sentence) or ``document`` (all of it is one).
        blank: ``scored`` or ``skip``, for lines without words.

    Raises:
        InputError: for a setting that there is none of.
        MissingExtra: for .zst without zstandard.
        ModelError: when the file cannot be loaded.
    """
    from fairway.backends.ngram import identity, scoring
    from fairway.backends.ngram.arpa import read
    from fairway.backends.ngram.backoff import Backoff

    rule = scoring.rule(bos, eos, segment, blank)
    path = identity.file(name)
    model = Backoff(read(path))
    for wanted, word in ((rule.bos, "<s>"), (rule.eos, "</s>")):
        if wanted and word.encode() not in model.tables.words:
            setting = "bos" if word == "<s>" else "eos"
            raise ModelError(
                f"{path.name} lists no {word}; give --model-arg {setting}=no to do without it."
            )
    scorer = scoring.NgramScorer(model, identity.signature("arpa", path, model.order, rule), rule)
    if not model.tables.listed:
        scorer.notes.append(scoring.UNLISTED)
    return scorer
