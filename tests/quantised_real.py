"""Quantised models for real: run by tests/test_quantised.py where `make quant` was.

Each is held to a plain forward of the same model, GPTQ also to weights unpacked here by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import fairway
from fairway.backends.transformers import forward, loading, quantised, quantising
from fairway.errors import ModelError

ROOT = Path(__file__).parents[1]
METHODS = (
    "gptq-4bit", "gptq-8bit", "awq-4bit-nearest", "compressed-int4", "compressed-int8-act-int8",
    "torchao-int8wo",
)  # fmt: skip
COMPILED = ("quanto-int4", "quanto-int2")
"""What compiles an extension at first, which takes a minute or two."""
SCHEMES = [name for name in quantised.SCHEMES if "int4wo-g128" not in name and name not in COMPILED]
"""Not torchao's int4 kernels, which want a GPU."""
SAMPLE = [
    json.loads(line)["text"]
    for line in (ROOT / "src/fairway/data/samples/news.jsonl").read_text("utf-8").splitlines()
]
TEXTS = [SAMPLE[0][:400], "a", SAMPLE[1][:900], SAMPLE[2][:60], SAMPLE[3][:500], SAMPLE[0][:400]]
DOCUMENTS = [fairway.Document(str(number), text) for number, text in enumerate(TEXTS)]
TOLERANCE = 2e-5
"""Nats, of a log-probability, in float32."""
MATRICES = [
    *(f"self_attn.{one}_proj" for one in "qkvo"),
    *(f"mlp.{one}_proj" for one in ("gate", "up", "down")),
]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantised")
    done = run(["-W", "ignore", "tools/quantise.py", "--windows", "8", str(out), *METHODS])
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["FAIRWAY_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=[*METHODS, *SCHEMES])
def scorer(request: pytest.FixtureRequest, made: Path) -> Any:
    if request.param in METHODS:
        return fairway.load(str(made / request.param))
    return fairway.load("builtin", quantize=request.param)


def plain(model: Any, score: Any) -> np.ndarray:
    """Log-probabilities by one forward of the model over BOS and all tokens but the last."""
    ids = [0, *score.ids.tolist()]
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]]), use_cache=False).logits[0]
    rows = torch.log_softmax(logits.double(), -1)
    return rows[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()


def gaps(first: Iterator[Any], second: Iterator[Any]) -> float:
    pairs = zip(first, second, strict=True)
    return max(float(np.abs(a.logprobs - b.logprobs).max()) for a, b in pairs)


def test_the_engine_equals_a_plain_forward(scorer: Any) -> None:
    found = list(scorer.score(DOCUMENTS))
    for score in found:
        assert len(score.ids) < 500
        assert np.abs(score.logprobs - plain(scorer.loaded.model, score)).max() < TOLERANCE
    scorer.budget = 256
    assert gaps(iter(found[::-1]), scorer.score(DOCUMENTS[::-1])) < TOLERANCE
    assert scorer.signature["dtype"] == "float32"


def test_weights_are_rounded_and_said_to_be(scorer: Any) -> None:
    base = fairway.load("builtin")
    assert gaps(scorer.score(DOCUMENTS), base.score(DOCUMENTS)) > 1e-3
    line = scorer.signature["quant"]
    known = ("gptq", "awq", "compressed", "torchao", "quanto", "bitsandbytes")
    assert line.partition("-")[0] in known
    assert (scorer.path.head is None) == ("-act-" in line or line.startswith("bitsandbytes-int8"))
    size, weights = scorer.stored
    assert weights == base.stored[1]
    assert size < 4 * weights


@pytest.mark.parametrize("name", quantised.SCHEMES)
def test_a_scheme_is_called_what_it_makes(name: str) -> None:
    made = quantised.describe(quantising.prepare(name))
    assert made is not None and made.removesuffix("-in-float16") == name


def codes(words: np.ndarray, bits: int, order: list[int]) -> np.ndarray:
    """Take ``(n, m)`` words of 32 bits apart into ``(n, m, 32 / bits)`` codes."""
    shifts = np.arange(32 // bits, dtype=np.uint32) * bits
    found = (words.view(np.uint32)[:, :, None] >> shifts) & (2**bits - 1)
    return found[:, :, order].astype(np.int64)


def gptq(kept: dict[str, np.ndarray], bits: int) -> np.ndarray:
    """Give a layer's ``(rows, columns)`` weights by the format's definition.

    Words hold the codes of an input dimension, lowest first; stored zero points are one below the
    real ones (GPTQ-for-LLaMa, the format of AutoGPTQ and its successors).
    """
    straight = list(range(32 // bits))
    words = kept["qweight"]
    weights = codes(words.T.copy(), bits, straight).reshape(words.shape[1], -1).T
    zeros = codes(kept["qzeros"], bits, straight).reshape(len(kept["qzeros"]), -1) + 1
    which = kept["g_idx"]
    assert np.array_equal(which, np.arange(len(weights)) // 128)
    return kept["scales"].astype(np.float64)[which] * (weights - zeros[which])


def awq(kept: dict[str, np.ndarray], bits: int) -> np.ndarray:
    """The same by AWQ's: words hold the codes of 8 outputs, the even ones first (llm-awq)."""
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    weights = codes(kept["qweight"], bits, order).reshape(len(kept["qweight"]), -1)
    zeros = codes(kept["qzeros"], bits, order).reshape(len(kept["qzeros"]), -1)
    which = np.arange(len(weights)) // 128
    return kept["scales"].astype(np.float64)[which] * (weights - zeros[which])


@pytest.mark.parametrize(
    ("name", "bits", "unpack", "line"),
    [
        ("gptq-4bit", 4, gptq, "gptq-4bit-g128"),
        ("gptq-8bit", 8, gptq, "gptq-8bit-g128"),
        ("awq-4bit-nearest", 4, awq, "awq-4bit-g128"),
    ],
)
def test_products_equal_those_of_weights_unpacked_by_hand(
    made: Path, name: str, bits: int, unpack: Any, line: str
) -> None:
    """Also that they are in float32: the libraries' own kernels round to bfloat16 or float16."""
    weights = load_file(next((made / name).glob("*.safetensors")))
    model = AutoModelForCausalLM.from_pretrained(loading.builtin_folder(), dtype=torch.float64)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for full in weights.keys() & own.keys():
            own[full].copy_(weights[full])
        for number, layer in enumerate(model.model.layers):
            for matrix in MATRICES:
                start = f"model.layers.{number}.{matrix}."
                kept = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
                kept = {k: v.numpy() for k, v in kept.items()}
                weight = torch.from_numpy(unpack(kept, bits).T)
                old = layer.get_submodule(matrix).weight
                assert 0 < (weight - old).abs().max() < 0.5 * old.abs().max()
                old.copy_(weight)
    scorer = fairway.load(str(made / name))
    assert scorer.signature["quant"] == line
    for score in scorer.score(DOCUMENTS):
        assert np.abs(score.logprobs - plain(model.eval(), score)).max() < TOLERANCE
    assert fairway.load(str(made / name), dtype="bfloat16").signature["dtype"] == "bfloat16"


def test_a_later_token_moves_earlier_ones_in_llm_int8() -> None:
    scorer = fairway.load("builtin", quantize="bitsandbytes-int8")
    assert forward.leak(scorer.loaded.model) > 1e-3
    assert any("later ones moved" in note for note in scorer.notes)
    assert forward.leak(fairway.load("builtin", quantize="bitsandbytes-nf4").loaded.model) == 0


def test_objects_are_scored_as_they_are() -> None:
    from fairway.backends import transformers as backend

    named = fairway.load("builtin", quantize="torchao-int8wo")
    kept = named.loaded
    given = backend.load(kept.model, tokenizer=kept.tokenizer)
    other = fairway.load("builtin", quantize="torchao-intx4wo-g32").loaded
    assert given.signature["quant"] == named.signature["quant"] == "torchao-int8wo"
    hashes = [backend.load(one.model, tokenizer=one.tokenizer) for one in (kept, other)]
    assert hashes[0].signature["weights"] == given.signature["weights"]
    assert hashes[1].signature["weights"] != given.signature["weights"]
    assert gaps(given.score(DOCUMENTS), named.score(DOCUMENTS)) < TOLERANCE


def test_an_adapter_stays_beside_quantised_weights(tmp_path: Path) -> None:
    """QLoRA: merging would round it away."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    base = fairway.load("builtin", quantize="bitsandbytes-nf4").loaded.model
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(base, config).eval()
    adapted.save_pretrained(tmp_path / "lora")
    scorer = fairway.load("builtin", quantize="bitsandbytes-nf4", adapter=str(tmp_path / "lora"))
    assert scorer.signature["adapter"].startswith("lora@")
    bare = fairway.load("builtin", quantize="bitsandbytes-nf4")
    for score, other in zip(scorer.score(DOCUMENTS), bare.score(DOCUMENTS), strict=True):
        assert np.abs(score.logprobs - plain(adapted, score)).max() < TOLERANCE
        assert np.abs(score.logprobs - other.logprobs).max() > 1e-2


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("gptq-4bit", {"bits": 8}, "other shapes than its config"),
        ("gptq-4bit", {"group_size": 0}, "group_size must be"),
        (
            "torchao-int8wo",
            {"quant_type": {"default": {"_type": "os.system", "_data": {}}}},
            "os.system",
        ),
        ("compressed-int4", {"config_groups": {}}, "lacks 28 weights"),
    ],
)
def test_settings_that_do_not_fit_are_said(
    made: Path, tmp_path: Path, name: str, changes: dict[str, Any], said: str
) -> None:
    shutil.copytree(made / name, tmp_path / name)
    file = tmp_path / name / "config.json"
    config = json.loads(file.read_text("utf-8"))
    config["quantization_config"] |= changes
    file.write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match=said):
        fairway.load(str(tmp_path / name))


def test_the_command_line(made: Path, tmp_path: Path) -> None:
    """JSON alone on standard output, whatever the libraries print; the table of divergence."""
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:5]), "utf-8")
    four, eight = str(made / "gptq-4bit"), str(made / "gptq-8bit")
    words = ["-m", "fairway", "compare", "--kld", "--data", str(data), "--json"]
    done = run([*words, *(f"--model={m}" for m in ("builtin", "builtin:quanto-int8", eight, four))])
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    rows = json.loads(done.stdout)["variants"]
    means = [row["kld"]["value"] for row in rows]
    assert max(means[:2]) < 0.01 < means[2], means
    runs = [str(tmp_path / "base"), str(tmp_path / "four")]
    for out, model in zip(runs, ("builtin", four), strict=True):
        done = run(["-m", "fairway", "eval", "--model", model, "--data", str(data), "--out", out])
        assert done.returncode == 0, done.stderr
    again = run(["-m", "fairway", "eval", "--repeat", runs[1]])
    assert again.returncode == 0 and "gptq-4bit-g128" in done.stdout, again.stderr
    done = run(["-m", "fairway", "compare", *runs, "--json"])
    assert done.returncode == 0 and json.loads(done.stdout), done.stderr
