"""The signature says how a number was made, and reads back as itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.errors import InputError
from fairway.signature import Signature, diff, parse

words = st.text(min_size=0, max_size=20)


@given(st.dictionaries(st.text(min_size=1, max_size=8), words, max_size=6))
def test_round_trip(values: dict[str, str]) -> None:
    signature = Signature.of(values)
    line = str(signature)
    assert parse(line) == signature
    assert "\n" not in line and "\x1b" not in line


def test_order_booleans_and_none() -> None:
    signature = Signature.of({"version": "1", "chat": True, "model": "a:b|c", "quant": None})
    assert str(signature) == "model:a%3Ab%7Cc|chat:yes|version:1"


def test_diff_names_both_values() -> None:
    a, b = Signature.of({"model": "x", "length": 5}), Signature.of({"model": "y", "seed": 1})
    assert diff(a, b, ignore=["seed"]) == {"model": ("x", "y"), "length": ("5", "")}


@pytest.mark.parametrize("line", ["model", "model:%zz", ":x"])
def test_a_broken_line_is_refused(line: str) -> None:
    with pytest.raises(InputError):
        parse(line)
