"""What ``gguf:`` costs over llama.cpp's own loop: decode, then the log-softmax of the targets.

    make bench NAME=gguf_loop

``gguf_overhead`` is the CPU time of fairway over that of a bare loop through llama_cpp on the
same windows, both with one thread, turn by turn. The loop begins with token ids and takes a
float32 log-softmax in numpy, of a window's logits at once or of one row after the other,
whichever is faster; fairway begins with text, and ends with offsets and sums. Texts of a window
each have nothing to gain from batches; short ones have, which a row of its own shows. Companions
are what eval asks for besides (entropy and rank).

It is not called gguf.py, since that name is the package's.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp as api
import numpy as np
from common import BUILD, goal, middle, no_goal, versions, write

import fairway as fw
from fairway.backends.gguf import loading

SHAPES = {
    "llama-58m-32k": {"width": 512, "layers": 8, "heads": 8, "hidden": 1376, "words": 32_000},
    "llama-76m-128k": {"width": 256, "layers": 8, "heads": 4, "hidden": 1024, "words": 128_256},
}
LENGTH = 512
TEXTS = int(os.environ.get("FAIRWAY_TEXTS", "8"))
SHORT = 48
ROUNDS = int(os.environ.get("FAIRWAY_ROUNDS", "5"))


def make(name: str) -> Path:
    """Write a random Llama, or find it where it was written before."""
    path = BUILD / "models" / f"{name}.gguf"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[name]
    width, layers, hidden, words = (shape[k] for k in ("width", "layers", "hidden", "words"))
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(str(part), "llama")
    writer.add_file_type(0)
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["heads"] // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // shape["heads"])
    writer.add_vocab_size(words)
    kinds = gguf.TokenType
    spelled = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256, kinds.NORMAL]
    more = words - len(spelled)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*spelled, *(f"~{number}~" for number in range(more))])
    writer.add_token_scores([0.0] * len(spelled) + [-1.0] * more)
    writer.add_token_types([*types, *[kinds.NORMAL] * more])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    draw = np.random.default_rng(0)

    def tensor(key: str, rows: int, columns: int) -> None:
        values = draw.standard_normal((rows, columns), np.float32)
        writer.add_tensor(key, values * np.float32(2.0 / columns**0.5))

    tensor("token_embd.weight", words, width)
    tensor("output.weight", words, width)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(layers):
        at = f"blk.{layer}."
        for key, rows, columns in (
            ("attn_q", width, width), ("attn_k", width // 2, width), ("attn_v", width // 2, width),
            ("attn_output", width, width), ("ffn_gate", hidden, width), ("ffn_up", hidden, width),
            ("ffn_down", width, hidden),
        ):  # fmt: skip
            tensor(f"{at}{key}.weight", rows, columns)
        for key in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{at}{key}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(path)
    return path


class Bare:
    """The loop that a careful user would write."""

    def __init__(self, path: Path) -> None:
        self.model = api.llama_model_load_from_file(
            str(path).encode(), api.llama_model_default_params()
        )
        self.vocabulary = api.llama_model_get_vocab(self.model)
        options = api.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = LENGTH
        options.n_threads = options.n_threads_batch = 1
        options.type_k = options.type_v = api.GGML_TYPE_F32
        options.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = api.llama_init_from_model(self.model, options)
        self.size = api.llama_vocab_n_tokens(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Tokenize, BOS first."""
        raw = text.encode()
        room = (ctypes.c_int32 * (len(raw) + 8))()
        count = api.llama_tokenize(self.vocabulary, raw, len(raw), room, len(room), True, False)
        return list(room[:count])

    def score(self, texts: Sequence[list[int]], by_row: bool) -> float:
        """Sum log-probabilities, with a log-softmax of each row or of all at once."""
        total = 0.0
        batch = api.llama_batch_init(LENGTH, 0, 1)
        for ids in texts:
            count = len(ids) - 1
            batch.n_tokens = count
            for place in range(count):
                batch.token[place], batch.pos[place] = ids[place], place
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
                batch.logits[place] = 1
            api.llama_memory_clear(api.llama_get_memory(self.context), False)
            assert api.llama_decode(self.context, batch) == 0
            logits = np.ctypeslib.as_array(api.llama_get_logits(self.context), (count, self.size))
            if by_row:
                for row, target in zip(logits, ids[1:], strict=True):
                    top = row.max()
                    total += float(row[target] - top - np.log(np.exp(row - top).sum()))
                continue
            tops = logits.max(1, keepdims=True)
            sums = np.log(np.exp(logits - tops).sum(1)) + tops[:, 0]
            total += float((logits[np.arange(count), ids[1:]] - sums).sum())
        api.llama_batch_free(batch)
        return total


def clock(run: Any) -> tuple[float, float]:
    """Time a call in CPU seconds; give its value too."""
    start = time.process_time()
    value = run()
    return time.process_time() - start, value


def main() -> None:
    """Run the benchmark."""
    rows: list[dict[str, Any]] = []
    goals: dict[str, Any] = {}
    words = "".join(text.text for text in fw.read("sample:legal"))
    for name in SHAPES:
        path = make(name)
        scorer: Any = fw.load(f"gguf:{path}", threads=1, max_length=LENGTH)
        loading.quiet()
        bare = Bare(path)
        for kind, length in (("a window each", LENGTH - 2), ("short", SHORT)):
            count = TEXTS if kind != "short" else TEXTS * (LENGTH // SHORT)
            texts = [words[at * length : (at + 1) * length] for at in range(count)]
            ids = [bare.encode(text)[:LENGTH] for text in texts]
            documents = [fw.Document(str(at), text) for at, text in enumerate(texts)]

            def own(
                want: tuple[str, ...] = (), documents: Any = documents, scorer: Any = scorer
            ) -> float:
                return -sum(one.totals.nll for one in scorer.score(documents, want))

            def loop(by_row: bool, ids: Any = ids, bare: Bare = bare) -> float:
                return bare.score(ids, by_row)

            loop(True), own()
            times: dict[str, list[float]] = {"at once": [], "by row": [], "own": [], "more": []}
            for _ in range(ROUNDS):
                spent, expected = clock(lambda: loop(True))
                times["by row"].append(spent)
                spent, found = clock(own)
                times["own"].append(spent)
                times["at once"].append(clock(lambda: loop(False))[0])
                times["more"].append(clock(lambda: own(("entropy", "rank")))[0])
                assert abs(found - expected) < 1e-4 * abs(expected), (found, expected)
            base = min(("at once", "by row"), key=lambda name: middle(times[name]))
            tokens = sum(len(one) - 1 for one in ids)
            overhead = middle([a / b for a, b in zip(times["own"], times[base], strict=True)])
            more = middle([a / b for a, b in zip(times["more"], times[base], strict=True)])
            rows.append(
                {
                    "model": name, "texts": kind, "tokens": tokens,
                    "bare_at_once_cpu_s": round(middle(times["at once"]), 3),
                    "bare_by_row_cpu_s": round(middle(times["by row"]), 3),
                    "own_cpu_s": round(middle(times["own"]), 3),
                    "overhead": round(overhead, 4), "with_companions": round(more, 4),
                }
            )  # fmt: skip
            if kind != "short":
                goals[f"gguf_overhead {name}"] = goal(overhead, 1.05, least=False)
            else:
                goals[f"short texts {name}"] = no_goal(overhead, "none: batches may only help")
    write("gguf_loop", rows, goals, versions("llama-cpp-python", "gguf", "torch", "fairway"))


if __name__ == "__main__":
    main()
