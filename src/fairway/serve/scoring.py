"""``POST /v1/score``: a report; ``/v1/page``: as a file; ``/v1/documents``: for our clients."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from fairway import wire
from fairway.api import report_of
from fairway.companions import WANT
from fairway.corpus import Document, read
from fairway.errors import FairwayError
from fairway.render import html
from fairway.report import Report
from fairway.scorer import fills
from fairway.scores import Score
from fairway.serve import detail
from fairway.serve.answering import answer
from fairway.serve.clients import under
from fairway.serve.detail import Detail
from fairway.serve.problems import Problem, body, of
from fairway.serve.state import Served, State, state


async def score(request: Request) -> Response:
    """Score a text, or several, with one model or several: a report, or ``reports``."""
    data = await body(request)
    chosen, documents = _asked(data, state(request))
    wanted = detail.asked(data, _length(documents))
    found = await asyncio.gather(
        *(_scores(one, documents, wanted.want(one.scorer)) for one in chosen)
    )
    known = [await detail.speller(request, one, wanted) for one in chosen]

    def make() -> Any:
        out = []
        for one, scores, spelling in zip(chosen, found, known, strict=True):
            made = _report(one, documents, scores)
            plain = wanted == Detail()
            out.append(made.to_json() if plain else detail.write(made, scores, spelling, wanted))
        return {"reports": out} if isinstance(data.get("model"), list) else out[0]

    return await answer(len(chosen) * _length(documents), make)


async def page(request: Request) -> Response:
    """Score as `score` does; the report comes as a file without script or outside request."""
    data = await body(request)
    chosen, documents = _asked(data, state(request))
    found = await asyncio.gather(*(_scores(one, documents) for one in chosen))

    def make() -> str:
        return html.page(
            [_report(one, documents, some) for one, some in zip(chosen, found, strict=True)]
        )

    name = 'attachment; filename="fairway-report.html"'
    text = await asyncio.to_thread(make)
    return HTMLResponse(text, headers={"content-disposition": name})


async def _scores(
    served: Served, documents: Sequence[Document], columns: Collection[str] = ()
) -> list[Score]:
    """Score documents, with columns besides those that a report has."""
    want = {*columns, *(WANT if fills(served.scorer, WANT) else ())}
    scores: list[Score] = []
    for outcome in await served.lane.score(documents, want):
        if isinstance(outcome, FairwayError):
            raise of(outcome)
        scores.append(outcome)
    return scores


def _report(served: Served, documents: Sequence[Document], scores: Sequence[Score]) -> Report:
    corpus = read(list(documents))
    for _ in corpus:
        pass
    return report_of(served.scorer, corpus, scores, served.signature)


def _asked(data: dict[str, Any], kept: State) -> tuple[list[Served], list[Document]]:
    """Read which models are to score which texts.

    Raises:
        Problem: where there is no such model, or no such text.
    """
    names = data.get("model")
    chosen = [kept.find(one) for one in (names if isinstance(names, list) and names else [names])]
    return chosen, _documents(data, kept)


def _length(documents: Sequence[Document]) -> int:
    """Count the characters of texts, contexts too."""
    return sum(len(one.text) + len(one.context) for one in documents)


def _bounded(documents: list[Document], kept: State) -> list[Document]:
    """Give documents back.

    Raises:
        Problem: where they are longer than what a request may ask for.
    """
    length, most = _length(documents), kept.settings.limits.text
    if length > most:
        raise Problem(
            413,
            f"The texts have {length:,} characters, and a request may have {most:,}; send them in "
            "several requests.",
            "too_large",
        )
    return documents


def _documents(data: dict[str, Any], kept: State) -> list[Document]:
    """Read ``text`` (one or a list) and ``context``.

    Raises:
        Problem: for too many, or none.
    """
    given = data.get("text")
    items = given if isinstance(given, list) else [given]
    most = kept.settings.limits.documents
    if not items or len(items) > most:
        raise Problem(400, f"text holds {len(items)} texts; send 1 to {most}.")
    context = data.get("context", "")
    found: list[Document] = []
    for place, item in enumerate(items):
        document = wire.document_from_json({"text": item, "context": context}, place)
        if not document.text:
            raise Problem(400, f"text {place + 1} is empty; there is nothing to score.")
        found.append(document)
    return _bounded(found, kept)


async def documents(request: Request) -> Response:
    """Score documents, each as a whole; what cannot be scored says why in its place."""
    data = await body(request)
    kept = state(request)
    served = kept.find(data.get("model"))
    items = data.get("documents")
    most = kept.settings.limits.documents
    if not isinstance(items, list) or len(items) > most:
        raise Problem(400, f"documents must be a list of at most {most}.")
    want = data.get("want", [])
    if not isinstance(want, list) or not all(isinstance(one, str) for one in want):
        raise Problem(400, "want must be a list of names.")
    scorer, signature = await under(served, data.get("settings"))

    def parse() -> list[Document]:
        return _bounded([wire.document_from_json(one, at) for at, one in enumerate(items)], kept)

    # Lists of ids are looked at number by number.
    asked = await asyncio.to_thread(parse)
    outcomes = await served.lane.score(asked, want, scorer)

    def make() -> Any:
        scores = [
            {"error": wire.error_to_json(one)}
            if isinstance(one, FairwayError)
            else wire.score_to_json(one, document)
            for one, document in zip(outcomes, asked, strict=True)
        ]
        return {"signature": str(signature), "scores": scores}

    return await answer(_length(asked), make)


ROUTES = (
    Route("/v1/score", score, methods=["POST"]),
    Route("/v1/page", page, methods=["POST"]),
    Route("/v1/documents", documents, methods=["POST"]),
)
