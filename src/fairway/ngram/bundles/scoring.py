"""The scorer of a bundle: its golden scores checked, its calibration held against what it reads."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fairway import __version__
from fairway.backends.ngram import arpa, kenlm
from fairway.backends.ngram.backoff import Backoff
from fairway.backends.ngram.scoring import LN10, SEGMENTS, UNLISTED, Model, NgramScorer, Rule
from fairway.corpus import Document
from fairway.errors import MissingExtra, ModelError
from fairway.ngram.bundles import tokenisers
from fairway.ngram.bundles.calibration import count
from fairway.ngram.bundles.cutting import cutter
from fairway.ngram.bundles.manifest import Golden, Manifest
from fairway.ngram.normalisers import named
from fairway.signature import Signature

if TYPE_CHECKING:
    from fairway.scores import Score, Totals

TOLERANCE = 1e-6
"""Relative difference of a golden score: probabilities are float32, their sums float64."""
DIGITS = 12


@dataclass(slots=True)
class BundleScorer:
    """Scores documents as a bundle says.

    Attributes:
        manifest: the bundle.
        inner: the n-gram model behind the bundle's normaliser, tokeniser and segmenter.
    """

    manifest: Manifest
    inner: NgramScorer

    columns = NgramScorer.columns

    @property
    def signature(self) -> Signature:
        """The model's and the rule's part."""
        return self.inner.signature

    @property
    def notes(self) -> list[str]:
        """What the report must say, whatever the texts are."""
        return self.inner.notes

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        """Score documents in their order; see `fairway.scorer.Scorer`."""
        for score in self.inner.score(documents, want):
            yield replace(score, unit=_unit(self.manifest))

    def remarks(self, totals: Totals, unknown: int | None) -> list[str]:
        """Say where a run's sums are far from the calibration, with the evidence."""
        known = self.manifest.calibration
        if known is None:
            return []
        evidence = known.evidence(totals, unknown)
        if not evidence:
            return []
        usual = known.figures.get("bits_per_byte")
        # Unknown words come first, where they are evidence.
        easy = usual is not None and totals.per("bytes") / math.log(2) < usual.value
        if easy and "bits per byte" in evidence[0]:
            reason = "repeats itself, or the model was trained on it"
        elif self.manifest.tokeniser in tokenisers.FILES:
            reason = "is unlike what this model was made for: another language, encoding or markup"
        else:
            reason = "was probably not normalised for this model"
        return [f"{', '.join(evidence)} (on {known.reference}): this text {reason}"]


def _unit(manifest: Manifest) -> str:
    return "token" if manifest.tokeniser in tokenisers.FILES else "word"


def build(folder: Path, manifest: Manifest) -> BundleScorer:
    """Load the parts of a bundle.

    Raises:
        ModelError: when one cannot be loaded.
        MissingExtra: when a library is not installed.
    """
    file = manifest.tokeniser_file
    normalise = named(manifest.normaliser, manifest.settings)
    tokenise = tokenisers.load(manifest.tokeniser, folder / file.file if file else None)
    cut = None if _bare(manifest) else cutter(normalise, tokenise, manifest.segmenter)
    model, listed = _model(folder / manifest.lm.file)
    rule = Rule(manifest.bos, manifest.eos, manifest.segmenter)
    notes = [] if listed else [UNLISTED]
    signature = _signature(manifest, model, rule)
    return BundleScorer(manifest, NgramScorer(model, signature, rule, cut, notes))


def _bare(manifest: Manifest) -> bool:
    """Whether the text is cut as KenLM cuts it, which is done faster."""
    return (
        manifest.normaliser in ("none", "data-juicer")
        and manifest.tokeniser == "none"
        and manifest.segmenter in SEGMENTS
    )


def _model(path: Path) -> tuple[Model, bool]:
    """Load a model, and say whether it lists the unknown word; without KenLM where it must be."""
    try:
        model = kenlm.load(path)
    except (MissingExtra, ModelError) as problem:
        with path.open("rb") as stream:
            binary = stream.read(len(kenlm.MAGIC)) == kenlm.MAGIC
        if binary:
            raise problem from None
        other = Backoff(arpa.read(path))
        return other, other.tables.listed
    return model, model.listed


def _signature(manifest: Manifest, model: Model, rule: Rule) -> Signature:
    file = manifest.tokeniser_file
    settings = [f"{key}={'yes' if on else 'no'}" for key, on in sorted(manifest.settings.items())]
    return Signature.of(
        {
            "kind": "ngram",
            "model": manifest.name,
            "weights": manifest.lm.sha256[:DIGITS],
            "tok": manifest.tokeniser if file is None else file.sha256[:DIGITS],
            "order": model.order,
            "normaliser": ",".join([manifest.normaliser, *settings]),
            **rule.fields(),
            "protocol": "fairway",
            "unit": _unit(manifest),
            "agg": "ratio",
            "version": __version__,
        }
    )


def measure(scorer: NgramScorer, text: str) -> Golden:
    """Give what a model says of a text."""
    sums, unknown = count(next(iter(scorer.score([Document("golden", text)]))))
    return Golden(text, -sums.nll / LN10, sums.tokens, unknown)


def check_golden(scorer: BundleScorer) -> None:
    """Score the golden texts again.

    Raises:
        ModelError: naming the first text whose score is another.
    """
    for number, expected in enumerate(scorer.manifest.golden, 1):
        found = measure(scorer.inner, expected.text)
        if (
            math.isclose(found.log10, expected.log10, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
            and (found.tokens, found.oov) == (expected.tokens, expected.oov)
        ):  # fmt: skip
            continue
        raise ModelError(
            f"The bundle {scorer.manifest.name} does not give golden text {number} "
            f"({expected.text[:40]!r}) its score: {_told(found)}, expected {_told(expected)}. A "
            "library that it uses has changed, or its manifest was edited."
        )


def _told(one: Golden) -> str:
    return f"log10 {one.log10:.6f} for {one.tokens} tokens, {one.oov} of them unknown"
