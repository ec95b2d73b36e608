"""Build the training and the held-out text of the built-in model from FAIRWAY_ASSETS.

    python tools/builtin/corpus.py --out SCRATCH --heldout src/fairway/data/heldout

Everything is a pure function of the assets: no random choice, no clock, no network.
A document is one article, chapter, speech, licence or court excerpt; a document is either
training or held-out text, never both. Writes SCRATCH/train.jsonl ({"id", "source", "text"}) and
one {domain}.jsonl ({"id", "domain", "text"}) per held-out domain.
"""

import argparse
import csv
import gzip
import io
import json
import os
import re
import zipfile
from pathlib import Path

# WikiText's validation file replaced rare words by this marker. It is never a training target.
UNKNOWN = "<unk>"
OVERLAP_WORDS = (
    13  # a training paragraph that shares so many words in a row with held-out text is dropped
)
OVERLAP_LINE = (
    20  # characters: no held-out line of at least this length may be a line of training text
)

HELDOUT_LICENCES = ("cc-by-4.0", "mpl-2.0", "eupl-1.2")
# French text, or the names of several legal systems' bodies only: no help for English legal prose.
SKIPPED_LICENCES = ("cecill-2.1",)
# Chapters are numbered in file order, and spread over the books: no one story decides the figure.
HELDOUT_BRONTE_CHAPTERS = (60, 100)
HELDOUT_WIKI_BYTES = 60_000
SSLA_EXCERPTS = 300  # of 1,012: court filings with line breaks inside words, so only a part


def read_text(path):
    data = path.read_bytes()
    return (
        (gzip.decompress(data) if path.suffix == ".gz" else data)
        .decode("utf-8")
        .replace("\r\n", "\n")
    )


def unwrap(text):
    """Join the lines of each paragraph (blank-line separated) by single spaces."""
    paragraphs = re.split(r"\n\s*\n", text)
    joined = (" ".join(line.strip() for line in p.splitlines() if line.strip()) for p in paragraphs)
    return "\n\n".join(re.sub(r"  +", " ", p) for p in joined if p)


def detokenize(line):
    """Undo WikiText's tokenisation of one line: `3 @.@ 5 km` -> `3.5 km`, `( a )` -> `(a)`."""
    line = re.sub(r" @([-.,])@ ", r"\1", line)
    line = re.sub(r" ([.,;:!?%)\]}])", r"\1", line)
    line = re.sub(r"([(\[{£$€]) ", r"\1", line)
    line = re.sub(r" '(s|S|re|ve|ll|d|m|t)\b", r"'\1", line)
    line = re.sub(r"s ' ", "s' ", line)
    line = re.sub(r" ?n't\b", "n't", line)
    # Straight quotes alternate: the odd ones open, the even ones close.
    parts = re.split(r' ?" ?', line)
    if len(parts) % 2:
        text = parts[0]
        for number, part in enumerate(parts[1:], 1):
            if number % 2:
                text += (' "' if text and not text.endswith(("(", "[")) else '"') + part
            else:
                text += '"' + ("" if re.match(r"[.,;:!?)\]%]|'s\b|$", part) else " ") + part
        line = text
    return re.sub(r"  +", " ", line).strip()


def wiki_articles(text):
    """Yield (title, article) for every level-1 heading ` = Title = `; headings lose their signs."""
    pieces = re.split(r"(?m)^ = ([^=\n].*?) = *$", text)
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        lines = [detokenize(title)]
        for line in body.splitlines():
            line = re.sub(r"^ (?:= )+(.*?)(?: =)+ *$", r"\1", line).strip()
            if line:
                lines.append(detokenize(line))
        yield lines[0], "\n\n".join(lines)


def chapters(text):
    """Split a book at its chapter headings; what stands before the first is a chapter, too."""
    starts = [m.start() for m in re.finditer(r"(?m)^ *CHAPTER [IVXLC0-9]+\b.*$", text)]
    bounds = [0, *starts, len(text)]
    pieces = (unwrap(text[a:b]) for a, b in zip(bounds, bounds[1:], strict=False))
    return [piece for piece in pieces if len(piece) > 2000]  # shorter: tables of contents


def licences(folder):
    """Yield (SPDX id in lower case, text) without the site's front matter."""
    for path in sorted(folder.glob("*.txt")):
        if path.stem not in SKIPPED_LICENCES:
            text = re.sub(r"\A---\n.*?\n---\n", "", read_text(path), flags=re.S)
            yield path.stem, unwrap(re.sub(r"(?m)^[=\-_*#]{4,}$", "", text))


def table(path):
    csv.field_size_limit(10**9)
    return csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter="\t")


def legalbench(folder):
    """Yield (id, text) of the LegalBench inputs, each distinct text once."""
    for number, row in enumerate(table(folder / "ssla_individual_defendants__test_old.tsv.gz")):
        if number < SSLA_EXCERPTS:
            # Page furniture: pleading-line numbers and court stamps.
            text = re.sub(
                r"Case \d\S*\s+Document.*?Page \d+ of \d+(?:\s+Page ID #:\d+)?", "", row["text"]
            )
            lines = [line for line in text.splitlines() if not re.fullmatch(r"[\s\d-]*", line)]
            yield f"ssla/{number}", re.sub(r"\s+", " ", " ".join(lines)).strip()
    for number, row in enumerate(table(folder / "corporate_lobbying__train.tsv")):
        text = "\n\n".join((row["bill_title"], row["bill_summary"], row["company_description"]))
        yield f"lobbying/{number}", unwrap(text)
    statute = next(iter(table(folder / "sara_numeric__train.tsv.gz")))["statute"]
    yield "sara/statute", re.sub(r" *(?:<br>\s*)+", "\n", statute).strip()
    seen = set()
    for path in sorted(folder.glob("supply_chain*")):
        for number, row in enumerate(table(path)):
            text = unwrap(row["text"])
            if text not in seen:
                seen.add(text)
                yield f"{path.stem}/{number}", text


def speeches(path):
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".txt"):
                yield name, archive.read(name).decode("utf-8", "replace")


def documents(assets):
    """Yield (id, source, domain or None, text); a domain marks held-out text."""
    corpora = Path(assets) / "corpora"
    for title, text in wiki_articles(read_text(corpora / "wikitext2/wiki.valid.tokens")):
        yield f"wiki-valid/{title}", "wiki", None, text
    # The validation file lacks its rare words, so natural held-out text comes from the test file.
    size = 0
    articles = list(wiki_articles(read_text(corpora / "wikitext2/wiki.test.raw")))
    for title, text in articles[3::7]:
        if size + len(text.encode()) <= HELDOUT_WIKI_BYTES:
            size += len(text.encode())
            yield f"wiki-test/{title}", "wiki", "encyclopedic", text
    for number, text in enumerate(chapters(read_text(corpora / "books/bronte.txt.gz"))):
        domain = "fiction" if number in HELDOUT_BRONTE_CHAPTERS else None
        yield f"bronte/{number}", "bronte", domain, text
    for number, text in enumerate(chapters(read_text(corpora / "books/darwin.txt.gz"))):
        yield f"darwin/{number}", "darwin", None, text
    oz = read_text(corpora / "books/oz_and_others_248k.txt.gz")
    yield "oz", "oz", None, re.sub(r"\n(?=[^\n\"“'‘])", " ", oz)
    stories = read_text(corpora / "tinystories/tinystories_train_head_197k.txt")
    yield "tinystories", "tinystories", None, stories
    for name in ("inaugural", "state_union"):
        for member, text in speeches(corpora / f"nltk/{name}.zip"):
            yield member, "speeches", None, unwrap(text)
    for name, text in licences(corpora / "legal/oss_licences"):
        yield f"licence/{name}", "licences", "legal" if name in HELDOUT_LICENCES else None, text
    for name, text in legalbench(corpora / "legal/legalbench"):
        yield f"legalbench/{name}", "legalbench", None, text


def word_runs(text):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + OVERLAP_WORDS]) for i in range(len(words) - OVERLAP_WORDS + 1)}


def lines_of(text):
    return {line.strip() for line in text.splitlines() if len(line.strip()) >= OVERLAP_LINE}


def build(assets):
    """Return (training documents, held-out documents), lists of dicts, with the overlap removed
    from the training side and the absence of held-out lines asserted."""
    train, heldout = [], []
    for name, source, domain, text in documents(assets):
        if domain:
            heldout.append({"id": name, "domain": domain, "text": text})
        else:
            train.append({"id": name, "source": source, "text": text})
    runs = set().union(*(word_runs(d["text"]) for d in heldout))
    lines = set().union(*(lines_of(d["text"]) for d in heldout))
    kept = []
    for document in train:
        separator = "\n\n" if "\n\n" in document["text"] else "\n"
        paragraphs = [
            p
            for p in document["text"].split(separator)
            if p.strip() and runs.isdisjoint(word_runs(p)) and lines.isdisjoint(lines_of(p))
        ]
        text = separator.join(paragraphs)
        if len(text) >= 100:  # characters; what is left of a near-duplicate is no document
            kept.append({**document, "text": text})
    for document in kept:
        shared = lines & lines_of(document["text"])
        assert not shared, f"held-out line in the training document {document['id']}: {shared}"
    return kept, heldout


def write_jsonl(path, rows):
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path, help="scratch folder of train.jsonl")
    parser.add_argument("--heldout", required=True, type=Path, help="folder of {domain}.jsonl")
    options = parser.parse_args()
    train, heldout = build(os.environ["FAIRWAY_ASSETS"])
    options.out.mkdir(parents=True, exist_ok=True)
    options.heldout.mkdir(parents=True, exist_ok=True)
    write_jsonl(options.out / "train.jsonl", train)
    sizes = {}
    for document in train:
        sizes[document["source"]] = sizes.get(document["source"], 0) + len(
            document["text"].encode()
        )
    for domain in sorted({d["domain"] for d in heldout}):
        rows = [d for d in heldout if d["domain"] == domain]
        write_jsonl(options.heldout / f"{domain}.jsonl", rows)
        sizes[f"heldout {domain}"] = sum(len(d["text"].encode()) for d in rows)
    print(json.dumps(sizes, indent=2))


if __name__ == "__main__":
    main()
