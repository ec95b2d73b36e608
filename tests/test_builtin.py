"""The built-in model: its size, its tokenizer, its card, and what it tells apart."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fairway

DATA = Path(fairway.__file__).parent / "data"
FOLDER = DATA / "models" / "mini"
CARD = json.loads((FOLDER / "card.json").read_text("utf-8"))
DOMAINS = ("encyclopedic", "fiction", "legal")
BUILTIN_TOOLS = Path(__file__).parents[1] / "tools" / "builtin"


@cache
def model() -> Any:
    return fairway.load()


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]


def bits_per_byte(text: str) -> float:
    score = fairway.score(text, model())
    assert isinstance(score, fairway.Score)
    return score.metrics["bits_per_byte"]


def test_size_and_configuration() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8_000_000
    assert model().signature["prefix"] == "bos"
    assert int(model().signature["length"]) == 512
    assert not model().notes, "the fast path holds"


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_tokenizer_loses_nothing(text: str) -> None:
    words = model().loaded.tokenizer
    ids = words(text, add_special_tokens=False)["input_ids"]
    assert words.decode(ids, clean_up_tokenization_spaces=False) == text
    assert words.unk_token_id not in ids


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_cards_figures(domain: str) -> None:
    report = fairway.evaluate(model(), texts(DATA / "heldout" / f"{domain}.jsonl"))
    card = CARD["domains"][domain]
    assert report.totals.bytes == card["bytes"] and report.totals.tokens == card["tokens"]
    assert report.metrics["bits_per_byte"] == pytest.approx(card["model"], abs=1e-4)
    assert card["model"] < min(card["kenlm"], card["xz"], card["xz_trained"])
    assert abs(card["model"] - card["unrounded"]) < 1e-3


def test_the_card_says_what_was_measured() -> None:
    card = (FOLDER / "README.md").read_text("utf-8")
    for domain, figures in CARD["domains"].items():
        row = "| " + " | ".join(
            [domain, *(f"{figures[k]:.4f}" for k in ("model", "kenlm", "xz_trained", "xz"))]
        )
        assert row in card
    assert f"{CARD['news']:.4f}" in card and f"{CARD['steps']:,} steps" in card


def test_news_like_figure() -> None:
    report = fairway.evaluate(model(), "sample:news")
    assert report.metrics["bits_per_byte"] == pytest.approx(CARD["news"], abs=1e-4)


def sentences() -> list[str]:
    whole = " ".join(t for d in DOMAINS for t in texts(DATA / "heldout" / f"{d}.jsonl"))
    found = re.findall(r"(?<=[.!?] )[A-Z][a-z]+ [a-z][^.!?\n\"“]{40,160}[a-z][.]", whole)
    assert len(found) >= 100
    return found[:100]


def test_fluent_odd_shuffled_random() -> None:
    """Text with words exchanged between sentences, in any order, of random letters: ever worse."""
    draw = random.Random(3)
    fluent = sentences()
    pool = [word for s in fluent for word in re.findall(r"\b[a-z]{4,}\b", s)]

    def odd(sentence: str) -> str:
        # One word in four is another sentence's: grammar stays nearly whole, sense does not.
        return re.sub(
            r"\b[a-z]{4,}\b",
            lambda m: draw.choice(pool) if draw.random() < 0.25 else m.group(),
            sentence,
        )

    def shuffled(sentence: str) -> str:
        words = sentence.split()
        draw.shuffle(words)
        return " ".join(words)

    def letters(sentence: str) -> str:
        return "".join(draw.choice("abcdefghijklmnopqrstuvwxyz ") for _ in sentence)

    levels = [
        fairway.evaluate(model(), [change(s) for s in fluent]).metrics["bits_per_byte"]
        for change in (str, odd, shuffled, letters)
    ]
    assert levels == sorted(levels)
    assert all(b > a + 0.1 for a, b in zip(levels, levels[1:], strict=False)), levels


def test_in_domain_is_below_out_of_domain() -> None:
    inside = [
        fairway.evaluate(model(), texts(DATA / "heldout" / f"{d}.jsonl")).metrics["bits_per_byte"]
        for d in DOMAINS
    ]
    code = Path(fairway.__file__).with_name("windows.py").read_text("utf-8")
    german = "Der Hund sah die Katze und lief davon, und niemand wusste, wohin er gegangen war."
    outside = [bits_per_byte(code), bits_per_byte(german)]
    assert max(inside) < min(outside)


def test_no_held_out_or_sample_line_is_training_text(assets: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "FAIRWAY_ASSETS": str(assets)}
    made = subprocess.run(
        [
            sys.executable, str(BUILTIN_TOOLS / "corpus.py"), "--out", str(tmp_path),
            "--heldout", str(tmp_path / "heldout"),
        ],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    for domain in DOMAINS:
        shipped = DATA / "heldout" / f"{domain}.jsonl"
        assert (tmp_path / "heldout" / shipped.name).read_bytes() == shipped.read_bytes()
    training = {
        line.strip() for text in texts(tmp_path / "train.jsonl") for line in text.splitlines()
    }
    for path in [*(DATA / "heldout").glob("*.jsonl"), *(DATA / "samples").glob("*.jsonl")]:
        for text in texts(path):
            for line in text.splitlines():
                assert len(line.strip()) < 20 or line.strip() not in training


def test_the_doctor_finds_nothing() -> None:
    from fairway.backends.transformers.doctor import examine
    from fairway.corpus import read

    documents = list(read("sample:all", sample=8))
    assert [f for f in examine(model().loaded, documents) if f.found] == []
