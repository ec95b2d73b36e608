"""Whole next-token distributions of scored tokens, in blocks; see `fairway.distributions`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from fairway.backends.gguf import columns, reading
from fairway.backends.gguf.decoding import Decoder
from fairway.backends.gguf.reading import Prepared, Reader
from fairway.corpus import Document, cut
from fairway.distributions import ROWS, Distributions

GROUP_BYTES = 16 << 10
"""Bytes of documents that are tokenized together."""

Piece = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Documents, places and ids of rows, and their logits."""


def walk(
    reader: Reader, decoder: Decoder, documents: Iterable[Document]
) -> Iterator[Distributions]:
    """Give the distributions of documents in the order of the text.

    Windows run one after the other, so that no more than a block's logits are held.
    """
    waiting: list[Piece] = []
    held = 0
    for piece in _pieces(reader, decoder, documents):
        while held + len(piece[0]) >= ROWS:
            take = ROWS - held
            yield _block([*waiting, _part(piece, slice(0, take))])
            piece = _part(piece, slice(take, None))
            waiting, held = [], 0
        if len(piece[0]):
            # The decoder writes over what it gave.
            waiting.append((*piece[:3], piece[3].copy()))
            held += len(piece[0])
    if waiting:
        yield _block(waiting)


def _pieces(reader: Reader, decoder: Decoder, documents: Iterable[Document]) -> Iterator[Piece]:
    before = 0
    for group in cut(documents, GROUP_BYTES):
        for index, item in enumerate(reading.prepare(reader, group)):
            places = _places(reader, item)
            for row in item.rows:
                for _, begun, logits in decoder.logits([row]):
                    span = slice(row.at + begun, row.at + begun + len(logits))
                    place = places[span]
                    kept = np.flatnonzero(place >= 0)
                    if not len(kept):
                        continue
                    ids = row.targets[begun : begun + len(logits)][kept]
                    some = logits if len(kept) == len(logits) else logits[kept]
                    yield np.full(len(kept), before + index), place[kept], ids, some
        before += len(group)


def _places(reader: Reader, item: Prepared) -> NDArray[np.int64]:
    """For each token of a document its place in the document's score; -1 = not scored."""
    numbers = np.full(len(item.ids), np.nan)
    for row in item.rows:
        numbers[row.at : row.at + len(row.targets)] = np.arange(row.at, row.at + len(row.targets))
    kept = reading.finish(reader, item, numbers, {}).logprobs
    out = np.full(len(item.ids), -1)
    scored = np.flatnonzero(~np.isnan(kept))
    out[kept[scored].astype(np.int64)] = scored
    return out


def _part(piece: Piece, rows: slice) -> Piece:
    return piece[0][rows], piece[1][rows], piece[2][rows], piece[3][rows]


def _block(pieces: list[Piece]) -> Distributions:
    document, place, ids = (np.concatenate([piece[i] for piece in pieces]) for i in range(3))
    logits = np.concatenate([piece[3] for piece in pieces])
    sums = columns.log_sums(logits)
    logprobs = columns.score(logits, ids)["logprob"]

    def tile(start: int, stop: int) -> NDArray[np.float64]:
        return logits[:, start:stop] - sums[:, None]

    return Distributions(document, place, ids, logprobs, logits.shape[1], tile)
