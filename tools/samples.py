"""Make the shipped samples of four domains from the test assets.

    python tools/samples.py --assets FOLDER --out src/fairway/data/samples

A pure function of the assets. Text of the built-in model's training set is never taken; with
--training SCRATCH/train.jsonl that is checked line by line.
"""

import argparse
import bz2
import gzip
import json
import re
from pathlib import Path

from fairway.normalise import readable_wikitext

ARTICLES = 14
ARTICLE_BYTES = 2200
NEWS = 90
PAGES = 40
LINE = 40
"""Characters from which on a line in common with the training text is an error."""


def jsonl(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def encyclopedic(assets, heldout):
    """Openings of WikiText-2 test articles that are not held-out text."""
    text = (assets / "corpora/wikitext2/wiki.test.raw").read_text("utf-8")
    taken = {row["id"].partition("/")[2] for row in heldout}
    pieces = re.split(r"(?m)^ = ([^=\n].*?) = *$", text)
    kept = 0
    for title, body in list(zip(pieces[1::2], pieces[2::2], strict=True))[::4]:
        if title in taken or kept == ARTICLES:
            continue
        lines = readable_wikitext(body).splitlines()
        paragraphs = [line for line in lines if line.strip() and not line.startswith("=")]
        opening = ""
        for paragraph in paragraphs:
            if opening and len((opening + paragraph).encode()) > ARTICLE_BYTES:
                break
            opening += ("\n\n" if opening else "") + paragraph
        kept += 1
        yield readable_wikitext(title), opening


def news(assets):
    """News sentences of PUD that were English from the start, an article's together."""
    path = assets / "corpora/multilingual/pud/pud.en.tsv.gz"
    articles = {}
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        name, _, sentence = line.partition("\t")
        if name.startswith("n01"):
            articles.setdefault(name[:-3], []).append(sentence.strip())
    for name, sentences in list(articles.items())[:NEWS]:
        yield name, " ".join(sentences)


def legal(heldout):
    """Sections of the licences that were held out of the built-in model's training."""
    for row in heldout:
        section, number = "", 0
        for paragraph in row["text"].split("\n\n"):
            section += ("\n\n" if section else "") + paragraph
            if len(section.encode()) >= 2000:
                number += 1
                yield f"{row['id'].partition('/')[2]}/{number}", section
                section = ""


def web(assets):
    """Openings of how-to pages in HellaSwag, with their true endings and without their category."""
    path = assets / "corpora/hellaswag/hellaswag_val_full.txt.bz2"
    lines = bz2.decompress(path.read_bytes()).decode().splitlines()
    kept = 0
    for number, start in enumerate(range(0, len(lines) - 5, 6)):
        context, right = lines[start], lines[start + 1]
        _, how, rest = context.partition(": How to ")
        if not how or number % 97:
            continue
        title, _, body = f"{rest} {lines[start + 2 + int(right)]}".partition(". ")
        kept += 1
        yield f"hellaswag/{number}", f"How to {title}\n\n{body}"
        if kept == PAGES:
            return


def check(rows, training):
    """Raise where a long line of a sample is a line of the training text."""
    lines = {
        line.strip()
        for row in jsonl(training)
        for line in row["text"].splitlines()
        if len(line.strip()) >= LINE
    }
    for row in rows:
        for line in row["text"].splitlines():
            if line.strip() in lines:
                raise SystemExit(f"{row['id']}: the training text holds the line {line[:80]!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--training", type=Path, help="train.jsonl of the built-in model")
    options = parser.parse_args()
    heldout = Path(__file__).parents[1] / "src/fairway/data/heldout"
    domains = {
        "encyclopedic": (
            "WikiText-2 raw, test",
            encyclopedic(options.assets, jsonl(heldout / "encyclopedic.jsonl")),
        ),
        "news": ("UD English PUD", news(options.assets)),
        "legal": ("choosealicense.com", legal(jsonl(heldout / "legal.jsonl"))),
        "web": ("HellaSwag, validation", web(options.assets)),
    }
    for domain, (source, texts) in domains.items():
        rows = [
            {"id": name, "text": text, "domain": domain, "source": source} for name, text in texts
        ]
        if options.training:
            check(rows, options.training)
        with open(options.out / f"{domain}.jsonl", "w", encoding="utf-8", newline="\n") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        size = sum(len(row["text"].encode()) for row in rows)
        print(f"{domain}: {len(rows)} documents, {size:,} bytes")


if __name__ == "__main__":
    main()
