"""The use of context against plain loops: one forward per token."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

import models
from fairway import Document, load, read
from fairway.errors import FairwayError, InputError, ProtocolError
from fairway.longcontext import default_lengths, examine, examining
from fairway.longcontext.depth import Depths
from fairway.longcontext.gain import Gains, draw, limited
from fairway.longcontext.longppl import KeySums, lsd, shortened
from fairway.longcontext.spans import owned, positions
from fairway.render import context as render
from fairway.scores import Score
from fairway.signature import Signature

WORDS = ("the", "thin", "man", "and", "an", "inn", "then", "in", "end", "🐕", "é", "thane", "")
TOKENIZER = models.tokenizer()


def prose(tokens: int, seed: int) -> str:
    draw_ = np.random.default_rng(seed)
    text = " ".join(draw_.choice(WORDS, tokens))
    return text[: len(text) * 2 // 3]


@pytest.fixture(scope="module")
def scorer(small: str) -> Any:
    return load(small, max_length=0, threads=1)


@pytest.fixture(scope="module")
def model(scorer: Any) -> Any:
    return scorer.loaded.model


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    sizes = (70, 25, 60, 5, 40, 90)
    return [Document(f"d{i}", prose(size, i)) for i, size in enumerate(sizes)]


def plain(model: Any, ids: Any, begin: int, at: int) -> float:
    """One forward for one token: BOS, then what stands from begin up to it."""
    return float(models.reference(model, [0, *map(int, ids[begin : at + 1])], at - begin + 1)[-1])


# Bits by position.


def test_intervals_of_buckets_are_the_ratio_estimators(scorer: Any, documents: Any) -> None:
    scores = list(scorer.score(documents))
    depths = Depths()
    for score in scores:
        depths.add(score)
    buckets = depths.buckets()
    assert [(b.low, b.high) for b in buckets] == [(0, 64), (64, 128), (128, 256)][: len(buckets)]
    assert buckets[-1].totals.documents < len(documents)
    for number, bucket in enumerate(buckets):
        pairs = []
        for score in scores:
            nll, size = 0.0, 0
            for p, b, value in zip(positions(score), owned(score), score.logprobs, strict=True):
                if bucket.low <= p < bucket.high:
                    nll, size = nll - value, size + int(b)
            if size:
                pairs.append((nll, size))
        n, total = len(pairs), sum(size for _, size in pairs)
        ratio = sum(nll for nll, _ in pairs) / total
        error = math.sqrt(n / (n - 1) * sum((a - ratio * b) ** 2 for a, b in pairs)) / total
        reach = scipy.stats.t.ppf(0.975, n - 1) * error
        assert bucket.bits_per_byte == pytest.approx(ratio / math.log(2), rel=1e-12), number
        assert bucket.interval is not None and bucket.totals.documents == n
        wanted = max(0.0, ratio - reach) / math.log(2), (ratio + reach) / math.log(2)
        assert bucket.interval[:2] == pytest.approx(wanted, rel=1e-9)


# The context-gain curve.


def test_the_frame_knows_each_tokens_context(scorer: Any, documents: Any) -> None:
    own = examining.frame(scorer)
    assert (own.max_length, own.stride, own.room, own.sure) == (64, 32, 63, 31)
    for score in scorer.score(documents, want=("window",)):
        window = score.extras["window"]
        wanted = [at - 32 * int(w) for at, w in enumerate(window)]
        assert own.context(score).tolist() == wanted


def test_gains_are_those_of_one_forward_per_token(scorer: Any, model: Any, documents: Any) -> None:
    own, ks = examining.frame(scorer), (2, 5, 20)
    scores = list(scorer.score(documents))
    samples = [draw(s, own.context(s), 20, None, 0) for s in scores]
    assert any(len(s.places) == 0 for s in samples), "a document too short for the longest k"
    gains = Gains(ks)
    wanted: list[tuple[float, list[float], int]] = []
    found = limited(scorer, zip(scores, samples, strict=True), ks)
    for score, sample, values in zip(scores, samples, found, strict=True):
        gains.add(score, sample, values)
        for row, at in enumerate(sample.places.tolist()):
            slow = [plain(model, score.ids, at - k, at) for k in ks]
            assert values[row] == pytest.approx(slow, abs=2e-5)
            begin = at - int(sample.context[row])
            assert begin == 0 or at - begin >= own.sure
            long = plain(model, score.ids, begin, at)
            assert score.logprobs[at] == pytest.approx(long, abs=2e-5)
            wanted.append((long, slow, int(owned(score)[at])))
    curve = gains.curve()
    assert curve.reason is None and curve.tokens == len(wanted) == curve.eligible
    assert curve.documents == sum(len(s.places) > 0 for s in samples)
    # Tested in sequence: no k passes that comes behind one that fails.
    raw = [max(one.found.p_t, one.found.p_flip) for one in curve.gains]
    assert [one.adjusted for one in curve.gains] == np.maximum.accumulate(raw).tolist()
    size = sum(b for _, _, b in wanted)
    for column, gain in enumerate(curve.gains):
        value = sum(long - short[column] for long, short, _ in wanted) / size / math.log(2)
        assert gain.bits_per_byte == pytest.approx(value, abs=2e-5)
        assert gain.found.low < gain.found.value < gain.found.high


def test_full_context_gains_nothing(scorer: Any) -> None:
    """Texts of 31 tokens: at k = 30, a token counts only if k is all the context that it has."""
    texts = ["".join(np.random.default_rng(i).choice(list("0123456789"), 31)) for i in range(4)]
    report = examine(scorer, read(texts), longppl=False, lengths=[15, 30], per_document=None)
    shorter, whole = report.curve.gains
    assert report.curve.tokens == report.curve.documents == 4 and report.curve.full == 30
    assert whole.found.value == 0 and whole.found.error == 0 and not whole.real
    assert shorter.found.value != 0


def test_tokens_drawn_depend_on_text_and_seed_alone(scorer: Any, documents: Any) -> None:
    own = examining.frame(scorer)
    scores = list(scorer.score(documents))
    first = draw(scores[0], own.context(scores[0]), 10, 8, seed=1)
    again = draw(scores[0], own.context(scores[0]), 10, 8, seed=1)
    other = draw(scores[0], own.context(scores[0]), 10, 8, seed=2)
    assert first.places.tolist() == again.places.tolist() != other.places.tolist()
    assert len(set(first.places.tolist())) == 8 and first.eligible == len(scores[0]) - 10
    assert (first.context >= 10).all()
    forward = examine(scorer, read(documents), lengths=[4], longppl=False)
    backward = examine(scorer, read(documents[::-1]), lengths=[4], longppl=False)
    a, b = forward.curve.gains[0].found, backward.curve.gains[0].found
    assert a.value == pytest.approx(b.value, abs=2e-5)
    assert a.error == pytest.approx(b.error, abs=2e-5)


def test_blocks_do_not_matter(
    scorer: Any, documents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    whole = examine(scorer, read(documents), lengths=[4], short=8, alpha=0.5, beta=-9.0)
    monkeypatch.setattr(examining, "BLOCK_BYTES", 1)
    states = []
    single = examine(
        scorer, read(documents), lengths=[4], short=8, alpha=0.5, beta=-9.0,
        progress=lambda state: states.append(state.documents),
    )  # fmt: skip
    assert states == [1, 2, 3, 4, 5, 6]
    for a, b in zip(render.rows(whole), render.rows(single), strict=True):
        assert a["where"] == b["where"] and a["tokens"] == b["tokens"] and a["bytes"] == b["bytes"]
        for key in ("value", "low", "high"):
            assert a[key] == pytest.approx(b[key], rel=1e-4, abs=2e-5)


def test_the_builtin_model_looks_back_where_a_text_repeats() -> None:
    """The same passages behind themselves and behind others; only the second half counts."""
    scorer = load("hf:builtin", max_length=0, threads=1)
    long = [d.text for d in itertools.islice(read("sample:all"), 60) if len(d.text) > 900][:14]
    passages = [" ".join(text.split()[10:60]) for text in long]
    curves = {}
    for copied in (True, False):
        made = []
        for at, passage in enumerate(passages):
            front = passage if copied else passages[at - 1]
            text = f"{front}\n\n{passage}"
            made.append(Document(f"t{at}", text, scored=((len(front) + 2, len(text)),)))
        report = examine(scorer, read(made), lengths=[16], per_document=None, longppl=False)
        curves[copied] = report.curve
    copy, other = curves[True].gains[0], curves[False].gains[0]
    assert curves[True].tokens > 900 and copy.real and copy.bits_per_byte > 0.05
    assert copy.bits_per_byte > other.bits_per_byte + 0.05
    assert curves[True].full_bits_per_byte < curves[False].full_bits_per_byte


class Echo:
    """A model that knows one thing: a byte is, nine times in ten, the one `BACK` bytes before."""

    BACK = 40
    signature = Signature.of(
        {"model": "echo", "protocol": "fairway", "prefix": "none", "length": 400, "stride": 200}
    )

    def score(self, documents: Any, want: Any = ()) -> Any:
        for document in documents:
            ids = document.ids
            if ids is None:
                ids = np.frombuffer(document.text.encode("ascii"), np.uint8).astype(np.int64)
            values = np.full(len(ids), -math.log(256))
            if len(ids) > self.BACK:
                same = ids[self.BACK :] == ids[: -self.BACK]
                values[self.BACK :] = np.where(same, math.log(0.9), math.log(0.1 / 255))
            values[0] = np.nan
            kept = slice(document.context_ids, None)
            offsets = np.stack([np.arange(len(ids)), np.arange(len(ids)) + 1], axis=1)
            yield Score(
                document.id, document.text, offsets[kept], values[kept], ids[kept], document.scored
            )


def test_how_far_back_a_model_looks_is_found_to_the_token() -> None:
    letters = np.random.default_rng(8).choice(list("abcdefgh"), (6, Echo.BACK))
    corpus = read([Document(f"d{i}", "".join(row) * 5) for i, row in enumerate(letters)])
    report = examine(
        Echo(), corpus, lengths=[1, 39, 40, 100], per_document=None, short=32, seed=3
    )  # fmt: skip
    gains = {one.k: one for one in report.curve.gains}
    known = (math.log(256) + math.log(0.9)) / math.log(2)
    # Every token repeats, with the same gain in every document.
    assert gains[1].bits_per_byte == pytest.approx(known, abs=1e-9)
    assert gains[39].bits_per_byte == pytest.approx(known, abs=1e-9)
    assert gains[40].found.value == 0 and gains[100].found.value == 0
    assert [k for k, one in gains.items() if one.real] == [1, 39]
    assert report.sentences()[0].startswith("Beyond 39 tokens the context brings 7.8480 bits")
    assert report.sentences()[1].startswith("Beyond 40 tokens no gain can be told")
    # With 32 to 39 tokens the copy is out of sight: all tokens from the 40th on are key.
    found = report.longppl
    assert found is not None and found.key_tokens == 6 * (200 - 40)
    assert found.value == pytest.approx(1 / 0.9, rel=1e-12)
    assert found.rest.totals.tokens == 6 * 39
    assert found.rest.totals.per("bytes") == pytest.approx(math.log(256), rel=1e-12)


# LongPPL.


def test_the_short_context_is_that_of_plain_windows(scorer: Any, model: Any) -> None:
    (score,) = scorer.score([Document("x", prose(45, 2))])
    (values,) = shortened(scorer, [score], 8, 3)
    assert np.isnan(values[:8]).all() and not np.isnan(values[8:]).any()
    for at in range(8, len(score)):
        begin = (at - 8) // 3 * 3
        assert 8 <= at - begin <= 10
        assert values[at] == pytest.approx(plain(model, score.ids, begin, at), abs=2e-5)


def test_no_difference_where_short_and_long_are_one(scorer: Any, documents: Any) -> None:
    own = examining.frame(scorer)
    scores = [s for s in scorer.score(documents) if len(s) > own.room]
    assert scores
    found = shortened(scorer, scores, own.room - own.stride, own.stride)
    for score, values in zip(scores, found, strict=True):
        # From the second window on, these are the windows of the long context.
        apart = lsd(score.logprobs, values, own.room - own.stride)
        assert (apart[: own.room - own.stride] == 0).all()
        assert apart == pytest.approx(np.zeros(len(apart)), abs=2e-5)


def test_key_spans_pass_from_one_tokenizer_to_another(scorer: Any) -> None:
    builtin = load("hf:builtin", max_length=0, threads=1)
    text = "The café 🐕 in the house. " * 12
    (long,) = builtin.score([Document("x", text)])
    (own,) = scorer.score([Document("x", text)])
    assert len(long) < len(own), "the tokenizers differ"
    # By hand: every seventh token is likely, and loses three nats with the short context.
    values = np.where(np.arange(len(long)) % 7 == 0, -1.0, -5.0)
    values[10] = -1.0
    short = values - 3
    short[10] = values[10] - 1.9
    short[:5] = np.nan
    keys = KeySums(5)
    spans = keys.spans(replace(long, logprobs=values), short)
    assert spans.tolist() == long.offsets[7::7].tolist()
    assert keys.key_tokens == len(spans) and keys.candidates == len(long) - 5
    assert keys.scored == len(long)
    keys.add(own, spans)
    letters = {c for start, end in spans.tolist() for c in range(start, end)}
    hit = [at for at, (s, e) in enumerate(own.offsets.tolist()) if letters & set(range(s, e))]
    assert keys.key[0].tokens == len(hit) and 0 < len(hit) < len(own)
    assert keys.key[0].nll == pytest.approx(-math.fsum(own.logprobs[hit]), abs=1e-9)
    assert keys.key[0].bytes + keys.rest[0].bytes == own.totals.bytes
    assert keys.key[0].tokens + keys.rest[0].tokens == own.totals.tokens
    assert keys.key[0].nll + keys.rest[0].nll == pytest.approx(own.totals.nll, abs=1e-9)
    # All four tokens of a split character, or none.
    dog = text.index("🐕")
    four = [at for at, (s, e) in enumerate(own.offsets.tolist()) if s <= dog < e]
    assert len(four) == 4 and len(set(four) & set(hit)) in (0, 4)


def test_longppl_is_that_of_plain_loops(scorer: Any, model: Any, documents: Any) -> None:
    alpha, beta, k, step = 0.5, -6.0, 8, 2
    report = examine(scorer, read(documents), lengths=[4], short=k, alpha=alpha, beta=beta)
    found = report.longppl
    assert found is not None and (found.short, found.step) == (k, step)
    keys = nll = size = tokens = candidates = 0
    sums: list[tuple[float, int]] = []
    for score in scorer.score(documents):
        spans = []
        for at in range(k, len(score)):
            candidates += 1
            long = float(score.logprobs[at])
            short = plain(model, score.ids, (at - k) // step * step, at)
            if long - short > alpha and long > beta:
                spans.append(score.offsets[at].tolist())
        keys += len(spans)
        letters = {c for start, end in spans for c in range(start, end)}
        one = [0.0, 0]
        for at, (start, end) in enumerate(score.offsets.tolist()):
            if letters & set(range(start, end)):
                one = [one[0] - score.logprobs[at], one[1] + 1]
                nll, tokens = nll - score.logprobs[at], tokens + 1
                size += int(owned(score)[at])
        if one[1]:
            sums.append((one[0], int(one[1])))
    assert found.key_tokens == keys > 10 and found.candidates == candidates
    assert found.key.totals.tokens == tokens >= keys and found.key.totals.bytes == size
    assert found.value == pytest.approx(math.exp(nll / tokens), rel=1e-9)
    n, ratio = len(sums), nll / tokens
    error = math.sqrt(n / (n - 1) * sum((a - ratio * b) ** 2 for a, b in sums)) / tokens
    reach = scipy.stats.t.ppf(0.975, n - 1) * error
    assert found.interval is not None and found.interval[:2] == pytest.approx(
        (math.exp(max(0, ratio - reach)), math.exp(ratio + reach)), rel=1e-9
    )
    whole = found.key.totals + found.rest.totals
    assert (whole.tokens, whole.bytes) == (report.totals.tokens, report.totals.bytes)


def test_no_key_tokens_are_said_and_never_a_number(scorer: Any, documents: Any) -> None:
    report = examine(scorer, read(documents), lengths=[4], short=8, alpha=500.0)
    assert report.longppl is not None and report.longppl.value is None
    assert "500 nats" in (report.longppl.reason or "")
    plain_data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert plain_data["longppl"]["longppl"] is None and plain_data["longppl"]["reason"]
    assert any("no LongPPL" in line for line in report.sentences())
    short = examine(scorer, read(["An ant."]), lengths=[20])
    assert short.longppl is not None and "before it" in (short.longppl.reason or "")
    assert short.curve.gains == () and "20 tokens before it" in (short.curve.reason or "")
    assert short.buckets[0].interval is None and "1 scored document" in str(short.buckets[0].reason)
    json.dumps(short.to_json(), allow_nan=False)


def test_an_evaluator_of_another_vocabulary(scorer: Any, documents: Any) -> None:
    builtin = load("hf:builtin", max_length=0, threads=1)
    report = examine(
        builtin, read(documents), evaluator=scorer, lengths=[4], short=8, alpha=0.5, beta=-9.0
    )
    found = report.longppl
    assert found is not None and found.signature == str(scorer.signature)
    assert found.scored == sum(s.totals.tokens for s in scorer.score(documents))
    assert found.value is not None and found.key.totals.tokens > 0
    assert found.key.totals.bytes + found.rest.totals.bytes == report.totals.bytes


# What is refused.


def test_settings_that_cannot_be(scorer: Any, small: str) -> None:
    text = ["An ant and then the thin end."]
    for settings_, problem in (
        ({"lengths": []}, InputError),
        ({"lengths": [0]}, InputError),
        ({"lengths": [63]}, ProtocolError),
        ({"short": 30}, ProtocolError),
        ({"short": 0}, InputError),
        ({"unit": "words"}, InputError),
        ({"per_document": 0}, InputError),
        ({"alpha": math.nan}, InputError),
    ):
        with pytest.raises(problem):
            examine(scorer, read(text), **settings_)  # type: ignore[arg-type]
    ids = np.arange(2, 9)
    for wrong in (Document("x", "", ids=ids), Document("x", "text", "context")):
        with pytest.raises(InputError):
            examine(scorer, read([wrong]))
    with pytest.raises(FairwayError, match="fairway"):
        examine(load(small, like="lm-eval"), read(text))
    # The longest that fits, and the window that the model has.
    assert examine(scorer, read(text), lengths=[62]).room == 63
    assert scorer.plan.max_length == 64 and torch.get_num_threads() == 1


def test_default_lengths() -> None:
    assert default_lengths(512) == (16, 64, 256)
    assert default_lengths(511) == (16, 64) and default_lengths(2048) == (16, 64, 256, 1024)
    assert (
        default_lengths(64) == (16,) and default_lengths(16) == (4,) and default_lengths(2) == (1,)
    )
    assert default_lengths(1 << 17)[-1] == 1 << 16


# On the command line.


def test_every_form_of_output(scorer: Any, documents: Any) -> None:
    from rich.console import Console

    report = examine(scorer, read(documents), lengths=[4, 16], short=8, alpha=0.5, beta=-9.0)
    rows = list(csv.DictReader(io.StringIO(render.as_csv(report))))
    assert len(rows) == len(report.buckets) + 2 + 4
    assert float(rows[0]["value"]) == report.buckets[0].bits_per_byte
    assert {row["signature"] for row in rows} == {str(report.signature)}
    lines = render.markdown(report).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(rows) and len({line.count("|") for line in table}) == 1
    for width in (60, 80, 120):
        console = Console(file=io.StringIO(), width=width, record=True)
        render.context(console, report)
        shown = console.export_text()
        assert "█" in shown and str(report.signature) in shown
        if width >= 80:
            assert "…" not in shown and "key spans" in shown


def test_the_command(small: str, tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": prose(60, i)}) + "\n" for i in range(4)), "utf-8")

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fairway", "context", "--model", small, *words],
            capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"},
        )  # fmt: skip

    out = command("--data", str(data), "--lengths", "4,16", "--json", "--per-document", "0")
    assert out.returncode == 0 and not out.stderr, out.stderr
    found = json.loads(out.stdout)
    assert [p["context"] for p in found["gain"]["points"]] == [4, 16]
    assert found["gain"]["tokens"] == found["gain"]["eligible_tokens"]
    assert found["totals"]["documents"] == 4 and found["sentences"]
    assert found["signature"].endswith(
        "lengths:4+16|drawn:all|position:bytes|evaluator:small-llama|short:16|alpha:2|beta:-2"
    )
    wrong = command("--data", str(data), "--lengths", "4;16")
    assert wrong.returncode == 2 and "--lengths" in wrong.stderr
    assert "Traceback" not in wrong.stderr
