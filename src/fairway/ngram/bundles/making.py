"""Making a bundle: its files, its golden scores and its calibration in a folder."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fairway import __version__
from fairway.corpus import Corpus, Document
from fairway.errors import InputError
from fairway.ngram import normalisers
from fairway.ngram.bundles import manifest as manifests
from fairway.ngram.bundles.calibration import Calibration, calibrate
from fairway.ngram.bundles.cutting import SEGMENTERS
from fairway.ngram.bundles.manifest import File, Manifest
from fairway.ngram.bundles.scoring import BundleScorer, build, measure
from fairway.ngram.bundles.tokenisers import FILES, KINDS
from fairway.scores import Score

GOLDEN = (
    "The quick brown fox jumps over the lazy dog.",
    "Café prices rose 12.5% in 2024.\nThe end of line one\nNext line: see １ item.",
    "  “Straße” — naïve … Ωμέγας: 3,141.59 and ½; ΟΔΟΣ\t(ﬁn)\r\n\r\nÅngström № ７７\u00a0km  ",
    "彼は「はい」と言った。価格は１２３円です！",
    "Москва́ — столица; Việt Nam, 123 456.",
    "हिन्दी में १२३, العربية ٤٥٦٫٧",
)
"""Texts that every rule of every normaliser changes; characters of Unicode 6 and earlier."""
SEGMENT = {"ccnet": "document", "edugp": "document", "datatrove": "document",
           "data-juicer": "pieces"}  # fmt: skip
"""How the tools whose normaliser it is cut a text; lines for the others."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bundle is made of.

    Attributes:
        lm: the language model's file.
        normaliser: one of `fairway.ngram.normalisers.NORMALISERS`.
        settings: of the normaliser.
        tokeniser: ``none``, ``whitespace``, or a file: ``tokenizer.json``, else SentencePiece's.
        segmenter: one of `SEGMENTERS`; None = as the tool with the normaliser cuts.
        bos: ``<s>`` stands before each sentence.
        eos: ``</s>`` is scored.
        name: of the bundle; None = the folder's.
        licence: of the model.
        notes: whatever its maker wants to say.
    """

    lm: Path
    normaliser: str = "none"
    settings: dict[str, bool] = field(default_factory=dict)
    tokeniser: str = "none"
    segmenter: str | None = None
    bos: bool = True
    eos: bool = True
    name: str | None = None
    licence: str = ""
    notes: str = ""


def make(
    plan: Plan,
    out: Path,
    reference: Corpus | None = None,
    progress: Callable[[Corpus], None] | None = None,
) -> Manifest:
    """Make a bundle in a new folder, which appears when it is complete.

    Args:
        plan: what it is made of.
        out: the folder.
        reference: a text of the kind that the model is for; None = no calibration.
        progress: called after each document of the reference.

    Raises:
        InputError: for a part that there is none of, a folder that is there, or a reference that
            is too short.
        ModelError: when the model or the tokeniser cannot be loaded.
    """
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} is there already; give --out another folder, or remove it first.")
    normalisers.named(plan.normaliser, plan.settings)
    segmenter = plan.segmenter or SEGMENT.get(plan.normaliser, "lines")
    if segmenter not in SEGMENTERS:
        raise InputError(f"{segmenter!r} is no segmenter; there are {', '.join(SEGMENTERS)}.")
    kind, path = _tokeniser(plan.tokeniser)
    for one in (plan.lm, path):
        if one is not None and not one.is_file():
            raise InputError(f"{one} is no file.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as problem:
        raise InputError(f"{out} cannot be written: {problem.strerror}.") from None
    try:
        manifest = Manifest(
            name=plan.name or out.resolve().name,
            lm=_place(plan.lm, part, plan.lm.name),
            normaliser=plan.normaliser,
            settings=plan.settings,
            tokeniser=kind,
            tokeniser_file=None if path is None else _place(path, part, _other(path, plan.lm)),
            segmenter=segmenter,
            bos=plan.bos,
            eos=plan.eos,
            licence=plan.licence,
            notes=plan.notes,
            made_with=f"fairway {__version__}",
        )
        scorer = build(part, manifest)
        golden = tuple(measure(scorer.inner, text) for text in GOLDEN)
        if not all(math.isfinite(one.log10) for one in golden):
            raise InputError(
                f"{plan.lm.name} gives a word the probability zero, so no score of it can be "
                "checked; it needs <unk>."
            )
        known = None if reference is None else _calibrate(scorer, reference, progress)
        manifest = replace(manifest, golden=golden, calibration=known)
        manifests.write(part, manifest)
        part.chmod(0o755)
        part.rename(out)
    except OSError as problem:
        raise InputError(f"{out} cannot be written: {problem.strerror or problem}.") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _tokeniser(name: str) -> tuple[str, Path | None]:
    """Tell a tokeniser's kind by its name, or by the name of its file."""
    if name in KINDS and name not in FILES:
        return name, None
    path = Path(name)
    return ("hf" if path.suffix == ".json" else "sentencepiece"), path


def _other(path: Path, lm: Path) -> str:
    """Name the tokeniser's file in the folder."""
    taken = path.name in (lm.name, manifests.NAME)
    return f"tokenizer-{path.name}" if taken else path.name


def _place(source: Path, folder: Path, name: str) -> File:
    """Link a file into the folder, or copy it where that cannot be."""
    name = f"lm-{name}" if name == manifests.NAME else name
    target = folder / name
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
    return File(name, manifests.digest(target))


def _calibrate(
    scorer: BundleScorer, reference: Corpus, progress: Callable[[Corpus], None] | None
) -> Calibration:
    def texts() -> Iterable[Document]:
        for document in reference:
            if document.text:
                yield document
            if progress is not None:
                progress(reference)

    scores: Iterator[Score] = scorer.inner.score(texts())
    sums, figures = calibrate(reference.name, scores)
    return Calibration(
        reference.name, reference.digest, sums.documents, sums.bytes, sums.tokens, figures
    )
