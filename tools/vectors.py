"""Make src/fairway/data/vectors/*.json: published log-probabilities that any tool can test against.

Nothing of fairway and nothing of torch computes them: the Llama forward below is plain numpy in
float64, run once for every scored token on exactly the tokens that stand before it under the
protocol; tokens and offsets are the tokenizer file's own, read by the tokenizers library; bytes,
characters and words are counted by a loop over characters.

Usage: python tools/vectors.py ASSETS_FOLDER
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

ROOT = Path(__file__).parents[1]
OUT = ROOT / "src" / "fairway" / "data" / "vectors"
BOS, EOS = 0, 1
TEXTS = {
    "story": (
        "Mia had a small red cart. She pulled it up the hill every morning to bring bread to her "
        "grandmother. One day a wheel came off, and the cart rolled down to the pond. \"Oh no!\" "
        "said Mia. A big brown dog ran after it and held the rope in his teeth. Mia was so happy "
        "that she gave the dog half of the bread.\n\nGrandmother laughed when she heard of it. "
        "\"Then we will share the other half,\" she said, and they sat down in the sun."
    ),
    "scripts": "Zoë ate 3 crêpes — Кошка спит, 猫も寝る 🐈.\n",
    "blank": "  two  blanks,\ttab\r\n",
    "tiny": "a",
}  # fmt: skip
"""Written for this purpose; public domain."""

Case = tuple[str, dict[str, Any], tuple[str, ...]]
LONG, ALL = ("story",), tuple(TEXTS)
CASES: list[Case] = [
    ("fairway", {}, ALL),
    ("fairway", {"prefix": "none"}, ALL),
    ("fairway", {"max_length": 48, "stride": 24}, LONG),
    ("fairway", {"max_length": 48, "stride": 48, "prefix": "none"}, LONG),
    ("lm-eval", {"max_length": 48}, ALL),
    ("hf-doc", {"max_length": 48, "stride": 16}, ("story", "scripts", "blank")),
    ("hf-evaluate", {}, ALL),
    ("llama.cpp", {"max_length": 48}, LONG),
    ("gptq", {"max_length": 48}, LONG),
    ("paloma", {"max_length": 48}, ALL),
]
"""Protocol, settings, texts."""


class Llama:
    """A Llama in float64, from its published equations: RMSNorm, rotary positions, SwiGLU."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text("utf-8"))
        tensors = load_file(folder / "model.safetensors")
        self.w = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
        self.heads = self.config["num_attention_heads"]
        self.groups = self.heads // self.config["num_key_value_heads"]
        width = self.config["hidden_size"]
        self.size = self.config.get("head_dim") or width // self.heads
        rope = self.config.get("rope_parameters") or self.config
        self.theta = float(rope.get("rope_theta", 10000.0))

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        scale = np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        return x / scale * self.w[name]

    def turn(self, x: np.ndarray) -> np.ndarray:
        """Rotate (heads, n, size) by position: the halves are the real and imaginary parts."""
        half = self.size // 2
        speed = self.theta ** (-np.arange(half) * 2.0 / self.size)
        angle = np.arange(x.shape[1])[:, None] * speed[None]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate(
            (a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)), -1
        )

    def last(self, ids: list[int]) -> np.ndarray:
        """Log-probabilities of what follows ids."""
        x = self.w["model.embed_tokens.weight"][ids]
        n = len(ids)
        later = np.triu(np.full((n, n), -np.inf), 1)
        for layer in range(self.config["num_hidden_layers"]):
            at = f"model.layers.{layer}."
            h = self.norm(x, at + "input_layernorm.weight")
            q, k, v = (
                (h @ self.w[f"{at}self_attn.{p}_proj.weight"].T)
                .reshape(n, -1, self.size).transpose(1, 0, 2)
                for p in "qkv"
            )  # fmt: skip
            q, k = self.turn(q), self.turn(k)
            out = np.empty_like(q)
            for head in range(self.heads):
                near = q[head] @ k[head // self.groups].T / math.sqrt(self.size) + later
                near = np.exp(near - near.max(-1, keepdims=True))
                out[head] = near / near.sum(-1, keepdims=True) @ v[head // self.groups]
            x = x + out.transpose(1, 0, 2).reshape(n, -1) @ self.w[at + "self_attn.o_proj.weight"].T
            h = self.norm(x, at + "post_attention_layernorm.weight")
            gate = h @ self.w[at + "mlp.gate_proj.weight"].T
            up = h @ self.w[at + "mlp.up_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.w[at + "mlp.down_proj.weight"].T
        h = self.norm(x[-1:], "model.norm.weight")
        head = self.w.get("lm_head.weight", self.w["model.embed_tokens.weight"])
        logits = (h @ head.T)[0]
        return logits - logits.max() - math.log(np.exp(logits - logits.max()).sum())


def before(
    protocol: str, settings: dict[str, Any], ids: list[int], lead: int
) -> Iterator[tuple[int, list[int]]]:
    """Give each scored token's place, and all that stands before it, protocol by protocol.

    Args:
        protocol: its name.
        settings: max_length, stride, prefix.
        ids: of the text, with those that the tokenizer puts first where the protocol takes them.
        lead: how many of the latter there are.
    """
    n, length = len(ids), settings.get("max_length", 10**9)
    if protocol == "fairway":
        front = [] if settings.get("prefix") == "none" else [BOS]
        room = length - len(front)
        step = min(settings.get("stride", length), room)
        for t in range(n):
            begin = 0
            while t >= begin + room:
                begin += step
            if front or t > begin:
                yield t, front + ids[begin:t]
    elif protocol == "hf-doc":
        for t in range(1, n):
            begin = 0
            while t >= begin + length:
                begin += settings["stride"]
            if t > begin:
                yield t, ids[begin:t]
    elif protocol in ("lm-eval", "paloma"):
        front = BOS if protocol == "lm-eval" else EOS
        for t in range(n):
            first = t // length * length  # of the tokens that t's window predicts
            if not first:
                yield t, [front] + ids[:t]
            else:
                end = min(first + length, n)
                yield t, ids[max(0, end - length - 1) : t]
    elif protocol == "hf-evaluate":
        for t in range(n):
            yield t, [BOS] + ids[:t]
    elif protocol == "gptq":
        for t in range(n // length * length):
            begin = t // length * length
            if t > begin:
                yield t, ids[begin:t]
    elif protocol == "llama.cpp":
        for t in range(n // length * length):
            begin = t // length * length
            if t - begin > length // 2:
                yield t, ([BOS] if lead else ids[begin : begin + 1]) + ids[begin + 1 : t]


def count(text: str, spans: list[tuple[int, int]], scored: list[bool]) -> dict[str, int]:
    """Count what scored tokens cover; a gap before a token is that token's."""
    covered = [False] * len(text)
    end = 0
    for (start, stop), done in zip(spans, scored, strict=True):
        if done:
            for place in range(min(start, end), stop):
                covered[place] = True
        end = max(end, stop)
    if all(scored) and scored:
        covered = [True] * len(text)
    words = 0
    for place, char in enumerate(text):
        begins = not char.isspace() and (place == 0 or text[place - 1].isspace())
        words += begins and covered[place]
    kept = [char for char, done in zip(text, covered, strict=True) if done]
    return {
        "words": words,
        "chars": len(kept),
        "bytes": sum(len(char.encode("utf-8")) for char in kept),
    }


def make(model: Llama, words: Tokenizer, adds: bool, case: Case, name: str) -> dict[str, Any]:
    protocol, settings, _ = case
    text = TEXTS[name]
    encoded = words.encode(text, add_special_tokens=False)
    lead = int(adds and protocol in ("lm-eval", "hf-doc", "llama.cpp", "gptq"))
    ids = [BOS] * lead + encoded.ids
    spans = [(0, 0)] * lead + [tuple(span) for span in encoded.offsets]
    if protocol == "lm-eval" and encoded.ids[:1] == [BOS]:
        raise SystemExit("this text begins with a BOS")
    logprobs: list[float | None] = [None] * len(ids)
    for t, context in before(protocol, settings, ids, lead):
        logprobs[t] = float(model.last(context)[ids[t]])
    if lead and logprobs[0] is None:
        # A leading token that is not scored is no part of the result.
        ids, spans, logprobs = ids[1:], spans[1:], logprobs[1:]
    done = [value is not None for value in logprobs]
    kept = [value for value in logprobs if value is not None]
    sums: dict[str, Any] = {"nll": -math.fsum(kept), "tokens": len(kept)}
    sums |= count(text, spans, done)
    if protocol in ("lm-eval", "paloma"):
        sums |= {"words": len(re.split(r"\s+", text)), "bytes": len(text.encode("utf-8"))}
    return {
        "protocol": protocol, "settings": settings, "text": name, "ids": ids,
        "offsets": [list(span) for span in spans],
        "logprobs": [None if value is None else round(value, 7) for value in logprobs],
        "totals": {**sums, "nll": round(sums["nll"], 7)},
    }  # fmt: skip


def check(model: Llama, reference: Path) -> None:
    """Hold the forward to stories260K's reference, itself another program's."""
    document = json.loads(reference.read_text("utf-8"))["docs"][0]
    ids = document["ids"]
    for t in range(1, 60):
        gap = abs(float(model.last(ids[:t])[ids[t]]) - document["logprobs"][t - 1])
        if gap > 2e-5:
            raise SystemExit(f"the forward is off by {gap:.2g} at token {t}")


def main() -> None:
    assets = Path(sys.argv[1])
    global BOS, EOS
    models = {
        "builtin": (
            ROOT / "src/fairway/data/models/mini", 0, 1,
            "fairway's built-in model: src/fairway/data/models/mini in its source",
        ),
        "stories260K": (
            assets / "models/stories260K/hf", 1, 2,
            "karpathy/tinyllamas, stories260K, as a Llama of transformers (tied embeddings)",
        ),
    }  # fmt: skip
    for name, (folder, BOS, EOS, source) in models.items():
        model = Llama(folder)
        words = Tokenizer.from_file(str(folder / "tokenizer.json"))
        adds = words.encode("a").ids[:1] == [BOS]
        if name == "stories260K":
            check(model, folder.parent / "reference_scores.json")
        weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        cases = [make(model, words, adds, case, text) for case in CASES for text in case[2]]
        out = {
            "format": "fairway vectors 1",
            "model": {"name": name, "source": source, "sha256": weights, "bos": BOS, "eos": EOS},
            "tolerance": 2e-5,
            "texts": TEXTS,
            "cases": cases,
        }
        path = OUT / f"{name}.json"
        lines = [json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases]
        head = json.dumps({**out, "cases": []}, ensure_ascii=False, indent=1)
        path.write_text(head.replace('"cases": []', '"cases": [\n' + ",\n".join(lines) + "\n]")
                        + "\n", "utf-8")  # fmt: skip
        print(path, path.stat().st_size, len(cases), "cases", "adds BOS" if adds else "")


if __name__ == "__main__":
    main()
