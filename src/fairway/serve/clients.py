"""What clients that are fairway ask for beside scores: other protocols, spans, vocabularies."""

from __future__ import annotations

import base64
import copy
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairway.errors import InputError, ProtocolError
from fairway.scorer import Scorer, remarks
from fairway.scores import read_totals
from fairway.serve.answering import answer, plain
from fairway.serve.listing import describe
from fairway.serve.problems import Problem, body
from fairway.serve.state import Served, state
from fairway.signature import Signature

FAIR = "fair"
"""Setting under which documents bring windows of their own, the same for all models compared."""
MOST = 8
"""Scorers of other settings that are kept of a model, those that were asked for last."""


async def under(served: Served, settings: Any) -> tuple[Scorer, Signature]:
    """Give a model's scorer under other settings than it was loaded with.

    Args:
        served: the model.
        settings: as the kind's ``under`` takes them; null or nothing = as it was loaded.

    Returns:
        The scorer and its signature.

    Raises:
        Problem: when settings are no object.
        InputError: when the kind has no such setting.
        ProtocolError: when the model is served as it was loaded only, or settings do not fit it.
    """
    if settings is None or settings == {}:
        return served.scorer, served.signature
    if not isinstance(settings, Mapping):
        raise Problem(400, f"settings is a {type(settings).__name__}, and no object.")
    make = getattr(served.scorer, "under", None)
    asked = {key: value for key, value in settings.items() if key != FAIR}
    if asked and make is None:
        raise ProtocolError(
            f"{served.name} is served as it was loaded, and cannot be given "
            f"{', '.join(sorted(asked))}; start the server with that."
        )
    known = [] if make is None else names(make)
    for key in asked:
        if key not in known:
            raise InputError(
                f"{served.name} can be given no {key!r} through a server; it takes: "
                f"{', '.join(known)}."
            )
    key = json.dumps(settings, sort_keys=True)

    def find() -> tuple[Scorer, Signature]:
        # In the lane's one thread, so that none is made twice.
        found = served.others.pop(key, None) or _made(
            served.scorer, make, asked, settings.get(FAIR) is True
        )
        served.others[key] = found
        while len(served.others) > MOST:
            del served.others[next(iter(served.others))]
        return found

    return await served.lane.call(find)


def _made(
    scorer: Scorer,
    make: Callable[..., Scorer] | None,
    asked: Mapping[str, Any],
    fair: bool,
) -> tuple[Scorer, Signature]:
    """Make a scorer of the same model, its protocol made of the settings that are asked for."""
    for key, value in asked.items():
        listed = isinstance(value, list) and all(isinstance(one, str) for one in value)
        if not (listed or value is None or type(value) in (str, int)):
            raise InputError(f"{key} is a {type(value).__name__}, and no text or whole number.")
    if asked and make is not None:
        try:
            scorer = make(**asked)
        except (TypeError, ValueError, AttributeError):
            raise InputError(
                "A setting is of another type than it takes; look at its value."
            ) from None
    if fair:
        if not hasattr(scorer, FAIR) or scorer.signature.get("protocol") != "fairway":
            raise ProtocolError("This model, or its convention, takes no windows from outside.")
        given: Any = copy.copy(scorer)
        given.fair = True
        scorer = given
    return scorer, scorer.signature


def names(make: Callable[..., Any]) -> list[str]:
    """Give the settings that an ``under`` takes."""
    return [one.name for one in inspect.signature(make).parameters.values()]


async def model(request: Request) -> Response:
    """Describe a model under settings."""
    _, served, (scorer, signature) = await _asked(request)
    return plain(describe(served, scorer, signature))


async def spans(request: Request) -> Response:
    """Tokenize texts, and say where in them the tokens lie."""
    data, served, (scorer, signature) = await _asked(request)
    texts = _texts(data.get("texts"))
    give = getattr(scorer, "spans", None)
    if give is None:
        raise ProtocolError(f"{served.name} does not tell where its tokens lie.")
    found = await served.lane.call(lambda: [one.tolist() for one in give(texts)])
    told = {"signature": str(signature), "spans": found}
    return await answer(sum(map(len, texts)), lambda: told)


async def remark(request: Request) -> Response:
    """Say what a model says of a run's sums."""
    data, _, (scorer, _) = await _asked(request)
    try:
        totals = read_totals(data["totals"])
        unknown = None if data.get("unknown") is None else int(data["unknown"])
        said = remarks(scorer, totals, unknown)
    except (KeyError, TypeError, ValueError):
        raise Problem(400, "totals holds no sums of a run, or unknown is no number.") from None
    return plain({"remarks": said})


async def vocabulary(request: Request) -> Response:
    """Give a model's vocabulary: every token's bytes, in base64."""
    served = state(request).find(request.query_params.get("model"))
    one = await _vocabulary(served)
    pieces = await served.lane.call(lambda: [base64.b64encode(b).decode() for b in one.pieces])
    told = {"name": one.name, "kind": one.kind, "pieces": pieces, "unknown": one.unknown}
    return await answer(sum(map(len, pieces)), lambda: told)


async def encode(request: Request) -> Response:
    """Tokenize texts without special tokens, and decode them again."""
    data, served, _ = await _asked(request)
    texts = _texts(data.get("texts"))
    one = await _vocabulary(served)
    found = await served.lane.call(lambda: one.encode(texts))
    coded = [
        {
            "ids": item.ids.tolist(),
            "offsets": item.offsets.tolist(),
            **({} if item.decoded == text else {"decoded": item.decoded}),
        }
        for text, item in zip(texts, found, strict=True)
    ]
    return await answer(sum(map(len, texts)), lambda: {"coded": coded})


async def decode(request: Request) -> Response:
    """Decode lists of ids without tidying anything."""
    data, served, _ = await _asked(request)
    given = data.get("ids")
    one = await _vocabulary(served)
    most = len(one.pieces)
    if not isinstance(given, list) or not all(
        isinstance(ids, list) and all(type(n) is int and 0 <= n < most for n in ids)
        for ids in given
    ):
        raise Problem(400, f"ids is no list of lists of ids below {most}.")
    texts = await served.lane.call(lambda: [one.decode(ids) for ids in given])
    return await answer(sum(map(len, texts)), lambda: {"texts": texts})


async def _vocabulary(served: Served) -> Any:
    if not hasattr(served.scorer, "vocabulary"):
        raise InputError(f"{served.name} does not tell its vocabulary.")

    def find() -> Any:
        # It spells every token, so it is made once.
        if not served.vocabularies:
            served.vocabularies.append(served.scorer.vocabulary)  # type: ignore[attr-defined]
        return served.vocabularies[0]

    return await served.lane.call(find)


async def _asked(request: Request) -> tuple[dict[str, Any], Served, tuple[Scorer, Signature]]:
    data = await body(request)
    served = state(request).find(data.get("model"))
    return data, served, await under(served, data.get("settings"))


def _texts(given: Any) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise Problem(400, "texts is no list of texts.")
    return given


ROUTES = (
    Route("/v1/model", model, methods=["POST"]),
    Route("/v1/spans", spans, methods=["POST"]),
    Route("/v1/remarks", remark, methods=["POST"]),
    Route("/v1/vocabulary", vocabulary, methods=["GET"]),
    Route("/v1/vocabulary/encode", encode, methods=["POST"]),
    Route("/v1/vocabulary/decode", decode, methods=["POST"]),
)
