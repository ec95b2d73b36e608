"""Run by the benchmarks, in fairway's Python or the peers': score texts once and tell the cost.

The job on standard input is ``{"scorer", "model", "texts", "dtype", ...}``; the answer goes to the
file named as the only argument: CPU and wall seconds of the scoring alone, the summed log-prob of
every text, and the memory above what the loaded model holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Job = dict[str, Any]


def fairway(job: Job) -> Callable[[], list[float]]:
    """Fairway's engine, through its Python interface."""
    import fairway as fw

    options = {"dtype": job.get("dtype", "float32"), **job.get("options", {})}
    scorer = fw.load(job["model"], **options)
    documents = [
        fw.Document(str(index), text, job.get("context", ""))
        for index, text in enumerate(job["texts"])
    ]
    return lambda: [-score.totals.nll for score in scorer.score(documents)]


def lm_eval(job: Job) -> Callable[[], list[float]]:
    """lm-evaluation-harness: rolling log-likelihoods, or continuations of a context."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(
        pretrained=job["model"], dtype=job.get("dtype", "float32"),
        device=job.get("device", "cpu"),
        batch_size=job.get("batch", 8), **job.get("options", {}),
    )  # fmt: skip
    if job.get("context"):
        pairs = [
            Instance("loglikelihood", {}, (job["context"], text), index)
            for index, text in enumerate(job["texts"])
        ]
        return lambda: [float(v) for v, _ in model.loglikelihood(pairs, disable_tqdm=True)]
    requests = [
        Instance("loglikelihood_rolling", {}, (text,), index)
        for index, text in enumerate(job["texts"])
    ]
    return lambda: [float(v) for v in model.loglikelihood_rolling(requests, disable_tqdm=True)]


def evaluate(job: Job) -> Callable[[], list[float]]:
    """HF evaluate's perplexity metric, from its script; loading the model is part of a call."""
    import evaluate as hf

    metric = hf.load(job["script"], module_type="metric")

    def run() -> list[float]:
        out = metric.compute(predictions=job["texts"], model_id=job["model"], device="cpu")
        return [float(value) for value in out["perplexities"]]

    return run


def padded_loop(job: Job) -> Callable[[], list[float]]:
    """A loop of ours with HF evaluate's batching, where its script is not at hand."""
    import transformers as t

    model = t.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    tokenizer = t.AutoTokenizer.from_pretrained(job["model"])

    def run() -> list[float]:
        whole = tokenizer(job["texts"], padding=True, return_tensors="pt")
        ids, mask = whole["input_ids"], whole["attention_mask"]
        start = torch.full((len(ids), 1), tokenizer.bos_token_id)
        ids, mask = torch.cat((start, ids), 1), torch.cat((torch.ones_like(start), mask), 1)
        sums: list[float] = []
        for at in range(0, len(ids), 16):
            some, seen = ids[at : at + 16], mask[at : at + 16]
            with torch.no_grad():
                logits = model(some, attention_mask=seen).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].transpose(1, 2), some[:, 1:], reduction="none"
            )
            sums += (-(loss * seen[:, 1:]).sum(1)).tolist()
        return sums

    return run


def vllm(job: Job) -> Callable[[], list[float]]:
    """vLLM's prompt log-probs, on a GPU."""
    from vllm import LLM, SamplingParams

    engine = LLM(job["model"], dtype="bfloat16", enable_prefix_caching=False)
    settings = SamplingParams(max_tokens=1, prompt_logprobs=0)

    def run() -> list[float]:
        outputs = engine.generate(job["texts"], settings, use_tqdm=False)
        return [
            sum(next(iter(one.values())).logprob for one in out.prompt_logprobs if one)
            for out in outputs
        ]

    return run


SCORERS = {f.__name__: f for f in (fairway, lm_eval, evaluate, padded_loop, vllm)}


class Watch(threading.Thread):
    """Notes the largest resident memory while it runs, bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = self.base = resident()
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.003):
            self.peak = max(self.peak, resident())


def resident() -> int:
    """Give this process's resident memory, bytes."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Do the job on standard input."""
    warnings.filterwarnings("ignore")
    job = json.load(sys.stdin)
    if job.get("threads"):
        torch.set_num_threads(job["threads"])
    with contextlib.redirect_stdout(sys.stderr):
        run = SCORERS[job["scorer"]](job)
        for _ in range(job.get("warmups", 0)):
            run()
        if job.get("memory"):
            # What loading has freed but not given back would hide what scoring takes.
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
        watch = Watch()
        if job.get("memory"):
            watch.start()
        cpu, wall = time.process_time(), time.perf_counter()
        sums = run()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        watch.done.set()
    answer = {
        "cpu": cpu, "wall": wall, "sums": sums, "over_weights": watch.peak - watch.base,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    Path(sys.argv[1]).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
