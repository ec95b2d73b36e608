"""Documents, scores and errors as JSON: what a fairway server and its clients say to each other.

Numbers go as they are: JSON's shortest decimal of a float64 reads back as the same float64.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.corpus import Document
from fairway.errors import FairwayError, InputError, ModelError, ProtocolError
from fairway.scores import CONDITIONAL, PERPLEXITY, PSEUDO, Score, number
from fairway.tokenizers.vocabulary import Coded

KINDS: Mapping[str, type[FairwayError]] = {
    "input": InputError, "protocol": ProtocolError, "model": ModelError,
}  # fmt: skip
"""Errors that a client raises again as they were raised at the server."""
VERSION = 1
"""Of what is said here; a client asks for its own."""
MOST = 0.5
"""Nats above which a number is no log-probability, however it was rounded."""
HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")
"""What JSON cannot tell from the character that it spells."""
LARGEST = 1 << 53
"""Above any position or count."""
SHOWN = 2000
"""Characters of a server's words that an error repeats."""


def document_to_json(document: Document) -> dict[str, Any]:
    """Write a document; what has its default is left away.

    Of the metadata only ``messages`` go along: nothing else can change a number.

    Raises:
        InputError: where both halves of a surrogate pair stand side by side, each as a character:
            JSON would make one of them.
    """
    messages = document.metadata.get("messages", ())
    if HALVES.search(f"{document.id}\0{document.text}\0{document.context}\0{messages}"):
        raise InputError(
            f"{shown(document.id)} holds halves of surrogate pairs, which have no UTF-8 form; "
            "replace them."
        )
    out: dict[str, Any] = {"id": document.id, "text": document.text}
    if document.context:
        out["context"] = document.context
    if document.scored is not None:
        out["scored"] = [list(span) for span in document.scored]
    if document.ids is not None:
        out["ids"] = document.ids.tolist()
    if document.byte_count is not None:
        out["byte_count"] = document.byte_count
    if document.context_ids:
        out["context_ids"] = document.context_ids
    if document.windows is not None:
        out["windows"] = [list(window) for window in document.windows]
    if "messages" in document.metadata:
        out["messages"] = document.metadata["messages"]
    return out


def document_from_json(data: Any, place: int = 0) -> Document:
    """Read a document.

    Args:
        data: what `document_to_json` gave, or a client of another make wrote; or a bare text.
        place: its place among those given, for its name and for errors.

    Raises:
        InputError: for what is none, naming the field.
    """
    name = f"text {place + 1}"
    if isinstance(data, str):
        return Document(name, data)
    if not isinstance(data, Mapping):
        raise InputError(f"{name} is {_called(data)}, and neither a text nor an object.")
    messages = data.get("messages")
    if messages is not None and not isinstance(messages, list):
        raise InputError(f"{name}: messages is {_called(messages)}, and no list.")
    ids = _numbers(data, "ids", name)
    return Document(
        _text(data, "id", name, name),
        _text(data, "text", name, ""),
        _text(data, "context", name, ""),
        _tuples(data, "scored", 2, name),
        {} if messages is None else {"messages": messages},
        None if ids is None else np.asarray(ids, np.int64),
        _count(data, "byte_count", name),
        _count(data, "context_ids", name) or 0,
        _tuples(data, "windows", 3, name),
    )


def score_to_json(score: Score, document: Document | None = None) -> dict[str, Any]:
    """Write a score as columns; null stands for NaN.

    Args:
        score: what is written.
        document: that was scored: its text is the client's already, and another one is sent.
    """
    text = {} if document is not None and score.text == document.text else {"text": score.text}
    return {
        "id": score.id,
        **text,
        "offsets": score.offsets.tolist(),
        "logprobs": _reals(score.logprobs),
        "ids": score.ids.tolist(),
        "scored": None if score.scored is None else [list(span) for span in score.scored],
        "token_bytes": None if score.token_bytes is None else score.token_bytes.tolist(),
        "lossy": score.lossy,
        "extras": {name: _reals(column) for name, column in score.extras.items()},
        "unit": score.unit,
        "byte_count": score.byte_count,
        "perplexity": score.perplexity,
    }


def score_from_json(data: Any, document: Document) -> Score:
    """Read a score of a document back, and leave nothing unlooked at.

    Raises:
        ModelError: when it is none, or none of this document.
    """
    try:
        if data["id"] != document.id:
            raise ValueError(f"it is that of {data['id']!r}")
        found = Score(
            document.id,
            _is(data.get("text", document.text), str),
            _pairs(data["offsets"]),
            np.asarray(_floats(data["logprobs"]), np.float64),
            _integers(data["ids"]),
            None if data["scored"] is None else tuple(map(tuple, _pairs(data["scored"]).tolist())),
            None if data["token_bytes"] is None else _integers(data["token_bytes"]),
            _is(data["lossy"], bool, type(None)),
            {_is(key, str): _column(values) for key, values in data["extras"].items()},
            document.metadata,
            _is(data.get("unit", "token"), str),
            _is(data.get("byte_count"), int, type(None)),
            _is(data.get("perplexity", PERPLEXITY), str),
        )
        _hold(found)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as problem:
        reason = f"no {problem}" if isinstance(problem, KeyError) else problem
        raise ModelError(
            f"The server's answer for {document.id} is no score of it ({shown(reason)}); is it of "
            "another version of fairway?"
        ) from None
    return found


def spans_from_json(data: Any, texts: Sequence[str]) -> list[NDArray[np.int64]]:
    """Read the character spans of texts' tokens: ``(n, 2)`` each.

    Raises:
        ModelError: when they are none of these texts.
    """
    try:
        found = [_pairs(one) for one in _is(data, list)]
        for spans, text in zip(found, texts, strict=True):
            _inside(spans, len(text))
    except (ValueError, OverflowError) as problem:
        raise ModelError(f"The server does not say where tokens lie ({problem}).") from None
    return found


def coded_from_json(data: Any, texts: Sequence[str], most: int) -> list[Coded]:
    """Read texts as tokens.

    Args:
        data: of each text ``ids``, ``offsets``, and ``decoded`` where that is another text.
        texts: that were sent.
        most: ids in the vocabulary.

    Raises:
        ModelError: when it is none of these texts.
    """
    found = []
    try:
        for one, text in zip(_is(data, list), texts, strict=True):
            ids, offsets = _integers(one["ids"]), _pairs(one["offsets"])
            _inside(offsets, len(text))
            if len(ids) != len(offsets) or (len(ids) and not 0 <= ids.min() <= ids.max() < most):
                raise ValueError("ids and spans do not fit")
            found.append(Coded(ids, offsets, _is(one.get("decoded", text), str)))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as problem:
        raise ModelError(f"The server does not tokenize ({shown(problem)}).") from None
    return found


def _inside(spans: NDArray[np.int64], length: int) -> None:
    begins, ends = spans[:, 0], spans[:, 1]
    if len(spans) and not (begins.min() >= 0 and (begins <= ends).all() and ends.max() <= length):
        raise ValueError("tokens lie outside the text")


def _hold(score: Score) -> None:
    """Hold the columns of a score against each other and against its text.

    Raises:
        ValueError: naming what cannot be.
    """
    size = len(score)
    if (
        score.logprobs.ndim != 1
        or score.logprobs.size
        and np.nanmax(np.append(score.logprobs, -1.0)) > MOST
    ):
        raise ValueError("what it gives as log-probabilities is none")
    if score.perplexity not in (PERPLEXITY, PSEUDO, CONDITIONAL):
        raise ValueError(f"its perplexity is called {score.perplexity!r}")
    if (score.byte_count or 0) < 0 or (
        score.token_bytes is not None and (score.token_bytes < 0).any()
    ):
        raise ValueError("a count of bytes is negative")
    sizes = {len(score.ids), len(score.offsets), *map(len, score.extras.values())}
    sizes |= set() if score.token_bytes is None else {len(score.token_bytes)}
    if sizes != {size}:
        raise ValueError(f"it has {size} log-probabilities, and columns of other lengths")
    _inside(score.offsets, len(score.text))


def error_to_json(problem: FairwayError) -> dict[str, Any]:
    """Write an error: its sentence, and what `error_from_json` raises again."""
    kind = next((name for name, one in KINDS.items() if isinstance(problem, one)), "model")
    return {"message": str(problem), "type": kind}


def error_from_json(data: Any) -> FairwayError:
    """Read an error back; its words are the server's, and shown as one line."""
    if not isinstance(data, Mapping):
        return ModelError(f"The server tells of an error as {_called(data)}.")
    return KINDS.get(str(data.get("type")), ModelError)(shown(data.get("message")))


def shown(words: Any) -> str:
    """Make what a server said safe to print: one line, no control characters, not endless."""
    line = "".join(char if char.isprintable() else " " for char in str(words))
    line = " ".join(line.split())
    return line if len(line) <= SHOWN else line[:SHOWN] + " ..."


def loads(data: bytes | str) -> Any:
    """Read JSON that holds no numbers but JSON's.

    Raises:
        ValueError: when it is none.
    """
    try:
        return json.loads(data, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(literal: str) -> Any:
    raise ValueError(f"{literal} is no JSON")


def _reals(column: Any) -> list[Any]:
    values = column.tolist()
    if column.dtype.kind in "iub" or np.isfinite(column).all():
        return list(values)
    return [number(one) if isinstance(one, float) else [number(v) for v in one] for one in values]


def _is(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise ValueError(f"{_called(value)} stands where there should be a {kinds[0].__name__}")
    return value


def _floats(values: Any) -> Any:
    """Check numbers that may be null, or infinite and so text, and lists of them."""
    kinds = set(map(type, _is(values, list)))
    if kinds == {list}:
        return [_floats(one) for one in values]
    if not kinds <= {float, int, str, type(None)}:
        raise ValueError(f"a column holds {', '.join(sorted(one.__name__ for one in kinds))}")
    if str in kinds and not {one for one in values if type(one) is str} <= {"inf", "-inf"}:
        raise ValueError("a column holds words")
    if kinds <= {float}:
        return values
    return [np.nan if one is None else float(one) for one in values]


def _integers(values: Any) -> Any:
    """Read a list of integers."""
    if not set(map(type, _is(values, list))) <= {int}:
        raise ValueError("a column of integers holds something else")
    return np.asarray(values, np.int64)


def _pairs(values: Any) -> Any:
    """Read a list of pairs of integers: ``(n, 2)``."""
    flat: list[Any] = []
    for one in _is(values, list):
        if type(one) is not list or len(one) != 2:
            raise ValueError("a span is no pair")
        flat += one
    return _integers(flat).reshape(-1, 2)


def _column(values: Any) -> Any:
    """Read a further column, of booleans, integers or reals as they were."""
    kinds = set(map(type, _is(values, list)))
    if kinds == {bool}:
        return np.asarray(values, np.bool_)
    if kinds == {int}:
        return _integers(values)
    return np.asarray(_floats(values), np.float64)


def _text(data: Mapping[str, Any], key: str, name: str, default: str) -> str:
    value = data.get(key, default)
    if not isinstance(value, str):
        raise InputError(f"{name}: {key} is {_called(value)}, and no text.")
    return value


def _count(data: Mapping[str, Any], key: str, name: str) -> int | None:
    value = data.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST:
        raise InputError(f"{name}: {key} is {_called(value)}, and no count.")
    return value


def _numbers(data: Mapping[str, Any], key: str, name: str) -> list[int] | None:
    value = data.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(one) is int for one in value):
        raise InputError(f"{name}: {key} is no list of integers.")
    if any(not 0 <= one < 1 << 31 for one in value):
        raise InputError(f"{name}: {key} holds a number that is no token id.")
    return value


def _tuples(data: Mapping[str, Any], key: str, size: int, name: str) -> Any:
    value = data.get(key)
    if value is None:
        return None
    right: Any = isinstance(value, Sequence) and all(
        isinstance(one, Sequence)
        and len(one) == size
        and all(type(n) is int and -LARGEST < n < LARGEST for n in one)
        for one in value
    )
    if not right:
        raise InputError(f"{name}: {key} is no list of lists of {size} integers.")
    return tuple(tuple(one) for one in value)


def _called(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
