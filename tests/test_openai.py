"""Models behind servers: every route against the same weights scored here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import fairway
import models
import standin
from fairway.cli import app
from fairway.corpus import Document
from fairway.errors import FairwayError, InputError, ModelError, ProtocolError

TEXTS = (
    "The hen and the cat in the garden.",
    "x",
    "  two blanks, 猫 and é\n\nand the end ",
    "Кошка спит на окне.",
)
LONG = " ".join(TEXTS[::2] * 8)
NAMES = list(standin.FLAVOURS)


def tokenizer() -> Any:
    """Bytes and a few merges, one of them across the border of two characters, 猫 and の."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    made = models.tokenizer(adds=True)
    data = json.loads(made.backend_tokenizer.to_str())
    spelling = dict(standin.enumerate_bytes())
    one, two, three = (spelling[byte] for byte in (0x8C, 0xAB, 0xE3))
    for left, right in ((one, two), (one + two, three)):
        data["model"]["vocab"][left + right] = len(data["model"]["vocab"])
        data["model"]["merges"].append([left, right])
    core = Tokenizer.from_str(json.dumps(data))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama whose tokenizer puts BOS before a text."""
    place = tmp_path_factory.mktemp("openai") / "small"
    models.build("llama").save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def weights() -> standin.Weights:
    return standin.Weights(models.build("llama").eval(), tokenizer(), True)


@pytest.fixture(scope="module")
def urls(weights: standin.Weights) -> Iterator[dict[str, str]]:
    with (
        standin.serve(standin.vllm(weights)) as one,
        standin.serve(standin.sglang(weights)) as two,
        standin.serve(standin.tgi(weights)) as three,
        standin.serve(standin.llama_server(weights)) as four,
    ):
        yield dict(zip(NAMES, (one, two, three, four), strict=True))


def remote(url: str, **options: Any) -> Any:
    if "route" not in options and url.endswith("#stepwise"):
        options["route"] = "stepwise"
    return fairway.load(f"openai:{url.removesuffix('#stepwise')}", **options)


def close(one: Any, other: Any) -> None:
    assert np.array_equal(np.isnan(one.logprobs), np.isnan(other.logprobs))
    assert np.allclose(one.logprobs, other.logprobs, atol=1e-5, equal_nan=True)
    a, b = one.totals, other.totals
    assert (a.tokens, a.bytes, a.chars, a.words) == (b.tokens, b.bytes, b.chars, b.words)


@pytest.fixture(scope="module", params=["vllm", "sglang", "tgi", "llama-server"])
def pair(
    request: pytest.FixtureRequest, urls: dict[str, str], folder: Path
) -> tuple[str, Any, Any]:
    """A server's name, its scorer, and the scorer of the same weights here."""
    url = urls[request.param]
    found = remote(url, **({"route": "stepwise"} if request.param == "llama-server" else {}))
    length = found.way.plan.max_length if found.way.plan is not None else None
    return request.param, found, fairway.load(f"hf:{folder}", max_length=length)


def test_equal_to_the_same_weights_here(pair: tuple[str, Any, Any]) -> None:
    """Sums, counts and spans of short texts, with what stands before them."""
    _, found, local = pair
    documents = [Document(f"{n}", text) for n, text in enumerate(TEXTS)]
    documents += [
        Document("behind", " and the hen", "The cat in the garden,"),
        Document("inside", "The hen and the 猫", "", ((4, 7), (16, 17))),
    ]
    for one, other in zip(found.score(documents), local.score(documents), strict=True):
        close(one, other)
    assert found.signature["prefix"] == local.signature["prefix"] == "bos"
    assert "unknown" in found.signature["weights"]


def test_windows_of_long_texts(pair: tuple[str, Any, Any]) -> None:
    """Where ids can be sent a long text has the protocol's windows; elsewhere it is refused."""
    name, found, local = pair
    document = Document("long", LONG)
    if name in ("tgi", "sglang"):
        with pytest.raises(InputError, match="is not taken|are read at once"):
            list(found.score([document]))
        return
    (one,), (other,) = found.score([document]), local.score([document])
    assert len(one) > 2 * found.way.plan.max_length
    close(one, other)
    behind = Document("behind", LONG[-60:], LONG[:-60])
    (one,), (other,) = found.score([behind]), local.score([behind])
    close(one, other)
    assert found.signature["stride"] == local.signature["stride"]


def test_a_tokenizer_here_gives_windows(urls: dict[str, str], folder: Path) -> None:
    """With tokenizer= ids are sent, and spans are the tokenizer's own."""
    found = remote(urls["sglang"], tokenizer=str(folder))
    local = fairway.load(f"hf:{folder}", max_length=found.way.plan.max_length)
    documents = [Document("long", LONG), *(Document(f"{n}", t) for n, t in enumerate(TEXTS))]
    documents.append(Document("special", "a </s> of data and <s>"))
    for one, other in zip(found.score(documents), local.score(documents), strict=True):
        close(one, other)
        assert np.array_equal(one.offsets, other.offsets)
    bare = remote(urls["sglang"], tokenizer=str(folder), prefix="none", max_length=40, stride=11)
    local = fairway.load(f"hf:{folder}", prefix="none", max_length=40, stride=11)
    close(next(bare.score(documents[:1])), next(local.score(documents[:1])))
    assert bare.signature["prefix"] == "none" and bare.signature["special"] == "text"


def test_another_tokenizer_is_refused(urls: dict[str, str], tmp_path: Path) -> None:
    models.wordpiece().save_pretrained(tmp_path)
    found = remote(urls["tgi"], tokenizer=str(tmp_path))
    with pytest.raises(ModelError, match="not those of the tokenizer"):
        list(found.score([Document("a", TEXTS[0])]))


def test_rank_and_top(urls: dict[str, str], folder: Path) -> None:
    """vLLM's rank counts from 1, and ids stand where servers key by them."""
    document = Document("a", TEXTS[0])
    for name, want in (("vllm", ("rank", "top5", "top")), ("sglang", ("top5", "top"))):
        (one,) = remote(urls[name]).score([document], want)
        (other,) = fairway.load(f"hf:{folder}").score([document], want)
        for column, values in one.extras.items():
            assert np.allclose(values, other.extras[column], atol=1e-4), (name, column)
    with pytest.raises(InputError, match="no column 'entropy'; it tells: rank, top"):
        remote(urls["vllm"]).score([document], ["entropy"])


def test_a_chat_template(urls: dict[str, str], folder: Path) -> None:
    """The text is found between the template's tokens, and scored behind what stands before it."""
    found = remote(urls["vllm"], route="chat")
    assert found.signature["prefix"] == found.signature["route"] == "chat"
    before, _ = standin.CHAT.split("{}")
    for text in ("The hen and the cat.", "猫 in the garden"):
        (one,) = found.score([Document("a", text)])
        (other,) = fairway.load(f"hf:{folder}").score([Document("a", text, before)])
        close(one, other)


def test_spelling_that_is_not_enough(urls: dict[str, str], folder: Path) -> None:
    """Decoded tokens that can lie in several ways are placed by the server's own tokenizer."""
    document = Document("a", "猫の庭 日本語")
    (one,) = remote(urls["vllm"]).score([document])
    (other,) = fairway.load(f"hf:{folder}").score([document])
    close(one, other)
    with pytest.raises(ModelError, match=r"a: .* can lie in \d ways"):
        list(remote(urls["tgi"]).score([document]))
    (one,) = remote(urls["tgi"], tokenizer=str(folder)).score([document])
    close(one, other)


def test_no_prompt_logprobs(urls: dict[str, str]) -> None:
    """llama-server ignores echo; the sentence says what to use with that very server."""
    with pytest.raises(ModelError, match=r"returns no prompt log-probs\. llama-server gives") as no:
        remote(urls["llama-server"])
    for way in ("gguf:FILE", "llama_cpp.server", "route=stepwise", "--generated"):
        assert way in str(no.value)


def test_names(urls: dict[str, str]) -> None:
    url = urls["vllm"]
    assert fairway.load(f"openai:small@{url}/v1").signature["server"] == "vllm 0.99.1"
    with pytest.raises(ModelError, match=r"has no model 'smell'; it has: small"):
        fairway.load(f"openai:smell@{url}")
    found = remote(urls["llama-server"], route="stepwise").signature
    assert (found["model"], found["server"]) == ("small.gguf", "llama-server b9999-abc")
    with pytest.raises(InputError, match="route=nothing is not known"):
        remote(url, route="nothing")


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"like": "hf-doc"}, ProtocolError, "--like fairway only"),
        ({"concurrency": 0}, InputError, "concurrency=0 is not a number from 1"),
        ({"price": True}, InputError, "price=True"),
        ({"server": "vlm"}, InputError, "server=vlm is not known"),
        ({"key": "sk-secret"}, InputError, "takes the name of an environment variable"),
        ({"max_length": 10**6}, ProtocolError, "reads at most"),
        ({"special_tokens": "text"}, ProtocolError, "cannot be had by this route"),
    ],
)
def test_bad_settings(
    urls: dict[str, str], options: dict[str, Any], kind: type[FairwayError], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        remote(urls["vllm"], **options)
    assert "secret" not in str(caught.value)


def test_what_no_server_takes(urls: dict[str, str]) -> None:
    found = remote(urls["vllm"])
    before = found.link.counts.requests
    for document, said in (
        (Document("a", "", ids=np.arange(3)), "token ids"),
        (Document("a", "abc", windows=((0, 0, 3),)), "windows of its own"),
        (Document("a", "a\ud800b"), "half of a surrogate"),
    ):
        with pytest.raises(InputError, match=said):
            list(found.score([document]))
    assert found.link.counts.requests == before


def test_an_eval_stops_and_goes_on(urls: dict[str, str], tmp_path: Path) -> None:
    """max_requests is a hard stop: what is done stays, and a rerun asks for the rest alone."""
    data = tmp_path / "texts.jsonl"
    spec = f"openai:{urls['sglang']}"
    common = ["eval", "--model", spec, "--data", str(data), "--json", "--no-cache"]
    texts = [
        json.dumps({"text": f"{n} hens and the cat in the garden of the hen"}) for n in range(150)
    ]
    data.write_text("\n".join(texts), "utf-8")
    whole = CliRunner().invoke(app, [*common, "--out", str(tmp_path / "whole")])
    assert whole.exit_code == 0, whole.output
    part = [*common, "--out", str(tmp_path / "part")]
    cut = CliRunner().invoke(app, [*part, "--max-requests", "110"])
    assert cut.exit_code != 0 and "max_requests=110" in str(cut.exception or cut.output)
    kept = (tmp_path / "part" / "scores.jsonl").read_text("utf-8").count('"key"')
    assert 30 < kept < 110
    again = CliRunner().invoke(app, [*part, "--model-arg", "price=2.5"])
    assert again.exit_code == 0, again.output
    one, other = (json.loads(run.stdout) for run in (whole, again))
    assert math.isclose(one["metrics"]["nll"], other["metrics"]["nll"], rel_tol=1e-9)
    assert one["signature"] == other["signature"]
    asked = json.loads((tmp_path / "part" / "run.json").read_text("utf-8"))["engine"]["requests"]
    assert asked < 150 - kept + 30
    assert "USD" in " ".join(other["notes"])
    lines = [
        (tmp_path / name / "scores.jsonl").read_text("utf-8").splitlines()
        for name in ("whole", "part")
    ]
    assert lines[0] == lines[1]


def test_own_output_is_named_so(urls: dict[str, str], tmp_path: Path) -> None:
    """What a server writes itself is scored under a name of its own, and compared with nothing."""
    found = remote(urls["llama-server"], generated=True, max_tokens=1)
    assert found.perplexity == "own_output_perplexity"
    (score,) = found.score([Document("a", TEXTS[0])])
    assert score.text == "x" and score.perplexity == "own_output_perplexity"
    assert "own_output_perplexity" in score.metrics and "perplexity" not in score.metrics
