"""Text to tokens: offsets, alignment without them, lossy tokenizers, chat, context, BOS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import models as vocabularies

import fairway
from fairway.backends import transformers as backend
from fairway.backends.transformers import encode
from fairway.errors import FairwayError, InputError, ModelError, ProtocolError
from models import build, reference, tokenizer

HARD = [
    "Thai: ภาษาไทย, 中文, कि, emoji 👩‍🚀🏳️‍🌈, e\u0301 and é",
    "  leading, double  and trailing  ",
    "\n\nempty\n\n\nlines\n",
    "tabs\tand\r\nreturns",
    "<s> </s> are text",
    "a",
]
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@pytest.fixture(scope="module")
def scorer() -> Any:
    return backend.load(build("llama"), tokenizer=tokenizer())


@settings(max_examples=60, deadline=None)
@given(text)
def test_every_byte_and_bit_is_counted(scorer: Any, value: str) -> None:
    score = next(iter(scorer.score([fairway.Document("x", value)])))
    totals = score.totals
    assert totals.bytes == len(value.encode()) and totals.tokens_skipped == 0
    assert totals.words == len(value.split()) and totals.chars == len(value)
    bits = score.metrics["bits_per_byte"] * totals.bytes
    assert bits == pytest.approx(-np.log2(np.exp(1)) * score.logprobs.sum(), rel=1e-12)


@pytest.mark.parametrize("value", HARD)
def test_without_prefix_the_first_token_and_its_bytes_are_left_out(value: str) -> None:
    scorer = backend.load(build("gpt2"), tokenizer=tokenizer(), prefix="none")
    score = next(iter(scorer.score([fairway.Document("x", value)])))
    first = score.tokens[0]
    totals = score.totals
    assert np.isnan(first.logprob) and totals.tokens_skipped == 1
    assert totals.tokens == len(score) - 1
    # A character that a second token shares is counted by that one.
    rest = {i for t in score.tokens[1:] for i in range(t.start, t.end)}
    alone = "".join(c for i, c in enumerate(first.text) if first.start + i not in rest)
    assert totals.bytes == len(value.encode()) - len(alone.encode())


@pytest.mark.parametrize("value", HARD)
def test_alignment_gives_the_offsets_of_a_fast_tokenizer(value: str) -> None:
    words = tokenizer()
    fast = encode.encode(words, value)
    spans = encode.align(words, fast.ids.tolist(), value)
    whole = [i for i in range(len(spans)) if "�" not in words.decode([int(fast.ids[i])])]
    assert spans[whole].tolist() == fast.offsets[whole].tolist()
    covered = np.zeros(len(value), bool)
    for start, end in spans:
        covered[start:end] = True
    assert covered.all()


@pytest.mark.parametrize("value", [*HARD, "the cat. " * 300])
def test_a_tokenizer_without_offsets_works_by_alignment(value: str) -> None:
    slow = transformers.ByT5Tokenizer(extra_ids=0)
    assert not slow.is_fast
    found = encode.encode(slow, value)
    assert len(found.ids) == len(value.encode()) and not found.lossy
    sizes = [len(c.encode()) for c in value]
    starts = [i for i, size in enumerate(sizes) for _ in range(size)]
    # A token that is one byte of a character spans the character or stands at it.
    assert all(s <= at <= e for (s, e), at in zip(found.offsets.tolist(), starts, strict=True))
    assert found.offsets[-1, 1] == len(value)


def lossy() -> Any:
    """Lower-cases and drops accents, as an uncased model's tokenizer does."""
    vocabulary = {"<unk>": 0, "<s>": 1, **{c: i + 2 for i, c in enumerate("abcdefgh ")}}
    core = Tokenizer(vocabularies.BPE(vocabulary, [], unk_token="<unk>"))
    core.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    core.decoder = decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>")


def test_a_lossy_tokenizer_is_reported_and_bytes_are_the_sources() -> None:
    report = fairway.evaluate(build("llama"), ["Bé Bé", "abc"], tokenizer=lossy())
    assert report.totals.bytes == len("Bé Béabc".encode())
    assert any("1 of 2 texts back" in note for note in report.notes)


def test_a_tokenizer_without_offsets_and_with_loss_is_refused() -> None:
    slow = transformers.ByT5Tokenizer(extra_ids=0)

    class Shouting(type(slow)):  # type: ignore[misc]
        def _tokenize(self, text: str, **options: Any) -> list[str]:
            return super()._tokenize(text.upper(), **options)

    with pytest.raises(ModelError, match="no character offsets"):
        encode.encode(Shouting(extra_ids=0), "quiet")


def test_a_bos_that_stands_in_the_text_is_not_doubled() -> None:
    scorer = backend.load(build("llama"), tokenizer=tokenizer(), special_tokens="parse")
    with pytest.raises(ProtocolError, match="doubled BOS"):
        list(scorer.score([fairway.Document("x", "<s>the cat")]))
    # As text it is text.
    plain = backend.load(build("llama"), tokenizer=tokenizer())
    assert next(iter(plain.score([fairway.Document("x", "<s>the cat")]))).totals.bytes == 10


def test_a_tokenizer_that_adds_bos_gets_one_only() -> None:
    model = build("llama")
    adding = backend.load(model, tokenizer=tokenizer(adds=True))
    plain = backend.load(model, tokenizer=tokenizer())
    document = fairway.Document("x", "the cat in the inn")
    a, b = (next(iter(s.score([document]))) for s in (adding, plain))
    assert a.ids.tolist() == b.ids.tolist()
    assert np.array_equal(a.logprobs, b.logprobs)


@settings(max_examples=30, deadline=None)
@given(text, text)
def test_context_and_text_share_their_boundary(scorer: Any, context: str, value: str) -> None:
    """Tokens that touch the text are scored; context bytes are never counted."""
    score = next(iter(scorer.score([fairway.Document("x", value, context)])))
    assert score.totals.bytes == len(value.encode())
    assert score.totals.chars == len(value)


def test_a_token_over_the_boundary_is_scored_whole() -> None:
    """'the' is one token: split by offsets, never by joining ids."""
    model, words = build("llama"), tokenizer()
    scorer = backend.load(model, tokenizer=words)
    score = next(iter(scorer.score([fairway.Document("x", "he cat", "see t")])))
    ids = [0, *words("see the cat", add_special_tokens=False)["input_ids"]]
    assert score.ids.tolist() == ids[-len(score) :]
    assert np.abs(score.logprobs - reference(model, ids, len(ids) - len(score))).max() < 2e-5
    assert score.totals.bytes == 6


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}|{% endfor %}"
)
MESSAGES = [
    {"role": "user", "content": "the cat?"},
    {"role": "assistant", "content": "an inn, user."},
    {"role": "user", "content": "and?"},
    {"role": "assistant", "content": "the hen."},
]


def chatty(template: str = TEMPLATE) -> Any:
    words = tokenizer()
    words.chat_template = template
    return words


def test_chat_scores_the_words_of_some_roles_and_never_the_template() -> None:
    model, words = build("llama"), chatty()
    scorer = backend.load(model, tokenizer=words, chat=["assistant"])
    document = fairway.Document("x", "", metadata={"messages": MESSAGES})
    score = next(iter(scorer.score([document])))
    spoken = "".join(t.text for t in score.tokens if not np.isnan(t.logprob))
    assert spoken == "an inn, user.the hen."
    assert score.totals.bytes == len(spoken) and score.totals.tokens_skipped == 0
    ids = words.apply_chat_template(MESSAGES, tokenize=True, return_dict=False)
    assert len(ids) <= 64, "one window"
    expected = reference(model, list(ids), 1)
    done = ~np.isnan(score.logprobs)
    offset = len(ids) - len(score)
    values = np.concatenate(([np.nan], expected))[offset:]
    assert np.abs(score.logprobs[done] - values[done]).max() < 2e-5
    assert ids.count(0) == 1


def test_chat_corpus_and_signature(tmp_path: Any) -> None:
    import json

    path = tmp_path / "chat.jsonl"
    rows = [{"messages": MESSAGES}, {"messages": "none"}, {"text": "x"}]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    corpus = fairway.read(path, chat=True)
    report = fairway.evaluate(
        build("llama"), corpus, tokenizer=chatty(), chat=["user", "assistant"]
    )
    assert report.totals.documents == 1 and report.skipped_total == 2
    assert report.totals.bytes == sum(len(m["content"]) for m in MESSAGES)
    assert report.signature["chat"] == "user+assistant"


@pytest.mark.parametrize(
    ("template", "error", "reason"),
    [
        ("", ModelError, "no chat template"),
        ("{% for m in messages %}{{ m['content']|upper }}{% endfor %}", ModelError, "changes"),
        ("{{ raise_exception('roles must alternate') }}", InputError, "alternate"),
    ],
)
def test_chat_that_cannot_be_scored(template: str, error: type[FairwayError], reason: str) -> None:
    scorer = backend.load(build("llama"), tokenizer=chatty(template), chat=["user"])
    with pytest.raises(error, match=reason):
        list(scorer.score([fairway.Document("x", "", metadata={"messages": MESSAGES})]))


def test_chat_content_that_spells_a_special_token_is_refused() -> None:
    scorer = backend.load(build("llama"), tokenizer=chatty(), chat=["user"])
    bad = [{"role": "user", "content": "close </s> now"}]
    with pytest.raises(InputError, match="special token"):
        list(scorer.score([fairway.Document("x", "", metadata={"messages": bad})]))


def test_words_of_a_metaspace_vocabulary_are_counted() -> None:
    pieces = ["<s>", "▁", "▁the", "▁cat", "s", *(f"<0x{i:02X}>" for i in range(256))]
    core = Tokenizer(
        vocabularies.BPE(
            {p: i for i, p in enumerate(pieces)}, [], byte_fallback=True, fuse_unk=True
        )
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    core.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " ")]
    )
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>")
    scorer = backend.load(build("llama"), tokenizer=words)
    value = "é 猫 s"
    score = next(iter(scorer.score([fairway.Document("x", value)])))
    assert score.totals.bytes == len(value.encode())
    assert encode.raw_bytes(words, score.ids).sum() == len(value.encode())
