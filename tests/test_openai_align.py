"""Tokens of an answer on the text: in every spelling that servers use, or refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from fairway.backends.openai.align import Lossy, spans
from fairway.backends.openai.answer import Entry
from fairway.backends.transformers import encode, tokenizing
from fairway.text import close_gaps

Spelling = Callable[[Any, int], Entry]
WORDS = st.sampled_from(
    ["the", " and", "hen", "Straße", "猫", "日本語", "é", "e\u0301", "🙂", "👩\u200d👧", "\n\n",
     "  ", "<s>", "<0xE2>", "▁", "Ġ", "\ufffd", "\\x41", "Кошка", "\t", "a", ".", "bytes:",
     "\u00a0", "Ã©"]
)  # fmt: skip
TEXT = st.lists(st.one_of(WORDS, st.text(max_size=3)), min_size=1, max_size=12).map("".join)
TEXTS = TEXT.filter(lambda text: bool(text) and not any("\ud800" <= c <= "\udfff" for c in text))


def raw(vocabulary: Any, token: int) -> bytes:
    return bytes(vocabulary.pieces[token])


def decoded(vocabulary: Any, token: int) -> Entry:
    """As vLLM and SGLang: each token decoded by itself."""
    return Entry(raw(vocabulary, token).decode("utf-8", "replace"))


def dropped(vocabulary: Any, token: int) -> Entry:
    """As llama-cpp-python: without bytes that are no whole character."""
    return Entry(raw(vocabulary, token).decode("utf-8", "ignore"))


def piece(vocabulary: Any, token: int) -> Entry:
    """As the vocabulary writes it: Ġthe, ▁the, <0xE2>."""
    return Entry(vocabulary.tokenizer.convert_ids_to_tokens(token))


def told(vocabulary: Any, token: int) -> Entry:
    """As OpenAI's chat: the bytes beside a spelling that loses them."""
    held = raw(vocabulary, token)
    return Entry(held.decode("utf-8", "replace"), held)


def escaped(vocabulary: Any, token: int) -> Entry:
    """As OpenAI's completions: text, or ``bytes:`` where it is none."""
    held = raw(vocabulary, token)
    try:
        return Entry(held.decode())
    except UnicodeDecodeError:
        return Entry("bytes:" + "".join(f"\\x{one:02x}" for one in held), held)


SPELLINGS: dict[str, tuple[Spelling, bool]] = {
    "decoded": (decoded, False), "dropped": (dropped, False), "pieces": (piece, True),
    "bytes": (told, True), "escaped": (escaped, True),
}  # fmt: skip
"""Ways to spell, and whether nothing is lost by them."""


@cache
def vocabularies() -> dict[str, Any]:
    """A small one made here, and those that are among the assets."""
    found = {"small": tokenizing.describe(models.tokenizer(), "small")}
    assets = Path(os.environ.get("FAIRWAY_ASSETS", "/nowhere"))
    for name, place in (
        ("gpt2", "tokenizers/gpt2"),
        ("neox", "tokenizers/gpt_neox_20b/tokenizer.json"),
        ("stories", "models/stories260K/hf"),
    ):
        if (assets / place).exists():
            found[name] = tokenizing.load(str(assets / place))
    return found


@pytest.mark.parametrize("spelling", list(SPELLINGS))
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_spans_are_the_tokenizers_own(spelling: str, text: str) -> None:
    """Byte-level BPE and SentencePiece with byte fallback; never a span that is not theirs."""
    spell, whole = SPELLINGS[spelling]
    for name, vocabulary in vocabularies().items():
        (own,) = encode.encode_many(vocabulary.tokenizer, [text])
        if own.lossy:
            continue
        entries = [spell(vocabulary, token) for token in own.ids.tolist()]
        try:
            found = spans(entries, text)
        except Lossy:
            assert not whole or "\ufffd" in text, (name, entries)
            assert any("\ufffd" in (e.token or "") or not e.token for e in entries), (name, entries)
            continue
        expected = close_gaps(own.offsets, len(text))
        assert np.array_equal(close_gaps(found, len(text)), expected), (name, entries)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, data=st.data())
def test_another_text_is_refused(text: str, data: st.DataObject) -> None:
    """A token lost, doubled, or of another text: never laid over this one."""
    vocabulary = vocabularies()["small"]
    (own,) = encode.encode_many(vocabulary.tokenizer, [text])
    entries = [told(vocabulary, token) for token in own.ids.tolist()]
    place = data.draw(st.integers(0, len(entries) - 1))
    for changed in (
        entries[:place] + entries[place + 1 :],
        entries[: place + 1] + entries[place:],
        [*entries[:place], Entry("\x00\x01\x02")],
    ):
        spelled = b"".join(entry.raw or b"\x00\x01\x02" for entry in changed)
        if spelled in (text.encode(), b" " + text.encode()):
            continue
        with pytest.raises(Lossy):
            spans(changed, text)


@pytest.mark.parametrize(
    ("tokens", "text", "said"),
    [
        (["a", " dog"], "a cat", r"token 2 \(' dog'\) is not what the prompt has at character 1"),
        (["a", " c"], "a cat", "tokens end at character 3 of 5, before 'at': the server cut"),
        (["a", " ", "", ""], "a 猫", r"token 2 \(' '\) at character 1 can lie in 2 ways"),
        (["A", "fi"], "A\ufb01", "at character 1"),
    ],
)
def test_the_place_is_told(tokens: list[str], text: str, said: str) -> None:
    with pytest.raises(Lossy, match=said):
        spans([Entry(token) for token in tokens], text)


def test_blanks() -> None:
    """The blank that SentencePiece puts first, and those that decoding one by one loses."""
    assert spans([Entry("▁a"), Entry("▁cat")], "a cat").tolist() == [[0, 1], [1, 5]]
    assert spans([Entry("▁"), Entry("a")], "a").tolist() == [[0, 1], [0, 1]]
    assert spans([Entry(" a")], " a").tolist() == [[0, 2]]
    assert spans([Entry("a"), Entry("cat"), Entry("s")], "a cats").tolist() == [
        [0, 1], [1, 5], [5, 6]
    ]  # fmt: skip
