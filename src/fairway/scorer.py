"""The seam between documents and models: one method, and the table of those who fill it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from fairway.errors import InputError, MissingExtra, ModelError
from fairway.scores import Score, Totals
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
    resumed run sets as it was; ``block_bytes``, of source, after which a run commits a block;
    ``cacheable``, False where the same signature may stand for other weights tomorrow;
    ``estimate``, which says what so many bytes of source, or so many documents of it, will cost;
    ``engine``, what sets the pace, for the run's record; ``notes``,
    what the report must say; ``remarks``, the same of a run's sums, see `remarks`;
    ``perplexity``, what exp(nll / tokens) is called where it is none of the text by itself;
    ``trial``, see `fairway.backends.transformers.trial`; ``vocabulary``, its tokenizer, see
    `fairway.tokenizers`; ``needs_context``, True where a document without a context is refused;
    ``contextual``, False where what stands before a text cannot change its numbers; ``generate``,
    ``bare``, ``chat``, ``ends`` and ``prefix``, see `fairway.generation`; ``under``, which gives
    another scorer of the same model, as if it were loaded with other settings (like, prefix, ...);
    ``kind``, that of the model, where a scorer of another kind stands for it, as a server's client
    does.
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


def remarks(scorer: Scorer, totals: Totals, unknown: int | None) -> list[str]:
    """What a scorer says of a run's sums, where it has a ``remarks``; a report has it as notes.

    Args:
        scorer: any scorer.
        totals: of all texts of the run, also of those that were scored before.
        unknown: tokens that the vocabulary lacks; None = not known.
    """
    say: Callable[[Totals, int | None], list[str]] | None = getattr(scorer, "remarks", None)
    return [] if say is None else say(totals, unknown)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of model.

    Attributes:
        loader: ``module:function`` that takes a name and options and gives a `Scorer`.
        summary: what it is, in a line.
        extra: the extra of fairway that installs what it needs; None = nothing more is needed.
        packages: top-level modules without which it cannot load.
    """

    loader: str
    summary: str = ""
    extra: str | None = None
    packages: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Packages that are not installed."""
        return tuple(name for name in self.packages if find_spec(name) is None)


BACKENDS = {
    "hf": Kind(
        "fairway.backends.transformers:load",
        "causal language models of Hugging Face transformers, quantised ones too",
        "hf",
        ("torch", "transformers"),
    ),
    "kenlm": Kind(
        "fairway.backends.ngram:load_kenlm",
        "n-gram models that KenLM reads: ARPA files and its binaries",
        "ngram",
        ("kenlm",),
    ),
    "arpa": Kind(
        "fairway.backends.ngram:load_arpa",
        "n-gram models in ARPA files, of any order, without KenLM",
    ),
    "ngram": Kind(
        "fairway.ngram.bundles:load",
        "folders with an n-gram model, its normaliser and its tokeniser (fairway ngram bundle)",
        "ngram",
        ("kenlm",),
    ),
    "gguf": Kind(
        "fairway.backends.gguf:load",
        "GGUF files through llama.cpp, quantised ones too",
        "gguf",
        ("llama_cpp",),
    ),
    "masked": Kind(
        "fairway.backends.masked:load",
        "masked language models (BERT and its kin): pseudo-log-likelihood",
        "hf",
        ("torch", "transformers"),
    ),
    "seq2seq": Kind(
        "fairway.backends.seq2seq:load",
        "encoder-decoder models (T5, BART): a target given its source",
        "hf",
        ("torch", "transformers"),
    ),
    "fairway": Kind(
        "fairway.backends.remote:load",
        "a model that a fairway server has (fairway serve): URL, or NAME@URL",
        "serve",
        ("httpx2",),
    ),
    "openai": Kind(
        "fairway.backends.openai:load",
        "models behind OpenAI-compatible and other servers: NAME@URL",
        "serve",
        ("httpx2",),
    ),
}
"""Kinds of model that fairway brings."""

GROUP = "fairway.scorers"
"""The entry-point group through which other packages add kinds."""

COMMON: Mapping[str, Any] = {
    "like": "fairway", "prefix": None, "max_length": None, "stride": None, "special_tokens": None,
    "adapter": None, "revision": None, "dtype": "auto", "device": "auto", "device_map": None,
    "batch_tokens": None, "threads": None, "trust_remote_code": False, "chat": None,
}  # fmt: skip
"""Options that every command passes, with the values that ask for nothing: a kind that knows no
such option accepts these."""


def kinds() -> dict[str, Kind]:
    """Give every kind of model: the built-in ones, then what other packages registered."""
    found = {
        point.name: Kind(point.value, f"from the package {point.dist.name if point.dist else '?'}")
        for point in entry_points(group=GROUP)
    }
    return {**BACKENDS, **{name: one for name, one in found.items() if name not in BACKENDS}}


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
        InputError: when the kind is unknown, or has no such setting.
        MissingExtra: when the kind's packages are not installed.
        ModelError: when the model cannot be loaded.
    """
    kind, name = split(spec)
    return load_as(kind, name, **options)


def load_as(kind: str, model: Any, **options: Any) -> Scorer:
    """Load a scorer of a kind, by name or from what its loader takes in a name's place.

    Raises:
        InputError: when there is no such kind, or it has no such setting.
        MissingExtra: when the kind's packages are not installed.
        ModelError: when the model cannot be loaded.
    """
    known = kinds()
    if kind not in known:
        raise InputError(
            f"{kind!r} is not a kind of model; the kinds are {', '.join(sorted(known))}."
        )
    loader = _loader(kind, known[kind])
    scorer: Scorer = loader(model, **_taken(kind, loader, options))
    return scorer


def _loader(name: str, kind: Kind) -> Callable[..., Any]:
    """Import a kind's loader, its own or another package's."""
    module, _, function = kind.loader.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as problem:
        if kind.missing and kind.extra:
            raise MissingExtra(f"Scoring with {name}: models", kind.extra) from None
        raise ModelError(
            f"The kind {name} ({kind.summary}) cannot be used: {problem}; install that package "
            "again, or take it away."
        ) from problem
    return found


def _taken(kind: str, loader: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave away options that ask for nothing where a kind does not know them; refuse others."""
    known = inspect.signature(loader).parameters
    if any(one.kind is one.VAR_KEYWORD for one in known.values()):
        return dict(options)
    for key, value in options.items():
        if key not in known and not (key in COMMON and value == COMMON[key]):
            taken = ", ".join(list(known)[1:]) or "none"
            raise InputError(
                f"{kind}: models have no setting {key} (here {value!r}); they take: {taken}."
            )
    return {key: value for key, value in options.items() if key in known}
