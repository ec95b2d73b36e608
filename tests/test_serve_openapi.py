"""The OpenAPI document names every route, and real requests and answers are what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route

import fairway
from fairway.serve import app
from fairway.serve.openapi import document, page
from fairway.serve.schemas import BODIES, QUERIES
from fairway.serve.settings import Settings
from guarded import ask, serving

REQUESTS: list[tuple[str, Any]] = [
    ("/v1/score", {"text": "The cat sat."}),
    ("/v1/score", {"text": ["The cat sat.", "a"], "context": "Before. ", "model": ["small"]}),
    ("/v1/score", {"text": "Two. Sentences.", "columns": ["entropy", "rank", "top5"],
                   "sentences": True, "explain": True}),
    ("/v1/documents", {"documents": ["bare", {"id": "x", "text": "The cat", "scored": [[4, 7]]},
                                     {"text": "", "ids": [5, 6, 7]}, {"text": ""}],
                       "want": ["rank"]}),
    ("/v1/completions", {"prompt": "The cat", "max_tokens": 2, "echo": True, "logprobs": 2}),
    ("/v1/completions", {"prompt": [[5, 6, 7]], "max_tokens": 0, "echo": True, "logprobs": 0}),
    ("/tokenize", {"text": "The cat 🙂"}),
    ("/detokenize", {"tokens": [10, 11]}),
    ("/v1/model", {"settings": {"max_length": 32}}),
    ("/v1/spans", {"texts": ["The cat"]}),
    ("/v1/vocabulary/encode", {"texts": ["The cat"]}),
    ("/v1/vocabulary/decode", {"ids": [[10, 11]]}),
    ("/v1/models", None), ("/v1/models/small", None), ("/v1/vocabulary", None),
    ("/health", None), ("/ready", None),
]  # fmt: skip


@pytest.fixture(scope="module")
def models(small: str) -> dict[str, Any]:
    return {"small": ("hf", fairway.load(small))}


@pytest.fixture(scope="module")
def port(models: dict[str, Any]) -> Iterator[int]:
    with serving(models, Settings()) as port:
        yield port


@pytest.fixture(scope="module")
def described(port: int) -> Any:
    return json.loads(ask(port, "/openapi.json")[2])


def check(described: Any, name: str, data: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
    Draft202012Validator(schema).validate(data)


def test_every_route_is_described(described: Any, models: dict[str, Any]) -> None:
    routes = [one for one in app.build(models).routes if isinstance(one, Route)]
    assert len(routes) > 8
    for route in routes:
        operations = described["paths"][re.sub(r":\w+}", "}", route.path)]
        assert {one.upper() for one in operations} == (route.methods or set()) - {"HEAD"}
        for method, one in operations.items():
            assert one["summary"].endswith(".") and len(one["summary"]) < 120, route.path
            assert ("requestBody" in one) == (method == "post"), route.path
    assert described["paths"].keys() >= (BODIES.keys() | QUERIES.keys()), "a path that is no route"


def test_the_document_holds_together(described: Any) -> None:
    names = described["components"]["schemas"]
    for name, schema in names.items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        Draft202012Validator.check_schema(schema)
    used = re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(described))
    assert set(used) == set(names), "a schema that there is none of, or that nothing uses"
    every = [one for path in described["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in every}) == len(every)


@pytest.mark.parametrize("path, data", REQUESTS)
def test_requests_and_answers_are_as_described(
    described: Any, port: int, path: str, data: Any
) -> None:
    pattern = "/v1/models/{name}" if path == "/v1/models/small" else path
    asked, answered = BODIES[pattern]
    if data is None:
        status, _, body = ask(port, path)
    else:
        check(described, asked, data)
        status, _, body = ask(port, path, "POST", json.dumps(data).encode())
    assert status == 200, body
    check(described, answered, json.loads(body))


def test_errors_are_as_described(described: Any, port: int) -> None:
    for path, body in (("/v1/score", b"{"), ("/none", b""), ("/v1/score", b'{"text": 1}')):
        check(described, "Error", json.loads(ask(port, path, "POST" if body else "GET", body)[2]))


def test_the_page_says_the_same_without_script(described: Any, port: int) -> None:
    status, headers, body = ask(port, "/docs")
    text = body.decode()
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert "<script" not in text and "style=" not in text and "http" not in text
    for path in described["paths"]:
        assert f"{path}</code>" in text
    open_tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in ("meta", "link"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Tags().feed(text)
    assert not open_tags


def test_what_is_described_is_text_on_the_page() -> None:
    async def bait(_: Any) -> Any:
        """Say <script>alert(1)</script>."""

    routes = [Route("/<b>", bait)]
    assert "<script" not in page(document(routes)) and "<b>" not in page(document(routes))
