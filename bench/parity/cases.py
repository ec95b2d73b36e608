"""What is compared: models, corpora, and for each convention the same numbers from both sides.

A case is run by a peer (`run.py`) or by a plain loop (`loops.py`), and by fairway (`ours`); both
give the same named lists of numbers.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import loops

import fairway

ROOT = Path(__file__).parent.parent.parent
TEXTS = ROOT / "tests" / "golden" / "texts.json"
TINY = ("adds-bos", "adds-none", "no-bos")
MODELS = {"stories260K": "models/stories260K/hf", "tiny_rwkv": "models/tiny_rwkv/hf_4v0_660K"}
"""Models of the assets, by the name that tables show."""

Numbers = dict[str, list[float]]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        like: the convention.
        model: a name of `TINY` or `MODELS`, or ``builtin``.
        corpus: a name of `corpus`.
        task: ``wikitext`` for lm-eval's own task; ``""`` otherwise.
        options: max_length, stride and prefix, as fairway takes them.
    """

    like: str
    model: str
    corpus: str
    task: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Unique and readable, also the key of the golden records."""
        settings = [f"{key}={value}" for key, value in self.options.items()]
        return " ".join([self.like, self.task or "-", self.model, self.corpus, *settings])


def corpus(name: str, assets: Path | None) -> list[str]:
    """Give a corpus as texts; ``wikitext`` and ``articles`` are articles cut from one file.

    Raises:
        FileNotFoundError: when the assets are not there.
    """
    own = json.loads(TEXTS.read_text("utf-8"))
    if name in own:
        return list(own[name])
    if assets is None:
        raise FileNotFoundError("this corpus lies in the assets")
    folder = assets / "corpora"
    if name == "wikitext":
        source = folder / "wikitext2" / "wiki.test.raw"
        return [d.text for d in fairway.read(source, split="wikitext", limit=5)]
    if name == "pud":
        out = []
        for language in ("en", "de", "zh", "th"):
            with gzip.open(folder / "multilingual" / "pud" / f"pud.{language}.tsv.gz", "rt") as f:
                lines = [line.rstrip("\n").split("\t", 1)[1] for line in f]
            out += [line for line in lines if len(line.encode()) < 400][:25]
        return out
    if name == "stories":
        with gzip.open(folder / "tinystories" / "tinystories_valid_794k.txt.gz", "rt") as f:
            stories = f.read(60_000).split("\n\n")
        return [story for story in stories if 100 < len(story) < 900][:40]
    if name == "licences":
        names = ("mit", "bsd-3-clause", "apache-2.0")
        return [(folder / "legal/oss_licences" / f"{n}.txt").read_text("utf-8") for n in names]
    raise FileNotFoundError(name)


def digest(texts: list[str]) -> str:
    """Hash texts, so that a record says what it was made on: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def peer_cases(assets: bool) -> Iterator[Case]:
    """Every comparison with lm-eval or HF evaluate."""
    for model in TINY:
        yield Case("lm-eval", model, "texts")
        yield Case("lm-eval", model, "texts", options={"max_length": 24})
        yield Case("lm-eval", model, "articles", "wikitext")
        yield Case("hf-evaluate", model, "short")
    yield Case("lm-eval", "adds-bos", "texts", options={"prefix": "bos"})
    yield Case("lm-eval", "adds-bos", "texts", options={"max_length": 24, "prefix": "bos"})
    if assets:
        yield Case("lm-eval", "stories260K", "wikitext", "wikitext")
        for name in ("pud", "stories", "licences"):
            yield Case("lm-eval", "stories260K", name)
        yield Case("lm-eval", "stories260K", "stories", options={"max_length": 100})
        yield Case("hf-evaluate", "stories260K", "pud")
        yield Case("hf-evaluate", "stories260K", "stories")


def loop_cases(assets: bool) -> Iterator[Case]:
    """Every comparison with a plain loop."""
    for model in TINY:
        for like in ("hf-doc", "hf-doc-as-published"):
            yield Case(like, model, "articles")
            yield Case(like, model, "articles", options={"stride": 20})
            yield Case(like, model, "texts", options={"max_length": 48, "stride": 16})
        yield Case("gptq", model, "articles", options={"max_length": 64})
        yield Case("llama.cpp", model, "articles", options={"max_length": 50})
        yield Case("paloma", model, "texts", options={"max_length": 40})
    if assets:
        for name in ("wikitext", "pud", "stories"):
            for like in ("hf-doc", "hf-doc-as-published"):
                yield Case(like, "stories260K", name)
                yield Case(like, "stories260K", name, options={"max_length": 256, "stride": 100})
            yield Case("llama.cpp", "stories260K", name)
            yield Case("gptq", "stories260K", name, options={"max_length": 512})
            yield Case("paloma", "stories260K", name, options={"max_length": 512})
        yield Case("hf-doc", "tiny_rwkv", "licences", options={"max_length": 256, "stride": 128})
        yield Case("gptq", "tiny_rwkv", "licences", options={"max_length": 256})


def ours(case: Case, folder: str, texts: list[str]) -> Numbers:
    """Fairway's numbers for a case."""
    wikitext = case.corpus in ("wikitext", "articles")
    documents = [fairway.Document(str(index), text) for index, text in enumerate(texts)]
    source = fairway.read(documents)
    # What --split wikitext says of a corpus: these texts are one file's articles.
    source.split = "wikitext" if wikitext else None
    keep = case.like in ("lm-eval", "hf-evaluate") and not case.task
    report = fairway.evaluate(folder, source, like=case.like, texts=keep, **case.options)
    if case.task == "wikitext":
        names = ("word_perplexity", "byte_perplexity", "bits_per_byte")
        return {name: [report.metrics[name]] for name in names}
    if case.like == "lm-eval":
        return {"loglikelihood": [-text["metrics"]["nll"] for text in report.texts]}
    if case.like == "hf-evaluate":
        return {
            "mean_perplexity": [report.metrics["perplexity"]],
            "perplexity": [text["metrics"]["perplexity"] for text in report.texts],
        }
    numbers = {"perplexity": [report.metrics["perplexity"]]}
    if case.like != "hf-doc-as-published":
        numbers["tokens"] = [float(report.totals.tokens)]
    if case.like == "llama.cpp":
        span = report.intervals["perplexity"]
        numbers["error"] = [(span.high - span.low) / 2]
    return numbers


def looped(case: Case, model: Any, tokenizer: Any, texts: list[str]) -> Numbers:
    """The plain loop's numbers for a case."""
    wikitext = case.corpus in ("wikitext", "articles")
    rows = loops.dataset_rows("".join(texts)) if wikitext else texts
    length = case.options.get("max_length") or model.config.max_position_embeddings
    stride = case.options.get("stride", min(512, length))
    if case.like == "hf-doc":
        out = loops.hf_doc(model, tokenizer, rows, length, stride)
    elif case.like == "hf-doc-as-published":
        out = loops.hf_doc_as_published(model, tokenizer, rows, length, stride)
        return {"perplexity": [out.perplexity]}
    elif case.like == "gptq":
        out = loops.gptq(model, tokenizer, rows, length)
    elif case.like == "llama.cpp":
        whole = ("" if wikitext else "\n").join(texts)
        out = loops.llama_cpp(model, tokenizer, whole, length)
    else:
        out = loops.paloma(model, tokenizer, texts, length)
    numbers = {"perplexity": [out.perplexity], "tokens": [float(out.tokens)]}
    if case.like == "llama.cpp":
        numbers["error"] = [out.error]
    return numbers


def difference(peer: Numbers, mine: Numbers) -> float:
    """The largest relative difference of any number; infinite where names or counts differ."""
    if {k: len(v) for k, v in peer.items()} != {k: len(v) for k, v in mine.items()}:
        return math.inf
    pairs = [(a, b) for key in peer for a, b in zip(peer[key], mine[key], strict=True)]
    return max((abs(b - a) / abs(a) if a else math.inf * (b != 0) for a, b in pairs), default=0.0)
