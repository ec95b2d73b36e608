"""``/openapi.json``: what can be asked, for programs; ``/docs``: the same as a page.

Built from the application's routes, so that none is left out, and from `fairway.serve.schemas`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from fairway import __version__
from fairway.serve.schemas import BODIES, QUERIES, SCHEMAS, of

ERRORS = {
    "400": "The request is wrong.", "401": "The server asks for its token.",
    "413": "Too much text.", "429": "Too many wait; Retry-After tells how long.",
    "500": "The model or the server failed.",
}  # fmt: skip
"""What every route that scores may answer, in the form of `Error`."""


def document(routes: Iterable[BaseRoute], version: str = __version__) -> dict[str, Any]:
    """Describe routes as OpenAPI 3.1.

    Args:
        routes: of the application.
        version: of what answers.
    """
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if isinstance(route, Route):
            path = re.sub(r":\w+}", "}", route.path)
            for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
                paths.setdefault(path, {})[method.lower()] = _operation(route, path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fairway",
            "version": version,
            "description": "Log-probabilities of texts. Logprobs are natural logarithms (nats).",
        },
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, **reports()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def reports() -> dict[str, Any]:
    """Give the schemas of a report, as ``fairway score --json`` has it."""
    text = files("fairway").joinpath("data/report.schema.json").read_text("utf-8")
    found = json.loads(text.replace("#/$defs/", "#/components/schemas/report."))["$defs"]
    return {f"report.{name}": schema for name, schema in found.items()}


def _operation(route: Route, path: str) -> dict[str, Any]:
    asked, answered = BODIES.get(path, ("", "text/html"))
    words = " ".join((route.endpoint.__doc__ or "").split("\n\n")[0].split())
    names = [("path", name) for name in re.findall(r"{(\w+)}", path)]
    names += [("query", name) for name in QUERIES.get(path, ())]
    kind = answered if "/" in answered else "application/json"
    schema = {"type": "string" if kind.startswith("text/") else "object"}
    content = {kind: {"schema": schema if "/" in answered else of(answered)}}
    wrong = {"application/json": {"schema": of("Error")}}
    out: dict[str, Any] = {
        "summary": words,
        "operationId": f"{route.endpoint.__module__.rpartition('.')[2]}.{route.name}",
        "responses": {
            "200": {"description": "The answer.", "content": content},
            **{
                status: {"description": why, "content": wrong}
                for status, why in ERRORS.items()
                if asked
            },
            "default": {"description": "What went wrong.", "content": wrong},
        },
    }
    if path == "/ready":
        out["responses"]["503"] = {"description": "Not now.", "content": content}
    if names:
        out["parameters"] = [
            {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}}
            for place, name in names
        ]
    if asked:
        content = {"application/json": {"schema": of(asked)}}
        out["requestBody"] = {"required": True, "content": content}
    return out


def page(described: dict[str, Any], style: str | None = None) -> str:
    """Show a document as a page without script.

    Args:
        described: what `document` gave.
        style: where a style sheet is.
    """
    link = f'<link rel="stylesheet" href="{escape(style)}">' if style else ""
    rows = [
        part
        for path, operations in described["paths"].items()
        for method, one in operations.items()
        for part in _section(described, path, method, one)
    ]
    info = described["info"]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>fairway: what can be asked</title>{link}</head><body><main>",
            f"<h1>fairway {escape(info['version'])}: what can be asked</h1>",
            f"<p>{escape(info['description'])} The same for programs: "
            '<a href="openapi.json">openapi.json</a>.</p>',
            *rows,
            "</main></body></html>",
        ]
    )


def _section(described: dict[str, Any], path: str, method: str, one: dict[str, Any]) -> list[str]:
    """Write a route's part of the page."""
    out = [
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>",
        f"<p>{escape(one['summary'])}</p>",
    ]
    rows = [(one["name"], "text", f"In the {one['in']}.") for one in one.get("parameters", ())]
    schema: dict[str, Any] = {}
    if "requestBody" in one:
        name = one["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = described["components"]["schemas"][name.rpartition("/")[2]]
    needed = schema.get("required", ())
    for name, value in schema.get("properties", {}).items():
        note = value.get("description", "")
        rows.append((name, _kind(value), f"{note} Needed." if name in needed else note))
    rows.sort(key=lambda row: not row[2].endswith("Needed."))
    if rows:
        out += ["<ul>", *(_row(*cells) for cells in rows), "</ul>"]
    answer = one["responses"]["200"]["content"]
    kind, value = next(iter(answer.items()))
    name = value["schema"].get("$ref", kind).rpartition("/components/schemas/")[2]
    return [*out, f"<p>Answers <code>{escape(name)}</code>.</p></section>"]


def _row(name: str, kind: str, note: str) -> str:
    more = f" {escape(note.strip())}" if note.strip() else ""
    return f"<li><code>{escape(name)}</code>: {escape(kind)}.{more}</li>"


def _kind(schema: dict[str, Any]) -> str:
    """Say in a few words what a value is."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one) for one in schema["anyOf"]))
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    kind = schema.get("type", "any")
    kinds = kind if isinstance(kind, list) else [kind]
    if "array" in kinds and "items" in schema:
        inner = f"list of {_kind(schema['items'])}"
        kinds = [inner if one == "array" else one for one in kinds]
    return " or ".join("text" if one == "string" else one for one in kinds)


async def openapi(request: Request) -> Response:
    """Give this document."""
    return JSONResponse(document(request.app.routes))


async def docs(request: Request) -> Response:
    """Give the page on what can be asked."""
    known = {getattr(route, "path", "") for route in request.app.routes}
    style = "static/style.css" if "/static/{name}" in known else None
    return HTMLResponse(page(document(request.app.routes), style))


ROUTES = (Route("/openapi.json", openapi), Route("/docs", docs))
