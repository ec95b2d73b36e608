"""Servers for tests: real ones in a thread, and stand-ins that answer from local weights.

A stand-in speaks a server's documented shapes (`FLAVOURS`), and computes every answer with a
forward pass of the model that it was given. It is no mock of fairway: only of the server's form.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

CHAT = "[user]\n{}[end]\n[assistant]\n"
"""The stand-in's chat template."""


@contextlib.contextmanager
def serve(app: Any) -> Iterator[str]:
    """Run an application on a free port, in a thread; gives its URL."""
    # asyncio sends without delay only on sockets that name their protocol.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as place:
        place.bind(("127.0.0.1", 0))
        place.listen(128)  # so that who connects before it runs waits
        config = uvicorn.Config(app, log_level="error", ws="none", lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


class Weights:
    """A model and its tokenizer.

    Args:
        model: of transformers, causal.
        tokenizer: of transformers, a fast one.
        adds: put BOS before texts.
    """

    def __init__(self, model: Any, tokenizer: Any, adds: bool) -> None:
        self.model, self.tokenizer, self.adds = model, tokenizer, adds
        self.positions = int(model.config.max_position_embeddings)
        self.lock = threading.Lock()

    def ids(self, prompt: Any, special: bool = True) -> list[int]:
        """Give a prompt's ids."""
        if isinstance(prompt, list):
            return prompt
        own = self.tokenizer.encode(prompt, add_special_tokens=False)
        return [self.tokenizer.bos_token_id, *own] if self.adds and special else own

    def rows(self, ids: list[int]) -> np.ndarray:
        """``(n, vocabulary)`` log-probabilities of what stands behind each token."""
        with self.lock, torch.no_grad():
            logits = self.model(torch.tensor([ids])).logits[0].double()
        return torch.log_softmax(logits, -1).numpy()

    def spell(self, token: int) -> str:
        """Decode a token by itself, as servers do."""
        return self.tokenizer.decode([token])

    def long(self, ids: list[int], write: int) -> JSONResponse | None:
        """Refuse what is too long, in vLLM's words."""
        if len(ids) + write <= self.positions:
            return None
        message = (
            f"This model's maximum context length is {self.positions} tokens. However, you "
            f"requested {len(ids) + write} tokens."
        )
        return JSONResponse({"error": {"message": message, "code": 400}}, 400)


def vllm(weights: Weights) -> Starlette:
    """vLLM: ``prompt_logprobs``, a tokenizer, a version."""

    async def models(_: Request) -> JSONResponse:
        one = {"id": "small", "owned_by": "vllm", "max_model_len": weights.positions}
        return JSONResponse({"object": "list", "data": [one]})

    async def version(_: Request) -> JSONResponse:
        return JSONResponse({"version": "0.99.1"})

    async def tokenize(request: Request) -> JSONResponse:
        data = await request.json()
        ids = weights.ids(data["prompt"], data.get("add_special_tokens", True))
        told = {"tokens": ids, "count": len(ids), "max_model_len": weights.positions}
        if data.get("return_token_strs"):
            told["token_strs"] = weights.tokenizer.convert_ids_to_tokens(ids)
        return JSONResponse(told)

    async def completions(request: Request) -> JSONResponse:
        data = await request.json()
        if "prompt_logprobs" not in data:
            return JSONResponse({"error": {"message": "only prompt_logprobs here"}}, 400)
        return answer(data, weights.ids(data["prompt"], data.get("add_special_tokens", True)))

    async def chat(request: Request) -> JSONResponse:
        data = await request.json()
        return answer(data, weights.ids(CHAT.format(data["messages"][0]["content"])))

    def answer(data: dict[str, Any], ids: list[int]) -> JSONResponse:
        if (refusal := weights.long(ids, data["max_tokens"])) is not None:
            return refusal
        rows = weights.rows(ids)
        told: list[Any] = [None]
        for place in range(1, len(ids)):
            row = rows[place - 1]
            order = np.argsort(-row, kind="stable")
            rank = int(np.flatnonzero(order == ids[place])[0]) + 1
            held = {str(ids[place]): rank}
            for at, token in enumerate(order[: data["prompt_logprobs"]].tolist()):
                held.setdefault(str(token), at + 1)
            told.append(
                {
                    key: {
                        "logprob": float(row[int(key)]), "rank": r,
                        "decoded_token": weights.spell(int(key)),
                    }
                    for key, r in held.items()
                }
            )  # fmt: skip
        choice = {
            "index": 0, "text": "x", "prompt_logprobs": told, "prompt_token_ids": ids,
            "finish_reason": "length",
        }  # fmt: skip
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1}
        return JSONResponse({"object": "text_completion", "choices": [choice], "usage": usage})

    return Starlette(
        routes=[
            Route("/v1/models", models), Route("/version", version),
            Route("/tokenize", tokenize, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/chat/completions", chat, methods=["POST"]),
        ]
    )  # fmt: skip


def sglang(weights: Weights) -> Starlette:
    """SGLang: ``/generate`` with ``input_token_logprobs``."""

    async def models(_: Request) -> JSONResponse:
        one = {"id": "small", "owned_by": "sglang", "max_model_len": weights.positions}
        return JSONResponse({"object": "list", "data": [one]})

    async def info(_: Request) -> JSONResponse:
        return JSONResponse({"model_path": "small", "version": "0.98"})

    async def generate(request: Request) -> JSONResponse:
        data = await request.json()
        ids = data.get("input_ids") or weights.ids(data["text"])
        if (refusal := weights.long(ids, data["sampling_params"]["max_new_tokens"])) is not None:
            return refusal
        rows = weights.rows(ids)
        size = data["top_logprobs_num"]
        told: list[Any] = [[None, ids[0], weights.spell(ids[0])]]
        tops: list[Any] = [None]
        for place in range(1, len(ids)):
            row = rows[place - 1]
            told.append([float(row[ids[place]]), ids[place], weights.spell(ids[place])])
            best = np.argsort(-row, kind="stable")[:size].tolist()
            tops.append([[float(row[t]), t, weights.spell(t)] for t in best])
        meta = {
            "prompt_tokens": len(ids), "completion_tokens": 1, "input_token_logprobs": told,
            "input_top_logprobs": tops,
        }  # fmt: skip
        return JSONResponse({"text": "x", "meta_info": meta})

    return Starlette(
        routes=[
            Route("/v1/models", models), Route("/get_server_info", info),
            Route("/get_model_info", info), Route("/generate", generate, methods=["POST"]),
        ]
    )  # fmt: skip


def tgi(weights: Weights) -> Starlette:
    """Text-generation-inference: ``/generate`` with ``details.prefill``."""

    async def info(_: Request) -> JSONResponse:
        held = {"model_id": "org/small", "version": "3.9", "max_total_tokens": weights.positions}
        return JSONResponse(held)

    async def generate(request: Request) -> JSONResponse:
        data = await request.json()
        ids = weights.ids(data["inputs"])
        if (refusal := weights.long(ids, 1)) is not None:
            return refusal
        rows = weights.rows(ids)
        prefill = [
            {
                "id": one, "text": weights.spell(one),
                "logprob": float(rows[place - 1][one]) if place else None,
            }
            for place, one in enumerate(ids)
        ]  # fmt: skip
        return JSONResponse({"generated_text": "x", "details": {"prefill": prefill}})

    return Starlette(routes=[Route("/info", info), Route("/generate", generate, methods=["POST"])])


def llama_server(weights: Weights) -> Starlette:
    """llama.cpp's server: logprobs of what it writes only; ``/tokenize`` with pieces."""

    async def models(_: Request) -> JSONResponse:
        one = {"id": "/srv/small.gguf", "owned_by": "llamacpp", "meta": {"n_vocab": 264}}
        return JSONResponse({"object": "list", "data": [one]})

    async def props(_: Request) -> JSONResponse:
        settings = {"n_ctx": weights.positions}
        return JSONResponse({"default_generation_settings": settings, "build_info": "b9999-abc"})

    async def tokenize(request: Request) -> JSONResponse:
        data = await request.json()
        ids = weights.ids(data["content"], data["add_special"])
        table = {char: byte for byte, char in enumerate_bytes()}
        found = []
        for one in ids:
            word = weights.tokenizer.convert_ids_to_tokens(one)
            raw = bytes(table[c] for c in word) if all(c in table for c in word) else word.encode()
            try:
                found.append({"id": one, "piece": raw.decode()})
            except UnicodeDecodeError:
                found.append({"id": one, "piece": list(raw)})
        return JSONResponse({"tokens": found})

    async def completion(request: Request) -> JSONResponse:
        data = await request.json()
        row = weights.rows(data["prompt"])[-1]
        biased = row.copy()
        for token, bias in data["logit_bias"]:
            biased[token] += bias
        chosen = int(biased.argmax())
        one = {"id": chosen, "token": weights.spell(chosen), "logprob": float(row[chosen])}
        return JSONResponse({"content": one["token"], "completion_probabilities": [one]})

    async def completions(request: Request) -> JSONResponse:
        data = await request.json()
        ids = weights.ids(data["prompt"])
        row = weights.rows(ids)[-1]
        best = int(row.argmax())
        one = {
            "id": best, "token": weights.spell(best), "logprob": float(row[best]), "bytes": [120],
            "top_logprobs": [],
        }  # fmt: skip
        choice = {"text": "x", "logprobs": {"content": [one]}, "finish_reason": "length"}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1}
        return JSONResponse({"choices": [choice], "usage": usage})

    return Starlette(
        routes=[
            Route("/v1/models", models), Route("/props", props),
            Route("/tokenize", tokenize, methods=["POST"]),
            Route("/completion", completion, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
        ]
    )  # fmt: skip


def enumerate_bytes() -> Iterator[tuple[int, str]]:
    """GPT-2's alphabet, from the tokenizers library's own encoding of single bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    yield from bytes_to_unicode().items()


FLAVOURS = {"vllm": vllm, "sglang": sglang, "tgi": tgi, "llama-server": llama_server}
"""Stand-ins by the name of the server."""
