"""``GET /v1/models``: what there is, in OpenAI's form, and what fairway's clients must know."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fairway import __version__
from fairway.scorer import Scorer
from fairway.scores import PERPLEXITY
from fairway.serve.state import Served, state
from fairway.signature import Signature
from fairway.wire import VERSION


def describe(
    served: Served, scorer: Scorer | None = None, signature: Signature | None = None
) -> dict[str, Any]:
    """Say of a model what its scorer says; see `fairway.scorer.Scorer`.

    Args:
        served: the model.
        scorer: of it, under other settings; None = as it was loaded.
        signature: of that.
    """
    scorer = scorer or served.scorer
    limits = served.lane.limits
    return {
        "id": served.name,
        "object": "model",
        "created": 0,
        "owned_by": "fairway",
        "max_model_len": _positions(scorer),
        "fairway": {
            "wire": VERSION,
            "version": __version__,
            "kind": getattr(scorer, "kind", served.kind),
            "signature": str(signature or served.signature),
            "columns": list(getattr(scorer, "columns", ())),
            "notes": list(getattr(scorer, "notes", ())),
            "perplexity": getattr(scorer, "perplexity", PERPLEXITY),
            "needs_context": getattr(scorer, "needs_context", False),
            "contextual": getattr(scorer, "contextual", True),
            "writes": hasattr(scorer, "generate"),
            "takes_ids": hasattr(scorer, "bare"),
            "tokenizes": hasattr(scorer, "vocabulary"),
            "room": getattr(scorer, "room", None),
            "spans": hasattr(scorer, "spans"),
            "remarks": hasattr(scorer, "remarks"),
            "settings": hasattr(scorer, "under"),
            "engine": getattr(scorer, "engine", None),
            "limits": {"documents": limits.documents, "text": limits.text, "body": limits.body},
        },
    }


def _positions(scorer: Any) -> int | None:
    """Tokens that a model reads, as vLLM means it: without a prefix that is put first here."""
    room: int | None = getattr(scorer, "room", None)
    if hasattr(scorer, "bare"):
        most = scorer.bare().room
        return None if most is None else most - 1
    return room


async def models(request: Request) -> Response:
    """List the models."""
    found = [describe(one) for one in state(request).models.values()]
    return JSONResponse({"object": "list", "data": found})


async def model(request: Request) -> Response:
    """Tell of one model."""
    return JSONResponse(describe(state(request).find(request.path_params["name"])))


ROUTES = (Route("/v1/models", models), Route("/v1/models/{name:path}", model))
