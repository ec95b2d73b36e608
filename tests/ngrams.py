"""Small n-gram models made of a text, so that tests need no assets."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

DISCOUNT = 0.5
LINE = "the cat sat on a mat and every dog of 12 towns ran after 3 mice in été or Été, "
WORDS = f"{LINE}says Zoë (who knows); prices rose 12.5% — « oui ».".split()


def arpa(sentences: Iterable[Sequence[str]]) -> str:
    """Write a bigram model with absolute discounting and back-off, as ARPA text."""
    single: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for words in sentences:
        padded = ["<s>", *words, "</s>"]
        single.update(padded[1:])
        pairs.update(zip(padded, padded[1:], strict=False))
    total = sum(single.values()) + len(single)
    unigram = {word: count / total for word, count in single.items()}
    unigram["<unk>"] = len(single) / total
    after: dict[str, dict[str, int]] = {}
    for (first, second), count in pairs.items():
        after.setdefault(first, {})[second] = count
    lines, weights = [], {}
    for first, seconds in after.items():
        seen = sum(seconds.values())
        for second, count in seconds.items():
            lines.append(f"{math.log10((count - DISCOUNT) / seen):.6f}\t{first} {second}")
        left = DISCOUNT * len(seconds) / seen
        rest = 1 - sum(unigram[second] for second in seconds)
        weights[first] = math.log10(left / rest) if rest > 1e-9 else -5.0
    rows = [f"-99\t<s>\t{weights['<s>']:.6f}"]
    for word, value in unigram.items():
        back = f"\t{weights[word]:.6f}" if word in weights else ""
        rows.append(f"{math.log10(value):.6f}\t{word}{back}")
    head = f"\\data\\\nngram 1={len(rows)}\nngram 2={len(lines)}\n"
    unigrams, bigrams = "\n".join(rows), "\n".join(lines)
    return f"{head}\n\\1-grams:\n{unigrams}\n\n\\2-grams:\n{bigrams}\n\n\\end\\\n"


def sentencepiece(folder: Path, texts: Iterable[str], size: int = 300) -> Path:
    """Train a small unigram model of SentencePiece."""
    import sentencepiece as library

    library.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(folder / "sp"), vocab_size=size,
        minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    return folder / "sp.model"


def pieces(model: Path) -> Callable[[str], list[str]]:
    """Give what cuts a text into a model's pieces."""
    import sentencepiece as library

    processor = library.SentencePieceProcessor()
    processor.load(str(model))
    return lambda text: list(processor.encode_as_pieces(text))


def sentences(count: int, seed: int = 3) -> list[str]:
    """Make sentences whose words depend on the words before."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        at = rng.randrange(len(WORDS))
        line = []
        for _ in range(rng.randint(4, 14)):
            line.append(WORDS[at])
            at = (at + rng.choice((1, 1, 1, 2, 5))) % len(WORDS)
        out.append(" ".join(line))
    return out


def parts(folder: Path) -> dict[str, Path]:
    """Make a model of pieces, one of words, a SentencePiece model, and a reference text."""
    from fairway.ngram.normalisers import named

    texts = sentences(1500)
    normalise = named("ccnet")
    changed = [normalise(text).text for text in texts]
    model = sentencepiece(folder, changed, 120)
    files = {"sp": model}
    lines = {"pieces": map(pieces(model), changed), "words": (one.split() for one in changed)}
    for name, cut in lines.items():
        files[name] = folder / f"{name}.arpa"
        files[name].write_text(arpa(cut), "utf-8")
    files["reference"] = folder / "reference.jsonl"
    rows = (json.dumps({"text": text}) for text in sentences(1500, 4))
    files["reference"].write_text("\n".join(rows), "utf-8")
    return files


def bundle(made: dict[str, Path], out: Path) -> Path:
    """Make a bundle of pieces under ccnet, calibrated."""
    from fairway.corpus import read
    from fairway.ngram.bundles.making import Plan, make

    plan = Plan(made["pieces"], "ccnet", tokeniser=str(made["sp"]))
    make(plan, out, read(made["reference"]))
    return out
