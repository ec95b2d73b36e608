"""Real servers through ``openai:``: llama-cpp-python's, against the same file scored here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fairway
import gguf_models
import lacking
import standin
from fairway.corpus import Document
from fairway.errors import InputError, ModelError

TEXTS = (
    "Once upon a time, there was a little girl named Lily.",
    " She had a cat.\n\nThe cat was big, and é and 猫 were not in its book.",
    "x",
    "Кошка спит.",
)


def llama_cpp(path: Path, context: int) -> Any:
    """Make llama-cpp-python's application, with exact caches."""
    for name in ("llama_cpp", "gguf", "starlette_context", "pydantic_settings", "sse_starlette"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(lacking.gguf())
    from llama_cpp.server.app import create_app
    from llama_cpp.server.settings import ModelSettings, ServerSettings

    model = ModelSettings(
        model=str(path), model_alias="small", logits_all=True, type_k=0, type_v=0, n_ctx=context,
        n_threads=1, verbose=False,
    )  # fmt: skip
    return create_app(server_settings=ServerSettings(), model_settings=[model])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("llama_cpp", "gguf"):
        pytest.importorskip(name, reason=lacking.gguf())
    return gguf_models.llama(tmp_path_factory.mktemp("gguf") / "small.gguf")


@pytest.fixture(scope="module")
def small(file: Path) -> Iterator[str]:
    with standin.serve(llama_cpp(file, gguf_models.POSITIONS)) as url:
        yield url


def close(one: Any, other: Any, limit: float) -> None:
    """The same, but for the first token, which that server leaves out although BOS is there."""
    assert np.isnan(one.logprobs[0])
    assert np.array_equal(one.offsets, other.offsets)
    assert np.abs(one.logprobs[1:] - other.logprobs[1:]).max(initial=0) < limit
    assert one.totals.tokens == other.totals.tokens - 1


def test_equal_to_the_file_scored_here(small: str, file: Path) -> None:
    found = fairway.load(f"openai:{small}")
    local = fairway.load(f"gguf:{file}")
    documents = [Document(f"{n}", text) for n, text in enumerate(TEXTS)]
    for one, other in zip(found.score(documents), local.score(documents), strict=True):
        close(one, other, 1e-3)
    signature = found.signature
    assert (signature["prefix"], signature["first"], signature["route"]) == (
        "bos", "unscored", "echo"
    )  # fmt: skip
    assert signature["server"].startswith("llama-cpp-python ")
    behind = Document("behind", " the cat", "She had a dog, a hen and")
    (one,), (other,) = found.score([behind]), local.score([behind])
    assert np.allclose(one.logprobs, other.logprobs, atol=1e-3)
    with pytest.raises(InputError, match="too long|is not taken"):
        list(found.score([Document("long", "the cat and " * 60)]))


def test_without_bos_it_is_one_place_off(tmp_path: Path) -> None:
    """Its echo gives each token the distribution behind it; found by two prompts that part."""
    for name in ("llama_cpp", "gguf"):
        pytest.importorskip(name, reason=lacking.gguf())
    path = gguf_models.llama(tmp_path / "bare.gguf", bos=False)
    with (
        standin.serve(llama_cpp(path, gguf_models.POSITIONS)) as url,
        pytest.raises(ModelError, match="wrong log-probabilities: behind the same words"),
    ):
        fairway.load(f"openai:{url}")


def test_fairway_serve(tmp_path: Path) -> None:
    """Our own server, asked as any other: prefix, windows and sums of a local run, to 1e-5."""
    import models
    from fairway.serve.app import build

    models.build("llama").save_pretrained(tmp_path)
    models.tokenizer().save_pretrained(tmp_path)
    local = fairway.load(f"hf:{tmp_path}")
    documents = [Document(f"{n}", text) for n, text in enumerate(TEXTS)]
    documents += [
        Document("long", " ".join(TEXTS)),
        Document("behind", " and the hen in the garden", "the cat, " * 8),
        Document("inside", "the cat and the hen", "", ((4, 7),)),
    ]
    with standin.serve(build({"small": ("hf", fairway.load(f"hf:{tmp_path}"))})) as url:
        found = fairway.load(f"openai:small@{url}")
        for one, other in zip(found.score(documents), local.score(documents), strict=True):
            assert np.allclose(one.logprobs, other.logprobs, rtol=1e-5, atol=1e-6, equal_nan=True)
            assert one.totals.bytes == other.totals.bytes
            assert one.totals.tokens == other.totals.tokens
        for key in ("prefix", "length", "stride", "protocol", "model"):
            assert found.signature[key] == local.signature[key] or key == "model"


@pytest.mark.slow
def test_stories(assets: Path) -> None:
    """A trained model: sums of texts, and what the server writes itself."""
    (file,) = sorted((assets / "models" / "stories260K" / "gguf").glob("*.gguf"))[:1]
    with standin.serve(llama_cpp(file, 512)) as url:
        found = fairway.load(f"openai:{url}")
        local = fairway.load(f"gguf:{file}")
        documents = [Document(f"{n}", text * (1 + 3 * n)) for n, text in enumerate(TEXTS[:3])]
        for one, other in zip(found.score(documents), local.score(documents), strict=True):
            close(one, other, 1e-3)
        own = fairway.load(f"openai:{url}", generated=True, max_tokens=24)
        (wrote,) = own.score(documents[:1])
        (again,) = local.score([Document("own", wrote.text, documents[0].text)])
        assert len(wrote.text) > 20
        assert np.allclose(wrote.logprobs, again.logprobs[: len(wrote)], atol=1e-3)
