"""From a corpus to word ids on disk, in one pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairway.corpus import Corpus
from fairway.errors import InputError

UNK, BOS, EOS = 0, 1, 2
"""Ids of ``<unk>``, ``<s>`` and ``</s>``; other words follow as they first occur."""
NAMES = (b"<unk>", b"<s>", b"</s>")
MARKS = {b"<unk>": -1, b"<s>": -2, b"</s>": -3, b"<UNK>": -4}
"""Words that the model itself uses. KenLM takes ``<UNK>`` for ``<unk>``."""
BLOCK = 1 << 20
"""Ids that are held before they are written."""


@dataclass(frozen=True, slots=True)
class Text:
    """What was read.

    Attributes:
        sentences: lines with at least one word.
        tokens: words, the ends of sentences not counted.
        types: entries of the vocabulary, ``<unk>``, ``<s>`` and ``</s>`` counted.
        documents: of the corpora.
        skipped: rows that the readers skipped.
        digest: of each corpus.
    """

    sentences: int
    tokens: int
    types: int
    documents: int
    skipped: int
    digest: tuple[str, ...]


def encode(
    corpora: Iterable[Corpus],
    special_words: str,
    ids: Path,
    words: Path,
    show: Callable[[int, int | None], None],
) -> Text:
    """Write the ids of all words to a file, and the vocabulary to another.

    A line is a sentence, and a line without words is none. Words are what stands between ASCII
    white space, as for KenLM: a no-break space is part of a word.

    Args:
        corpora: read one after the other.
        special_words: error, skip or unk.
        ids: takes int32 ids; every sentence begins with `BOS` and ends with `EOS`.
        words: takes the vocabulary in UTF-8, a word a line, in the order of ids.
        show: takes bytes read and the size of the source.

    Raises:
        InputError: for a corpus without words, of token ids, or with special words.
    """
    index: defaultdict[bytes, int] = defaultdict()
    for word, mark in MARKS.items():
        index[word] = mark
    # Ids follow on those of the three names; the four marks are no ids.
    index.default_factory = lambda: len(index) - len(MARKS) + len(NAMES)
    sentences = tokens = documents = skipped = 0
    digests = []
    held: list[int] = []
    with ids.open("wb") as out:

        def flush() -> None:
            nonlocal tokens
            block = _settle(np.array(held, dtype=np.int32), special_words, sentences)
            held.clear()
            tokens += int(np.count_nonzero((block != BOS) & (block != EOS)))
            block.tofile(out)

        for corpus in corpora:
            for document in corpus:
                if document.ids is not None:
                    raise InputError(
                        f"{corpus.name} holds token ids; an n-gram model is trained on text."
                    )
                for line in document.text.encode("utf-8").split(b"\n"):
                    found = line.split()
                    if not found:
                        continue
                    sentences += 1
                    held.append(BOS)
                    held.extend(map(index.__getitem__, found))
                    held.append(EOS)
                    if len(held) >= BLOCK:
                        flush()
                        show(corpus.position, corpus.size)
            documents += corpus.documents
            skipped += corpus.skipped_total
            digests.append(corpus.digest)
        flush()
    if not tokens:
        why = f": all {skipped} rows were skipped" if skipped and not documents else ""
        raise InputError(f"The corpus holds no words{why}; there is nothing to train on.")
    names = [*NAMES, *(word for word in index if word not in MARKS)]
    words.write_bytes(b"".join(word + b"\n" for word in names))
    return Text(sentences, tokens, len(names), documents, skipped, tuple(digests))


def _settle(block: NDArray[np.int32], special_words: str, sentences: int) -> NDArray[np.int32]:
    """Deal with special words as asked for."""
    marked = block < 0
    if not marked.any():
        return block
    if special_words == "error":
        place = int(np.argmax(marked))
        word = next(w for w, mark in MARKS.items() if mark == block[place]).decode()
        # The block's own sentences come last of those that were read.
        number = sentences - int(np.count_nonzero(block[place:] == BOS))
        raise InputError(
            f"Sentence {number:,} of the text holds {word}, which the model needs for itself. "
            f"Pass --special-words unk to count it as <unk>, or skip to leave it out."
        )
    if special_words == "skip":
        return block[~marked]
    block[marked] = UNK
    return block


def vocabulary(path: Path) -> list[str]:
    """Read the words that `encode` wrote, in the order of ids."""
    return path.read_bytes().decode("utf-8").split("\n")[:-1]
