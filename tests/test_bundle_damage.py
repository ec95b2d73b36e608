"""Damaged bundles: hashes, golden scores, manifests and files at random."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ngrams
from fairway.corpus import Document
from fairway.errors import FairwayError, ModelError
from fairway.ngram.bundles import load, manifest
from fairway.ngram.bundles.scoring import BundleScorer

pytest.importorskip("kenlm", reason="KenLM's module is not installed")
pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return ngrams.parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def ready(parts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ngrams.bundle(parts, tmp_path_factory.mktemp("bundles") / "ready")


@pytest.fixture(scope="module")
def scorer(ready: Path) -> BundleScorer:
    return load(str(ready))


def damage(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a bundle with another manifest."""
    target.mkdir()
    for one in source.iterdir():
        (target / one.name).write_bytes(one.read_bytes())
    data = json.loads((source / "bundle.json").read_text("utf-8"))
    change(data)
    (target / "bundle.json").write_text(json.dumps(data), "utf-8")
    return target


def test_a_golden_score_that_is_not_given_is_named(ready: Path, tmp_path: Path) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["golden"][1]["log10"] *= 1 + 1e-5

    with pytest.raises(ModelError, match=r"golden text 2 \('Café.*: log10 -.* tokens, .*expected"):
        load(str(damage(ready, tmp_path / "a", edit)))

    def other(data: dict[str, Any]) -> None:
        data["normaliser"]["name"] = "edugp"

    with pytest.raises(ModelError, match="golden text 1"):
        load(str(damage(ready, tmp_path / "b", other)))


@pytest.mark.parametrize("name", ["pieces.arpa", "sp.model"])
def test_a_file_that_was_changed_or_lost(name: str, ready: Path, tmp_path: Path) -> None:
    folder = damage(ready, tmp_path / "a", lambda data: None)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(ModelError, match=rf"{name} of the bundle a is not the file.*expected"):
        load(str(folder))
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"lacks {name}"):
        load(str(folder))


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "a/../../x", "C:\\x", "", ".", "a\0b"])
def test_files_stay_in_the_folder(file: str, ready: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not lie inside|lacks"):
        load(str(damage(ready, tmp_path / "a", lambda data: data["lm"].update(file=file))))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    return [found for key in keys for found in ((*at, key), *places(data[key], (*at, key)))]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.data())
def test_mutated_manifests(ready: Path, drawn: st.DataObject) -> None:
    whole = json.loads((ready / "bundle.json").read_text("utf-8"))
    data = copy.deepcopy(whole)
    for _ in range(drawn.draw(st.integers(1, 3))):
        *way, last = drawn.draw(st.sampled_from(places(data)))
        inner = data
        for key in way:
            inner = inner[key]
        if drawn.draw(st.booleans()):
            inner[last] = drawn.draw(JSON)
        else:
            del inner[last]
        if not places(data):
            break
    try:
        made = manifest.parse(data)
        assert manifest.parse(json.loads(json.dumps(made.to_json()))) == made
    except FairwayError as problem:
        assert str(problem)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff\xfe", b"{" * 100_000, b'{"a": 1' + b"0" * 5000]
)
def test_what_is_no_manifest(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"bundle\.json (cannot be read|is damaged)"):
        load(str(tmp_path))
    with pytest.raises(ModelError, match=r"is no bundle: it has no bundle\.json"):
        load(str(tmp_path / "other"))


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Cut a file short, or change some of its bytes."""
    if rng.random() < 0.2:
        return data[: rng.randrange(len(data))]
    out = bytearray(data)
    if rng.random() < 0.3:
        digits = [place for place, byte in enumerate(out) if 48 <= byte < 58]
        out[rng.choice(digits)] = rng.randrange(48, 58)
        return bytes(out)
    for _ in range(rng.choice((1, 2, 8, 64))):
        out[rng.randrange(len(out))] = rng.choice(
            (0, 9, 10, 32, 45, 46, 57, 255, rng.randrange(256))
        )
    return bytes(out)


@pytest.mark.parametrize("count", [60, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["pieces.arpa", "sp.model"])
def test_damaged_files_with_the_right_hash(
    name: str, count: int, ready: Path, tmp_path: Path
) -> None:
    rng = random.Random(count)
    whole = (ready / name).read_bytes()
    key = "lm" if name == "pieces.arpa" else "tokeniser"
    folder = damage(ready, tmp_path / "b", lambda data: None)
    found = json.loads((folder / "bundle.json").read_text("utf-8"))
    found["golden"] = []
    text = "the cat sat on 12 mats\n\x00 Zoë — été\u2028 " + "x" * 50
    read = refused = 0
    for _ in range(count):
        content = mutate(whole, rng)
        (folder / name).write_bytes(content)
        found[key]["sha256"] = hashlib.sha256(content).hexdigest()
        (folder / "bundle.json").write_text(json.dumps(found), "utf-8")
        try:
            scorer = load(str(folder))
            assert len(list(scorer.score([Document("1", text), Document("2", "a")]))) == 2
            read += 1
        except FairwayError as problem:
            assert str(problem)
            refused += 1
    assert read and refused


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    text=st.text(
        st.one_of(st.characters(), st.sampled_from("\x00\n\r\x85\u2028 \ud800é1１—Σ")), max_size=60
    ),
    context=st.text(st.characters(), max_size=10),
)
def test_any_text_gets_a_score_or_a_sentence(scorer: BundleScorer, text: str, context: str) -> None:
    try:
        score = next(iter(scorer.score([Document("1", text, context)])))
    except FairwayError as problem:
        assert "surrogate" in str(problem)
        return
    assert score.totals.bytes == len(text.encode())
    assert not any(value > 0 or value != value for value in score.logprobs.tolist())
