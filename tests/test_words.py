"""Surprisal by word: the boundary's probability, the correction, and where words are."""

from __future__ import annotations

import copy
import csv
import io
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as vocabularies

import fairway
from fairway import segmenters
from fairway.backends import transformers as backend
from fairway.backends.transformers import head as heads
from fairway.backends.transformers import vocabulary
from fairway.backends.transformers.head import Head
from fairway.corpus import Document
from fairway.errors import InputError, MissingExtra, ModelError
from fairway.scores import Score
from fairway.text import word_starts
from fairway.words import by_word
from models import build, tokenizer

PIECES = (
    "the", "cat", "hen,", "don't", "in", "an.", "x", "é", "🐕", "12", "(and)", " ", "  ", "\n",
    "\n\n", "\t", "\u00a0", "\u3000", "\r\n", " \n ",
)  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=14).map("".join)


def written(words: Any, token: int) -> str:
    """What a token writes, found by decoding it behind another token."""
    anchor = words("x", add_special_tokens=False)["input_ids"][-1:]
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    front, both = words.decode(anchor, **options), words.decode([*anchor, token], **options)
    assert both.startswith(front)
    return str(both[len(front) :])


def distributions(model: Any, ids: list[int]) -> np.ndarray:
    """Float64 log-softmax of the model's own logits behind each of the ids."""
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        logits = exact(torch.tensor([ids]), use_cache=False).logits[0].double()
    return np.asarray(torch.log_softmax(logits, -1))


def mass(logp: np.ndarray, tokens: list[int]) -> float:
    total = 0.0
    for token in tokens:
        total += math.exp(logp[token])
    return math.log(total) if total else -math.inf


def expected_boundary(scorer: Any, score: Score) -> np.ndarray:
    """The column by a plain loop: windows, tokens, vocabulary."""
    words, model = scorer.loaded.tokenizer, scorer.loaded.model
    spelled = [written(words, i) for i in range(len(words))]
    bow = [i for i, text in enumerate(spelled) if text[:1].isspace()]
    mid = [i for i, text in enumerate(spelled) if text and not text[:1].isspace()]
    eos = [] if words.eos_token_id is None else [words.eos_token_id]
    ids = score.ids.tolist()
    prefix = list(scorer.plan.prefix)
    out = np.full((len(ids), 2), np.nan)
    for window in scorer.plan.cut(len(ids)):
        front = prefix if window.prefix else []
        logp = distributions(model, [*front, *ids[window.begin : window.end]])
        for at in range(window.score_from, window.end):
            place = len(front) + at - window.begin
            out[at] = mass(logp[place - 1], bow + eos), mass(logp[place], bow + eos)
            if at == 0 and ids[0] not in bow:
                out[0, 0] = mass(logp[place - 1], mid + eos)
    for at, token in enumerate(ids):
        if spelled[token][-1:].isspace():
            out[at, 1] = 0.0
            out[at + 1 : at + 2, 0] = 0.0
    return out


TEXT = "The cat sat,  and (the hen)\nin the garden.\n\n\tAn inn\u00a0is 🐕 12 ants. "


@pytest.fixture(scope="module")
def twin() -> Any:
    """A float64 model, so that only the method can differ."""
    return backend.load(build("llama").double(), tokenizer=tokenizer())


@pytest.mark.parametrize("length", [64, 17])
def test_the_column_equals_a_plain_loop_in_float64(length: int) -> None:
    model = build("llama").double()
    scorer = backend.load(model, tokenizer=tokenizer(), max_length=length)
    score = next(iter(scorer.score([Document("x", TEXT)], ["boundary", "rank"])))
    assert (len(score) > length - 1) == (length == 17)
    wanted = expected_boundary(scorer, score)
    assert np.isfinite(score.extras["boundary"]).all()
    assert np.abs(score.extras["boundary"] - wanted).max() < 1e-9


@pytest.mark.parametrize("text", [TEXT, " a blank in front", "x"])
@pytest.mark.parametrize("name", ["hf:builtin", "small", "stories"])
def test_the_column_of_float32_models(request: Any, name: str, text: str) -> None:
    spec = name if ":" in name else request.getfixturevalue(name)
    scorer: Any = fairway.load(spec)
    score = next(iter(scorer.score([Document("x", text)], ["boundary"])))
    wanted = expected_boundary(scorer, score)
    assert np.abs(score.extras["boundary"] - wanted).max() < 1e-5


@pytest.mark.parametrize("length", [64, 17])
def test_the_models_own_logits_give_the_same(length: int) -> None:
    model = build("gemma2")
    scorer = backend.load(model, tokenizer=tokenizer(), max_length=length)
    document = Document("x", TEXT)
    fast = next(iter(scorer.score([document], ["boundary"])))
    scorer.path = forward_path(scorer)
    own = next(iter(scorer.score([document], ["boundary"])))
    assert np.abs(fast.extras["boundary"] - own.extras["boundary"]).max() < 2e-5
    assert np.array_equal(fast.extras["begins"], own.extras["begins"])


def forward_path(scorer: Any) -> Any:
    from dataclasses import replace

    assert scorer.path.head is not None and scorer.path.sets is not None
    return replace(scorer.path, head=None, packed=False)


def test_logprobs_and_other_columns_stay_as_they_are(small: str) -> None:
    scorer = fairway.load(small, max_length=20)
    documents = [Document(str(i), text, "the cat " * (i % 2)) for i, text in enumerate(PIECES[:11])]
    bare = list(scorer.score(documents, ["rank"]))
    full = list(scorer.score(documents, ["rank", "boundary"]))
    for one, other in zip(bare, full, strict=True):
        assert np.abs(one.logprobs - other.logprobs).max() < 2e-5
        assert "boundary" not in one.extras and other.extras["boundary"].shape == (len(one), 2)
        assert np.array_equal(one.extras["rank"], other.extras["rank"])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 30), size=st.integers(3, 500), tile=st.sampled_from([1 << 10, 1 << 22]),
    spread=st.sampled_from([1.0, 60.0]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_sets_in_tiles(rows: int, size: int, tile: int, spread: float, seed: int) -> None:
    """Also where a set is less likely than float32 can hold."""
    torch.manual_seed(seed)
    module = torch.nn.Linear(16, size, bias=False).requires_grad_(False)
    hidden, targets = torch.randn(rows, 16) * spread, torch.randint(0, size, (rows,))
    sets = torch.rand(2, size) < 0.2
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setitem(heads.TILE_BYTES, "cpu", tile)
        head = Head(module, 1.0, 0.0, size)
        found = heads.score_rows(head, hidden, targets, ["boundary"], sets)["boundary"]
        logp = torch.log_softmax(hidden.double() @ module.weight.double().T, -1)
        wanted = torch.stack([logp[:, one].logsumexp(1) for one in sets], 1)
    assert found.shape == (rows, 2)
    held = wanted > -math.inf
    assert torch.equal(found > -math.inf, held)
    assert all(abs(gap) < 2e-5 * spread for gap in (found - wanted)[held].tolist())


# What the correction does


@pytest.fixture(scope="module")
def scorers(small: str) -> dict[str, Any]:
    return {"small": fairway.load(small, max_length=64), "builtin": fairway.load()}


@settings(max_examples=60, deadline=None)
@given(text=texts, name=st.sampled_from(["small", "builtin", "stories"]))
def test_corrections_cancel_but_for_the_ends(
    scorers: dict[str, Any], assets: Path, name: str, text: str
) -> None:
    if name not in scorers:
        scorers[name] = fairway.load(str(assets / "models" / "stories260K" / "hf"))
    scorer = scorers[name]
    score = next(iter(scorer.score([Document("x", text)], ["boundary"])))
    words = by_word(score)
    edges = score.extras["boundary"]
    total = math.fsum(words.surprisal.tolist()) + words.rest
    if len(scorer.plan.cut(len(score))) == 1:
        wanted = -math.fsum(score.logprobs.tolist()) + edges[0, 0] - edges[-1, 1]
        assert total == pytest.approx(wanted, abs=1e-9)
    assert words.tokens.sum() + words.rest_tokens == len(score)
    assert words.words.sum() == len(text.split())
    assert " ".join(words.texts).split() == text.split()
    plain = by_word(score, corrected=False)
    nll = math.fsum(plain.surprisal.tolist()) + plain.rest
    assert nll == pytest.approx(score.totals.nll, abs=1e-9)
    # Words whose blank is a piece of a character at a time are parted without the correction only.
    assert len(plain) >= len(words)
    if "\u00a0" not in text and "\u3000" not in text:
        assert len(words) == len(text.split()) and (words.words == 1).all()


def test_across_windows_each_word_is_seen_in_its_own() -> None:
    scorer = backend.load(build("llama").double(), tokenizer=tokenizer(), max_length=11)
    text = "the cat and the hen in the garden of an inn at ten to ten"
    score = next(iter(scorer.score([Document("x", text)], ["boundary", "window"])))
    edges, window = score.extras["boundary"], score.extras["window"]
    assert window[-1] >= 3
    words = by_word(score)
    at = np.cumsum([0, *words.tokens])
    jumps = [
        edges[i, 0] - edges[i - 1, 1] for i in at[1:-1] if window[i] != window[i - 1]
    ]  # fmt: skip
    assert jumps and max(map(abs, jumps)) > 1e-6
    total = score.totals.nll + edges[0, 0] - edges[-1, 1] + math.fsum(jumps)
    assert math.fsum(words.surprisal.tolist()) == pytest.approx(total, abs=1e-9)


def literal(scorer: Any, text: str) -> list[float]:
    """Pimentel and Meister's equations, word by word, for words between single blanks.

    -ln p(word) = -sum ln p(token) + ln sum_(bow, eos) p(. | before)
                  - ln sum_(bow, eos) p(. | after);
    the first word has sum_(mid, punctuation, eos) before it ("bos_fix").
    """
    words = scorer.loaded.tokenizer
    spelled = words.convert_ids_to_tokens(range(len(words)))
    bow = [i for i, token in enumerate(spelled) if token[0] in "ĠĊĉč\x0b\x0c"]
    bow += [i for i, token in enumerate(spelled) if token in ("ċ", "Č", "Ĝ", "ĝ", "Ğ", "ğ")]
    mid = [i for i in range(len(words)) if i not in bow and i not in words.all_special_ids]
    eos = words.eos_token_id
    out = []
    ids = list(scorer.plan.prefix)
    for number, word in enumerate(text.split(" ")):
        piece = (" " if number else "") + word
        own = words(piece, add_special_tokens=False)["input_ids"]
        logp = distributions(scorer.loaded.model, [*ids, *own])
        value = -sum(logp[len(ids) + i - 1, token] for i, token in enumerate(own))
        value += mass(logp[len(ids) - 1], [*(bow if number else mid), eos])
        ids += own
        out.append(value - mass(logp[len(ids) - 1], [*bow, eos]))
    return out


def test_the_papers_formula_written_out(twin: Any) -> None:
    text = "The cat, and the hen: in an inn!"
    score = next(iter(twin.score([Document("x", text)], ["boundary"])))
    words = by_word(score)
    assert words.texts == text.split(" ")
    assert words.surprisal.tolist() == pytest.approx(literal(twin, text), abs=1e-8)
    assert (np.abs(words.surprisal - words.plain) > 1e-3).all()


LETTERS = 6
"""Of the longest words that are tried."""


@pytest.fixture(scope="module")
def toy() -> Any:
    """A model of words of three letters, a or b, in which each string is one row of tokens only."""
    pieces = ["<s>", "</s>", "a", "b", "Ġ", "Ġa", "Ġb"]
    core = Tokenizer(
        vocabularies.BPE({p: i for i, p in enumerate(pieces)}, [("Ġ", "a"), ("Ġ", "b")])
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>"
    )
    torch.manual_seed(3)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=7, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=64, bos_token_id=0, eos_token_id=1,
            pad_token_id=None,
        )
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        batch = torch.randint(2, 4, (16, 4, 3))
        batch[:, 1:, 0] += 3
        ids = torch.cat((torch.zeros(16, 1, dtype=torch.long), batch.reshape(16, 12)), 1)
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    return backend.load(model.eval().double(), tokenizer=words)


@pytest.mark.parametrize("context", ["aba", "bab aba", "ab"])
def test_probabilities_of_all_next_words(toy: Any, context: str) -> None:
    """Oh and Schuler's claim: plain ones can sum to more than 1; corrected ones never do."""
    every = ["".join(w) for n in range(1, LETTERS + 1) for w in itertools.product("ab", repeat=n)]
    documents = [Document(word, f" {word}", context) for word in every]
    rows = [by_word(score) for score in toy.score(documents, ["boundary"])]
    assert all(row.texts == [word] for row, word in zip(rows, every, strict=True))
    corrected = sum(math.exp(-row.surprisal[0]) for row in rows)
    plain = sum(math.exp(-row.plain[0]) for row in rows)
    assert 0.5 < corrected <= 1 + 1e-9
    if context != "ab":
        assert plain > 2.5, "every beginning of a word counts as a word"
    # What is missing: a further blank, the end of the text, longer words, and <s> in a word.
    front = [0, *toy.loaded.tokenizer(context)["input_ids"]]
    first = np.exp(distributions(toy.loaded.model, front)[-1])
    lost = 0.0
    for word in every:
        own = toy.loaded.tokenizer(" " + word)["input_ids"]
        logp = distributions(toy.loaded.model, [*front, *own])
        path = sum(logp[len(front) - 1 + i, token] for i, token in enumerate(own))
        more = [0, 2, 3] if len(word) == LETTERS else [0]
        lost += math.exp(path) * sum(math.exp(logp[-1, token]) for token in more)
    start, other = first[5] + first[6], first[1] + first[4]
    assert corrected == pytest.approx((start - lost) / (start + other), rel=1e-6)


# Tokenizers


def built(pieces: list[str], merges: list[tuple[str, str]], regex: bool = False) -> Any:
    """A byte-level tokenizer that may merge over blanks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = {"<s>": 0, "</s>": 1, **{c: i + 2 for i, c in enumerate(alphabet)}}
    for piece in pieces:
        names[piece] = len(names)
    core = Tokenizer(vocabularies.BPE(names, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    core.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>"
    )


def test_a_token_over_two_words_joins_them() -> None:
    words = built(["aĠ", "aĠb"], [("a", "Ġ"), ("aĠ", "b")])
    scorer = backend.load(build("llama").double(), tokenizer=words)
    score = next(iter(scorer.score([Document("x", "x a b y")], ["boundary"])))
    assert words.convert_ids_to_tokens(score.ids.tolist()) == ["x", "Ġ", "aĠb", "Ġ", "y"]
    for corrected in (True, False):
        found = by_word(score, corrected)
        assert found.texts == ["x", "a b", "y"] and found.words.tolist() == [1, 2, 1]
        assert found.tokens.tolist() == [1, 2, 2] and found.rest_tokens == 0
    assert found.to_frame()["words"].tolist() == [1, 2, 1]


def test_a_token_that_ends_with_a_blank_ends_its_word_for_certain() -> None:
    """As in vocabularies with tokens such as ".\\n\\n": nothing is to be moved at that edge."""
    words = built([".Ċ"], [(".", "Ċ")])
    scorer = backend.load(build("llama").double(), tokenizer=words)
    score = next(iter(scorer.score([Document("x", "a cat.\nHe sat.\n")], ["boundary"])))
    spelled = words.convert_ids_to_tokens(score.ids.tolist())
    at = spelled.index(".Ċ")
    assert spelled[at + 1] == "H"
    edges = score.extras["boundary"]
    assert edges[at, 1] == 0 and edges[at + 1, 0] == 0 and edges[at - 1, 1] < 0
    found = by_word(score)
    assert found.texts == ["a", "cat.", "He", "sat."] and found.rest_tokens == 0
    left = edges[spelled.index("Ġ"), 0]
    assert found.surprisal[1] == pytest.approx(found.plain[1] + left, abs=1e-12)
    assert edges[-1, 1] == 0


def ending() -> Any:
    """A tokenizer that marks where a word ends."""
    letters = "abcdehintx.,"
    pieces = ["<s>", "<eos>", *letters, *(f"{c}</w>" for c in letters), "th", "the</w>"]
    core = Tokenizer(
        vocabularies.BPE(
            {p: i for i, p in enumerate(pieces)}, [("t", "h"), ("th", "e</w>")],
            end_of_word_suffix="</w>",
        )
    )  # fmt: skip
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.decoder = decoders.BPEDecoder(suffix="</w>")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="<eos>"
    )


def test_nothing_is_corrected_where_the_end_of_words_is_marked(tmp_path: Path) -> None:
    model, words = build("llama"), ending()
    score: Any = next(
        iter(backend.load(model, tokenizer=words).score([Document("x", "the cat, the hen")],
        ["boundary"]))
    )  # fmt: skip
    found = by_word(score)
    assert found.texts == ["the", "cat,", "the", "hen"] and found.corrected
    assert np.array_equal(found.surprisal, found.plain)
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    out = command("--by", "word", "the cat, the hen", "--model", str(tmp_path))
    assert out.returncode == 0 and "marks where words end" in out.stdout


def test_a_vocabulary_without_blanks_is_refused() -> None:
    pieces = ["[UNK]", "[CLS]", "[SEP]", *"acht", *(f"##{c}" for c in "acht")]
    core = Tokenizer(
        vocabularies.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
    )
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="[CLS]", eos_token="[SEP]", unk_token="[UNK]"
    )
    model = build("llama")
    with pytest.raises(ModelError, match="neither"):
        fairway.word_surprisals("a cat", model, tokenizer=words)
    found: Any = fairway.word_surprisals("a cat", model, tokenizer=words, corrected=False)
    assert found.texts == ["a", "cat"]


def test_what_tokens_spell(stories: str) -> None:
    words = transformers.AutoTokenizer.from_pretrained(stories)
    ids = words("\n 猫 the", add_special_tokens=False)["input_ids"]
    assert b"".join(vocabulary.spell(words, ids)) == " \n 猫 the".encode()
    sorted_ = vocabulary.read(words)
    for token in range(len(words)):
        assert sorted_.begins[token] == written(words, token)[:1].isspace(), token
        assert sorted_.ends[token] == written(words, token)[-1:].isspace(), token
    words = tokenizer()
    words.add_tokens(["  ", "né"])
    assert vocabulary.spell(words, words.convert_tokens_to_ids(["  ", "né"])) == [
        b"  ",
        b"n\xc3\xa9",
    ]
    assert vocabulary.read(words).begins[words.convert_tokens_to_ids("  ")]


def test_a_model_of_bytes_without_an_end(assets: Path) -> None:
    folder = assets / "models" / "tiny_rwkv" / "hf_4v0_660K"
    scorer: Any = fairway.load(str(folder), max_length=64)
    score = next(iter(scorer.score([Document("x", "a cat  sat,\nthen it ran")], ["boundary"])))
    found = by_word(score)
    assert found.texts == ["a", "cat", "sat,", "then", "it", "ran"]
    assert np.isnan(found.surprisal).tolist() == [True] + 5 * [False], "no prefix, no first byte"
    edges = score.extras["boundary"]
    wanted = -math.fsum(score.logprobs[1:].tolist()) + edges[1, 0] - edges[-1, 1]
    assert math.fsum(found.surprisal[1:].tolist()) == pytest.approx(wanted, abs=1e-9)


# What is not scored, and what stands before


def test_a_word_of_which_a_token_is_missing_is_not_scored(small: str) -> None:
    found: Any = fairway.word_surprisals("xyz the cat", small, prefix="none")
    assert np.isnan(found.surprisal).tolist() == [True, False, False]
    document = Document("x", "the cat and the hen", scored=((8, 11),))
    score = next(iter(fairway.load(small).score([document], ["boundary"])))
    found = by_word(score)
    assert np.isnan(found.surprisal).tolist() == [True, True, False, True, True]
    assert json.loads(json.dumps(found.to_json()))["words"][0]["bits"] is None


def test_the_place_behind_a_full_window_is_not_read(small: str) -> None:
    """lm-eval's windows fill all positions: the word at their end stays without a number."""
    text = "the cat and the hen in an inn " * 6
    scorer: Any = fairway.load(small, like="lm-eval")
    score = next(iter(scorer.score([Document("x", text.strip())], ["boundary"])))
    missing = np.isnan(score.extras["boundary"][:, 1])
    ends = [window.end - 1 for window in scorer.plan.cut(len(score))]
    assert set(np.flatnonzero(missing)) <= set(ends) and missing.any()
    assert not np.isnan(score.logprobs).any()
    found = by_word(score)
    assert 0 < np.isnan(found.surprisal).sum() <= missing.sum()


def test_behind_a_context(twin: Any) -> None:
    whole = "the cat sat in the garden"
    score = next(iter(twin.score([Document("x", whole)], ["boundary"])))
    every = by_word(score)
    for cut, first in ((3, 1), (7, 2)):
        part = next(
            iter(twin.score([Document("x", whole[cut:], whole[:cut])], ["boundary"]))
        )  # fmt: skip
        found = by_word(part)
        assert found.texts == every.texts[first:]
        assert found.surprisal.tolist() == pytest.approx(every.surprisal[first:].tolist(), abs=1e-9)
    # A word that the context has begun already has no left edge.
    part = next(iter(twin.score([Document("x", whole[6:], whole[:6])], ["boundary"])))
    found = by_word(part)
    assert found.texts[0] == "t" and not part.extras["begins"][0]
    after = part.extras["boundary"][0, 1]
    assert found.surprisal[0] == pytest.approx(-part.logprobs[0] - after, abs=1e-12)


def test_blanks_in_pieces_join_words_under_the_correction_only(small: str) -> None:
    for text in ("an\u00a0inn and", "an\u3000inn and"):
        found: Any = fairway.word_surprisals(text, small)
        assert found.words.tolist() == [2, 1]
        found = fairway.word_surprisals(text, small, corrected=False)
        assert found.words.tolist() == [1, 1, 1]


def test_nothing_but_blanks(small: str) -> None:
    found: Any = fairway.word_surprisals(" \n", small)
    assert len(found) == 0 and found.rest_tokens == 2 and found.rest > 0
    assert found.to_json()["words"] == [] and len(found.to_frame()) == 0


# Where words are


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab,.é \n\t\u00a0\u2003\x1c\x85\u200b\u3000🐕"), max_size=40))
def test_spans_are_the_words_that_are_counted(text: str) -> None:
    found = segmenters.spans(text)
    assert found[:, 0].tolist() == word_starts(text).tolist()
    assert [text[a:b] for a, b in found] == text.split()


SPACELESS = {
    "Han": "我喜欢吃苹果。", "Kana": "これはペンです。", "Thai": "ฉันชอบกินข้าว", "Lao": "ສະບາຍດີ",
    "Khmer": "សួស្តី", "Myanmar": "မင်္ဂလာပါ", "Tibetan": "བཀྲ་ཤིས།",
}  # fmt: skip


@pytest.mark.parametrize("script", sorted(SPACELESS))
def test_scripts_without_spaces_take_a_segmenter(small: str, script: str) -> None:
    text = SPACELESS[script]
    with pytest.raises(InputError, match=script):
        fairway.word_surprisals(text, small)
    found: Any = fairway.word_surprisals(text, small, segment="character")
    assert found.texts == list(text) and not found.corrected
    score: Any = fairway.score(text, small)
    assert found.surprisal.sum() == pytest.approx(score.totals.nll, rel=1e-12)
    assert segmenters.spaceless(f"the word {text[:3]} is foreign here") is None


@pytest.mark.parametrize("text", ["안녕하세요 여러분", "Привет, мир", "नमस्ते दुनिया", "123 !?", ""])
def test_other_scripts_have_spaces(text: str) -> None:
    assert segmenters.spaceless(text) is None


def test_segments_as_spans_and_pieces(small: str) -> None:
    text = "don't stop 🐕, ok"
    pieces = ["do", "n't", " ", "stop", " 🐕", ",", "ok"]
    found: Any = fairway.word_surprisals(text, small, segment=lambda _: pieces)
    assert found.texts == ["do", "n't", "stop", "🐕", ",", "ok"]
    same: Any = fairway.word_surprisals(text, small, segment=lambda _: map(tuple, found.spans))
    assert same.surprisal.tolist() == found.surprisal.tolist()
    joined: Any = fairway.word_surprisals("the cat", small, segment=lambda _: ["t", "he", "cat"])
    assert joined.texts == ["the", "cat"] and joined.words.tolist() == [2, 1]
    with pytest.raises(InputError, match="does not follow"):
        fairway.word_surprisals(text, small, segment=lambda _: ["stop", "do"])
    with pytest.raises(InputError, match="in order"):
        fairway.word_surprisals(text, small, segment=lambda _: [(3, 5), (1, 2)])
    with pytest.raises(InputError, match="neither"):
        fairway.word_surprisals(text, small, segment=lambda _: [3])  # type: ignore


def test_named_segmenters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert segmenters.named("textwrap:wrap")("a b") == ["a b"]
    for name in ("jieba", "nowhere:cut", "os:nothing", "os:name", ":x"):
        with pytest.raises(InputError, match="segmenter"):
            segmenters.named(name)
    monkeypatch.setitem(sys.modules, "icu4py", None)
    monkeypatch.setitem(sys.modules, "icu4py.breakers", None)
    with pytest.raises(MissingExtra, match=r"fairway\[words\]"):
        segmenters.named("icu")


def test_icu() -> None:
    pytest.importorskip("icu4py", reason="ICU is in the extra [words]")
    segment = segmenters.named("icu")
    for text, wanted in (
        ("世界🐕银行 𠮷", ["世界", "🐕", "银行", "𠮷"]),
        ("ฉันชอบกินข้าว", ["ฉัน", "ชอบ", "กิน", "ข้าว"]),
    ):
        assert [text[a:b] for a, b in segmenters.spans(text, segment)] == wanted


# Calls


def test_a_score_without_the_column_says_what_is_missing(small: str) -> None:
    score: Any = fairway.score("the cat", small)
    with pytest.raises(InputError, match="want="):
        by_word(score)
    assert by_word(score, corrected=False).texts == ["the", "cat"]
    ids = np.array([3, 4])
    bare = Score("x", "", np.zeros((2, 2), np.int64), np.zeros(2), ids, token_bytes=np.ones(2, int))
    with pytest.raises(InputError, match="no source text"):
        by_word(bare, corrected=False)
    many: Any = fairway.word_surprisals(["the cat", "an inn"], small)
    assert [one.texts for one in many] == [["the", "cat"], ["an", "inn"]]
    assert list(many[0].to_frame().columns) == [
        "text", "start", "end", "surprisal", "plain", "tokens", "words",
    ]  # fmt: skip


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fairway", "score", *words],
        capture_output=True, text=True, encoding="utf-8", env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip


def test_the_command(small: str) -> None:
    text = "=the cat, \x1b[31mand"
    shown = command("--by", "word", text, "--model", small)
    assert shown.returncode == 0 and "uncorrected" in shown.stdout and "\x1b" not in shown.stdout
    data = json.loads(command("--by", "word", text, "--model", small, "--json").stdout)
    rows = data["texts"][0]["words"]
    assert [row["text"] for row in rows] == text.split() and data["texts"][0]["corrected"]
    assert "model:" in data["signature"]
    found: Any = fairway.word_surprisals(text, small)
    assert [row["bits"] for row in rows] == pytest.approx(found.bits.tolist(), abs=1e-4)
    table = command("--by", "word", text, "--model", small, "--csv", "--uncorrected").stdout
    lines = list(csv.DictReader(io.StringIO(table)))
    assert lines[0]["word"] == "'=the"
    assert [float(row["bits"]) for row in lines] == pytest.approx(
        (found.plain / math.log(2)).tolist(), abs=1e-4
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--by", "letter", "a"], "takes word"),
        (["--by", "word", "我喜欢吃苹果"], "segmenter"),
        (["--by", "word", "a", "--segmenter", "nothing"], "MODULE:FUNCTION"),
        (["--by", "word", "a", "--segmenter", "character", "--uncorrected"], "leave"),
        (["--by", "word", "a", "--segmenter", "os:listdir"], "fails on a text"),
        (["--uncorrected", "a"], "go with --by word"),
        (["--csv", "a"], "go with --by word"),
        (["--by", "word", "a", "--tokens"], "not both"),
        (["--by", "word", "a", "--json", "--csv"], "not both"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], reason: str) -> None:
    out = command(*words)
    assert out.returncode == 2 and reason in out.stderr and "Traceback" not in out.stderr
