"""Any request is answered in words, and any score comes as it was."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fairway
import serving
from fairway.corpus import Document
from fairway.scores import Score
from fairway.signature import Signature

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False,
                                                                           allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=3),
    max_leaves=5,
)  # fmt: skip
LIKES = st.sampled_from(["fairway", "lm-eval", "hf-doc", "gptq", "llama.cpp", "lm-eval-pairs"])
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "like": LIKES | JSON,
        "prefix": st.sampled_from(["auto", "none", "bos"]) | JSON,
        "max_length": st.integers(0, 80) | JSON,
        "stride": st.integers(0, 80) | JSON,
        "special_tokens": st.sampled_from(["text", "parse"]) | JSON,
        "chat": st.just(["assistant"]) | JSON,
        "state": JSON,
        "fair": st.booleans() | JSON,
        "odd": JSON,
    },
)
DOCUMENT = st.fixed_dictionaries(
    {"text": st.text(max_size=20) | JSON},
    optional={
        "id": st.text(max_size=3) | JSON,
        "context": st.text(max_size=8) | JSON,
        "scored": st.just([[0, 3]]) | JSON,
        "ids": st.lists(st.integers(0, 400), max_size=4) | JSON,
        "byte_count": st.integers(0, 9) | JSON,
        "context_ids": st.integers(0, 9) | JSON,
        "windows": st.just([[0, 0, 9]]) | JSON,
        "messages": st.just([{"role": "assistant", "content": "the cat"}]) | JSON,
    },
)


@pytest.fixture(scope="module")
def server(small: str) -> Iterator[tuple[str, httpx2.Client]]:
    with (
        serving.served({"m": ("hf", fairway.load(small))}) as url,
        httpx2.Client(base_url=url, trust_env=False) as client,
    ):
        yield url, client


def told(client: httpx2.Client, path: str, data: Any) -> Any:
    """Post; a mistake is told in OpenAI's form, and nothing is a crash."""
    response = client.post(path, json=data)
    assert response.status_code in (200, 400, 404, 413), (response.text, data)
    found = json.loads(response.content)
    if response.status_code != 200:
        assert found["error"]["message"] and "Traceback" not in found["error"]["message"]
    return found


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(DOCUMENT | JSON, max_size=3) | JSON,
    SETTINGS | JSON,
    st.lists(st.sampled_from(["rank", "top5", "entropy", "window", "x"]), max_size=2) | JSON,
)
def test_any_documents(
    server: tuple[str, httpx2.Client], documents: Any, asked: Any, want: Any
) -> None:
    data = {"documents": documents, "settings": asked, "want": want}
    found = told(server[1], "/v1/documents", data)
    for one in found.get("scores", ()):
        assert "error" in one or len(one["logprobs"]) == len(one["ids"]) == len(one["offsets"])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(
        ["/v1/model", "/v1/spans", "/v1/remarks", "/v1/vocabulary/encode", "/v1/vocabulary/decode"]
    ),
    SETTINGS | JSON,
    st.lists(st.text(max_size=9), max_size=2) | JSON,
    st.lists(st.lists(st.integers(0, 400), max_size=3), max_size=2) | JSON,
)
def test_any_question(
    server: tuple[str, httpx2.Client], path: str, asked: Any, texts: Any, ids: Any
) -> None:
    told(server[1], path, {"settings": asked, "texts": texts, "ids": ids, "totals": ids})


class Odd:
    """A scorer whose scores hold all that a score can."""

    signature = Signature.of({"model": "odd", "protocol": "fairway", "unit": "byte"})
    columns = ("entropy", "oov", "flag")

    def score(self, documents: Any, want: Any = ()) -> Iterator[Score]:
        for document in documents:
            yield Score(
                document.id, document.text, np.array([[0, 1], [1, 1], [1, 2]]),
                np.array([-math.inf, math.nan, -0.1]), np.array([-1, 0, 1 << 40]), ((0, 2),),
                np.array([1, 0, 3]), True,
                {"entropy": np.array([math.inf, math.nan, 1e-300]), "oov": np.array([1, 0, 2]),
                 "flag": np.array([True, False, True])},
                document.metadata, "byte", 4,
            )  # fmt: skip


def test_all_that_a_score_can_hold() -> None:
    document = Document("a", "ab", metadata={"kept": 1})
    with serving.served({"odd": ("odd", Odd())}) as url:
        (there,) = fairway.connect(url).score([document], Odd.columns)
    (here,) = Odd().score([document])
    for name in ("id", "text", "scored", "lossy", "metadata", "unit", "byte_count", "totals"):
        assert getattr(there, name) == getattr(here, name), name
    for name in ("logprobs", "offsets", "ids", "token_bytes"):
        assert np.array_equal(getattr(there, name), getattr(here, name), equal_nan=True), name
    for name, column in here.extras.items():
        assert there.extras[name].dtype == column.dtype
        assert np.array_equal(there.extras[name], column, equal_nan=column.dtype.kind == "f")


def test_the_client_needs_no_torch(server: tuple[str, httpx2.Client]) -> None:
    code = (
        "import sys, fairway\n"
        f"report = fairway.evaluate('fairway:{server[0]}', ['the cat', 'the hen'])\n"
        "print(report.totals.documents, [m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "2 []", out.stderr
