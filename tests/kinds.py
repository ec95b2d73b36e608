"""Kinds of model for the conformance suite: a line each, and the backend of docs/kinds.md."""

from __future__ import annotations

import atexit
import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import arpas
import gguf_models
import lacking
import models
import ngrams

DOCS = Path(__file__).parents[1] / "docs"
WORDS = ["the", "cat", "hen", "garden", "and", "in", "Straße", "猫", "e\u0301"]
SEED = "the cat and the hen in the garden: the end of the tale, and then some more of it.\n" * 20


def block(page: str, language: str) -> str:
    """Take the first block of code of a language out of a page."""
    found = re.search(rf"```{language}\n(.*?)```", (DOCS / page).read_text("utf-8"), re.S)
    assert found is not None
    return found.group(1)


def install(folder: Path) -> None:
    """Install docs/kinds.md's package there, as pip would: a module and its entry point."""
    (folder / "fairway_bigram.py").write_text(block("kinds.md", "python"), "utf-8")
    info = folder / "fairway_bigram-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fairway-bigram\nVersion: 1.0\n")
    toml = block("kinds.md", "toml")
    name, target = re.search(r'^(\w+) = "(.+)"$', toml, re.M).groups()  # type: ignore[union-attr]
    (info / "entry_points.txt").write_text(f"[fairway.scorers]\n{name} = {target}\n")


def saved(architecture: str) -> Callable[[Path], str]:
    """Give a builder of a folder with a small model of that architecture."""

    def build(folder: Path) -> str:
        models.build(architecture).save_pretrained(folder)
        models.tokenizer().save_pretrained(folder)
        return f"hf:{folder}"

    return build


def bigram(folder: Path) -> str:
    (folder / "tale.txt").write_text(SEED, "utf-8")
    return f"bigram:{folder / 'tale.txt'}"


def arpa(kind: str) -> Callable[[Path], str]:
    """Give a builder of a small trigram model for one of the two readers."""

    def build(folder: Path) -> str:
        path = folder / "words.arpa"
        path.write_text(arpas.write(arpas.draw(3, WORDS, 3), 3), "utf-8")
        return f"{kind}:{path}"

    return build


def bundle(folder: Path) -> str:
    return f"ngram:{ngrams.bundle(ngrams.parts(folder), folder / 'bundle')}"


def gguf(folder: Path) -> str:
    for name in ("llama_cpp", "gguf"):
        pytest.importorskip(name, reason=lacking.gguf())
    return f"gguf:{gguf_models.llama(folder / 'llama.gguf')}"


def masked(folder: Path) -> str:
    models.masked("bert").save_pretrained(folder)
    models.wordpiece().save_pretrained(folder)
    return f"masked:{folder}"


def seq2seq(folder: Path) -> str:
    model, tokenizer = models.seq2seq("t5")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return f"seq2seq:{folder}"


def through(flavour: str) -> Callable[[Path], str]:
    """Give a builder of a server that answers from a small model, until the process ends."""

    def build(folder: Path) -> str:
        for name in ("httpx2", "uvicorn"):
            pytest.importorskip(name, reason="it comes with fairway[serve]")
        import standin

        held = contextlib.ExitStack()
        atexit.register(held.close)
        weights = standin.Weights(models.build("llama").eval(), models.tokenizer(), True)
        return f"openai:{held.enter_context(standin.serve(standin.FLAVOURS[flavour](weights)))}"

    return build


def served(folder: Path) -> str:
    """Serve a small model with fairway's own server."""
    pytest.importorskip("uvicorn", reason="it comes with fairway[serve]")
    import standin
    from fairway import load
    from fairway.serve.app import build

    scorer = load(saved("llama")(folder))
    held = contextlib.ExitStack()
    atexit.register(held.close)
    return f"openai:{held.enter_context(standin.serve(build({'small': ('hf', scorer)})))}"


def reached(folder: Path) -> str:
    """Serve a small model, to be reached as if it were here."""
    return served(folder).replace("openai:", "fairway:", 1)


KINDS: dict[str, tuple[Callable[[Path], str], dict[str, object]]] = {
    "hf": (saved("llama"), {}),
    "hf without prefix": (saved("gpt2"), {"prefix": "none"}),
    "hf in bfloat16": (saved("qwen2"), {"dtype": "bfloat16"}),
    "hf, mamba": (saved("mamba"), {"max_length": 64}),
    "hf, mamba carried": (saved("mamba2"), {"state": "carried"}),
    "hf, rwkv": (saved("rwkv"), {"max_length": 64}),
    "kenlm": (arpa("kenlm"), {}),
    "kenlm, one sentence, without its end": (arpa("kenlm"), {"segment": "document", "eos": False}),
    "arpa": (arpa("arpa"), {}),
    "ngram": (bundle, {}),
    "gguf": (gguf, {}),
    "masked": (masked, {}),
    "masked, as first published": (masked, {"pll": "original"}),
    "seq2seq": (seq2seq, {}),
    "openai, as vLLM tells it": (through("vllm"), {}),
    "openai, fairway serve": (served, {}),
    "fairway": (reached, {}),
    "bigram of the docs": (bigram, {}),
}
"""What makes a model of each kind in a folder and gives its name, and the settings it is given."""
