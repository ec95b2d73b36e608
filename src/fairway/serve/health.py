"""``/health``: the process answers; ``/ready``: it takes requests; ``/metrics``: what it did."""

from __future__ import annotations

from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fairway.serve.state import state


async def health(_: Request) -> Response:
    """Say that the server is alive."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """Say whether requests are taken in: not while the server stops, nor while it is full."""
    kept = state(request)
    inside, most = len(kept.traffic), kept.traffic.most
    status = "stopping" if kept.traffic.stopping else "full" if inside >= most else "ready"
    return JSONResponse(
        {"status": status, "models": list(kept.models), "waiting": inside},
        200 if status == "ready" else 503,
    )


async def metrics(request: Request) -> Response:
    """Give the server's figures, as Prometheus reads them."""
    encode, kind = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(state(request).metrics.registry), media_type=kind)


ROUTES = (
    Route("/health", health),
    Route("/ready", ready),
    Route("/metrics", metrics),
)
