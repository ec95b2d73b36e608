"""The service against the engine: throughput, latency, and minutes of load.

    make bench NAME=serve
    .venv/bin/python bench/serve.py --minutes 10

``fairway serve`` runs in a process of its own; it has one thread for the model, as the engine
beside it has one, so that on two cores what sends the requests does not take the model's time.
Both take turns. ``vs_engine``: 32 clients keep one short text each in flight; answers a second over
texts a second of one call of `score` that is given the same 32 texts and the columns that a report
has. ``vs_direct``: the median seconds of one sentence sent alone, over those of `score` called with
it. Both with the built-in model, where what a request costs beside the model weighs most, and with
random weights in the shape of GPT-2 (124M).

Load: 64 clients ask for reports of texts of mixed lengths; every figure of every answer is held
against the engine's, and the server's memory after the first fifth of the time against that at the
end. With the built-in model, and with stories260K where ``FAIRWAY_ASSETS`` has it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import BUILD, goal, middle, versions, write
from serve_load import cases, connect, loading, post, server, texts

ROUNDS = int(os.environ.get("FAIRWAY_ROUNDS", "7"))
SECONDS = 3.0
SHORT, LOADED = 32, 64
"""Clients at a time: of short texts, and of mixed ones."""
SENTENCE = "The committee adopted the budget, and then it adopted a small green dragon."


def sending(port: int, requests: Sequence[bytes], seconds: float) -> tuple[list[float], float]:
    """Keep a request of each client in flight for some seconds.

    Returns:
        Every answer's latency, and the seconds until the last one.
    """
    spent: list[float] = []
    begun = time.perf_counter()

    async def client(request: bytes, end: float) -> None:
        one = await connect(port)
        while time.perf_counter() < end:
            start = time.perf_counter()
            status, _, body = await one.ask(request)
            spent.append(time.perf_counter() - start)
            if status != 200:
                raise RuntimeError(f"status {status}: {body[:200]!r}")
        one.close()

    async def main() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(client(one, end) for one in requests))

    asyncio.run(main())
    return spent, time.perf_counter() - begun


def calling(call: Callable[[], Any], seconds: float) -> list[float]:
    """Call again and again for some seconds; give the seconds of each call."""
    end = time.perf_counter() + seconds
    spent = []
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return spent


def pace(name: str, model: str, scorer: Any) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Take throughput and latency of the server and of the engine in turns."""
    from fairway.companions import WANT
    from fairway.corpus import Document

    short = texts(SHORT, 6, 20)
    documents = [Document(str(at), one) for at, one in enumerate(short)]
    alone = [Document("alone", SENTENCE)]
    requests = [post(one) for one in short]
    rates: dict[str, list[float]] = {"server": [], "engine": [], "engine, log-probs alone": []}
    waits: dict[str, list[float]] = {"server": [], "direct": [], "direct, log-probs alone": []}

    def rate(want: Sequence[str]) -> float:
        spent = calling(lambda: list(scorer.score(documents, want)), SECONDS)
        return SHORT * len(spent) / sum(spent)

    def wait(want: Sequence[str]) -> float:
        return middle(calling(lambda: list(scorer.score(alone, want)), SECONDS / 3))

    with server(model) as (port, _):
        for round_ in range(ROUNDS + 1):
            spent, seconds = sending(port, requests, SECONDS)
            found = [len(spent) / seconds, rate(WANT), rate(())]
            lone = middle(sending(port, [post(SENTENCE)], SECONDS / 3)[0])
            if round_:
                for kept, value in zip(rates.values(), found, strict=True):
                    kept.append(value)
                for kept, value in zip(waits.values(), [lone, wait(WANT), wait(())], strict=True):
                    kept.append(value)
    rows = [
        *({"case": f"{name}: {who}", "texts_per_s": round(middle(found), 1)}
          for who, found in rates.items()),
        *({"case": f"{name}: one sentence, {who}", "p50_ms": round(1000 * middle(found), 2)}
          for who, found in waits.items()),
    ]  # fmt: skip
    ratio = {
        "vs_engine": [a / b for a, b in zip(rates["server"], rates["engine"], strict=True)],
        "vs_direct": [a / b for a, b in zip(waits["server"], waits["direct"], strict=True)],
    }
    return rows, {key: middle(values) for key, values in ratio.items()}


def main() -> None:
    """Run the benchmark."""
    words = argparse.ArgumentParser()
    words.add_argument("--minutes", type=float, default=1.0, help="of load, for each model")
    minutes = words.parse_args().minutes
    # The server takes it over.
    os.environ["FAIRWAY_CACHE"] = str(BUILD / "cache")
    import torch

    import fairway

    torch.set_num_threads(1)
    builtin = fairway.load()
    rows, ratio = pace("built-in", "hf:builtin", builtin)
    goals = {
        "vs_engine": goal(ratio["vs_engine"], 0.7),
        "vs_direct": goal(ratio["vs_direct"], 1.5, least=False),
    }
    folder = gpt2()
    more, ratio = pace("GPT-2", str(folder), fairway.load(str(folder)))
    rows += more
    goals["vs_engine GPT-2"] = goal(ratio["vs_engine"], 0.7)
    goals["vs_direct GPT-2"] = goal(ratio["vs_direct"], 1.5, least=False)
    loaded = {"built-in": ("hf:builtin", builtin)}
    assets = os.environ.get("FAIRWAY_ASSETS")
    if assets:
        path = str(Path(assets) / "models" / "stories260K" / "hf")
        loaded["stories260K"] = path, fairway.load(path)
    for name, (model, scorer) in loaded.items():
        kept = cases(scorer)
        with server(model) as (port, pid):
            load = loading(port, pid, kept, 60 * minutes)
        rows.append({
            "case": f"{name}: {LOADED} clients, {minutes:g} minutes", "answers": load.answers,
            "rejected": load.rejected, "wrong": len(load.wrong), "deviation": load.worst,
            "p50_ms": round(1000 * middle(load.seconds), 1),
            "mib": round(load.memory[-1] / (1 << 20)),
        })  # fmt: skip
        print(*load.wrong[:5], sep="\n")
        goals[f"wrong {name}"] = goal(len(load.wrong), 0, least=False)
        goals[f"deviation_ppm {name}"] = goal(1e6 * load.worst, 10, least=False)
        goals[f"memory {name}"] = goal(load.growth, 1.05, least=False)
    write(
        "serve", rows, goals, versions("torch", "transformers", "uvicorn", "starlette", "fairway")
    )


def gpt2() -> Path:
    """Write random weights in the shape of GPT-2, once, with the built-in model's tokenizer."""
    import torch
    import transformers

    path = BUILD / "gpt2-random"
    if not (path / "config.json").exists():
        from fairway.backends.transformers.loading import builtin_folder

        torch.manual_seed(0)
        config = transformers.GPT2Config(bos_token_id=0, eos_token_id=0)
        transformers.GPT2LMHeadModel(config).save_pretrained(path)
        transformers.AutoTokenizer.from_pretrained(builtin_folder()).save_pretrained(path)
    return path


if __name__ == "__main__":
    main()
