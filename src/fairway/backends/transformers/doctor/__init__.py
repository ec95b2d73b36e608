"""Examine a model and its tokenizer for faults that make perplexities wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from transformers.utils import logging

from fairway.backends.transformers.doctor import fit, numbers, spelling
from fairway.backends.transformers.doctor.case import Case, prepare
from fairway.backends.transformers.loading import Loaded
from fairway.corpus import Document
from fairway.errors import InputError
from fairway.finding import Finding

__all__ = ["CHECKS", "SENTENCES", "Finding", "examine"]

CHECKS: dict[str, Callable[[Case], Finding]] = {
    "vocabulary": fit.vocabulary,
    "special tokens' ids": fit.special_ids,
    "doubled BOS": spelling.doubled_bos,
    "with and without BOS": numbers.bos_gap,
    "token at the end": spelling.end_token,
    "tied special tokens": spelling.tied_tokens,
    "lossy tokenizer": spelling.lossy,
    "max_length": fit.max_length,
    "chat template": spelling.template,
    "scoring path": numbers.fast_path,
    "finite numbers": numbers.finite_numbers,
    "causality": numbers.causality,
    "batch invariance": numbers.batch_invariance,
    "padding side": numbers.padding_side,
    "dtype against float32": numbers.dtype_error,
}
"""Every check by its name, in the order in which they are run and shown."""

SENTENCES = (
    "The ferry to the island leaves at half past nine, and it comes back in the late afternoon.",
    "Mix the flour with two eggs, add a little salt, and let the dough rest for an hour.",
    "A court may set the contract aside where one party hid a fact that the other relied on.",
    "In 1889 the tower was opened; by 1930 more than 20 million people had climbed its stairs.",
    '"Who was at the door?" she asked. Nobody answered, so she went to look for herself.',
    "Sound travels about 343 metres in a second through dry air, and much faster through water.",
    "The committee heard three experts, put the vote off until May, and thanked its chair.",
    "When the snow melts, the river rises over the lower fields and leaves a layer of dark mud.",
)
"""What is examined when there is no corpus."""


def examine(
    loaded: Loaded,
    documents: Iterable[Document] | None = None,
    exact: Callable[[], Loaded] | None = None,
) -> list[Finding]:
    """Run every check.

    Args:
        loaded: model and tokenizer, as `fairway.backends.transformers.loading` gives them.
        documents: a small sample of the corpus; None = a few English sentences.
        exact: loads the same model in float32, for one that runs in half precision; without it
            the loaded weights are cast, which does not show what they lost themselves.

    Returns:
        One finding for each of `CHECKS`, in their order, those that found nothing included.

    Raises:
        InputError: when the documents hold no text.
    """
    texts: Sequence[str] = SENTENCES
    if documents is not None:
        texts = [d.context + d.text for d in documents if d.context + d.text]
        if not texts:
            raise InputError("The data holds no text to examine the model on; give another --data.")
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        case = prepare(loaded, texts, exact)
        return [_run(name, check, case) for name, check in CHECKS.items()]
    finally:
        logging.set_verbosity(before)


def _run(name: str, check: Callable[[Case], Finding], case: Case) -> Finding:
    try:
        return check(case)
    except Exception as problem:  # foreign models and tokenizers raise whatever they like
        return Finding(
            name, "note", f"the check could not be run: {type(problem).__name__}: {problem}",
            "Please report this with the model's name.",
        )  # fmt: skip
