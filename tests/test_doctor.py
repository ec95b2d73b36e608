"""The doctor: planted faults are found, each by its own check, and sound models have none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from typer.testing import CliRunner

import fairway
from fairway.backends.transformers import loading
from fairway.backends.transformers.doctor import CHECKS, SENTENCES, Finding, examine
from fairway.cli import app
from fairway.errors import InputError
from models import CONFIGS, GROUPED, POSITIONS, VOCABULARY, build, tokenizer

TURNS = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}{{ eos_token }}"


def found(model: Any, words: Any, **options: Any) -> dict[str, Finding]:
    """Notes and defects by check; every check is run each time."""
    findings = examine(loading.wrap(model, words), **options)
    assert [one.check for one in findings] == list(CHECKS)
    assert all(one.evidence for one in findings)
    assert all(bool(one.fix) == one.found for one in findings)
    return {one.check: one for one in findings if one.found}


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("adds", [False, True])
def test_a_sound_model_has_no_findings(name: str, adds: bool) -> None:
    words = tokenizer(adds=adds)
    words.model_max_length = POSITIONS
    words.chat_template = "{{ bos_token }}" * (not adds) + TURNS
    model = build(name)
    assert found(model, words) == {}
    skipped = [f.check for f in examine(loading.wrap(model, words)) if f.outcome == "skipped"]
    assert skipped == ["dtype against float32"]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "mamba"])
def test_left_padding_that_changes_nothing_is_no_finding(name: str) -> None:
    words = tokenizer()
    words.padding_side = "left"
    assert found(build(name), words) == {}


def test_one_separator_for_all_as_gpt2_has_is_no_finding() -> None:
    words = tokenizer(bos="</s>")
    words.add_special_tokens({"unk_token": "</s>"})
    model = build("gpt2")
    model.config.bos_token_id = model.generation_config.bos_token_id = 1
    assert words.bos_token_id == words.eos_token_id == words.unk_token_id == 1
    assert found(model, words) == {}


def test_a_bos_in_the_configuration_alone_is_no_finding() -> None:
    assert found(build("qwen2"), tokenizer(bos=None)) == {}


Patient = tuple[Any, Any]


def plain(name: str = "llama", adds: bool = False) -> Patient:
    return build(name), tokenizer(adds=adds)


def with_core(change: Callable[[Any], None], name: str = "llama") -> Patient:
    """A sound model whose tokenizer.json was changed."""
    words = tokenizer()
    core = Tokenizer.from_str(words.backend_tokenizer.to_str())
    change(core)
    return build(name), t.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>"
    )


def normalised(*steps: Any) -> Patient:
    def change(core: Any) -> None:
        core.normalizer = normalizers.Sequence(list(steps))

    return with_core(change)


def closing(single: str) -> Patient:
    def change(core: Any) -> None:
        core.post_processor = TemplateProcessing(
            single=single, special_tokens=[("<s>", 0), ("</s>", 1)]
        )

    return with_core(change)


def chatting(template: str, adds: bool = False) -> Patient:
    model, words = plain(adds=adds)
    words.chat_template = template
    return model, words


def letters() -> Patient:
    """A vocabulary of single ASCII characters, as old character models have: no accents."""
    known = {"<s>": 0, "</s>": 1, "<unk>": 2, "\n": 3, "\t": 4}
    for code in range(32, 127):
        known[chr(code)] = len(known)
    core = Tokenizer(models.BPE(known, [], unk_token="<unk>"))
    core.decoder = decoders.Fuse()
    words = t.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    return build("llama"), words


def split_words() -> Patient:
    """A vocabulary of whole words: all else is unknown."""
    known = {"<s>": 0, "</s>": 1, "<unk>": 2}
    for word in " ".join(SENTENCES[:4]).split():
        known.setdefault(word, len(known))
    core = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = t.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    return build("llama"), words


def added_token() -> Patient:
    model, words = plain()
    words.add_tokens([f"<extra_{number}>" for number in range(VOCABULARY)])
    return model, words


def bos_outside() -> Patient:
    model, words = plain()
    model.config.bos_token_id = model.generation_config.bos_token_id = 50_256
    words.bos_token = None
    return model, words


def other_bos() -> Patient:
    model, words = plain()
    model.config.bos_token_id = 5
    model.generation_config.bos_token_id = 5
    return model, words


def other_eos() -> Patient:
    model, words = plain()
    model.config.eos_token_id = model.generation_config.eos_token_id = [7, 8]
    return model, words


def trained(first: bool) -> Any:
    """A model that reads text rightly only with a BOS (``first``), or only without one."""
    torch.manual_seed(0)
    model, words = t.LlamaForCausalLM(t.LlamaConfig(**GROUPED)), tokenizer()
    rows = [words(text, add_special_tokens=False)["input_ids"][:40] for text in SENTENCES]
    text = torch.tensor([row[: min(map(len, rows))] for row in rows])
    front = torch.zeros((len(rows), 1), dtype=torch.long)
    other = torch.randperm(VOCABULARY)[text]
    steps = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        after = torch.log_softmax(model(torch.cat([front, text], 1)).logits[:, :-1], -1)
        alone = torch.log_softmax(model(text).logits[:, :-1], -1)
        target_after, target_alone = (text, other) if first else (other, text)
        loss = -(
            after.gather(2, target_after[..., None]).mean()
            + alone.gather(2, target_alone[:, 1:, None]).mean()
        )
        steps.zero_grad()
        loss.backward()
        steps.step()
    return model


def template_without_bos() -> Patient:
    words = tokenizer(adds=True)
    words.chat_template = TURNS
    return trained(True), words


def padded_with(token: str, adds: bool = False) -> Patient:
    model, words = plain(adds=adds)
    words.pad_token = token
    return model, words


def left(name: str) -> Patient:
    model, words = plain(name)
    words.padding_side = "left"
    return model, words


def claims(length: int, name: str = "llama") -> Patient:
    model, words = plain(name)
    words.model_max_length = length
    return model, words


def short_table() -> Patient:
    model, words = plain("gpt2")
    model.config.n_positions = 2 * POSITIONS
    return model, words


def damaged() -> Patient:
    model, words = plain()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = float("nan")
    return model, words


def damaged_bos() -> Patient:
    model, words = plain()
    with torch.no_grad():
        model.model.embed_tokens.weight[0] = float("nan")
    return model, words


def sees_the_future() -> Patient:
    """An encoder that was loaded as a causal model, as AutoModelForCausalLM does on request."""
    config = t.BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=POSITIONS, bos_token_id=0, eos_token_id=1,
        initializer_range=0.3, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    return t.BertLMHeadModel(config), tokenizer()


def looks_across() -> Patient:
    model, words = plain()
    model.model.norm.register_forward_hook(
        lambda module, given, out: out + 0.5 * out.mean(0, keepdim=True)
    )
    return model, words


def rounded(dtype: torch.dtype, scale: float) -> Patient:
    model, words = plain()
    with torch.no_grad():
        model.lm_head.weight.mul_(scale)
    return model.to(dtype), words


BOS = "{{ bos_token }}"
PLANTED: dict[str, tuple[Callable[[], Patient], str, str, str]] = {
    "added tokens": (added_token, "vocabulary", "defect", "563"),
    "bos outside": (bos_outside, "vocabulary", "defect", "50256"),
    "another bos": (other_bos, "special tokens' ids", "defect", "BOS is 0"),
    "another eos": (other_eos, "special tokens' ids", "note", "EOS is 1"),
    "two bos": (lambda: closing("<s> <s> $A"), "doubled BOS", "defect", "2 BOS"),
    "template bos twice": (lambda: chatting(BOS + BOS + TURNS), "doubled BOS", "defect", "twice"),
    "template and call": (
        lambda: chatting(BOS + TURNS, adds=True), "doubled BOS", "note", "another",
    ),
    "missing bos": (
        lambda: (trained(True), tokenizer()), "with and without BOS", "defect", "needs one",
    ),
    "unknown bos": (
        lambda: (trained(False), tokenizer(adds=True)), "with and without BOS", "defect",
        "does not know",
    ),
    "template lacks bos": (
        template_without_bos, "with and without BOS", "defect", "template writes no BOS",
    ),
    "damaged bos": (damaged_bos, "with and without BOS", "defect", "no finite"),
    "eos added": (lambda: closing("$A </s>"), "token at the end", "note", "</s>"),
    "pad is eos": (lambda: padded_with("</s>"), "tied special tokens", "note", "EOS"),
    "pad is bos": (lambda: padded_with("<s>", True), "tied special tokens", "defect", "BOS"),
    "lower case": (lambda: normalised(normalizers.Lowercase()), "lossy tokenizer", "defect", "'T"),
    "no accents": (
        lambda: normalised(normalizers.NFD(), normalizers.StripAccents()), "lossy tokenizer",
        "note", "\u00ef",
    ),
    "one blank": (
        lambda: normalised(normalizers.Replace("  ", " ")), "lossy tokenizer", "defect", "probe",
    ),
    "trimmed": (lambda: normalised(normalizers.Strip()), "lossy tokenizer", "defect", "probe"),
    "compatible": (lambda: normalised(normalizers.NFKC()), "lossy tokenizer", "note", "\ufb01"),
    "no accents known": (letters, "lossy tokenizer", "note", "unknown"),
    "whole words": (split_words, "lossy tokenizer", "defect", "unknown"),
    "length 20": (lambda: claims(20), "max_length", "defect", "20"),
    "length over table": (
        lambda: claims(2 * POSITIONS, "gpt2"), "max_length", "defect", "index error",
    ),
    "length over rope": (lambda: claims(2 * POSITIONS), "max_length", "note", "never trained"),
    "short table": (short_table, "max_length", "defect", "64"),
    "template refuses": (
        lambda: chatting("{{ raise_exception('no') }}"), "chat template", "defect", "refuses",
    ),
    "template escapes": (
        lambda: chatting(TURNS.replace("['content']", "['content'] | escape")), "chat template",
        "defect", "changes or drops",
    ),
    "template drops": (
        lambda: chatting("{{ messages[0]['content'] }}"), "chat template", "defect", "assistant",
    ),
    "damaged weights": (damaged, "finite numbers", "defect", "up_proj"),
    "an encoder": (sees_the_future, "causality", "defect", "future"),
    "across rows": (looks_across, "batch invariance", "defect", "batch"),
    "left, learned": (lambda: left("gpt2"), "padding side", "defect", "left"),
    "left, recurrent": (lambda: left("rwkv"), "padding side", "defect", "left"),
    "overflow": (
        lambda: rounded(torch.float16, 1e4), "dtype against float32", "defect", "overflows",
    ),
    "coarse": (
        lambda: rounded(torch.bfloat16, 16.0), "dtype against float32", "defect", "in bfloat16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", sorted(PLANTED))
def test_a_planted_fault_is_found_by_its_check_alone(fault: str) -> None:
    plant, check, outcome, evidence = PLANTED[fault]
    seen = found(*plant())
    assert list(seen) == [check], seen
    assert seen[check].outcome == outcome, seen
    assert evidence in seen[check].evidence


def test_every_check_that_can_find_has_a_planted_fault() -> None:
    assert {check for _, check, _, _ in PLANTED.values()} == set(CHECKS) - {"scoring path"}


def test_another_unicode_form_matters_where_the_corpus_has_it() -> None:
    model, words = normalised(normalizers.NFC())
    assert found(model, words) == {}
    documents = [fairway.Document("1", "The cafe\u0301 by the river is open all day.")]
    note = found(model, words, documents=documents)["lossy tokenizer"]
    assert note.outcome == "note" and "Unicode form" in note.evidence


def test_the_corpus_decides_what_is_lost() -> None:
    """A model without accents is fit for one corpus and not for another."""
    model, words = letters()
    documents = [fairway.Document("1", SENTENCES[0]), fairway.Document("2", "Un café, là-bas.")]
    lost = found(model, words, documents=documents)["lossy tokenizer"]
    assert lost.outcome == "defect"
    assert "text 2" in lost.evidence and "character 6" in lost.evidence and "'é'" in lost.evidence


def test_padding_that_is_ordinary_text() -> None:
    model, words = plain()
    words.pad_token = "e"
    tied = found(model, words)["tied special tokens"]
    count = sum(
        words(text, add_special_tokens=False)["input_ids"].count(words.pad_token_id)
        for text in SENTENCES
    )
    assert tied.outcome == "defect" and count and f"{count} times" in tied.evidence


def test_data_without_text_is_refused() -> None:
    model, words = plain()
    with pytest.raises(InputError, match="no text"):
        examine(loading.wrap(model, words), [fairway.Document("1", "")])


def test_a_check_that_fails_is_reported_and_stops_nothing() -> None:
    model, words = plain()
    words.get_vocab = lambda: 1 // 0
    seen = found(model, words)
    assert list(seen) == ["vocabulary"] and "ZeroDivisionError" in seen["vocabulary"].evidence


def test_real_tokenizers_have_no_findings(assets: Path) -> None:
    folder = assets / "tokenizers"
    neox = t.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "gpt_neox_20b" / "tokenizer.json"),
        bos_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>",
    )  # fmt: skip
    gpt2 = t.GPT2Tokenizer(
        vocab=str(folder / "gpt2" / "encoder.json"), merges=str(folder / "gpt2" / "vocab.bpe")
    )
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    pythia = t.GPTNeoXForCausalLM(
        t.GPTNeoXConfig(vocab_size=50_432, intermediate_size=64, bos_token_id=0, eos_token_id=0,
                        **small)
    )  # fmt: skip
    assert found(pythia, neox) == {}
    assert found(t.GPT2LMHeadModel(t.GPT2Config(n_embd=32, n_layer=2, n_head=4)), gpt2) == {}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_real_model_on_real_text_has_no_findings(assets: Path, stories: str, dtype: str) -> None:
    corpus = fairway.read(assets / "corpora/wikitext2/wiki.test.raw", split="wikitext", limit=8)
    loaded = loading.load(stories, dtype=dtype, device="cpu")
    seen = examine(loaded, list(corpus), lambda: loading.load(stories, device="cpu"))
    assert [one for one in seen if one.found] == []
    assert {one.check: one.outcome for one in seen}["dtype against float32"] == (
        "skipped" if dtype == "float32" else "ok"
    )


def saved(folder: Path, model: Any, words: Any) -> str:
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    sound = saved(tmp_path / "sound", build("llama"), tokenizer(adds=True))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("The \x1b[31mred\x1b[0m house stood by the sea.\n" * 3)
    runner = CliRunner()
    good = runner.invoke(app, ["doctor", "--model", sound, "--data", str(corpus)])
    assert good.exit_code == 0, good.output
    assert "✓ ok" in good.output and "0 defects, 0 notes" in good.output
    assert "corpus.txt (1 document)" in good.output

    words = normalised(normalizers.Replace("\x1b", ""))[1]
    ill = saved(tmp_path / "ill", build("llama"), words)
    bad = runner.invoke(app, ["doctor", "--model", ill, "--data", str(corpus)])
    assert bad.exit_code == 1
    assert "✗ defect" in bad.output and "lossy tokenizer" in bad.output
    assert "\x1b" not in bad.output

    answer = runner.invoke(app, ["doctor", "--model", ill, "--data", str(corpus), "--json"])
    assert answer.exit_code == 1
    found = json.loads(answer.stdout)
    assert [one["check"] for one in found["findings"]] == list(CHECKS)
    assert [one["check"] for one in found["findings"] if one["outcome"] == "defect"] == [
        "lossy tokenizer"
    ]
    assert found["documents"] == 1 and found["dtype"] == "float32"


def test_half_precision_is_compared_with_the_checkpoint_itself(tmp_path: Path) -> None:
    """Embeddings near float16's smallest number: cast back to float32, their loss is not seen."""
    model = build("llama")
    model.config.rms_norm_eps = 1e-20
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1e-6)
    folder = saved(tmp_path, model, tokenizer(adds=True))
    half = loading.load(folder, dtype="float16", device="cpu")
    assert [one for one in examine(half) if one.found] == []
    words = ["doctor", "--model", folder, "--dtype", "float16", "--json"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 1, answer.output
    seen = [one for one in json.loads(answer.stdout)["findings"] if one["outcome"] == "defect"]
    assert [one["check"] for one in seen] == ["dtype against float32"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--data", "nowhere.txt"], "no file, folder or glob"),
        (["--dtype", "int3"], "no dtype"),
        (["--model", "kenlm:x.arpa"], "kenlm"),
        (["--model", "./nowhere"], "not a model folder"),
    ],
)
def test_mistakes(tmp_path: Path, words: list[str], reason: str) -> None:
    folder = saved(tmp_path, build("gpt2"), tokenizer())
    out = subprocess.run(
        [sys.executable, "-m", "fairway", "doctor", "--model", folder, *words],
        capture_output=True, text=True,
    )  # fmt: skip
    assert out.returncode == 2
    assert reason in out.stderr and "Traceback" not in out.stderr
