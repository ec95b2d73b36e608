"""The probability that a word begins or ends at a place: the column ``boundary``.

A word is ended by what comes next: a token that begins with white space, or the end of the text.
The sum of their probabilities is taken under the distribution that scores the token at that place.
One more place is read behind each window's last token, so that its end is seen in its own window.

Source: Pimentel and Meister 2024, "How to Compute the Probability of a Word" (2406.14561); Oh and
Schuler 2024, "Leading Whitespaces of Language Models' Subword WordMarks Pose a Confound for
Calculating Word Probabilities" (2406.10851).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fairway.backends.transformers.tree import Row
from fairway.backends.transformers.vocabulary import WordMarks


def sets(vocabulary: WordMarks, model: Any) -> torch.Tensor:
    """Mark the tokens that may follow a word, and those that may begin a text without a blank.

    Returns:
        ``(2, v)`` booleans on the head's device; the end of a text is in both, ids that no token
        has in neither.
    """
    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    width = max(
        len(vocabulary.begins),
        int(model.config.get_text_config().vocab_size),
        0 if weight is None else len(weight),
    )
    both = torch.zeros((2, width), dtype=torch.bool)
    both[0, : len(vocabulary.begins)] = torch.from_numpy(vocabulary.begins)
    both[1, : len(vocabulary.begins)] = torch.from_numpy(~vocabulary.begins & ~vocabulary.special)
    if vocabulary.eos is not None:
        both[:, vocabulary.eos] = True
    return both if weight is None else both.to(weight.device)


def ahead(row: Row, max_length: int | None) -> Row:
    """Read a window's last token too, and predict one more, where the window is not full."""
    if max_length is not None and len(row.inputs) >= max_length:
        return row
    return row._replace(
        inputs=np.concatenate((row.inputs, row.targets[-1:])),
        targets=np.concatenate((row.targets, np.zeros(1, np.int64))),
    )


def cut(columns: Mapping[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """Take the place behind the last target off again.

    Args:
        columns: of a window, ``boundary`` with a column for each of the `sets`.
        size: its targets.

    Returns:
        Columns of that length; ``boundary`` is ``(size, 3)``: both sets before each token, the
        first of them after it (NaN behind the last token of a full window).
    """
    masses = columns["boundary"]
    after = torch.full((size,), float("nan"), dtype=masses.dtype)
    seen = masses[1 : size + 1, 0]
    after[: len(seen)] = seen
    out = {name: column[:size] for name, column in columns.items()}
    out["boundary"] = torch.cat((masses[:size], after[:, None]), 1)
    return out


def fold(
    vocabulary: WordMarks, ids: NDArray[np.int64], masses: NDArray[np.float64] | None
) -> dict[str, NDArray[Any]]:
    """Say for each token of a document what its word's edges would be worth there.

    Behind white space a word may begin with any token, so that a boundary there is certain; the
    same holds behind the mark of a word's end. The document's first token, where no white space is
    in it, was drawn from those tokens alone.

    Args:
        vocabulary: what its tokens say of words.
        ids: ``(n,)`` tokens, those included that stand before the text.
        masses: ``(n, 3)`` as `cut` gives them; None where nothing was scored.

    Returns:
        ``boundary``, ``(n, 2)`` nats: before each token and after it; ``begins``, ``(n,)``
        booleans: whether the tokens show that a word begins there, or white space before one.
    """
    if masses is None:
        masses = np.full((len(ids), 3), np.nan)
    begins, ends = vocabulary.begins[ids], vocabulary.ends[ids]
    certain = np.concatenate(([False], ends[:-1])) if len(ids) else ends
    shown = begins | certain
    if vocabulary.eos is not None:
        shown |= ids == vocabulary.eos
    before = masses[:, 0].copy()
    first = int(np.argmin(vocabulary.special[ids])) if len(ids) else 0
    if len(ids) and not shown[first]:
        shown[first] = True
        # Where no token begins with white space, no text does, and nothing is left out.
        before[first] = masses[first, 1] if vocabulary.begins.any() else 0.0
    scored = ~np.isnan(masses[:, 0])
    before = np.where(certain & scored, 0.0, before)
    after = np.where(ends & scored, 0.0, masses[:, 2])
    return {"boundary": np.stack((before, after), 1), "begins": shown}
