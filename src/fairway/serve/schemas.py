"""What requests and answers hold, as JSON Schema; `fairway.serve.openapi` lays it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
IDS: Schema = {"type": "array", "items": COUNT}
FLAG: Schema = {"type": "boolean"}
REAL: Schema = {
    "type": ["number", "string", "null"],
    "description": "A number; null where there is none; infinities as \"inf\" and \"-inf\".",
}  # fmt: skip
PAIRS: Schema = {
    "type": "array", "items": {"type": "array", "items": COUNT, "minItems": 2, "maxItems": 2},
}  # fmt: skip
ANY: Schema = {"type": "object"}


def of(name: str) -> Schema:
    """Refer to a schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def items(schema: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": schema}


def object_(required: str = "", **properties: Schema) -> Schema:
    """An object; further keys may stand in it.

    Args:
        required: names of properties, apart by blanks.
        properties: what they hold.
    """
    found: Schema = {"type": "object", "properties": properties}
    return {**found, "required": required.split()} if required else found


def said(schema: Schema, description: str) -> Schema:
    """A schema with a description."""
    return {**schema, "description": description}


MODEL = said(TEXT, "A name of /v1/models; the first model where it is left away.")
SETTINGS = said(
    {"type": ["object", "null"]},
    "Other settings than the model was loaded with: max_length, stride, prefix, ...",
)
SAMPLING: Mapping[str, Schema] = {
    "model": MODEL,
    "max_tokens": said(COUNT, "Tokens to be written at most."),
    "temperature": {"type": "number", "minimum": 0},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "seed": said({"type": "integer"}, "Makes sampling repeatable."),
    "n": {"type": "integer", "minimum": 1},
    "stop": {"anyOf": [TEXT, items(TEXT), {"type": "null"}]},
    "stream": said(FLAG, "Send what is written as it is written, as server-sent events."),
    "stream_options": object_(include_usage=FLAG),
    "ignore_eos": FLAG,
    "return_token_ids": said(FLAG, "Tell the ids of tokens beside the text."),
}
USAGE = object_(
    "prompt_tokens completion_tokens total_tokens",
    prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT,
)  # fmt: skip
ENTRY = object_("token logprob", token=TEXT, logprob=REAL, bytes={"type": ["array", "null"]})

SCHEMAS: Mapping[str, Schema] = {
    "Error": object_(
        "error",
        error=object_(
            "message type code",
            message=said(TEXT, "The fact and the way out."),
            type={"enum": ["invalid_request_error", "server_error"]},
            code=TEXT,
            param={"type": "null"},
        ),
    ),
    "Health": object_("status", status={"const": "ok"}),
    "Ready": object_(
        "status models waiting",
        status={"enum": ["ready", "full", "stopping"]}, models=items(TEXT), waiting=COUNT,
    ),
    "Model": object_(
        "id object fairway",
        id=TEXT, object={"const": "model"}, created=COUNT, owned_by=TEXT,
        max_model_len={"type": ["integer", "null"]},
        fairway=object_(
            "kind signature columns", kind=TEXT, signature=TEXT, columns=items(TEXT),
            notes=items(TEXT), perplexity=TEXT, needs_context=FLAG, contextual=FLAG, writes=FLAG,
            takes_ids=FLAG, tokenizes=FLAG,
        ),
    ),
    "Models": object_("object data", object={"const": "list"}, data=items(of("Model"))),
    "ScoreRequest": object_(
        "text",
        model={
            "anyOf": [MODEL, items(TEXT)],
            "description": "A name of /v1/models, or several, each of which gives a report.",
        },
        text={"anyOf": [TEXT, items(TEXT)], "description": "What is scored."},
        context=said(TEXT, "Text before it, read and not scored."),
        columns=said(
            items({"enum": ["entropy", "rank", "top5"]}), "Further figures of each token."
        ),
        sentences=said(FLAG, "The sums of each sentence, and intervals over them."),
        explain=said(FLAG, "The report in plain words."),
    ),
    "Reports": {
        "anyOf": [of("report.report"), object_("reports", reports=items(of("report.report")))]
    },
    "Document": {
        "anyOf": [
            TEXT,
            object_(
                id=TEXT, text=TEXT, context=TEXT,
                scored=said({**PAIRS, "type": ["array", "null"]}, "Spans that are scored."),
                ids={**IDS, "type": ["array", "null"]}, byte_count={"type": ["integer", "null"]},
                context_ids={"type": ["integer", "null"]}, windows={"type": ["array", "null"]},
                messages={"type": ["array", "null"]},
            ),
        ]
    },
    "DocumentsRequest": object_(
        "documents",
        model=MODEL, documents=items(of("Document")), settings=SETTINGS,
        want=said(items(TEXT), "Extra columns; a model's `columns` names them."),
    ),
    "Documents": object_(
        "signature scores",
        signature=TEXT,
        scores=items(
            {
                "anyOf": [
                    object_("error", error=object_("message type", message=TEXT, type=TEXT)),
                    object_(
                        "id offsets logprobs ids", id=TEXT, offsets=PAIRS,
                        logprobs=said(items(REAL), "Nats; null = not scored."),
                        ids=items({"type": "integer"}), extras=ANY,
                    ),
                ]
            }
        ),
    ),
    "CompletionRequest": object_(
        "prompt",
        **SAMPLING,
        prompt={
            "anyOf": [TEXT, items(TEXT), IDS, items(IDS)],
            "description": "Texts, or token ids; of N positions N + 1, the last only predicted.",
        },
        echo=said(FLAG, "Begin the answer with the prompt; with logprobs it is scored."),
        logprobs={"type": ["integer", "null"], "minimum": 0, "maximum": 20},
        add_special_tokens=said(FLAG, "Put the prefix of the model's texts first."),
    ),
    "Completion": object_(
        "id object created model choices",
        id=TEXT, object={"const": "text_completion"}, created=COUNT, model=TEXT, usage=USAGE,
        choices=items(
            object_(
                "index text finish_reason logprobs", index=COUNT, text=TEXT,
                finish_reason={"type": ["string", "null"]},
                logprobs={
                    "anyOf": [
                        {"type": "null"},
                        object_(
                            "tokens token_logprobs text_offset", tokens=items(TEXT),
                            token_logprobs=items(REAL), text_offset=items(COUNT),
                            top_logprobs={"type": ["array", "null"]},
                        ),
                    ]
                },
            )
        ),
    ),
    "ChatRequest": object_(
        "messages",
        **SAMPLING,
        messages=items(object_("role content", role=TEXT, content={"type": ["string", "array"]})),
        max_completion_tokens=COUNT,
        logprobs=FLAG,
        top_logprobs={"type": "integer", "minimum": 0, "maximum": 20},
    ),
    "ChatCompletion": object_(
        "id object created model choices",
        id=TEXT, object={"const": "chat.completion"}, created=COUNT, model=TEXT, usage=USAGE,
        choices=items(
            object_(
                "index message finish_reason", index=COUNT,
                message=object_("role content", role=TEXT, content=TEXT),
                finish_reason={"type": ["string", "null"]},
                logprobs={
                    "anyOf": [{"type": "null"}, object_("content", content=items(ENTRY))]
                },
            )
        ),
    ),
    "TokenizeRequest": object_(
        model=MODEL, content=TEXT, prompt=TEXT, text=TEXT, add_special_tokens=FLAG,
    ),
    "Tokens": object_(
        "tokens count offsets pieces", tokens=IDS, count=COUNT, offsets=PAIRS,
        pieces=items({"type": ["string", "array"]}), max_model_len={"type": ["integer", "null"]},
    ),
    "DetokenizeRequest": object_("tokens", model=MODEL, tokens=IDS),
    "Text": object_("text", text=TEXT, prompt=TEXT, content=TEXT),
    "ModelRequest": object_(model=MODEL, settings=SETTINGS),
    "TextsRequest": object_("texts", model=MODEL, settings=SETTINGS, texts=items(TEXT)),
    "Spans": object_("spans", signature=TEXT, spans=items(PAIRS)),
    "RemarksRequest": object_(
        "totals", model=MODEL, settings=SETTINGS, totals=of("report.metrics"),
        unknown={"type": ["integer", "null"]},
    ),
    "Remarks": object_("remarks", remarks=items(TEXT)),
    "Vocabulary": object_("pieces", name=TEXT, kind=TEXT, pieces=items(TEXT)),
    "Coded": object_("coded", coded=items(object_("ids offsets", ids=IDS, offsets=PAIRS))),
    "DecodeRequest": object_("ids", model=MODEL, ids=items(IDS)),
    "Texts": object_("texts", texts=items(TEXT)),
    "Runs": object_("object data", object={"const": "list"}, data=items(ANY)),
}  # fmt: skip

BODIES: Mapping[str, tuple[str, str]] = {
    "/v1/score": ("ScoreRequest", "Reports"),
    "/v1/page": ("ScoreRequest", "text/html"),
    "/v1/documents": ("DocumentsRequest", "Documents"),
    "/v1/completions": ("CompletionRequest", "Completion"),
    "/v1/chat/completions": ("ChatRequest", "ChatCompletion"),
    "/tokenize": ("TokenizeRequest", "Tokens"),
    "/detokenize": ("DetokenizeRequest", "Text"),
    "/v1/model": ("ModelRequest", "Model"),
    "/v1/spans": ("TextsRequest", "Spans"),
    "/v1/remarks": ("RemarksRequest", "Remarks"),
    "/v1/vocabulary": ("", "Vocabulary"),
    "/v1/vocabulary/encode": ("TextsRequest", "Coded"),
    "/v1/vocabulary/decode": ("DecodeRequest", "Texts"),
    "/v1/models": ("", "Models"),
    "/v1/models/{name}": ("", "Model"),
    "/v1/runs": ("", "Runs"),
    "/health": ("", "Health"),
    "/ready": ("", "Ready"),
    "/metrics": ("", "text/plain"),
    "/openapi.json": ("", "application/json"),
}
"""Names of the schemas of a route's request and answer, or the answer's media type; a route that is
not here answers with a page or a file of it."""

QUERIES: Mapping[str, tuple[str, ...]] = {
    "/v1/vocabulary": ("model",),
    "/runs/compare": ("first", "second"),
    "/runs/curve": ("folder",),
}
"""Names of what stands behind a route's question mark."""
