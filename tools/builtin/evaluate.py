"""Measure the built-in model on held-out text, beside xz and KenLM of order 5.

    python tools/builtin/evaluate.py --scratch SCRATCH --run NAME --lmplz LMPLZ \
        --model src/fairway/data/models/mini

Writes MODEL/card.json. All figures are bits per byte of UTF-8 text:

    model         the shipped folder, scored by fairway with its defaults
    unrounded     the checkpoint before it was rounded to float16
    kenlm         modified Kneser-Ney of order 5 over the same tokens, trained on the same text
    xz            xz -9e of the held-out text alone
    xz_trained    what the held-out text adds to the compressed training text (64 MiB window)
"""

import argparse
import json
import lzma
import math
import subprocess
from pathlib import Path

import kenlm
import torch
from export import load as load_checkpoint
from tokenizer import pieces
from tokenizers import Tokenizer

import fairway

ROOT = Path(__file__).parents[2]
HELDOUT = ROOT / "src/fairway/data/heldout"
DOMAINS = ("encyclopedic", "fiction", "legal")
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 64 << 20}]


def rows(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def spelled(tokenizer, text):
    """Write token ids as words that KenLM reads."""
    return " ".join(f"t{i}" for i in tokenizer.encode(text, add_special_tokens=False).ids)


def train_kenlm(scratch, tokenizer, lmplz):
    """Estimate the n-gram model once; returns the path of the ARPA file."""
    arpa = scratch / "order5.arpa"
    if not arpa.exists():
        lines = [
            spelled(tokenizer, piece)
            for row in rows(scratch / "train.jsonl")
            for piece in pieces(row["text"])
            if piece
        ]
        part = arpa.with_suffix(".part")
        with open(part, "w", encoding="utf-8") as out:
            subprocess.run(
                [lmplz, "-o", "5", "-S", "500M", "-T", str(scratch), "--discount_fallback"],
                input="\n".join(lines).encode(),
                stdout=out.fileno(),
                check=True,
            )
        part.replace(arpa)
    return arpa


def kenlm_bits(model, tokenizer, text):
    """Bits of a text under the n-gram model, its end not counted."""
    return -model.score(spelled(tokenizer, text), bos=True, eos=False) * math.log2(10)


def xz_bytes(*texts):
    return len(lzma.compress("".join(texts).encode(), lzma.FORMAT_XZ, filters=XZ))


def news(model):
    """Bits per byte of the shipped news-like sample, in no domain of the training text."""
    return fairway.evaluate(model, "sample:news").metrics["bits_per_byte"]


def measure(options):
    torch.set_num_threads(2)
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    checkpoint, steps = load_checkpoint(options.scratch, options.run)
    shipped = fairway.load(str(options.model))
    unrounded = fairway.load(checkpoint, tokenizer=shipped.loaded.tokenizer)
    grams = kenlm.Model(str(train_kenlm(options.scratch, tokenizer, options.lmplz)))
    training = "".join(row["text"] for row in rows(options.scratch / "train.jsonl"))
    before = xz_bytes(training)
    domains = {}
    for domain in DOMAINS:
        texts = [row["text"] for row in rows(HELDOUT / f"{domain}.jsonl")]
        size = sum(len(text.encode()) for text in texts)
        report = fairway.evaluate(shipped, texts)
        exact = fairway.evaluate(unrounded, texts)
        domains[domain] = {
            "documents": len(texts),
            "bytes": size,
            "tokens": report.totals.tokens,
            "model": round(report.metrics["bits_per_byte"], 4),
            "unrounded": round(exact.metrics["bits_per_byte"], 4),
            "kenlm": round(sum(kenlm_bits(grams, tokenizer, t) for t in texts) / size, 4),
            "xz": round(8 * xz_bytes(*texts) / size, 4),
            "xz_trained": round(8 * (xz_bytes(training, *texts) - before) / size, 4),
        }
    return {
        "parameters": sum(p.numel() for p in checkpoint.parameters()),
        "steps": steps,
        "training_bytes": len(training.encode()),
        "unit": "bits per byte",
        "domains": domains,
        "news": round(news(shipped), 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", required=True, type=Path)
    parser.add_argument("--run", required=True, help="name of the run's folder in SCRATCH")
    parser.add_argument("--lmplz", required=True, help="KenLM's lmplz")
    parser.add_argument("--model", required=True, type=Path, help="the exported folder")
    options = parser.parse_args()
    card = measure(options)
    (options.model / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
