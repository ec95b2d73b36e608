"""Do 95% intervals cover 95 times in 100, and do tests of nothing say something 5 times in 100?

    FAIRWAY_ASSETS=… make bench NAME=coverage

Populations of real texts are scored whole, so that the truth is known; then 40 documents are drawn
with replacement, 20,000 times, and each time the intervals and tests that fairway prints are made.
`POPULATIONS` and `MODELS` were fixed before the first result, and all of them are published. The
RWKV model has no token to begin with, so that the first byte of each text is not scored; where it
is paired with another, that byte is missing on its side.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from common import BUILD, versions, write
from numpy.typing import NDArray

import fairway as fw
from fairway.corpus import read
from fairway.pairs import sign_flips
from fairway.run import read_blocks
from fairway.statistics import quantile, studentised

DOCUMENTS = 40
REPETITIONS = 20_000
SEED = 20_26


def _gzip(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("utf-8")


def wikitext(assets: Path) -> Iterator[str]:
    """All articles of WikiText-2's test part."""
    for document in read(assets / "corpora/wikitext2/wiki.test.raw", split="wikitext"):
        yield document.text


def licences(assets: Path) -> Iterator[str]:
    """All licences of open-source software."""
    for path in sorted((assets / "corpora/legal/oss_licences").glob("*.txt")):
        yield path.read_text("utf-8")


def stories(assets: Path) -> Iterator[str]:
    """The first 300 stories of TinyStories' validation part."""
    text = _gzip(assets / "corpora/tinystories/tinystories_valid_794k.txt.gz")
    yield from [one for one in text.split("\n\n") if one.strip()][:300]


def speeches(assets: Path) -> Iterator[str]:
    """All inaugural addresses of presidents of the United States."""
    with zipfile.ZipFile(assets / "corpora/nltk/inaugural.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".txt") and "README" not in name:
                yield archive.read(name).decode("utf-8", "replace")


def sentences(assets: Path) -> Iterator[str]:
    """All English sentences of Parallel Universal Dependencies."""
    for line in _gzip(assets / "corpora/multilingual/pud/pud.en.tsv.gz").splitlines():
        yield line.split("\t")[-1]


def paragraphs(assets: Path) -> Iterator[str]:
    """All English paragraphs of XQuAD."""
    data = json.loads(_gzip(assets / "corpora/multilingual/xquad/xquad.en.json.gz"))
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            yield paragraph["context"]


def passages(assets: Path) -> Iterator[str]:
    """The first 500 passages of LAMBADA."""
    for line in _gzip(assets / "corpora/lambada/lambada_test.jsonl.gz").splitlines()[:500]:
        yield json.loads(line)["text"]


def samples(assets: Path) -> Iterator[str]:
    """The samples that are shipped with fairway, of four domains."""
    for document in read("sample:all"):
        yield document.text


POPULATIONS: tuple[Callable[[Path], Iterator[str]], ...] = (
    wikitext, licences, stories, speeches, sentences, paragraphs, passages, samples,
)  # fmt: skip
MODELS = {
    "builtin": "hf:builtin",
    "stories260K": "models/stories260K/hf",
    "rwkv": "models/tiny_rwkv/hf_4v0_660K",
}


def scored(assets: Path, model: str, population: Callable[[Path], Iterator[str]]) -> Any:
    """Score a population, or read what an earlier call scored: arrays by document."""
    place = MODELS[model]
    folder = BUILD / "coverage" / f"{population.__name__}-{model}"
    if not (folder / "report.json").exists():
        name = place if place.startswith("hf:") else str(assets / place)
        fw.evaluate(name, list(population(assets)), out=folder)
    kept = [one for block in read_blocks(folder) for one in block]
    return {
        "nll": np.array([one.totals.nll for one in kept]),
        "bytes": np.array([one.totals.bytes for one in kept], dtype=np.float64),
        "tokens": np.array([one.totals.tokens for one in kept], dtype=np.float64),
        "token_nll2": np.array([one.token_nll2 for one in kept]),
    }


def covered(
    values: NDArray[Any], counts: NDArray[Any], draws: NDArray[Any]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say whether each draw's interval holds the population's ratio: fairway's own, and t's."""
    truth = values.sum() / counts.sum()
    x, c = values[draws], counts[draws]
    sums = c.sum(1)
    ratios = x.sum(1) / sums
    apart = x - ratios[:, None] * c
    errors = np.sqrt(DOCUMENTS / (DOCUMENTS - 1) * (apart**2).sum(1)) / sums
    plain = np.abs(ratios - truth) <= quantile(DOCUMENTS) * errors
    own = np.empty(len(draws), bool)
    for place, (one, count) in enumerate(zip(x, c, strict=True)):
        span = studentised(one, count)
        low, high = span or (ratios[place], ratios[place])
        own[place] = low <= truth <= high if span else plain[place]
    return own, plain


def independent(one: dict[str, NDArray[Any]], draws: NDArray[Any]) -> float:
    """Coverage of the interval that takes tokens as independent, as llama.cpp prints it."""
    tokens, nll = one["tokens"][draws].sum(1), one["nll"][draws].sum(1)
    mean = nll / tokens
    error = np.sqrt((one["token_nll2"][draws].sum(1) / tokens - mean**2) / (tokens - 1))
    truth = one["nll"].sum() / one["tokens"].sum()
    return float(np.mean(np.abs(mean - truth) <= 1.96 * error))


def rejected(apart: NDArray[Any], draws: NDArray[Any], signs: NDArray[Any]) -> tuple[float, float]:
    """How often the tests find a difference where models were swapped at random per document."""
    values = apart[draws] * signs
    means, spread = values.mean(1), values.std(1, ddof=1) / np.sqrt(DOCUMENTS)
    t = float(np.mean(np.abs(means) > quantile(DOCUMENTS) * spread))
    flips = [sign_flips(row, seed)[0] <= 0.05 for seed, row in enumerate(values)]
    return t, float(np.mean(flips))


def cell(job: tuple[str, str, Any, Any]) -> dict[str, Any]:
    """Measure a population under a model, or under two."""
    population, model, first, second = job
    name = f"{SEED} {population} {model}".encode()
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(name).digest()[:8], "little"))
    size = len(first["nll"])
    draws = draw.integers(0, size, (REPETITIONS, DOCUMENTS))
    row: dict[str, Any] = {"population": population, "model": model, "documents": size}
    if second is None:
        own, plain = covered(first["nll"], first["bytes"], draws)
        bits = first["nll"].sum() / first["bytes"].sum() / np.log(2)
        row |= {"bits_per_byte": bits, "own": own.mean(), "t": plain.mean()}
        row["tokens_independent"] = independent(first, draws)
    else:
        apart = second["nll"] - first["nll"]
        own, plain = covered(apart, first["bytes"], draws)
        bits = apart.sum() / first["bytes"].sum() / np.log(2)
        row |= {"bits_per_byte": bits, "own": own.mean(), "t": plain.mean()}
        signs = draw.integers(0, 2, draws.shape) * 2 - 1
        row["reject_t"], row["reject_flips"] = rejected(apart, draws, signs)
    return {key: float(v) if isinstance(v, np.floating) else v for key, v in row.items()}


def within(rows: list[dict[str, Any]], key: str, low: float, high: float) -> dict[str, Any]:
    """Hold the rows' mean against a band, and name the rows that lie outside."""
    values = [row[key] for row in rows if row.get(key) is not None]
    mean = float(np.mean(values))
    outside = [
        f"{row['population']}, {row['model']}: {row[key]:.3f}"
        for row in rows
        if row.get(key) is not None and not low <= row[key] <= high
    ]
    return {
        "value": round(mean, 4),
        "target": f"{low:g} to {high:g}",
        "met": bool(low <= mean <= high and not outside),
        "lowest": round(min(values), 4),
        "highest": round(max(values), 4),
        "outside": outside,
    }


def main() -> None:
    """Score, draw, and write the results."""
    root = os.environ.get("FAIRWAY_ASSETS")
    if not root:
        raise SystemExit("FAIRWAY_ASSETS must name the folder of test assets.")
    assets = Path(root)
    known = {(p.__name__, m): scored(assets, m, p) for m in MODELS for p in POPULATIONS}
    jobs: list[tuple[str, str, Any, Any]] = [(p, m, one, None) for (p, m), one in known.items()]
    for population in POPULATIONS:
        for a, b in combinations(MODELS, 2):
            name = population.__name__
            jobs.append((name, f"{a} - {b}", known[name, a], known[name, b]))
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(cell, jobs))
    single = [row for row in rows if "reject_t" not in row]
    paired = [row for row in rows if "reject_t" in row]
    goals = {
        "coverage_single": within(single, "own", 0.93, 0.97),
        "coverage_paired": within(paired, "own", 0.93, 0.97),
        "coverage_single_by_t": {**within(single, "t", 0.93, 0.97), "target": "-", "met": True},
        "coverage_paired_by_t": {**within(paired, "t", 0.93, 0.97), "target": "-", "met": True},
        "coverage_tokens_independent": {
            **within(single, "tokens_independent", 0.93, 0.97), "target": "-", "met": True,
        },
        "false_positive_t": within(paired, "reject_t", 0.04, 0.06),
        "false_positive_flips": within(paired, "reject_flips", 0.04, 0.06),
    }  # fmt: skip
    write("coverage", rows, goals, versions("numpy", "fairway", "torch", "transformers"))


if __name__ == "__main__":
    main()
