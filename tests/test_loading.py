"""Loading: folders, adapters, dtypes, devices, damaged or unfit models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import fairway
from fairway import scorer as scorers
from fairway.backends import transformers as backend
from fairway.errors import InputError, ModelError, ProtocolError
from models import build, tokenizer

DOCUMENT = fairway.Document("x", "the cat and the hen in the inn, and an ant")


def scores(*words: Any, **options: Any) -> Any:
    return next(iter(backend.load(*words, **options).score([DOCUMENT])))


def test_a_folder_and_its_objects_give_the_same(small: str) -> None:
    model, words = build("llama"), tokenizer()
    folder, objects = backend.load(small), backend.load(model, tokenizer=words)
    a, b = (next(iter(s.score([DOCUMENT]))) for s in (folder, objects))
    assert np.array_equal(a.logprobs, b.logprobs)
    assert folder.signature["tok"] == objects.signature["tok"]
    assert folder.signature["model"] == Path(small).name
    assert str(Path(small).parent) not in str(folder.signature)


def test_the_signature_knows_the_weights(small: str, tmp_path: Path) -> None:
    other = tmp_path / Path(small).name
    shutil.copytree(small, other)
    assert str(backend.load(str(other)).signature) == str(backend.load(small).signature)
    path = other / "model.safetensors"
    weights = load_file(path)
    name = next(iter(weights))
    weights[name] = weights[name].clone()
    weights[name].flatten()[0] += 1e-3
    save_file(weights, path, {"format": "pt"})
    a, b = backend.load(str(other)).signature, backend.load(small).signature
    assert a["weights"] != b["weights"]
    assert a.without("weights") == b.without("weights")


def test_an_adapter_changes_the_model_as_peft_does(small: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(build("llama"), config)
    adapted.save_pretrained(tmp_path / "lora")
    scorer = backend.load(small, adapter=str(tmp_path / "lora"))
    score = next(iter(scorer.score([DOCUMENT])))
    ids = [0, *score.ids.tolist()]
    with torch.no_grad():
        logp = torch.log_softmax(adapted.eval()(torch.tensor([ids])).logits[0].double(), -1)
    expected = [float(logp[i - 1, ids[i]]) for i in range(1, len(ids))]
    assert np.abs(score.logprobs - expected).max() < 2e-5
    assert np.abs(score.logprobs - scores(small).logprobs).max() > 1e-2
    assert scorer.signature["adapter"].startswith("lora@")
    with pytest.raises(ModelError, match="no PEFT adapter"):
        backend.load(small, adapter=str(tmp_path))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_said_and_near(small: str, dtype: str) -> None:
    scorer = backend.load(small, dtype=dtype)
    assert scorer.signature["dtype"] == dtype
    exact, half = scores(small), next(iter(scorer.score([DOCUMENT])))
    gap = abs(exact.metrics["nll_per_token"] - half.metrics["nll_per_token"])
    assert 0 < gap < 0.1
    assert half.logprobs.dtype == np.float64


def test_half_precision_softmax_is_float32(small: str) -> None:
    """Log-probs are finer than bfloat16's 8 bits: the log-sum-exp is taken in float32."""
    values = scores(small, dtype="bfloat16").logprobs
    rounded = torch.tensor(values).to(torch.bfloat16).double().numpy()
    assert np.abs(values - rounded).max() > 1e-4


def test_device_map(small: str) -> None:
    pytest.importorskip("accelerate")
    mapped = scores(small, device_map={"": "cpu"})
    assert np.array_equal(mapped.logprobs, scores(small).logprobs)


def test_damaged_weights_are_an_error(small: str, tmp_path: Path) -> None:
    folder = tmp_path / "nan"
    shutil.copytree(small, folder)
    weights = {k: v.clone() for k, v in load_file(folder / "model.safetensors").items()}
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="not numbers"):
        scores(str(folder))


def test_missing_weights_are_an_error(small: str, tmp_path: Path) -> None:
    folder = tmp_path / "gap"
    shutil.copytree(small, folder)
    weights = dict(load_file(folder / "model.safetensors"))
    weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights .*lm_head"):
        backend.load(str(folder))


def test_a_model_that_wants_to_run_code_is_not_obeyed(small: str, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    shutil.copytree(small, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"model_type": "mystery", "auto_map": {"AutoConfig": "run.C"}}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    ran = tmp_path / "ran"
    (folder / "run.py").write_text(f"open({str(ran)!r}, 'w')\n", "utf-8")
    with pytest.raises(ModelError, match="trust"):
        backend.load(str(folder))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"dtype": "int3"}, InputError, "no dtype"),
        ({"device": "toaster"}, InputError, "no device"),
        ({"special_tokens": "maybe"}, InputError, "neither text nor parse"),
        ({"max_length": 65}, ProtocolError, "at most 64"),
        ({"max_length": 16, "stride": 17}, ProtocolError, "stride"),
        ({"max_length": 1}, ProtocolError, "max_length|window"),
        ({"prefix": "cls"}, ProtocolError, "prefix policy"),
        ({"like": "nothing"}, ProtocolError, "no convention"),
    ],
)
def test_wrong_options(small: str, options: Any, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        backend.load(small, **options)


def test_a_device_that_is_absent(small: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InputError, match="no cuda device"):
        backend.load(small, device="cuda")


def test_a_masked_model_is_refused(tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="sees ahead"):
        backend.load(str(tmp_path))


def _plain(name: str, eos: bool = True) -> object:
    return name, eos


def _open(name: str, **options: object) -> object:
    return options


def test_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="not a kind"):
        fairway.load("gguf2:x")
    for name, loader in (("plain", "_plain"), ("open", "_open")):
        kind = scorers.Kind(f"{__name__}:{loader}", packages=("json", "absent_package"))
        monkeypatch.setitem(scorers.BACKENDS, name, kind)
    assert scorers.BACKENDS["plain"].missing == ("absent_package",)
    assert scorers.load("plain:a:b", dtype="auto", stride=None, eos=False) == ("a:b", False)
    with pytest.raises(InputError, match="plain: models have no setting stride .* take: eos"):
        scorers.load("plain:a", stride=0)
    with pytest.raises(InputError, match="no setting other"):
        scorers.load("plain:a", other=None)
    assert scorers.load("open:a", other=None) == {"other": None}
    with pytest.raises(InputError, match="needs its tokenizer"):
        fairway.load(build("llama"))


def test_results_do_not_depend_on_batches(small: str) -> None:
    texts = ["the cat " * n for n in (1, 9, 3, 40, 2, 17)] + ["猫", "and"]
    documents = [fairway.Document(str(i), text) for i, text in enumerate(texts)]
    one = {s.id: s for s in backend.load(small, batch_tokens=1).score(documents)}
    many = {s.id: s for s in backend.load(small, batch_tokens=10_000).score(documents[::-1])}
    for key, score in one.items():
        assert np.abs(score.logprobs - many[key].logprobs).max() < 2e-5


def test_extra_columns(small: str) -> None:
    scorer = backend.load(small)
    score = next(iter(scorer.score([DOCUMENT], want=("entropy", "rank", "top"))))
    model = build("llama")
    ids = [0, *score.ids.tolist()]
    with torch.no_grad():
        logp = torch.log_softmax(model.double()(torch.tensor([ids])).logits[0], -1)[:-1]
    entropy = -(logp.exp() * logp).sum(-1).numpy()
    assert np.abs(score.extras["entropy"] - entropy).max() < 1e-4
    target = logp.gather(1, torch.tensor(ids[1:])[:, None])
    assert score.extras["rank"].tolist() == (logp > target).sum(-1).tolist()
    assert score.extras["top"].tolist() == logp.argmax(-1).tolist()


def test_revisions_of_the_hub_are_told_apart(small: str, tmp_path: Path) -> None:
    """Without the commit in the signature, the cache would give one's scores for the other's."""
    repo = tmp_path / "hub" / "models--org--model"
    (repo / "refs").mkdir(parents=True)
    for name, commit in (("step1", "a" * 40), ("step2", "b" * 40)):
        shutil.copytree(small, repo / "snapshots" / commit)
        (repo / "refs" / name).write_text(commit)
    path = repo / "snapshots" / ("b" * 40) / "model.safetensors"
    kept = load_file(path)
    save_file({name: one * 1.1 for name, one in kept.items()}, path, {"format": "pt"})
    offline = {**os.environ, "HF_HUB_CACHE": str(repo.parent), "HF_HUB_OFFLINE": "1"}
    out = subprocess.run(
        [sys.executable, "-m", "fairway", "eval", "--data", "sample:news", "--limit", "4", "--json",
         "--model", "org/model@step1", "--model", "org/model@step2"],
        capture_output=True, text=True, env=offline,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    first, second = json.loads(out.stdout)["reports"]
    fields = [one["signature_fields"]["revision"] for one in (first, second)]
    assert fields == ["a" * 40, "b" * 40]
    assert first["metrics"]["nll"] != second["metrics"]["nll"]
