"""Other runtimes on the same trained weights: how fast, and how far off.

    make bench NAME=runtimes

They live in an environment of their own, whose Python FAIRWAY_RUNTIMES names, else `.venv-runtimes`
is taken. Make it so (a CPU build of torch first, from the CPU index):

    python -m venv .venv-runtimes
    .venv-runtimes/bin/pip install torch==2.13.0
    .venv-runtimes/bin/pip install -r bench/runtimes_requirements.txt

The built-in model scores every second shipped sample, BOS in front, cut to one window. All read the
same ids, on two threads, in a process for each repetition, repetitions interleaved; seconds are of
the scoring alone, after a warm-up. Errors are against a float64 pass of a module written here, in
nats: ``mean`` is signed, of the corpus's nats per token (positive: the perplexity is too high),
``mean_abs`` and ``max_abs`` are of single tokens, ``worst_document`` is of one document's mean.
``speed`` is tokens per wall second over fairway's in float32, the median of the pairs of one round.
CTranslate2 takes 4,096 tokens at a time. Files made of the weights go to `build/bench/runtimes`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import BUILD, HERE, middle, ratios, versions, work, write
from safetensors.torch import load_file
from torch.nn import functional

ROUNDS = int(os.environ.get("FAIRWAY_ROUNDS", "3"))
THREADS = 2
WARM = 10
LONGEST = 511
BATCH = 4096
DATA = HERE.parent / "src" / "fairway" / "data"
MODEL = DATA / "models" / "mini"
CONFIG = json.loads((MODEL / "config.json").read_text("utf-8"))
MADE = BUILD / "runtimes"
REASON = 160
EXAMPLE = torch.tensor([[0, 5, 6, 7]])
Run = Callable[[list[list[int]]], list[Any]]


class Llama(torch.nn.Module):  # type: ignore[misc]
    """The model as a plain module: ``(1, n)`` ids to ``(1, n - 1)`` log-probs of all but the first.

    Transformers' own norms and angles are float32 in every dtype, so it cannot be the reference.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        for name, tensor in load_file(MODEL / "model.safetensors").items():
            self.register_buffer(name.replace(".", "_"), tensor.to(dtype))
        size, base = CONFIG["head_dim"], CONFIG["rope_parameters"]["rope_theta"]
        speeds = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        places = torch.arange(CONFIG["max_position_embeddings"], dtype=torch.float64)
        angles = torch.outer(places, speeds).repeat(1, 2)
        self.register_buffer("cos", angles.cos().to(dtype))
        self.register_buffer("sin", angles.sin().to(dtype))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = functional.embedding(ids[:, :-1], self.model_embed_tokens_weight)
        for layer in range(CONFIG["num_hidden_layers"]):
            part = f"model_layers_{layer}_"
            x = x + self.attend(self.norm(x, part + "input_layernorm"), part + "self_attn_")
            x = x + self.feed(self.norm(x, part + "post_attention_layernorm"), part + "mlp_")
        x = self.norm(x, "model_norm")
        logprobs = self.linear(x, "model_embed_tokens").log_softmax(-1)
        return logprobs.gather(-1, ids[:, 1:, None])[..., 0]

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, getattr(self, name + "_weight"))

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        scale = (x.pow(2).mean(-1, keepdim=True) + CONFIG["rms_norm_eps"]).rsqrt()
        return x * scale * getattr(self, name + "_weight")

    def heads(self, x: torch.Tensor, count: int) -> torch.Tensor:
        x = x.view(1, -1, count, CONFIG["head_dim"]).transpose(1, 2)
        return x.repeat_interleave(CONFIG["num_attention_heads"] // count, 1)

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        low, high = x.chunk(2, -1)
        size = x.shape[2]
        return x * self.cos[:size] + torch.cat((-high, low), -1) * self.sin[:size]

    def attend(self, x: torch.Tensor, part: str) -> torch.Tensor:
        many, few = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
        query = self.turn(self.heads(self.linear(x, part + "q_proj"), many))
        keys = self.turn(self.heads(self.linear(x, part + "k_proj"), few))
        values = self.heads(self.linear(x, part + "v_proj"), few)
        out = functional.scaled_dot_product_attention(query, keys, values, is_causal=True)
        return self.linear(out.transpose(1, 2).flatten(2), part + "o_proj")

    def feed(self, x: torch.Tensor, part: str) -> torch.Tensor:
        gate = functional.silu(self.linear(x, part + "gate_proj"))
        return self.linear(gate * self.linear(x, part + "up_proj"), part + "down_proj")


def fairway(job: dict[str, Any]) -> Run:
    """Fairway's engine."""
    import fairway as fw

    scorer = fw.load("hf:builtin", dtype=job["dtype"], threads=THREADS)

    def run(rows: list[list[int]]) -> list[Any]:
        documents = [fw.Document("", "", ids=np.array(row[1:])) for row in rows]
        return [score.logprobs for score in scorer.score(documents)]

    return run


def plain(job: dict[str, Any]) -> Run:
    """The module of this file, its logits whole; also compiled."""
    model: Any = Llama(getattr(torch, job["dtype"]))
    if job.get("compile"):
        model = torch.compile(model, dynamic=True)
    return lambda rows: [model(torch.tensor([row]))[0] for row in rows]


def openvino(job: dict[str, Any]) -> Run:
    """OpenVINO, log-probs gathered inside the graph."""
    import openvino as ov

    made = MADE / "openvino.xml"
    if not made.exists():
        graph = ov.convert_model(Llama(torch.float32), example_input=EXAMPLE, input=[1, -1])
        ov.save_model(graph, made, compress_to_fp16=False)
    options = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[job["dtype"]],
        "INFERENCE_NUM_THREADS": THREADS,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = ov.Core().compile_model(made, "CPU", options).create_infer_request()
    return lambda rows: [request.infer([np.array([row])])[0][0].copy() for row in rows]


def onnx(job: dict[str, Any]) -> Run:
    """ONNX Runtime, log-probs gathered inside the graph."""
    import onnxruntime

    made = MADE / "model.onnx"
    if not made.exists():
        sizes = {"ids": {1: torch.export.Dim("n", min=3, max=LONGEST + 1)}}
        torch.onnx.export(
            Llama(torch.float32).eval(), (EXAMPLE,), made,
            input_names=["ids"], dynamic_shapes=sizes, external_data=False,
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    session = onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    return lambda rows: [session.run(None, {"ids": np.array([row])})[0][0] for row in rows]


def ctranslate2(job: dict[str, Any]) -> Run:
    """CTranslate2, through its own converter and its own scoring."""
    import ctranslate2 as ct2

    made = MADE / "ctranslate2"
    if not made.exists():
        ct2.converters.TransformersConverter(str(MODEL)).convert(str(made))
    model = ct2.Generator(
        str(made), compute_type=job["dtype"], intra_threads=THREADS, inter_threads=1
    )
    names = vocabulary()

    def run(rows: list[list[int]]) -> list[Any]:
        texts = [[names[token] for token in row] for row in rows]
        found = model.score_batch(texts, max_batch_size=BATCH, batch_type="tokens")
        return [one.log_probs for one in found]

    return run


def vocabulary() -> list[str]:
    """Give the tokens by id."""
    data = json.loads((MODEL / "tokenizer.json").read_text("utf-8"))
    found = dict(data["model"]["vocab"])
    found |= {one["content"]: one["id"] for one in data["added_tokens"]}
    return sorted(found, key=found.__getitem__)


def llama_cpp(job: dict[str, Any]) -> Run:
    """llama.cpp with a float32 cache."""
    import llama_cpp as lib

    made = MADE / f"{job['dtype']}.gguf"
    if not made.exists():
        gguf(made, job["dtype"])
    model = lib.Llama(
        str(made), n_ctx=LONGEST + 1, n_batch=LONGEST + 1, n_ubatch=LONGEST + 1, n_threads=THREADS,
        n_threads_batch=THREADS, logits_all=True, type_k=lib.GGML_TYPE_F32,
        type_v=lib.GGML_TYPE_F32, verbose=False,
    )  # fmt: skip

    def one(row: list[int]) -> torch.Tensor:
        model.reset()
        model.eval(row[:-1])
        logprobs = torch.from_numpy(model.scores[: len(row) - 1]).log_softmax(-1)
        return logprobs.gather(1, torch.tensor(row[1:])[:, None])[:, 0]

    return lambda rows: [one(row) for row in rows]


def gguf(made: Path, dtype: str) -> None:
    """Write the weights as llama.cpp reads them."""
    import gguf as lib

    many, few = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
    q8 = lib.GGMLQuantizationType.Q8_0
    out = lib.GGUFWriter(made, "llama")
    out.add_context_length(CONFIG["max_position_embeddings"])
    out.add_embedding_length(CONFIG["hidden_size"])
    out.add_block_count(CONFIG["num_hidden_layers"])
    out.add_feed_forward_length(CONFIG["intermediate_size"])
    out.add_head_count(many)
    out.add_head_count_kv(few)
    out.add_rope_dimension_count(CONFIG["head_dim"])
    out.add_rope_freq_base(CONFIG["rope_parameters"]["rope_theta"])
    out.add_layer_norm_rms_eps(CONFIG["rms_norm_eps"])
    out.add_vocab_size(CONFIG["vocab_size"])
    # Only ids are passed, so the kind of tokenizer does not matter; llama.cpp wants one.
    out.add_tokenizer_model("llama")
    out.add_token_list(vocabulary())
    out.add_token_scores([0.0] * CONFIG["vocab_size"])
    out.add_token_types([lib.TokenType.NORMAL] * CONFIG["vocab_size"])
    names = lib.get_tensor_name_map(lib.MODEL_ARCH.LLAMA, CONFIG["num_hidden_layers"])
    for name, value in load_file(MODEL / "model.safetensors").items():
        data = value.float().numpy()
        # llama.cpp turns neighbouring pairs, the checkpoint the two halves of a head.
        if count := {"q_proj": many, "k_proj": few}.get(name.split(".")[-2]):
            halves = data.reshape(count, 2, -1, data.shape[1])
            data = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(data.shape))
        own = names.get_name(name, try_suffixes=(".weight",))
        if data.ndim == 1 or dtype == "float32":
            out.add_tensor(own, data)
        else:
            out.add_tensor(own, lib.quants.quantize(data, q8), raw_dtype=q8)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


RUNTIMES = {f.__name__: f for f in (fairway, plain, openvino, onnx, ctranslate2, llama_cpp)}
PEERS = {
    "openvino": "openvino", "onnx": "onnxruntime", "ctranslate2": "ctranslate2",
    "llama_cpp": "llama-cpp-python",
}  # fmt: skip
ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("fairway", "packed", {"runtime": "fairway", "dtype": "float32"}),
    ("fairway", "packed", {"runtime": "fairway", "dtype": "bfloat16"}),
    ("torch", "one", {"runtime": "plain", "dtype": "float32"}),
    ("torch.compile", "one", {"runtime": "plain", "dtype": "float32", "compile": True}),
    ("OpenVINO", "one", {"runtime": "openvino", "dtype": "float32"}),
    ("OpenVINO", "one", {"runtime": "openvino", "dtype": "bfloat16"}),
    ("ONNX Runtime", "one", {"runtime": "onnx", "dtype": "float32"}),
    ("CTranslate2", "batched", {"runtime": "ctranslate2", "dtype": "float32"}),
    ("CTranslate2", "batched", {"runtime": "ctranslate2", "dtype": "int8"}),
    ("llama.cpp", "one", {"runtime": "llama_cpp", "dtype": "float32"}),
    ("llama.cpp", "one", {"runtime": "llama_cpp", "dtype": "q8_0"}),
]


def worker(answer: Path) -> None:
    """Do the job on standard input: score the rows once and tell the cost."""
    warnings.filterwarnings("ignore")
    job = json.load(sys.stdin)
    torch.set_num_threads(THREADS)
    with contextlib.redirect_stdout(sys.stderr), torch.no_grad():
        run = RUNTIMES[job["runtime"]](job)
        run(job["ids"][::WARM])
        cpu, wall = time.process_time(), time.perf_counter()
        found = run(job["ids"])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    logprobs = [np.asarray(row, float).tolist() for row in found]
    out: dict[str, Any] = {"cpu": cpu, "wall": wall, "logprobs": logprobs}
    if package := PEERS.get(job["runtime"]):
        out |= {"mb": size(package), "versions": versions(package)}
    answer.write_text(json.dumps(out), "utf-8")


def size(package: str) -> int:
    """Give what a package's own files take on the disk, megabytes."""
    paths = [Path(str(one.locate())) for one in files(package) or ()]
    return round(sum(path.stat().st_size for path in paths if path.exists()) / 1e6)


def corpus() -> list[list[int]]:
    """Give the ids of every second sample, BOS in front, cut to one window."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    lines = [
        line
        for path in sorted((DATA / "samples").glob("*.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    ]
    rows = [tokenizer.encode(json.loads(line)["text"]).ids for line in lines[::2]]
    return [row[: LONGEST + 1] for row in rows]


def attempt(job: dict[str, Any], python: str | None) -> dict[str, Any]:
    """Run a job in its own process; a failure is an answer with its reason."""
    peer = job["runtime"] in PEERS
    if peer and python is None:
        return {"reason": "FAIRWAY_RUNTIMES names no Python, and there is no .venv-runtimes"}
    try:
        out = work(Path(__file__).name, job, python if peer else None, THREADS)
    except (RuntimeError, OSError) as error:
        # Results are committed, and no folder of one machine belongs in them.
        return {"reason": re.sub(r"/\S+/", "", str(error).splitlines()[-1])[:REASON]}
    if [len(one) for one in out["logprobs"]] != [len(one) - 1 for one in job["ids"]]:
        return {"reason": "it gave another number of log-probabilities than there are tokens"}
    if not np.isfinite(np.concatenate(out["logprobs"])).all():
        return {"reason": "it gave log-probabilities that are not finite"}
    return out


def errors(found: list[list[float]], true: list[np.ndarray]) -> dict[str, float]:
    """Compare log-probs with the reference's, nats."""
    gaps = [np.array(a) - b for a, b in zip(found, true, strict=True)]
    flat = np.concatenate(gaps)
    return {
        "mean": float(-flat.mean()),
        "mean_abs": float(np.abs(flat).mean()),
        "max_abs": float(np.abs(flat).max()),
        "worst_document": float(max(abs(gap.mean()) for gap in gaps)),
    }


def row(
    name: str, texts: str, job: dict[str, Any], runs: list[dict[str, Any]],
    own: list[dict[str, Any]], true: list[np.ndarray],
) -> dict[str, Any]:  # fmt: skip
    """Sum up a runtime's repetitions."""
    head = {"runtime": name, "dtype": job["dtype"], "at_a_time": texts}
    failed = [run["reason"] for run in runs if "reason" in run]
    if failed:
        return {**head, "reason": failed[0]}
    wall = middle([run["wall"] for run in runs])
    speeds = {}
    if all("wall" in run for run in own):
        speeds = ratios([run["wall"] for run in own], [run["wall"] for run in runs])
    return {
        **head,
        "tokens_per_s": round(sum(map(len, true)) / wall),
        "wall_s": round(wall, 3),
        "cpu_s": round(middle([run["cpu"] for run in runs]), 3),
        **{key.replace("ratio", "speed"): round(value, 2) for key, value in speeds.items()},
        **errors(runs[0]["logprobs"], true),
        "package_mb": runs[0].get("mb"),
    }


def main() -> None:
    """Run the benchmark."""
    beside = HERE.parent / ".venv-runtimes" / "bin" / "python"
    python = os.environ.get("FAIRWAY_RUNTIMES") or (str(beside) if beside.exists() else None)
    shutil.rmtree(MADE, ignore_errors=True)
    MADE.mkdir(parents=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(MADE / "inductor")
    ids = corpus()
    with torch.no_grad():
        reference = Llama(torch.float64)
        true = [reference(torch.tensor([one]))[0].numpy() for one in ids]
    runs: list[list[dict[str, Any]]] = [[] for _ in ROWS]
    for round_ in range(ROUNDS):
        for (name, _, job), done in zip(ROWS, runs, strict=True):
            if done and "reason" in done[-1]:
                continue
            done.append(attempt({**job, "ids": ids}, python))
            said = done[-1].get("reason") or f"{done[-1]['wall']:.2f} s"
            print(f"round {round_ + 1}: {name} {job['dtype']}: {said}", flush=True)
    found = versions("torch", "transformers", "fairway")
    for done in runs:
        found = {**done[0].get("versions", {}), **found}
    rows = [row(*plan, done, runs[0], true) for plan, done in zip(ROWS, runs, strict=True)]
    print(f"{len(ids)} documents, {sum(map(len, true)):,} tokens, {THREADS} threads")
    write("runtimes", rows, {}, found)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        worker(Path(sys.argv[1]))
    else:
        main()
