"""What goes wrong in a request, as an answer in the form that OpenAI's clients know."""

from __future__ import annotations

import asyncio
import json
import traceback
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from fairway import wire
from fairway.errors import FairwayError, InputError, ProtocolError
from fairway.serve.answering import plain

SHORT = 64 << 10
"""Bytes up to which JSON is read where it arrives; what is longer would hold other requests up."""


class Problem(Exception):
    """An answer other than the one that was asked for.

    Args:
        status: HTTP's.
        message: the fact and the way out.
        code: a word for programs.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "invalid_request",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}

    def response(self) -> Response:
        """Give the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "code": self.code, "param": None}
        return plain({"error": error}, self.status, self.headers)


def of(problem: FairwayError) -> Problem:
    """Turn an error of the library into an answer: 400 for the asker's, 500 for the model's."""
    asked = isinstance(problem, InputError | ProtocolError)
    return Problem(400 if asked else 500, str(problem), wire.error_to_json(problem)["type"])


async def answer_problem(_: Request, problem: Exception) -> Response:
    """Answer a `Problem` or a `FairwayError`; a handler of Starlette's."""
    if isinstance(problem, FairwayError):
        problem = of(problem)
    assert isinstance(problem, Problem)
    return problem.response()


async def answer_http(_: Request, problem: Exception) -> Response:
    """Answer what Starlette found: no such route or method, or a client that went away."""
    if not isinstance(problem, HTTPException):
        return Response(status_code=400)
    status, detail = problem.status_code, str(problem.detail)
    if status == 404:
        detail = "There is no such route here; GET /openapi.json lists them."
    elif status == 405:
        detail = "This route is asked in another way; GET /openapi.json tells in which."
    return Problem(status, detail, "http", dict(problem.headers or {})).response()


async def answer_crash(_: Request, problem: Exception) -> Response:
    """Answer what nobody foresaw, without a word of its text; a handler of Starlette's."""
    return Problem(
        500, "The server failed at this request; its log says where.", "crash"
    ).response()


async def body(request: Request) -> dict[str, Any]:
    """Read a request's JSON object; a long one in a thread.

    Raises:
        Problem: when it is none.
    """
    whole = await request.body()
    try:
        if len(whole) < SHORT:
            data = json.loads(whole)
        else:
            data = await asyncio.to_thread(json.loads, whole)
    except (ValueError, RecursionError) as problem:
        raise Problem(
            400, f"The body is no JSON ({type(problem).__name__}); send one object."
        ) from None
    if not isinstance(data, dict):
        raise Problem(400, "The body is no JSON object; send one.")
    return data


def where(problem: BaseException) -> str:
    """Say what kind of failure it was and where, without its words: they may hold a user's text."""
    frames = traceback.extract_tb(problem.__traceback__)[-6:]
    places = [f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in reversed(frames)]
    return f"{type(problem).__name__} in {', from '.join(places)}"
