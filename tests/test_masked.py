"""Masked models against a plain loop, their windows and words, and what is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fairway
from fairway import scorer as scorers
from fairway.backends import masked as backend
from fairway.backends.masked import forward
from fairway.backends.masked.rows import blank_words, lay
from fairway.errors import InputError, ModelError, ProtocolError
from fairway.scores import PSEUDO
from models import COMMON, MASKED, build, bytelevel, masked, pieces, tokenizer, wordpiece

TEXTS = [
    "the cat and the hen in the garden",
    "x",
    "a much longer text, in which the line goes on",
    "émigré 🐕 ไทย",
    "  and\n\nthe end ",
    "<s> [MASK] <mask></s> [SEP]",
]


def words_of(name: str) -> Any:
    return bytelevel() if name in ("roberta", "modernbert") else wordpiece()


def documents(texts: list[str] | None = None) -> list[fairway.Document]:
    return [fairway.Document(str(i), text) for i, text in enumerate(texts or TEXTS)]


def reference(model: Any, words: Any, text: str, pll: str, room: int = 0) -> list[float]:
    """One float64 forward for each token, with masks set one by one."""
    whole = words(text, split_special_tokens=True)
    ids, numbers = whole["input_ids"], whole.word_ids(0)
    first = next((i for i, n in enumerate(numbers) if n is not None), 0)
    front, back = ids[:first], [i for i, n in zip(ids, numbers, strict=True) if n is None][first:]
    bare, numbers = ids[first : len(ids) - len(back)], numbers[first : len(ids) - len(back)]
    double = copy.deepcopy(model).double()
    out = []
    for at, target in enumerate(bare):
        begin, end = 0, len(bare)
        if room and len(bare) > room:
            begin = min(max(0, at - room // 2), len(bare) - room)
            end = begin + room
        inputs = list(front)
        for j in range(begin, end):
            hidden = j == at or (pll != "original" and j > at and numbers[j] == numbers[at])
            inputs.append(words.mask_token_id if hidden else bare[j])
        with torch.no_grad():
            logits = double(torch.tensor([inputs + back])).logits[0, len(front) + at - begin]
        out.append(float(torch.log_softmax(logits, -1)[target]))
    return out


@pytest.mark.parametrize("pll", backend.PLLS)
@pytest.mark.parametrize("name", sorted(MASKED))
def test_equals_the_plain_loop(name: str, pll: str) -> None:
    model, words = masked(name), words_of(name)
    scorer = backend.load(model, tokenizer=words, pll=pll, batch_tokens=200)
    assert scorer.path.head is not None and scorer.notes == []
    together = list(scorer.score(documents()))
    for document, score in zip(documents(), together, strict=True):
        expected = reference(model, words, document.text, pll)
        assert len(score) == len(expected) > 0
        assert np.abs(score.logprobs - expected).max() < 2e-5
        assert score.totals.bytes == len(document.text.encode())
        assert score.perplexity == PSEUDO and PSEUDO in score.metrics
        alone = next(iter(scorer.score([document])))
        assert np.abs(alone.logprobs - score.logprobs).max() < 2e-5
    shuffled = list(scorer.score(documents()[::-1]))[::-1]
    for a, b in zip(together, shuffled, strict=True):
        assert a.id == b.id and np.abs(a.logprobs - b.logprobs).max() < 2e-5


def test_the_two_differ_where_a_word_has_pieces_and_only_there() -> None:
    model, words = masked("bert"), wordpiece()
    both = [backend.load(model, tokenizer=words, pll=pll) for pll in backend.PLLS]
    ours, theirs = (next(iter(one.score(documents(["the hens and"])))) for one in both)
    # the | h e n -> hen ##s | and: the first piece of the word alone is masked otherwise.
    gap = np.abs(ours.logprobs - theirs.logprobs)
    pieces = words.convert_ids_to_tokens(ours.ids.tolist())
    assert pieces == ["the", "hen", "##s", "and"]
    assert gap[1] > 1e-3 and gap[[0, 2, 3]].max() < 2e-5


@pytest.mark.parametrize("pll", backend.PLLS)
@pytest.mark.parametrize("name", ["bert", "roberta"])
@pytest.mark.parametrize("length", [7, 16])
def test_long_texts_have_a_window_around_each_token(name: str, pll: str, length: int) -> None:
    model, words = masked(name), words_of(name)
    text = "the cat and the hen went in the garden and then an animal came again, and line"
    scorer = backend.load(model, tokenizer=words, pll=pll, max_length=length, batch_tokens=64)
    score = next(iter(scorer.score(documents([text]))))
    expected = reference(model, words, text, pll, length - 2)
    assert len(expected) > length and not np.isnan(score.logprobs).any()
    assert np.abs(score.logprobs - expected).max() < 2e-5
    assert (scorer.signature["length"], scorer.signature["stride"]) == (str(length), "1")


@pytest.mark.parametrize("name", ["bert", "roberta", "deberta"])
def test_as_long_as_the_models_positions(name: str) -> None:
    """RoBERTa's positions begin behind its padding's: of 64 only 62 can be had."""
    model, words = masked(name), words_of(name)
    most = 62 if name == "roberta" else 64
    scorer = backend.load(model, tokenizer=words)
    assert scorer.plan.length == most
    score = next(iter(scorer.score(documents(["a cat in " * 40]))))
    assert len(score) > 100 and np.isfinite(score.logprobs).all()
    with pytest.raises(ProtocolError, match=f"at most {most} positions"):
        backend.load(model, tokenizer=words, max_length=most + 1)
    with pytest.raises(ProtocolError, match="use at least 3"):
        backend.load(model, tokenizer=words, max_length=2)


@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_rows_cover_each_token_once(tokens: int, room: int, data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.integers(0, 1), min_size=tokens, max_size=tokens))
    words = np.cumsum(steps)
    rows = lay(np.arange(tokens), words, tokens, room)
    for at, begin, end, stop in zip(*(one.tolist() for one in rows), strict=True):
        assert 0 <= begin <= at < stop <= end <= tokens and end - begin == min(room, tokens)
        before, after = at - begin, end - 1 - at
        if begin > 0 and end < tokens:
            assert before - after in (0, 1)
        for j in range(begin, end):
            assert (at <= j < stop) == (j >= at and words[j] == words[at])


def test_words_between_white_space() -> None:
    text = " the gar-den\n\n it"
    spans = [(0, 4), (4, 8), (8, 9), (9, 12), (12, 14), (14, 15), (15, 17)]
    numbers = blank_words(text, np.array(spans))
    # the | gar - den | the blanks belong to what follows
    assert numbers.tolist() == [1, 2, 2, 2, 3, 3, 3]
    scorer = backend.load(masked("bert"), tokenizer=wordpiece(), words="whitespace")
    assert scorer.signature["words"] == "whitespace"
    whole = next(iter(scorer.score(documents(["the cat."]))))
    other = backend.load(masked("bert"), tokenizer=wordpiece())
    apart = next(iter(other.score(documents(["the cat."]))))
    gap = np.abs(whole.logprobs - apart.logprobs)
    assert gap[1] > 1e-3 and gap[[0, 2]].max() < 2e-5


@pytest.fixture(scope="module")
def roberta() -> Any:
    return backend.load(masked("roberta"), tokenizer=bytelevel(), batch_tokens=4096)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(min_size=1, max_size=12).filter(lambda text: "\ud800" not in text))
def test_any_text(roberta: Any, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        with pytest.raises(InputError, match="surrogate"):
            list(roberta.score(documents([text])))
        return
    score = next(iter(roberta.score(documents([text]), ("entropy", "rank"))))
    assert np.isfinite(score.logprobs).all() and (score.logprobs <= 0).all()
    assert score.totals.bytes == len(text.encode()) and score.totals.chars == len(text)
    assert (score.offsets[:, 0] <= score.offsets[:, 1]).all() and score.lossy is False
    assert (score.extras["entropy"] >= 0).all() and (score.extras["rank"] >= 0).all()


def test_columns_equal_those_of_whole_distributions() -> None:
    model, words = masked("bert"), wordpiece()
    scorer = backend.load(model, tokenizer=words, pll="original")
    text = "the cat in the garden"
    score = next(iter(scorer.score(documents([text]), ("entropy", "rank", "top", "top3"))))
    ids = words(text)["input_ids"]
    for place, target in enumerate(score.ids.tolist()):
        inputs = list(ids)
        inputs[place + 1] = words.mask_token_id
        with torch.no_grad():
            row = torch.log_softmax(model(torch.tensor([inputs])).logits[0, place + 1].double(), -1)
        assert score.extras["entropy"][place] == pytest.approx(
            float(-(row.exp() * row).sum()), 1e-4
        )
        assert score.extras["rank"][place] == int((row > row[target]).sum())
        assert score.extras["top"][place] == int(row.argmax())
        assert score.extras["top3"][place].tolist() == row.topk(3).indices.tolist()


def test_context_and_scored_spans_are_read_and_not_masked() -> None:
    model, words = masked("bert"), wordpiece()
    scorer = backend.load(model, tokenizer=words)
    score = next(iter(scorer.score([fairway.Document("x", " the garden", "a cat in")])))
    expected = reference(model, words, "a cat in the garden", "within-word-l2r")
    assert len(score) == 2 and score.totals.bytes == len(" the garden")
    assert np.abs(score.logprobs - expected[-2:]).max() < 2e-5
    part = next(
        iter(scorer.score([fairway.Document("x", "a cat in the garden", scored=((2, 5),))]))
    )
    done = ~np.isnan(part.logprobs)
    assert part.totals.bytes == 3 and done.tolist() == [False, True, False, False, False]
    assert np.abs(part.logprobs[done] - np.array(expected)[done]).max() < 2e-5


def test_parsed_special_tokens_are_read_and_not_scored() -> None:
    scorer = backend.load(masked("bert"), tokenizer=wordpiece(), special_tokens="parse")
    score = next(iter(scorer.score(documents(["the cat [SEP] in the garden"]))))
    special = score.ids == wordpiece().sep_token_id
    assert special.sum() == 1 and np.array_equal(np.isnan(score.logprobs), special)


def test_a_model_that_the_hooks_get_wrong_uses_its_own_forward() -> None:
    model, words = masked("bert"), wordpiece()
    whole = model.forward

    def halved(*given: object, **options: object) -> object:
        out = whole(*given, **options)
        out.logits = out.logits / 2
        return out

    model.forward = halved
    scorer = backend.load(model, tokenizer=words)
    assert scorer.path.head is None and any("own forward" in note for note in scorer.notes)
    score = next(iter(scorer.score(documents(["the cat"]), ("entropy",))))
    ids = words("the cat")["input_ids"]
    ids[1] = words.mask_token_id
    with torch.no_grad():
        row = torch.log_softmax(model(torch.tensor([ids])).logits[0, 1].double(), -1)
    assert float(row[score.ids[0]]) == pytest.approx(score.logprobs[0], abs=2e-5)


def test_out_of_memory_batches_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = backend.load(masked("bert"), tokenizer=wordpiece(), batch_tokens=4096)
    before = [one.totals.nll for one in scorer.score(documents())]
    run = forward.run

    def short(model: Any, path: Any, rows: Any, want: Any) -> Any:
        if len(rows) > 3:
            raise MemoryError
        return run(model, path, rows, want)

    monkeypatch.setattr(forward, "run", short)
    assert [one.totals.nll for one in scorer.score(documents())] == pytest.approx(before, abs=1e-4)
    assert scorer.budget < 4096


def test_what_is_refused(tmp_path: Path) -> None:
    model, words = masked("bert"), wordpiece()
    scorer = backend.load(model, tokenizer=words)
    ids = fairway.Document("d", "", ids=np.array([5, 6]))
    with pytest.raises(InputError, match="token ids"):
        list(scorer.score([ids]))
    with pytest.raises(InputError, match="windows of its own"):
        list(scorer.score([replace(documents()[0], windows=((0, 0, 5),))]))
    for name, match in (("boundary", "--uncorrected"), ("entropi", "no column"), ("top0", "top5")):
        with pytest.raises(InputError, match=match):
            scorer.score(documents(), (name,))
    with pytest.raises(InputError, match="within-word-l2r or original"):
        backend.load(model, tokenizer=words, pll="l2r")
    with pytest.raises(InputError, match="knows no words"):
        backend.load(model, tokenizer=words, pll="original", words="whitespace")
    with pytest.raises(ProtocolError, match="stride 1"):
        backend.load(model, tokenizer=words, stride=2)
    with pytest.raises(ModelError, match="no mask token"):
        backend.load(model, tokenizer=tokenizer())
    with pytest.raises(ModelError, match="does not see what stands behind"):
        backend.load(build("llama"), tokenizer=bytelevel())
    build("llama").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="give --model hf:"):
        scorers.load(f"masked:{tmp_path}")
    with pytest.raises(InputError, match="no setting prefix"):
        scorers.load(f"masked:{tmp_path}", prefix="bos")
    with pytest.raises(InputError, match="no setting chat"):
        scorers.load(f"masked:{tmp_path}", chat=["user"])


def test_sentencepiece_and_its_specials() -> None:
    """Such vocabularies hold special tokens among the pieces of text: none is left unscored."""
    words = pieces(t.XLMRobertaTokenizer, "<s>", "<pad>", "</s>", "<unk>", "<mask>")
    config = t.XLMRobertaConfig(**{**COMMON, "pad_token_id": 1, "eos_token_id": 2})
    scorer = backend.load(t.AutoModelForMaskedLM.from_config(config), tokenizer=words)
    texts = ["the cat in  it", "émigré 🐕", " the <mask> </s>"]
    for text, score in zip(texts, scorer.score(documents(texts)), strict=True):
        assert np.isfinite(score.logprobs).all() and score.totals.bytes == len(text.encode())
    assert scorer.plan.words == "tokenizer" and scorer.plan.length == 62


def test_nothing_to_score() -> None:
    scorer = backend.load(masked("bert"), tokenizer=wordpiece())
    blank, empty = scorer.score(documents([" \n ", ""]))
    assert len(blank) == len(empty) == 0 and blank.totals.tokens == 0


def test_an_unmasked_checkpoint_names_the_kind_that_it_is(tmp_path: Path) -> None:
    masked("distilbert").save_pretrained(tmp_path)
    wordpiece().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"distilbert model.*give --model masked:"):
        scorers.load(f"hf:{tmp_path}")
    masked("bert").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="put masked: before its name"):
        scorers.load(f"hf:{tmp_path}")
