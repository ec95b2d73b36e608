"""Bundles: a language model with the normaliser, tokeniser and segmenter that it was made for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairway.ngram.bundles.scoring import BundleScorer


def load(name: str) -> BundleScorer:
    """Load a bundle, once its files have the hashes and its golden texts the scores they had.

    Args:
        name: path of the folder.

    Raises:
        MissingExtra: when a library that it needs is not installed.
        ModelError: when it is damaged or gives other scores than it should.
    """
    from fairway.ngram.bundles import manifest, scoring

    folder = Path(name)
    read = manifest.read(folder)
    manifest.check_files(folder, read)
    scorer = scoring.build(folder, read)
    scoring.check_golden(scorer)
    return scorer
