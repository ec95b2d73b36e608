"""The seam between documents and models: one method, and the table of those who fill it."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from fairway.errors import InputError
from fairway.scores import Score
from fairway.signature import Signature

if TYPE_CHECKING:
    from fairway.corpus import Document


@runtime_checkable
class Scorer(Protocol):
    """Anything that gives log-probabilities of documents.

    Attributes:
        signature: what the scorer and its protocol contribute to the signature.

    A scorer may have more, which an evaluation uses where it is there: ``ahead``, calls of `score`
    that should be begun before an earlier one is read; ``columns``, names that `score` can be asked
    for in want (``top`` stands for ``top5`` and the like too), without which nothing is asked for;
    ``budget``, tokens in a batch, which a
    resumed run sets as it was; ``engine``, what sets the pace, for the run's record; ``notes``,
    what the report must say; ``trial``, see `fairway.backends.transformers.trial`;
    ``vocabulary``, its tokenizer, see `fairway.tokenizers`.
    """

    @property
    def signature(self) -> Signature: ...

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        """Score documents, in their order.

        Args:
            documents: what to score.
            want: names of extra columns to fill in the same pass, out of ``columns``.
        """
        ...


def fills(scorer: Scorer, names: Iterable[str]) -> bool:
    """Whether a scorer can fill these columns."""
    return set(names) <= set(getattr(scorer, "columns", ()))


BACKENDS = {
    "hf": "fairway.backends.transformers:load",
}
"""Kinds of model, and where the function that loads one is."""

GROUP = "fairway.scorers"
"""The entry-point group through which other packages add kinds."""


def kinds() -> dict[str, str]:
    """Give every kind of model: the built-in table, then what other packages registered."""
    found = {point.name: point.value for point in entry_points(group=GROUP)}
    return {**found, **BACKENDS}


def split(spec: str) -> tuple[str, str]:
    """Split ``KIND:NAME``; a name without a kind is a Hugging Face model.

    Raises:
        InputError: when the kind is unknown.
    """
    kind, colon, name = spec.partition(":")
    known = kinds()
    if colon and kind in known:
        return kind, name
    if colon and kind.isidentifier() and len(kind) > 1:
        raise InputError(
            f"{kind!r} is not a kind of model; the kinds are {', '.join(sorted(known))}."
        )
    return "hf", spec


def load(spec: str = "hf:builtin", **options: Any) -> Scorer:
    """Load a scorer by name.

    Args:
        spec: ``KIND:NAME``, such as ``hf:gpt2``, ``hf:path/to/folder`` or ``hf:builtin``.
        options: passed to the kind's loader (`max_length`, `stride`, `prefix`, `dtype`, ...).

    Raises:
        InputError: when the kind is unknown.
        MissingExtra: when the kind's packages are not installed.
        ModelError: when the model cannot be loaded.
    """
    kind, name = split(spec)
    module, _, function = kinds()[kind].partition(":")
    scorer: Scorer = getattr(importlib.import_module(module), function)(name, **options)
    return scorer
