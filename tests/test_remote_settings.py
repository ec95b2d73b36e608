"""Other protocols of a model that a server has loaded, and what cannot be asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fairway
import kinds
import serving
from fairway import scorer
from fairway.corpus import Document
from fairway.errors import InputError, ProtocolError
from fairway.scores import Score
from fairway.serve.settings import Limits, Settings

TEXT = " The hen, in the garden.\n\nAnd the cat. 猫 Straße 🙂" * 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, small: str) -> Iterator[str]:
    arpa = scorer.load(kinds.arpa("arpa")(tmp_path_factory.mktemp("arpa")))
    with serving.served({"causal": ("hf", fairway.load(small)), "arpa": ("arpa", arpa)}) as url:
        yield url


def alike(one: Score, other: Score) -> None:
    assert np.array_equal(one.ids, other.ids) and np.array_equal(one.offsets, other.offsets)
    np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=1e-5, atol=1e-5)
    assert one.totals.bytes == other.totals.bytes


@pytest.mark.parametrize(
    "settings",
    [
        {"max_length": 40},
        {"max_length": 40, "stride": 10, "prefix": "none"},
        {"like": "lm-eval", "max_length": 32},
        {"like": "hf-doc", "max_length": 24, "stride": 8},
        {"like": "lm-eval-pairs"},
        {"special_tokens": "parse"},
        {"max_length": 0},
        {"chat": ["assistant"]},
    ],
)
def test_settings_are_as_if_loaded_with_them(
    settings: dict[str, Any], server: str, small: str
) -> None:
    here, there = fairway.load(small, **settings), fairway.connect(server, **settings)
    assert str(there.signature.with_(model=here.signature["model"])) == str(here.signature)
    document = Document("a", TEXT)
    if settings.get("like") == "lm-eval-pairs":
        document = Document("a", " the hen", "the cat and")
    alike(*here.score([document]), *there.score([document]))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stride": 0}, "stride"),
        ({"max_length": 10**6}, "max_length"),
        ({"like": "nothing"}, "no convention"),
        ({"prefix": "often"}, "prefix policy"),
        ({"stride": "wide"}, "another type"),
        ({"threads": 3}, "server's to choose"),
        ({"dtype": "bfloat16"}, "server's to choose"),
        ({"pll": "original"}, "no 'pll' through a server"),
        ({"patience": 0}, "above 0"),
        ({"token": "secret"}, "FAIRWAY_TOKEN"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], said: str, server: str) -> None:
    with pytest.raises((InputError, ProtocolError), match=said) as caught:
        fairway.connect(server, **settings)
    assert "secret" not in str(caught.value)


def test_a_kind_of_one_protocol_says_so(server: str) -> None:
    with pytest.raises(ProtocolError, match="cannot be given max_length through a server"):
        fairway.connect(server, "arpa", max_length=9)
    with pytest.raises(ProtocolError, match="cannot be given --like lm-eval"):
        fairway.connect(server, "arpa", like="lm-eval")
    assert fairway.connect(server, "causal", dtype="float32", like="fairway").columns


def test_a_convention_of_the_servers_own_is_asked_for_or_left(small: str) -> None:
    """The report's denominators are the convention's, so both ends must mean the same."""
    with serving.served({"m": ("hf", fairway.load(small, like="paloma", max_length=64))}) as url:
        assert fairway.connect(url).signature["protocol"] == "fairway"
        kept = fairway.connect(url, like="paloma")
        assert (kept.signature["protocol"], kept.signature["length"]) == ("paloma", "64")


@pytest.mark.slow
def test_settings_of_a_gguf_file(tmp_path: Path) -> None:
    spec = kinds.gguf(tmp_path)
    with serving.served({"m": ("gguf", fairway.load(spec))}) as url:
        for settings in ({"max_length": 24, "stride": 8}, {"like": "lm-eval", "max_length": 24}):
            here, there = fairway.load(spec, **settings), fairway.connect(url, **settings)
            assert str(there.signature) == str(here.signature)
            document = Document("a", "the cat and the hen in the garden " * 5)
            alike(*here.score([document]), *there.score([document]))  # type: ignore[misc]


def test_fair_windows_leave_the_servers_prefix(small: str) -> None:
    """What compare --fair sets is no protocol of its own: the rest stays as it was loaded."""
    document = Document("a", "the cat and the hen", windows=((0, 0, 9), (4, 9, 19)))
    here: Any = fairway.load(small, prefix="none", max_length=24)
    with serving.served({"m": ("hf", here)}) as url:
        there: Any = fairway.connect(url, prefix="none", max_length=24)
        own: Any = fairway.connect(url)
        there.fair = own.fair = True
        assert here.fair is False
        here = fairway.load(small, prefix="none", max_length=24)
        here.fair = True
        for one in (own, there):
            assert str(one.signature) == str(here.signature)
            alike(*here.score([document]), *one.score([document]))
        with pytest.raises(ProtocolError, match="no windows from outside"):
            fairway.connect(url, like="lm-eval").fair = True  # type: ignore[attr-defined]


def test_a_small_server_is_heeded(small: str) -> None:
    """Its limits bound what a request brings; a text beyond them is lost alone."""
    few = Limits(documents=3, text=200, body=2000)
    here = fairway.load(small)
    with serving.served({"m": ("hf", here)}, Settings(limits=few)) as url:
        there = fairway.connect(url)
        given = [Document(str(n), "the cat " * (1 + n % 9)) for n in range(30)]
        own = list(here.score(given))  # before: a model is not for two threads at a time
        for one, other in zip(own, there.score(given), strict=True):
            alike(one, other)
        report = fairway.evaluate(there, ["the cat", "the hen " * 99, "the garden"])
        assert report.totals.documents == 2 and report.skipped_total == 1


@pytest.mark.slow
def test_remarks_are_the_models(tmp_path: Path) -> None:
    """A bundle says where a text is unlike those that it was made for."""
    spec = kinds.bundle(tmp_path)
    texts = ["zq xj vw kk " * 30] * 3
    with serving.served({"m": ("ngram", fairway.load(spec))}) as url:
        here, there = (fairway.evaluate(one, texts) for one in (spec, fairway.connect(url)))
    assert any("unlike what this model was made for" in note for note in there.notes)
    assert there.notes == here.notes and there.totals == here.totals
    assert str(there.signature) == str(here.signature)


@pytest.mark.slow
def test_a_server_of_a_servers_model(small: str) -> None:
    here = fairway.load(small)
    with serving.served({"m": ("hf", here)}) as url:
        middle = fairway.connect(url)
        with serving.served({"again": ("fairway", middle)}) as far:
            there: Any = fairway.connect(far)
            assert there.kind == "hf" and str(there.signature) == str(here.signature)
            alike(*here.score([Document("a", TEXT)]), *there.score([Document("a", TEXT)]))


@pytest.mark.slow
def test_scorers_of_settings_are_few(small: str) -> None:
    """A client that asks for many protocols fills no memory; an earlier one is made again."""
    from fairway.serve import app, clients

    made = app.build({"m": ("hf", fairway.load(small))})
    with serving.serving(made) as url:
        first = fairway.connect(url, max_length=20)
        for length in range(21, 21 + clients.MOST + 3):
            fairway.connect(url, max_length=length)
        kept = made.state.fairway.models["m"].others
        assert len(kept) == clients.MOST and not any('"max_length": 20' in key for key in kept)
        alike(*first.score([Document("a", TEXT)]),
              *fairway.load(small, max_length=20).score([Document("a", TEXT)]))  # fmt: skip
