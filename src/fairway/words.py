"""Surprisal word by word, with the correction for tokenizers that mark where words begin.

A token such as " cat" says that the word before it has ended, and pays for that. What belongs to
the word before is moved there (Pimentel and Meister 2024, 2406.14561; Oh and Schuler 2024,
2406.10851): with ``P(c)`` the probability that a token which begins with white space, or the end
of the text, follows c,

    surprisal(word) = -ln p(its tokens) + ln P(before the word) - ln P(after the word)

Uncorrected probabilities of all words that may come next can sum to more than 1, corrected ones
cannot. Over a text the terms cancel but for the first and the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.errors import InputError
from fairway.scores import Score, number
from fairway.segmenters import Segmenter, spans
from fairway.text import close_gaps

COLUMN = "boundary"
"""The extra column that the correction takes."""
LN2 = math.log(2)


@dataclass(frozen=True, slots=True)
class Words:
    """Surprisal of the words of one text.

    A row is a word, or several where one token reaches into more than one, or where the tokens do
    not show that a word begins. White space before a word belongs to its row.

    Attributes:
        id: the document's id.
        source: the text.
        spans: ``(n, 2)`` characters of each row, white space at its ends left out.
        surprisal: ``(n,)`` nats; NaN where a token of the row is not scored.
        plain: ``(n,)`` the same without correction.
        tokens: ``(n,)`` tokens of each row.
        words: ``(n,)`` words of each row.
        corrected: whether surprisal holds the correction.
        rest: surprisal of what follows the last word, usually white space, nats; 0 = nothing.
        rest_tokens: its tokens.
    """

    id: str
    source: str
    spans: NDArray[np.int64]
    surprisal: NDArray[np.float64]
    plain: NDArray[np.float64]
    tokens: NDArray[np.int64]
    words: NDArray[np.int64]
    corrected: bool
    rest: float = 0.0
    rest_tokens: int = 0

    def __len__(self) -> int:
        return len(self.surprisal)

    @property
    def texts(self) -> list[str]:
        """The words themselves."""
        return [self.source[start:end] for start, end in self.spans]

    @property
    def bits(self) -> NDArray[np.float64]:
        """``(n,)`` surprisal in bits."""
        return self.surprisal / LN2

    def to_json(self) -> dict[str, Any]:
        """Give plain data, in bits; null where a word is not scored."""
        rows = zip(
            self.texts, self.spans.tolist(), self.bits.tolist(), (self.plain / LN2).tolist(),
            self.tokens.tolist(), self.words.tolist(), strict=True,
        )  # fmt: skip
        return {
            "id": self.id,
            "corrected": self.corrected,
            "words": [
                {
                    "text": text, "start": start, "end": end, "bits": number(bits),
                    "uncorrected_bits": number(plain), "tokens": tokens, "words": words,
                }
                for text, (start, end), bits, plain, tokens, words in rows
            ],
            "rest": {"bits": number(self.rest / LN2), "tokens": self.rest_tokens},
        }  # fmt: skip

    def to_frame(self) -> Any:
        """Give a row for each row of words, surprisal in nats, as a pandas DataFrame.

        Raises:
            MissingExtra: when pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            from fairway.errors import MissingExtra

            raise MissingExtra("A DataFrame", "data") from None
        return pandas.DataFrame(
            {
                "text": self.texts, "start": self.spans[:, 0], "end": self.spans[:, 1],
                "surprisal": self.surprisal, "plain": self.plain, "tokens": self.tokens,
                "words": self.words,
            }
        )  # fmt: skip


def by_word(score: Score, corrected: bool = True, segment: Segmenter | None = None) -> Words:
    """Add tokens up to words.

    Args:
        score: of a text; for the correction with the column ``boundary``.
        corrected: apply the correction. With a segmenter there is none: its words have no mark.
        segment: gives a text's words as spans or strings; None = what stands between white space.

    Raises:
        InputError: when the score has no text, when the column is not there, or as
            `fairway.segmenters.spans`.
    """
    if not score.text and len(score):
        raise InputError(f"{score.id} has no source text, so its words are not known.")
    corrected = corrected and segment is None
    if corrected and COLUMN not in score.extras:
        raise InputError(
            "The correction takes the column boundary: score with want=['boundary'], or pass "
            "corrected=False for plain sums."
        )
    found = spans(score.text, segment)
    first, last = _touched(score, found)
    edges = [
        at
        for at in range(len(score))
        if at == 0
        or (first[at] > last[at - 1] and (not corrected or score.extras["begins"][at]))
    ]  # fmt: skip
    rows = []
    for start, end in zip(edges, [*edges[1:], len(score)], strict=True):
        plain = -math.fsum(score.logprobs[start:end].tolist()) + 0.0
        value = plain
        if corrected:
            value += _before(score, start) - float(score.extras[COLUMN][end - 1, 1])
        rows.append((int(first[start]), int(last[end - 1]), value, plain, end - start))
    rest = rows.pop() if rows and rows[-1][0] == len(found) else None
    begin = np.array([row[0] for row in rows], np.int64)
    final = np.array([min(row[1], len(found) - 1) for row in rows], np.int64)
    return Words(
        score.id,
        score.text,
        np.stack((found[begin, 0], found[final, 1]), 1) if rows else np.zeros((0, 2), np.int64),
        np.array([row[2] for row in rows], np.float64),
        np.array([row[3] for row in rows], np.float64),
        np.array([row[4] for row in rows], np.int64),
        final - begin + 1,
        corrected,
        rest[2] if rest else 0.0,
        rest[4] if rest else 0,
    )


def _before(score: Score, at: int) -> float:
    """The term of a row's left edge; none where a context has begun the word already."""
    return float(score.extras[COLUMN][at, 0]) if score.extras["begins"][at] else 0.0


def _touched(score: Score, found: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the first and the last word that each token reaches into.

    A token between words belongs to the word that follows, ``len(found)`` behind the last one.
    Both never fall from token to token.
    """
    size = len(score.text)
    spans = np.clip(close_gaps(score.offsets, size), 0, size)
    following = np.zeros(size + 1, np.int64)
    np.add.at(following, found[:, 1], 1)
    following = np.cumsum(following)
    preceding = np.zeros(size + 1, np.int64)
    np.add.at(preceding, found[:, 0] + 1, 1)
    preceding = np.cumsum(preceding) - 1
    # Words that end behind a token's start, and those that start before its end.
    first, last = following[spans[:, 0]], preceding[spans[:, 1]]
    last = np.maximum(first, last)
    empty = spans[:, 0] == spans[:, 1]
    for at in np.flatnonzero(empty)[::-1]:
        first[at] = last[at] = first[at + 1] if at + 1 < len(first) else following[spans[at, 0]]
    first, last = np.maximum.accumulate(first), np.maximum.accumulate(last)
    return first, np.maximum(first, last)
