"""Encoder-decoder models against a plain loop, and what is refused."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fairway
from fairway import choices
from fairway import scorer as scorers
from fairway.backends import seq2seq as backend
from fairway.backends.seq2seq import forward
from fairway.corpus.choices import Item
from fairway.errors import InputError, ModelError, ProtocolError
from fairway.scores import CONDITIONAL
from fairway.words import by_word
from models import SEQ2SEQ, build, pieces, seq2seq, tokenizer

PAIRS = [
    ("the hen", "the cat and the hen in the garden"),
    ("a source that goes on for longer", "x"),
    ("the hen", "émigré 🐕 ไทย"),
    ("</s> q <pad>", "  and\n\nthe end </s><s> "),
]


def documents(pairs: list[tuple[str, str]] | None = None) -> list[fairway.Document]:
    return [fairway.Document(str(i), b, a) for i, (a, b) in enumerate(pairs or PAIRS)]


def reference(model: Any, words: Any, source: str, target: str) -> list[float]:
    """One float64 forward for each token of the target and its end, by the model's own shift."""
    read = torch.tensor([words(source, split_special_tokens=True)["input_ids"]])
    labels = words(text_target=target, split_special_tokens=True)["input_ids"]
    inputs = model.prepare_decoder_input_ids_from_labels(labels=torch.tensor([labels]))[0]
    bare = words(target, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    first = next(i for i in range(len(labels)) if labels[i : i + len(bare)] == bare)
    assert labels[first + len(bare)] == words.eos_token_id
    double = copy.deepcopy(model).double()
    out = []
    for place in range(first, first + len(bare) + 1):
        with torch.no_grad():
            row = double(input_ids=read, decoder_input_ids=inputs[None, : place + 1]).logits[0, -1]
        out.append(float(torch.log_softmax(row, -1)[labels[place]]))
    return out


@pytest.mark.parametrize("name", sorted(SEQ2SEQ))
def test_equals_the_plain_loop(name: str) -> None:
    model, words = seq2seq(name)
    scorer = backend.load(model, tokenizer=words, batch_tokens=128)
    assert scorer.path.head is not None and scorer.notes == []
    together = list(scorer.score(documents()))
    for document, score in zip(documents(), together, strict=True):
        expected = reference(model, words, document.context, document.text)
        assert len(score) == len(expected) and score.ids[-1] == words.eos_token_id
        assert np.abs(score.logprobs - expected).max() < 2e-5
        assert score.totals.bytes == len(document.text.encode())
        assert score.totals.tokens == len(expected) and score.perplexity == CONDITIONAL
        alone = next(iter(scorer.score([document])))
        assert np.abs(alone.logprobs - score.logprobs).max() < 2e-5
    shuffled = list(scorer.score(documents()[::-1]))[::-1]
    for a, b in zip(together, shuffled, strict=True):
        assert a.id == b.id and np.abs(a.logprobs - b.logprobs).max() < 2e-5


@pytest.mark.parametrize(
    ("name", "start"),
    [("t5", "<pad>"), ("bart", "</s>+<s>"), ("mbart", "en_XX"), ("marian", "<pad>")],
)
def test_how_the_decoder_begins_is_the_models_own(name: str, start: str) -> None:
    model, words = seq2seq(name)
    assert backend.load(model, tokenizer=words).signature["start"] == start


def test_the_bias_of_logits_matters() -> None:
    """Were BART's bias left out, the fast path would be found wrong."""
    model, _ = seq2seq("bart")
    found = forward.find(model)
    assert found is not None and forward.probe(model, forward.Path(found)) < 1e-4
    model.final_logits_bias.zero_()
    assert forward.probe(model, forward.Path(found)) < 1e-4  # the same memory
    bare = forward.heads.Head(model.get_output_embeddings(), 1.0, 0.0, found.vocabulary)
    model.final_logits_bias.normal_(0, 2)
    assert forward.probe(model, forward.Path(bare)) > 0.1


def test_the_end_is_scored_or_not() -> None:
    model, words = seq2seq("t5")
    scored = list(backend.load(model, tokenizer=words).score(documents()))
    other = backend.load(model, tokenizer=words, eos=False)
    assert (other.signature["eos"], backend.load(model, tokenizer=words).signature["eos"]) == (
        "no",
        "yes",
    )
    for whole, part in zip(scored, other.score(documents()), strict=True):
        assert len(part) == len(whole) - 1
        assert np.abs(part.logprobs - whole.logprobs[:-1]).max() < 2e-5
        assert whole.totals.bytes == part.totals.bytes
    rows = by_word(scored[0], corrected=False)
    assert rows.texts[-1] == "garden" and rows.rest == pytest.approx(-scored[0].logprobs[-1])
    empty = next(iter(backend.load(model, tokenizer=words).score(documents([("the", "")]))))
    assert len(empty) == 1 and empty.totals.bytes == 0
    nothing = next(iter(other.score(documents([("the", "")]), ("entropy",))))
    assert len(nothing) == 0


def test_scored_spans() -> None:
    model, words = seq2seq("t5")
    scorer = backend.load(model, tokenizer=words)
    whole = next(iter(scorer.score(documents([("the hen", "the cat")]))))
    part = next(iter(scorer.score([fairway.Document("x", "the cat", "the hen", scored=((4, 7),))])))
    done = ~np.isnan(part.logprobs)
    assert part.totals.bytes == 3 and len(part) == len(whole) - 1
    assert np.abs(part.logprobs[done] - whole.logprobs[:-1][done]).max() < 2e-5


def test_sources_as_they_are_and_none() -> None:
    model, words = seq2seq("t5")
    bare = backend.load(model, tokenizer=words, source="bare")
    assert bare.signature["context"] == "source-bare"
    score = next(iter(bare.score(documents([("the hen", "cat")]))))
    read = torch.tensor([words("the hen", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        row = model(input_ids=read, decoder_input_ids=torch.tensor([[0]])).logits[0, 0].double()
    assert score.logprobs[0] == pytest.approx(
        float(torch.log_softmax(row, -1)[score.ids[0]]), abs=2e-5
    )
    empty = backend.load(model, tokenizer=words, source="empty")
    assert empty.signature["context"] == "empty" and "no probability" in empty.notes[0]
    score = next(iter(empty.score([fairway.Document("x", "cat")])))
    with torch.no_grad():
        end = torch.tensor([[words.eos_token_id]])
        row = model(input_ids=end, decoder_input_ids=torch.tensor([[0]])).logits[0, 0].double()
    assert score.logprobs[0] == pytest.approx(
        float(torch.log_softmax(row, -1)[score.ids[0]]), abs=2e-5
    )
    with pytest.raises(InputError, match="source=empty reads none"):
        list(empty.score(documents()))
    for context in ("", " \n"):
        with pytest.raises(InputError, match="has no source"):
            list(bare.score([fairway.Document("x", "cat", context)]))
    with pytest.raises(ProtocolError, match="nothing is left"):
        backend.load(model, tokenizer=tokenizer(), source="empty")


def test_each_source_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, words = seq2seq("bart")
    seen: list[int] = []
    encode = forward.encode

    def count(model: Any, path: Any, sources: Any) -> Any:
        seen.append(len(sources))
        return encode(model, path, sources)

    scorer = backend.load(model, tokenizer=words)
    monkeypatch.setattr(forward, "encode", count)
    list(scorer.score(documents()))
    assert sum(seen) == 3


def test_too_long_is_refused_and_relative_positions_have_no_end() -> None:
    model, words = seq2seq("bart")
    scorer = backend.load(model, tokenizer=words)
    for pair, what in ((("a " * 80, "x"), "source"), (("x", "a " * 80), "target")):
        with pytest.raises(InputError, match=rf"The {what} of 0 has \d+ tokens, more than the 64"):
            list(scorer.score(documents([pair])))
    with pytest.raises(ProtocolError, match="at most 64 positions"):
        backend.load(model, tokenizer=words, max_length=65)
    model, words = seq2seq("t5")
    long = documents([("a cat " * 30, " garden" * 300)])
    with pytest.raises(InputError, match="more than the 2048"):
        list(backend.load(model, tokenizer=words).score(long))
    score = next(iter(backend.load(model, tokenizer=words, max_length=0).score(long)))
    assert np.isfinite(score.logprobs).all() and len(score) > 2048


def test_columns_equal_those_of_whole_distributions() -> None:
    model, words = seq2seq("bart")
    scorer = backend.load(model, tokenizer=words)
    score = next(iter(scorer.score(documents()[:1], ("entropy", "rank", "top", "top3"))))
    read = torch.tensor([words(PAIRS[0][0])["input_ids"]])
    inputs = torch.tensor([[2, 0, *score.ids[:-1].tolist()]])
    with torch.no_grad():
        logits = model(input_ids=read, decoder_input_ids=inputs).logits[0, 1:].double()
    rows = torch.log_softmax(logits, -1)
    for place, target in enumerate(score.ids.tolist()):
        row = rows[place]
        assert score.extras["entropy"][place] == pytest.approx(
            float(-(row.exp() * row).sum()), 1e-4
        )
        assert score.extras["rank"][place] == int((row > row[target]).sum())
        assert score.extras["top"][place] == int(row.argmax())
        assert score.extras["top3"][place].tolist() == row.topk(3).indices.tolist()


def test_a_model_that_the_hook_gets_wrong_uses_its_own_forward() -> None:
    model, words = seq2seq("t5")
    whole = model.forward

    def halved(*given: object, **options: object) -> object:
        out = whole(*given, **options)
        out.logits = out.logits / 2
        return out

    model.forward = halved
    scorer = backend.load(model, tokenizer=words)
    assert scorer.path.head is None and any("own forward" in note for note in scorer.notes)
    score = next(iter(scorer.score(documents([("the hen", "cat")]), ("entropy",))))
    read = torch.tensor([words("the hen")["input_ids"]])
    with torch.no_grad():
        row = model(input_ids=read, decoder_input_ids=torch.tensor([[0]])).logits[0, 0].double()
    assert score.logprobs[0] == pytest.approx(
        float(torch.log_softmax(row, -1)[score.ids[0]]), abs=2e-5
    )


@pytest.fixture(scope="module")
def t5() -> Any:
    model, words = seq2seq("t5")
    return backend.load(model, tokenizer=words)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXT.filter(lambda text: text.strip()), TEXT)
def test_any_text(t5: Any, source: str, target: str) -> None:
    score = next(iter(t5.score([fairway.Document("x", target, source)], ("entropy", "rank"))))
    assert np.isfinite(score.logprobs).all() and (score.logprobs <= 0).all()
    assert score.totals.bytes == len(target.encode()) and score.totals.tokens == len(score)
    assert (score.offsets[:, 0] <= score.offsets[:, 1]).all() and score.lossy is False


def test_choices_are_targets(t5: Any) -> None:
    item = Item("q", "where is the cat", ("in the garden", "the hen"), 0)
    decision = next(iter(choices.decide(t5, [item])))
    assert isinstance(decision, choices.Decision)
    pairs = [("where is the cat", " " + one) for one in item.choices]
    sums = [score.logprobs.sum() for score in t5.score(documents(pairs))]
    assert decision.logprobs.tolist() == pytest.approx(sums, abs=1e-4)
    bare = next(iter(choices.decide(t5, [Item("q", "", ("a", "b"), 0)])))
    assert isinstance(bare, choices.Refused) and "no source" in bare.reason


def test_languages_begin_targets() -> None:
    """mBART's own tokenizer; the sum is its own loss of all labels, but for the language's."""
    model, _ = seq2seq("mbart")
    model.config.pad_token_id, model.config.eos_token_id = 1, 2
    words = pieces(t.MBartTokenizer, "<s>", "<pad>", "</s>", "<unk>", tgt_lang="ro_RO")
    sums = []
    for language in ("ro_RO", "de_DE"):
        scorer = backend.load(model, tokenizer=words, src_lang="fr_XX", tgt_lang=language)
        assert scorer.signature["start"] == language
        score = next(iter(scorer.score(documents([("a garden", "the cat in it")]))))
        source = words("a garden", return_tensors="pt").input_ids
        labels = words(text_target="the cat in it", return_tensors="pt").input_ids
        with torch.no_grad():
            rows = model(input_ids=source, labels=labels).logits[0].double().log_softmax(-1)
        own = rows[torch.arange(labels.shape[1] - 1), labels[0, :-1]]
        assert np.abs(score.logprobs - own.numpy()).max() < 2e-5
        sums.append(score.totals.nll)
    assert abs(sums[0] - sums[1]) > 1e-2
    with pytest.raises(InputError, match="no language 'xx'"):
        backend.load(model, tokenizer=words, tgt_lang="xx")


def test_sentencepiece_targets() -> None:
    words = pieces(t.T5Tokenizer, "<pad>", "</s>", "<unk>", extra_ids=5)
    scorer = backend.load(seq2seq("t5")[0], tokenizer=words)
    texts = ["the cat in  it", "émigré 🐕", " the <extra_id_0> </s>"]
    pairs = [("a garden", text) for text in texts]
    for text, score in zip(texts, scorer.score(documents(pairs)), strict=True):
        assert np.isfinite(score.logprobs).all() and score.totals.bytes == len(text.encode())


def test_marians_own_tokenizer(assets: Path, tmp_path: Path) -> None:
    """It is a slow one: a text that decoding does not give back is a fault of its row."""
    sentencepiece = pytest.importorskip("sentencepiece")
    file = str(assets / "tokenizers" / "sentencepiece" / "test_model.model")
    core = sentencepiece.SentencePieceProcessor(model_file=file)
    vocabulary = {core.id_to_piece(at): at for at in range(core.get_piece_size())}
    vocabulary["<pad>"] = pad = len(vocabulary)
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends sacremoses
        words = t.MarianTokenizer(
            source_spm=file, target_spm=file, vocab=str(tmp_path / "vocab.json"),
            source_lang="en", target_lang="de",
        )  # fmt: skip
    config = SEQ2SEQ["marian"][0]()
    config.vocab_size, config.pad_token_id, config.decoder_start_token_id = pad + 1, pad, pad
    config.decoder_vocab_size, config.eos_token_id = pad + 1, words.eos_token_id
    model = t.AutoModelForSeq2SeqLM.from_config(config).eval()
    scorer = backend.load(model, tokenizer=words)
    score = next(iter(scorer.score(documents([("a garden", "the cat is. I")]))))
    source = words("a garden", return_tensors="pt").input_ids
    labels = words(text_target="the cat is. I", return_tensors="pt").input_ids
    with torch.no_grad():
        loss = float(model(input_ids=source, labels=labels).loss) * labels.shape[1]
    assert score.totals.nll == pytest.approx(loss, rel=1e-5) and score.totals.bytes == 13
    with pytest.raises(InputError, match="0 cannot be scored"):
        list(scorer.score(documents([("a garden", "a  b")])))


def test_what_is_refused(tmp_path: Path) -> None:
    model, words = seq2seq("t5")
    scorer = backend.load(model, tokenizer=words)
    with pytest.raises(InputError, match="token ids"):
        list(scorer.score([fairway.Document("d", "", "x", ids=np.array([5, 6]))]))
    with pytest.raises(InputError, match="surrogate"):
        list(scorer.score(documents([("\ud800", "x")])))
    with pytest.raises(InputError, match="--uncorrected"):
        scorer.score(documents(), ("boundary",))
    with pytest.raises(InputError, match="source takes"):
        backend.load(model, tokenizer=words, source="no")
    with pytest.raises(InputError, match="eos takes yes or no"):
        backend.load(model, tokenizer=words, eos="maybe")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no languages"):
        backend.load(model, tokenizer=words, src_lang="en")
    with pytest.raises(ModelError, match="no encoder-decoder model"):
        backend.load(build("llama"), tokenizer=tokenizer())
    model.config.decoder_start_token_id = None
    with pytest.raises(ModelError, match="decoder_start_token_id"):
        backend.load(model, tokenizer=words)
    seq2seq("bart")[0].save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="give --model seq2seq:"):
        scorers.load(f"hf:{tmp_path}")
    with pytest.raises(ModelError, match="put seq2seq: before its name"):
        scorers.load(f"masked:{tmp_path}")
    with pytest.raises(InputError, match="no setting stride"):
        scorers.load(f"seq2seq:{tmp_path}", stride=3)
