"""What goes over the wire: every document and score comes back as it was, all else is refused."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway import wire
from fairway.corpus import Document
from fairway.errors import FairwayError, InputError, ModelError, ProtocolError
from fairway.record import key
from fairway.scores import CONDITIONAL, PERPLEXITY, PSEUDO, Score

TEXT = st.text(st.characters(), max_size=12).filter(lambda text: not wire.HALVES.search(text))
"""Halves of surrogate pairs too, where JSON leaves them apart."""
COUNT = st.integers(0, wire.LARGEST - 1)
REAL = st.floats(allow_nan=True, allow_infinity=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def through(data: Any) -> Any:
    """Through a socket."""
    return wire.loads(json.dumps(data, allow_nan=False).encode("ascii"))


@st.composite
def documents(draw: st.DrawFn) -> Document:
    spans = st.lists(st.tuples(st.integers(-9, 99), st.integers(-9, 99)), max_size=3)
    ids = draw(st.none() | st.lists(st.integers(0, (1 << 31) - 1), max_size=5))
    messages = draw(st.none() | st.lists(st.dictionaries(TEXT, TEXT, max_size=2), max_size=2))
    return Document(
        draw(TEXT),
        draw(TEXT),
        draw(TEXT),
        draw(st.none() | spans.map(tuple)),
        {} if messages is None else {"messages": messages},
        None if ids is None else np.asarray(ids, np.int64),
        draw(st.none() | COUNT),
        draw(st.integers(0, 99)),
        draw(st.none() | st.lists(st.tuples(COUNT, COUNT, COUNT), max_size=2).map(tuple)),
    )


@given(documents())
def test_a_document_comes_back(document: Document) -> None:
    back = wire.document_from_json(through(wire.document_to_json(document)))
    assert key(back) == key(document) and back.id == document.id
    assert (back.ids is None) == (document.ids is None)
    assert back.metadata == document.metadata


def column(draw: st.DrawFn, size: int) -> np.ndarray:
    """A further column of any sort that scorers have."""
    wide = draw(st.sampled_from([0, 0, 2]))
    shape = (size, wide) if wide else (size,)
    items = math.prod(shape)
    kind = draw(st.sampled_from([np.float64, np.int64, np.bool_]))
    element = {np.float64: REAL, np.int64: st.integers(-9, 9), np.bool_: st.booleans()}[kind]
    if wide:
        kind, element = np.float64, REAL
    values = draw(st.lists(element, min_size=items, max_size=items))
    return np.asarray(values, kind).reshape(shape)


@st.composite
def scores(draw: st.DrawFn) -> tuple[Document, Score]:
    text = draw(TEXT)
    document = Document(draw(TEXT), text, metadata={"kept": "here"})
    size = draw(st.integers(0, 6))
    spans = [sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2))) for _ in range(size)]
    logprobs = draw(
        st.lists(st.floats(max_value=0.0) | st.just(math.nan), min_size=size, max_size=size)
    )
    own = draw(st.sampled_from([text, ""]))
    offsets = np.asarray(spans, np.int64).reshape(-1, 2)
    return document, Score(
        document.id,
        own,
        np.minimum(offsets, len(own)),
        np.asarray(logprobs, np.float64),
        np.asarray(draw(st.lists(st.integers(-1, 1 << 40), min_size=size, max_size=size)), int),
        draw(st.none() | st.just(((0, 1), (2, 3)))),
        draw(st.none() | st.just(np.arange(size))),
        draw(st.none() | st.booleans()),
        {name: column(draw, size) for name in ("entropy", "window", "oov") if draw(st.booleans())},
        document.metadata,
        draw(st.sampled_from(["token", "byte", "word"])),
        draw(st.none() | COUNT),
        draw(st.sampled_from([PERPLEXITY, PSEUDO, CONDITIONAL])),
    )


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Alike to the bit, NaN included."""
    if len(one) == 0:
        return len(other) == 0
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    )


@given(scores())
def test_a_score_comes_back_to_the_bit(pair: tuple[Document, Score]) -> None:
    document, score = pair
    back = wire.score_from_json(through(wire.score_to_json(score, document)), document)
    for name in ("offsets", "logprobs", "ids"):
        assert same(getattr(score, name), getattr(back, name)), name
    for name in ("id", "text", "scored", "lossy", "metadata", "unit", "byte_count", "perplexity"):
        assert getattr(score, name) == getattr(back, name), name
    assert (score.token_bytes is None) == (back.token_bytes is None)
    assert score.extras.keys() == back.extras.keys()
    assert all(same(score.extras[name], back.extras[name]) for name in score.extras)


def test_halves_that_json_would_join_are_refused() -> None:
    with pytest.raises(InputError, match="halves of surrogate pairs"):
        wire.document_to_json(Document("a", "one \ud83d\ude42 two"))
    assert through(wire.document_to_json(Document("a", "\ude42\ud83d"))) == {
        "id": "a", "text": "\ude42\ud83d"
    }  # fmt: skip


@given(JSON)
def test_what_is_no_document_is_refused_in_words(data: Any) -> None:
    try:
        found = wire.document_from_json(data)
    except InputError as problem:
        assert str(problem)
    else:
        assert isinstance(found.text, str) and isinstance(found.id, str)


def paths(data: Any) -> list[tuple[Any, ...]]:
    """Every place in JSON."""
    inner: Any = ()
    if isinstance(data, dict | list):
        inner = data.items() if isinstance(data, dict) else enumerate(data)
    return [(), *((name, *rest) for name, value in inner for rest in paths(value))]


GIVEN = Document("a", "ab cd")
WHOLE = wire.score_to_json(
    Score(
        "a", "ab cd", np.array([[0, 2], [2, 5]]), np.array([-1.5, -2.5]), np.array([3, 4]),
        None, np.array([2, 3]), False, {"top5": np.array([[1.0, 2.0], [3.0, np.nan]])},
    ),
    GIVEN,
)  # fmt: skip


@given(st.data())
def test_a_damaged_score_is_an_error_or_the_same_numbers(data: st.DataObject) -> None:
    """One place replaced by anything: no traceback, and never another number unseen."""
    damaged = copy.deepcopy(WHOLE)
    place = data.draw(st.sampled_from([one for one in paths(WHOLE) if one]))
    *front, last = place
    target = damaged
    for step in front:
        target = target[step]
    if data.draw(st.booleans()):
        target[last] = data.draw(JSON)
    else:
        del target[last]
    try:
        found = wire.score_from_json(damaged, GIVEN)
    except ModelError as problem:
        assert str(problem).isprintable()
        return
    # What passes is a score of two tokens of this text, with this many columns.
    assert len(found) == 2 and found.id == "a" and found.offsets.max() <= len(found.text)
    assert found.logprobs.dtype == np.float64 and not (found.logprobs > wire.MOST).any()
    assert all(len(one) == 2 for one in found.extras.values())
    assert isinstance(found.totals.nll, float)


@pytest.mark.parametrize(
    "change",
    [
        {"logprobs": [-1.5]},
        {"logprobs": [-1.5, 3.0]},
        {"logprobs": ["1_0", -2.5]},
        {"logprobs": [True, -2.5]},
        {"logprobs": [[-1.5], [-2.5]]},
        {"ids": [3, 4.5]},
        {"ids": [3, 10**400]},
        {"offsets": [[0, 2], [2, 6]]},
        {"offsets": [[2, 0], [2, 5]]},
        {"offsets": [[-1, 2], [2, 5]]},
        {"token_bytes": [2, -3]},
        {"lossy": 0},
        {"byte_count": -1},
        {"perplexity": "surprise"},
        {"extras": {"entropy": [1.0]}},
        {"id": "b"},
    ],
)
def test_a_wrong_score_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="no score of it"):
        wire.score_from_json({**WHOLE, **change}, GIVEN)


@pytest.mark.parametrize("text", ["[NaN]", "[Infinity]", "[-Infinity]", "[" * 99_999, "{", ""])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        wire.loads(text)


@pytest.mark.parametrize("problem", [InputError("a"), ProtocolError("b"), ModelError("c")])
def test_errors_come_back_as_they_were(problem: FairwayError) -> None:
    back = wire.error_from_json(through(wire.error_to_json(problem)))
    assert type(back) is type(problem) and str(back) == str(problem)


@given(JSON)
def test_any_error_is_one_printable_line(data: Any) -> None:
    assert str(wire.error_from_json(data)).isprintable()
    assert str(wire.error_from_json({"message": data, "type": data})).isprintable()
