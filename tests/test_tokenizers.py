"""Tokenizers: counts against plain loops, what is lost, exact splits, sums over tokenizations."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers import models as cores
from typer.testing import CliRunner

import fairway
import models
from fairway.backends.transformers import encode, tokenizing
from fairway.cli import app
from fairway.corpus import Document
from fairway.errors import InputError, ModelError, ProtocolError
from fairway.scores import Totals
from fairway.tokenizers import audit, marginal, reference_perplexity, split
from fairway.tokenizers.fertility import BLOCK, Tally, reference_group
from fairway.tokenizers.lattice import Lattice, build, flat, propose
from fairway.tokenizers.sampling import density, guide, lay, mixture

RUSSIAN = "Утром он вышел из дома и увидел, что на улице уже лежит снег."
THAI = "เช้าวันนี้อากาศดีมากและผู้คนออกไปเดินเล่นในสวนสาธารณะ"
CHINESE = "今天早上天气很好，人们都到公园里散步去了。"
ENGLISH = "This morning the weather was fine, and people went for a walk in the park."


@pytest.fixture(scope="module")
def english() -> Any:
    """A byte-level BPE of 2,000 tokens, trained on the shipped English samples."""
    core = Tokenizer(cores.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    core.train_from_iterator((d.text for d in fairway.read("sample:all")), trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core)


def one(tokenizer: Any, *texts: str) -> Tally:
    found = audit(
        [tokenizing.describe(tokenizer, "it")],
        (("all", Document(str(n), text)) for n, text in enumerate(texts)),
    )
    return found[0].total


def loop(tokenizer: Any, text: str) -> tuple[int, int, int]:
    """Tokens, bytes by decoding them one by one, bytes by adding up spans: a plain loop."""
    out = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    table = sum(len(tokenizer.backend_tokenizer.decode([i]).encode()) for i in out.ids)
    spans = sum(len(text[start:end].encode()) for start, end in out.offsets)
    return len(out.ids), table, spans


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [(ENGLISH, 1.0, 1.0), (RUSSIAN, 2.5, 3.0), (THAI, 2.7, 3.0), (CHINESE, 2.7, 3.0)],
)
def test_a_decode_table_counts_too_many_bytes(
    english: Any, text: str, least: float, most: float
) -> None:
    tally = one(english, text)
    assert (tally.tokens, tally.table, tally.spans) == loop(english, text)
    assert tally.bytes == tally.raw == len(text.encode())
    assert least <= tally.ratios["table_factor"] <= most
    assert (tally.fragments == 0) == (text == ENGLISH)


def test_spans_of_a_split_character_are_counted_for_each_of_its_tokens() -> None:
    # The example of docs: an emoji and an accent, 10 bytes, whose spans add up to more.
    tally = one(models.tokenizer(), "a 🐕 é!")
    assert tally.bytes == 10 and tally.tokens == 10
    assert tally.spans == 4 * 4 + 2 * 2 + 4
    assert tally.table == 4 * 3 + 2 * 3 + 4
    assert tally.single == 10 and tally.fragments == 6


def test_gpt2_on_parallel_texts(assets: Path) -> None:
    item = tokenizing.load(str(assets / "tokenizers" / "gpt2"))
    assert item.kind == "byte-level" and len(item.pieces) == 50257 and item.name == "gpt2"
    pairs = []
    for language in ("en", "ru", "th", "zh"):
        path = assets / "corpora" / "multilingual" / "pud" / f"pud.{language}.tsv.gz"
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            texts = [line.rstrip("\n").split("\t", 1)[1] for line in stream]
        pairs += [(language, Document(str(n), text)) for n, text in enumerate(texts[:200])]
    found = audit([item], pairs)[0]
    for language, tally in found.groups.items():
        loops = [loop(item.tokenizer, d.text) for group, d in pairs if group == language]
        assert (tally.tokens, tally.table, tally.spans) == tuple(map(sum, zip(*loops, strict=True)))
        assert tally.raw == tally.bytes and tally.changed == 0
    assert reference_group(list(found.groups)) == "en"
    assert found.premium("th", "en") == found.groups["th"].tokens / found.groups["en"].tokens > 6
    assert 1.9 < found.groups["zh"].ratios["table_factor"] < 2.4
    assert 1.9 < found.groups["th"].ratios["table_factor"] < 2.1
    assert math.isnan(found.groups["th"].ratios["tokens_per_word"])
    assert math.isnan(found.groups["zh"].ratios["tokens_per_word"])
    words = sum(len(d.text.split()) for group, d in pairs if group == "ru")
    assert found.groups["ru"].ratios["tokens_per_word"] == found.groups["ru"].tokens / words
    assert found.total.ratios["tokens_per_word"] < found.groups["ru"].ratios["tokens_per_word"]


def test_sentencepiece_spelling_and_its_blank_in_front(stories: str) -> None:
    item = tokenizing.load(stories)
    assert item.kind == "byte fallback"
    text = "a é 🐕"
    tally = one(item.tokenizer, text)
    assert tally.raw == len(text.encode()) + 1
    # Single tokens lose the blank that they begin with: the count is too low for ASCII.
    assert one(item.tokenizer, ENGLISH).ratios["table_factor"] < 0.9
    assert tally.changed == 0


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1))
def test_pieces_are_the_bytes_of_the_text(text: str) -> None:
    item = tokenizing.describe(models.tokenizer(), "it")
    ids = item.encode([text])[0].ids
    assert b"".join(item.pieces[i] for i in ids) == text.encode()
    sizes = encode.raw_bytes(item.tokenizer, ids)
    assert sizes.tolist() == [len(item.pieces[i]) for i in ids]


def lower() -> Any:
    words = ["[UNK]", "the", "cat", "##s", "cafe", ".", "a"]
    core = Tokenizer(cores.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")


def test_lower_casing_and_unknown_words_are_found() -> None:
    found = audit(
        [tokenizing.describe(lower(), "bert")],
        [("all", Document("d1", "the cats")), ("all", Document("d2", "The cat café xyz"))],
    )[0]
    total = found.total
    assert (total.texts, total.changed, total.unknown) == (2, 1, 1)
    # T, é (2 bytes) and x, y, z are gone; t, e and [UNK] are there instead.
    assert (total.lost, total.added) == (6, 7)
    assert found.change is not None
    assert (found.change.document, found.change.position) == ("d2", 0)
    assert found.change.source.startswith("The") and found.change.decoded.startswith("the")


def test_a_unicode_form_is_found() -> None:
    tokenizer = models.tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    total = one(tokenizer, "plain", "\ufb01ne")
    assert (total.changed, total.lost, total.added) == (1, 3, 2)
    assert one(models.tokenizer(), "\ufb01ne").changed == 0


def test_sums_are_additive_and_blocks_do_not_matter() -> None:
    texts = [ENGLISH * 40, RUSSIAN, THAI, "x" * (BLOCK // 2), "the" * (BLOCK // 4), CHINESE]
    tokenizer = models.tokenizer()
    parts = [one(tokenizer, text) for text in texts]
    assert sum(parts, start=Tally()) == one(tokenizer, *texts)


def test_used_vocabulary_is_a_union() -> None:
    item = tokenizing.describe(models.tokenizer(), "it")
    pairs = [("a", Document("1", "ab")), ("b", Document("2", "bc")), ("a", Document("3", "a"))]
    found = audit([item], pairs)[0]
    size = len(item.pieces)
    assert found.used_share("a") == found.used_share("b") == 2 / size
    assert found.used_share() == 3 / size
    assert math.isnan(found.premium("b", "a"))


def test_data_without_text_are_refused() -> None:
    item = tokenizing.describe(models.tokenizer(), "it")
    with pytest.raises(InputError, match="holds no text"):
        audit([item], [("all", Document("d", "", ids=np.array([3])))])
    with pytest.raises(InputError, match="no text"):
        audit([item], [])


counts = st.integers(1, 10**9)
sums = st.builds(
    lambda nll, tokens, size: Totals(nll=nll, tokens=tokens, bytes=size),
    st.floats(1e-3, 1e9), counts, counts,
)  # fmt: skip


@given(sums, sums)
def test_the_parts_add_up(first: Totals, second: Totals) -> None:
    found = split(first, second)
    size = max(first.per("tokens"), second.per("tokens"), abs(found.tokenizer), abs(found.model))
    assert abs(found.tokenizer + found.model - found.loss) <= 1e-12 * size
    back = split(second, first)
    assert back.tokenizer == -found.tokenizer and back.model == -found.model


def test_same_loss_and_other_bits() -> None:
    # theory.md, section 0: 2 nats at 4.5 and at 3.5 bytes per token.
    first = Totals(nll=2000.0, tokens=1000, bytes=4500)
    second = Totals(nll=2000.0, tokens=1000, bytes=3500)
    found = split(first, second)
    assert found.loss == 0 and math.isnan(found.share)
    assert found.tokenizer == pytest.approx(-found.model) and found.tokenizer < -0.4
    assert "opposed" in found.sentence("A", "B")
    alone = split(first, Totals(nll=1800.0, tokens=900, bytes=4500))
    assert alone.loss == 0 and alone.tokenizer > 0 > alone.model
    pure = split(first, Totals(nll=2000.0, tokens=800, bytes=4500))
    assert pure.share == 1 and pure.model == 0
    assert "100% is the tokenizer's" in pure.sentence("A", "B")
    with pytest.raises(InputError, match="split only"):
        split(first, Totals())


@given(sums, counts)
def test_reference_perplexity_keeps_the_total_bits(totals: Totals, tokens: int) -> None:
    found = reference_perplexity(totals, tokens)
    if math.isfinite(found) and found > 1 + 1e-6:
        bits = totals.per("bytes") / math.log(2) * totals.bytes
        assert math.log2(found) * tokens == pytest.approx(bits, rel=1e-9)
    assert reference_perplexity(totals, totals.tokens) == pytest.approx(
        fairway.scores.ratios(totals)["perplexity"], rel=1e-9, nan_ok=True
    )


def every(text: bytes, pieces: dict[int, bytes]) -> list[tuple[int, ...]]:
    """All tokenizations, by plain recursion."""
    if not text:
        return [()]
    return [
        (index, *rest)
        for index, piece in pieces.items()
        if text.startswith(piece)
        for rest in every(text[len(piece) :], pieces)
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.text("ab", min_size=1, max_size=7),
    st.lists(st.sampled_from([b"ab", b"ba", b"aab", b"bb", b"a", b""]), max_size=5),
    st.floats(-1, 4),
)
def test_the_lattice_holds_all_and_its_proposals_sum_to_one(
    text: str, more: list[bytes], penalty: float
) -> None:
    pieces = [b"a", b"b", *more]
    canonical = [0 if c == "a" else 1 for c in text]
    lattice = build(text.encode(), pieces, canonical)
    wanted = every(text.encode(), {i: p for i, p in enumerate(pieces) if p})
    assert sorted(lattice.all()) == sorted(wanted) and lattice.count() == len(wanted)
    others = [ids for ids in wanted if ids != tuple(canonical)]
    if not others:
        return
    generator = np.random.default_rng(1)
    weights = tuple(generator.normal(-penalty, 2, len(ids)) for ids in lattice.ids)
    for chosen in (flat(lattice, penalty), weights):
        proposal = propose(lattice, chosen)
        total = math.fsum(math.exp(proposal.logprob(ids)) for ids in others)
        assert total == pytest.approx(1, abs=1e-12)
        assert proposal.draw(generator) in others


def test_dead_ends_and_starts() -> None:
    # A blank in front may be left out; "b" alone is no token, so that "a" leads nowhere.
    lattice = build(b" ab", [b" ", b"a", b"ab", b" ab"], [3], (0, 1))
    assert sorted(lattice.all()) == [(0, 2), (2,), (3,)]
    proposal = propose(lattice, flat(lattice, 1.0))
    assert math.exp(proposal.logprob((2,))) + math.exp(proposal.logprob((0, 2))) == pytest.approx(1)


def test_draws_follow_their_probabilities() -> None:
    lattice = build(b"abab", [b"a", b"b", b"ab", b"ba", b"aba"], [2, 2])
    generator = np.random.default_rng(5)
    proposal = propose(lattice, tuple(generator.normal(0, 1, len(ids)) for ids in lattice.ids))
    drawn = [proposal.draw(generator) for _ in range(4000)]
    for ids in lattice.all():
        if ids == lattice.canonical:
            assert ids not in drawn
            continue
        chance = math.exp(proposal.logprob(ids))
        assert abs(drawn.count(ids) / 4000 - chance) < 4 * math.sqrt(chance * (1 - chance) / 4000)


TEXT = "in the thin an"


@pytest.fixture(scope="module")
def scorer(small: str) -> Any:
    return fairway.load(small)


@pytest.fixture(scope="module")
def exact(scorer: Any) -> dict[tuple[int, ...], float]:
    """ln p of every tokenization, one float64 forward for each."""
    pieces = {i: p for i, p in enumerate(scorer.vocabulary.pieces) if p}
    model = models.build("llama")
    return {
        ids: math.fsum(models.reference(model, [0, *ids], 1))
        for ids in every(TEXT.encode(), pieces)
    }


def test_the_exact_sum_is_that_of_a_plain_loop(
    scorer: Any, exact: dict[tuple[int, ...], float]
) -> None:
    found = marginal(scorer, TEXT, 16)
    assert found.tokenizations == len(exact) == 96
    total = math.log2(math.fsum(math.exp(value) for value in exact.values()))
    assert found.exact_bits == pytest.approx(-total, abs=1e-4)
    own = next(scorer.score([Document("d", TEXT)])).totals.nll / math.log(2)
    assert found.canonical_bits == pytest.approx(own, abs=1e-4)
    assert found.exact_bits < found.canonical_bits and found.bits <= found.canonical_bits


def test_the_estimate_is_within_its_error(scorer: Any, exact: dict[tuple[int, ...], float]) -> None:
    lattice: Lattice = lay(scorer.vocabulary, TEXT)
    parts = mixture(lattice, guide(scorer, lattice))
    others = {ids: value for ids, value in exact.items() if ids != lattice.canonical}
    chances = {ids: math.exp(density(parts, ids)) for ids in others}
    assert math.fsum(chances.values()) == pytest.approx(1, abs=1e-9)
    own = exact[lattice.canonical]
    true = math.fsum(math.exp(value - own) for value in others.values())
    spread = math.fsum(
        chance * (math.exp(others[ids] - own) / chance - true) ** 2
        for ids, chance in chances.items()
    )
    found = [marginal(scorer, TEXT, 200, seed) for seed in range(8)]
    estimates = [2 ** (one.canonical_bits - one.bits) - 1 for one in found]
    assert abs(np.mean(estimates) - true) < 4 * math.sqrt(spread / 1600)
    # The delta method: the error in bits is that of the sum over the sum and ln 2.
    wanted = math.sqrt(spread / 200) / ((1 + true) * math.log(2))
    assert np.mean([one.standard_error for one in found]) == pytest.approx(wanted, rel=0.3)
    outside = [one for one in found if abs(one.bits - one.exact_bits) > 3 * one.standard_error]
    assert len(outside) <= 1


def test_the_marginal_is_reproducible_and_seeded(scorer: Any) -> None:
    assert marginal(scorer, TEXT, 32, 1).bits == marginal(scorer, TEXT, 32, 1).bits
    assert marginal(scorer, TEXT, 32, 1).bits != marginal(scorer, TEXT, 32, 2).bits
    alone = marginal(scorer, "x", 32)
    assert alone.tokenizations == 1 and alone.samples == 0 and alone.standard_error == 0
    assert alone.bits == alone.canonical_bits == pytest.approx(alone.exact_bits)


def test_byte_fallback_counts_every_way_to_the_text(stories: str) -> None:
    scorer = fairway.load(stories)
    found = marginal(scorer, "a é", 64)
    item = scorer.vocabulary
    pieces = {i: p for i, p in enumerate(item.pieces) if p}
    ways = every(" a é".encode(), pieces) + every("a é".encode(), pieces)
    assert all(item.decode(ids) == "a é" for ids in ways)
    assert found.tokenizations == len(ways) and found.exact_bits is not None
    assert abs(found.bits - found.exact_bits) < 5 * found.standard_error + 1e-4


def test_what_has_no_marginal_is_refused(scorer: Any, small: str) -> None:
    with pytest.raises(InputError, match="empty"):
        marginal(scorer, "")
    with pytest.raises(InputError, match="too few"):
        marginal(scorer, "a", 1)
    with pytest.raises(ProtocolError, match="shorter text"):
        marginal(scorer, "x" * 64)
    with pytest.raises(ProtocolError, match="prefix"):
        marginal(fairway.load(small, prefix="none"), TEXT)
    with pytest.raises(InputError, match="byte for byte"):
        lay(tokenizing.describe(lower(), "bert"), "The cat")


def test_names(assets: Path, tmp_path: Path) -> None:
    file = assets / "tokenizers" / "gpt_neox_20b" / "tokenizer.json"
    item = tokenizing.load(str(file))
    assert item.name == "gpt_neox_20b" and item.kind == "byte-level"
    text = "code:\n        x = 'é'  # ok <|endoftext|>"
    coded = item.encode([text])[0]
    assert coded.decoded == text
    assert b"".join(item.pieces[i] for i in coded.ids) == text.encode()
    assert tokenizing.load("builtin").name == "builtin"
    with pytest.raises(ModelError, match="SentencePiece"):
        tokenizing.load(str(assets / "tokenizers" / "sentencepiece" / "test_model.model"))
    with pytest.raises(ModelError, match="holds no tokenizer"):
        tokenizing.load(str(tmp_path))
    with pytest.raises(ModelError, match="There is no"):
        tokenizing.load(str(tmp_path / "absent"))
    (tmp_path / "tokenizer.json").write_text("no json")
    with pytest.raises(ModelError, match="cannot be loaded"):
        tokenizing.load(str(tmp_path))


def run(*words: str) -> str:
    out = CliRunner().invoke(app, ["tokenizers", *words])
    assert out.exit_code == 0, out.output + repr(out.exception)
    return out.stdout


@pytest.fixture
def parallel(tmp_path: Path) -> str:
    rows = [
        {"text": ENGLISH, "l": "en"},
        {"text": CHINESE, "l": "zh"},
        {"text": RUSSIAN, "l": "ru"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_the_command(small: str, parallel: str) -> None:
    words = ("builtin", small, "--data", parallel, "--group-by", "l")
    found = json.loads(run(*words, "--json"))["tokenizers"]
    assert [one["tokenizer"] for one in found] == ["builtin", "small-llama"]
    assert found[0]["reference"] == "en" and found[0]["groups"]["en"]["premium"] == 1
    assert found[1]["groups"]["zh"]["premium"] == (
        found[1]["groups"]["zh"]["tokens"] / found[1]["groups"]["en"]["tokens"]
    )
    assert found[0]["groups"]["zh"]["tokens_per_word"] is None
    assert found[1]["total"]["tokens_over_first"] == (
        found[1]["total"]["tokens"] / found[0]["total"]["tokens"]
    )
    table = list(csv.DictReader(io.StringIO(run(*words, "--csv"))))
    assert [row["group"] for row in table] == ["en", "zh", "ru", "all"] * 2
    assert table[1]["table"] == str(found[0]["groups"]["zh"]["table"])
    assert "| builtin | zh |" in run(*words, "--md")
    shown = run(*words)
    assert "premium" in shown and "round trip: all 3 texts" in shown


def test_files_are_groups_and_escapes_are_shown(tmp_path: Path) -> None:
    (tmp_path / "en.txt").write_text("The \x1b[31mred\x1b[0m Cat")
    (tmp_path / "x.txt").write_text("the cat")
    lower().save_pretrained(tmp_path / "bert")
    shown = run(
        str(tmp_path / "bert"), "--data", str(tmp_path / "x.txt"), "--data",
        str(tmp_path / "en.txt"),
    )  # fmt: skip
    assert "\x1b[31m" not in shown and "\\x1b" in shown and "1 of 2 texts change" in shown
    assert "en.txt" in shown and "x.txt" in shown


def test_models_and_runs_are_split(small: str, stories: str, tmp_path: Path) -> None:
    words = ("--data", "sample:news", "--limit", "6", "--max-length", "64")
    made = json.loads(run(small, stories, *words, "--models", "--json"))
    assert len(made["tokenizers"]) == 2
    part = made["splits"][0]["nats_per_token"]
    assert part["difference"] == pytest.approx(part["tokenizer"] + part["model"], abs=1e-12)
    assert "bytes per token" in made["splits"][0]["sentence"]
    folders = []
    for name in (small, stories):
        out = str(tmp_path / str(len(folders)))
        fairway.evaluate(name, "sample:news", out=out, max_length=64, corpus={"limit": 6})
        folders.append(out)
    found = json.loads(run("--runs", *folders, "--json"))["splits"][0]
    assert found["nats_per_token"] == pytest.approx(part, rel=1e-4)
    first = found["perplexity_as_first"]
    assert math.log2(first) / found["bytes_per_token"][0] == pytest.approx(
        found["bits_per_byte"][1], rel=1e-9
    )
    assert "bits per byte" in run("--runs", *folders) and "| all |" in run(
        "--runs", *folders, "--md"
    )


def test_the_marginal_of_a_command(small: str) -> None:
    made = json.loads(run(small, "--marginal", "the", "--samples", "8", "--seed", "3", "--json"))
    found = made["marginals"][0]
    assert found["tokenizations"] == 3 and found["exact_bits"] < found["canonical_bits"]
    assert "upper bound" in run(small, "--marginal", "the", "--samples", "8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name a tokenizer"),
        (["builtin", "--models"], "two models"),
        (["--runs", "a"], "two run directories"),
        (["builtin", "--data", "absent"], "absent is no file"),
        (["builtin", "--reference", "x", "--data", "sample:news"], "no group 'x'"),
        (["builtin", "--marginal", "a", "--data", "x"], "text of its own"),
        (["nothing:x"], "not a kind"),
    ],
)
def test_mistakes_are_told(words: list[str], said: str) -> None:
    out = CliRunner().invoke(app, ["tokenizers", *words])
    assert isinstance(out.exception, InputError) and said in str(out.exception)
