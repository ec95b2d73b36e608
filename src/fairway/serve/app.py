"""The application: routes of every part, and what stands around them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from fairway.errors import FairwayError
from fairway.scorer import Scorer
from fairway.serve import clients, health, listing, openapi, playground, scoring
from fairway.serve.gate import callers
from fairway.serve.gate.guard import Guard
from fairway.serve.gate.intake import Count, Intake
from fairway.serve.gate.traffic import Traffic
from fairway.serve.lane import Lane
from fairway.serve.metrics import Metrics
from fairway.serve.openai import chat, completions, tokenizing
from fairway.serve.problems import Problem, answer_crash, answer_http, answer_problem
from fairway.serve.rundirs import runs
from fairway.serve.settings import Settings
from fairway.serve.state import Served, State

PARTS = (
    chat,
    clients,
    completions,
    health,
    listing,
    openapi,
    playground,
    runs,
    scoring,
    tokenizing,
)
"""Modules with ``ROUTES``."""


def build(models: Mapping[str, tuple[str, Scorer]], settings: Settings | None = None) -> Starlette:
    """Make the application; any ASGI server runs it, and it may be mounted in another.

    Whoever mounts it runs its lifespan too (``app.router.lifespan_context(app)``), which ends the
    models' threads; without that they end with the process.

    Args:
        models: kind and scorer by the name under which it is served.
        settings: of the server.

    Raises:
        InputError: when other machines could reach it and it asks for no token.
    """
    settings = settings or Settings()
    callers.check(settings)
    traffic = Traffic(settings.limits.waiting)
    metrics = Metrics(lambda: len(traffic))
    served = {
        name: Served(
            name, kind, Lane(scorer, settings.limits, metrics.recorder(name)), scorer.signature
        )
        for name, (kind, scorer) in models.items()
    }
    state = State(settings, served, traffic, metrics)

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        runs.close(app)
        for one in served.values():
            one.lane.close()

    app = Starlette(
        routes=[route for part in PARTS for route in part.ROUTES],
        exception_handlers={
            Problem: answer_problem, FairwayError: answer_problem, HTTPException: answer_http,
            ClientDisconnect: answer_http, Exception: answer_crash,
        },
        middleware=[
            Middleware(Count, metrics=metrics),
            Middleware(Guard, settings=settings),
            Middleware(Intake, state=state),
        ],
        lifespan=life,
    )  # fmt: skip
    app.state.fairway = state
    return app
