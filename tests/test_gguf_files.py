"""GGUF files that are damaged, quantised, no language model; and gguf: beside other kinds."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fairway
import lacking
from fairway.corpus import Document
from fairway.divergence import diverge
from fairway.errors import InputError, MissingExtra, ModelError, ProtocolError

api = pytest.importorskip("llama_cpp", reason=lacking.gguf())
gguf = pytest.importorskip("gguf", reason=lacking.gguf())

import gguf_models  # noqa: E402
from fairway.backends.gguf import decoding, header, loading, tokens  # noqa: E402

TESTS = Path(__file__).parent
TEXTS = [
    Document(str(number), f"Once upon a time there was a {animal} who {did}. " * 4)
    for number, (animal, did) in enumerate([("dog", "ran"), ("girl", "sang"), ("bird", "flew")])
]


@pytest.fixture(scope="module")
def file(assets: Path) -> Path:
    return assets / "models/stories260K/gguf/stories260K-f32.gguf"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_models.llama(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def quantised(file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small model in eight and in four bits, by llama.cpp's own quantiser."""
    loading.quiet()
    folder = tmp_path_factory.mktemp("quantised")
    out = {}
    for name in ("Q8_0", "Q4_0"):
        options = api.llama_model_quantize_default_params()
        options.ftype = getattr(api, f"LLAMA_FTYPE_MOSTLY_{name}")
        options.nthread = 1
        out[name] = folder / f"stories-{name}.gguf"
        done = api.llama_model_quantize(
            str(file).encode(), str(out[name]).encode(), ctypes.byref(options)
        )
        assert done == 0
    return out


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fairway", *words], capture_output=True, text=True)


def test_sizes_of_types_are_those_of_the_gguf_package() -> None:
    for number, (name, block, size) in header.TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert kind.name == name and gguf.GGML_QUANT_SIZES[kind] == (block, size)


def test_a_header_says_what_the_gguf_package_reads(file: Path) -> None:
    ours, theirs = header.read(file), gguf.GGUFReader(str(file))
    for key, value in ours.fields.items():
        field = theirs.fields[key]
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        assert value == (len(field.data) if is_array else field.contents()), key
    assert [one.name for one in ours.tensors] == [one.name for one in theirs.tensors]
    assert [one.size for one in ours.tensors] == [one.n_bytes for one in theirs.tensors]
    assert ours.main_type() == "F32" and ours.own("context_length") == 512


def test_the_tokenizers_hash_follows_the_tokenizer_alone(
    file: Path, quantised: dict[str, Path], tiny: Path
) -> None:
    own = header.read(file).tokenizer
    assert header.read(quantised["Q4_0"]).tokenizer == own != header.read(tiny).tokenizer


def test_quantised_files(file: Path, quantised: dict[str, Path]) -> None:
    base = fairway.load(f"gguf:{file}")
    losses = {}
    for name, path in quantised.items():
        scorer: Any = fairway.load(f"gguf:{path}")
        assert scorer.signature["quant"] == name and scorer.signature["dtype"] == "float32"
        assert scorer.stored[0] < base.stored[0] and scorer.stored[1] == base.stored[1]
        found = diverge(base, scorer, TEXTS)
        losses[name] = found.kld.mean()
        scored = np.concatenate([one.logprobs for one in scorer.score(TEXTS)])
        assert found.variant == pytest.approx(scored, abs=2e-5)
    assert 0 < losses["Q8_0"] < losses["Q4_0"] / 10


def test_distributions_are_those_of_the_scores(file: Path) -> None:
    scorer: Any = fairway.load(f"gguf:{file}", max_length=64, stride=16)
    documents = [*TEXTS, Document("spans", "Tom went away.", scored=((4, 8),))]
    scores = list(scorer.score(documents, ("entropy",)))
    blocks = list(scorer.distributions(documents))
    assert [len(block) for block in blocks[:-1]] == [512] * (len(blocks) - 1)
    total = 0
    for block in blocks:
        tile = block.tile(0, block.vocabulary)
        assert np.exp(tile).sum(1) == pytest.approx(1, abs=1e-6)
        assert tile[np.arange(len(block)), block.ids] == pytest.approx(block.logprobs, abs=1e-6)
        assert np.array_equal(block.tile(5, 9), tile[:, 5:9])
        for row in range(len(block)):
            score = scores[block.document[row]]
            place = block.place[row]
            assert score.ids[place] == block.ids[row]
            assert score.logprobs[place] == pytest.approx(block.logprobs[row], abs=2e-5)
        total += len(block)
    assert total == sum(score.totals.tokens for score in scores)


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("{file}", {"max_length": 1024}, (ProtocolError, "at most 512")),
        ("{file}", {"like": "gptq"}, (ProtocolError, "at most 512")),
        ("{file}", {"dtype": "int8"}, (InputError, "no dtype")),
        ("{file}", {"device": "cuda"}, (InputError, "built without cuda")),
        ("{file}", {"device": "moon"}, (InputError, "no device")),
        ("{file}", {"chat": ["user"]}, (InputError, "no setting chat")),
        ("{file}", {"special_tokens": "x"}, (InputError, "neither")),
        ("{file}", {"threads": 0}, (InputError, "below 1")),
        ("{file}", {"engine": "steam"}, (InputError, "no engine")),
        ("", {}, (InputError, "takes a file")),
        ("/nowhere.gguf", {}, (ModelError, "There is no file")),
        ("{folder}", {}, (ModelError, "2 GGUF files")),
        ("{assets}/tokenizers/ggml_vocab/ggml-vocab-gpt-2.gguf", {}, (ModelError, "no weights")),
        ("{folder}/cut.gguf", {}, (ModelError, "cut off or damaged")),
        ("{folder}/text.gguf", {}, (ModelError, "no GGUF file")),
    ],
)
def test_mistakes(
    assets: Path, file: Path, tmp_path: Path, name: str, options: Any, problem: Any
) -> None:
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:600_000])
    (tmp_path / "text.gguf").write_text("Once upon a time", "utf-8")
    spec = name.format(file=file, folder=tmp_path, assets=assets)
    with pytest.raises(problem[0], match=problem[1]):
        fairway.load(f"gguf:{spec}", **options)


def test_what_is_no_causal_language_model(tmp_path: Path) -> None:
    for number, (more, reason) in enumerate(
        [
            (lambda w: w.add_causal_attention(False), "no causal language model"),
            (lambda w: w.add_pooling_type(gguf.PoolingType.MEAN), "no causal language model"),
            (lambda w: w.add_type("adapter"), "no model by itself"),
        ]
    ):
        path = gguf_models.llama(tmp_path / f"{number}.gguf", more=more)
        with pytest.raises(ModelError, match=reason):
            fairway.load(f"gguf:{path}")


def test_a_file_that_would_end_the_process(tiny: Path, tmp_path: Path) -> None:
    """llama.cpp throws through its own interface here; that happens in another process."""
    path = tmp_path / "bytes.gguf"
    path.write_bytes(tiny.read_bytes().replace(b"<0xC3>", b"<0xc3!"))
    with pytest.raises(ModelError, match=r"bytes\.gguf cannot be loaded: .* while it tokenizes"):
        fairway.load(f"gguf:{path}")


def test_a_part_alone(file: Path, tmp_path: Path) -> None:
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match="m-00002-of-00002.gguf is not beside it"):
        fairway.load(f"gguf:{tmp_path}")


def test_a_model_in_parts(tiny: Path, tmp_path: Path) -> None:
    gguf_models.llama(tmp_path / "parts.gguf", part=8)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) > 2 and parts[0].name.startswith("parts-00001-of-")
    whole, split = fairway.load(f"gguf:{tiny}"), fairway.load(f"gguf:{parts[0]}")
    assert split.signature["model"] == "parts"
    assert split.signature["weights"] != whole.signature["weights"]
    for a, b in zip(whole.score(TEXTS), split.score(TEXTS), strict=True):
        assert a.logprobs.tolist() == b.logprobs.tolist()
    parts[1].write_bytes(parts[1].read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cut off or damaged"):
        fairway.load(f"gguf:{tmp_path}")


def test_a_cache_larger_than_memory_is_refused(file: Path) -> None:
    decoder = decoding.Decoder(loading.load(str(file)), "float32", 1)
    with pytest.raises(ModelError, match=r"more than this machine has; give a smaller"):
        decoder._check(1 << 40)


def test_half_a_surrogate_pair_is_no_text(file: Path) -> None:
    scorer = fairway.load(f"gguf:{file}")
    with pytest.raises(InputError, match="surrogate"):
        list(scorer.score([Document("1", "a\ud800")]))
    with pytest.raises(InputError, match="512 tokens"):
        list(scorer.score([Document("1", "", ids=np.array([3, 512]))]))
    with pytest.raises(InputError, match="no column"):
        list(scorer.score(TEXTS, ("top0",)))


def test_through_transformers(file: Path, quantised: dict[str, Path]) -> None:
    texts = [*TEXTS, Document("blanks", "  two  blanks,\ttab\r\n")]
    for path, tolerance in ((file, 2e-5), (quantised["Q8_0"], 0.2)):
        own = fairway.load(f"gguf:{path}")
        theirs: Any = fairway.load(f"gguf:{path}", engine="transformers")
        assert theirs.signature["weights"] == own.signature["weights"]
        for a, b in zip(own.score(texts), theirs.score(texts), strict=True):
            assert a.ids.tolist() == b.ids.tolist()
            assert np.abs(a.logprobs - b.logprobs).max() < tolerance
        assert theirs.signature["kind"] == "gguf" and not theirs.notes
    assert theirs.signature["quant"] == "gguf-Q8_0-dequantised"
    # What transformers itself makes of the file is noticed.
    from tokenizers import pre_tokenizers

    from fairway.backends.gguf import dequantised

    core = theirs.loaded.tokenizer.backend_tokenizer
    core.normalizer = None
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    assert " lead" in dequantised.differences(theirs.loaded.tokenizer, file)


def test_a_missing_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fairway\[gguf\]'"):
        fairway.load(f"gguf:{file}")


def test_runs_beside_other_kinds(file: Path, stories: str, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [json.dumps({"text": one.text, "kind": one.id}) for one in TEXTS * 3]
    data.write_text("\n".join(rows) + "\n", "utf-8")
    run = {"data": str(data), "group_by": "kind"}
    report = fairway.evaluate(f"gguf:{file}", out=tmp_path / "ours", **run)
    again = fairway.evaluate(f"gguf:{file}", out=tmp_path / "ours", **run)
    other = fairway.evaluate(stories, out=tmp_path / "theirs", **run)
    assert again.totals == report.totals and len(report.groups) == 3
    assert report.companions is not None and other.companions is not None
    assert report.totals.nll == pytest.approx(other.totals.nll, rel=1e-6)
    assert report.totals.bytes == other.totals.bytes
    for name, value in report.companions.metrics.items():
        assert value == pytest.approx(other.companions.metrics[name], rel=1e-2), name
    compared = fairway.compare(tmp_path / "theirs", tmp_path / "ours")
    assert abs(compared.to_json()["bits_per_byte"]["difference"]) < 1e-5
    refused = cli("eval", "--data", str(data), "--model", f"gguf:{data}")
    assert refused.returncode == 2 and "no GGUF file" in refused.stderr
    assert "Traceback" not in refused.stderr


PIECES = st.text(st.characters(codec="utf-8"), max_size=30)


@given(PIECES, st.data())
@settings(deadline=None, max_examples=150)
def test_bytes_in_any_pieces_are_laid_over_the_text(text: str, data: Any) -> None:
    raw = (b" " if data.draw(st.booleans()) else b"") + text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    edges = [0, *cuts, len(raw)]
    pieces = [raw[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    spans, exact = tokens.align(pieces, text)
    assert exact
    covered = {c for start, end in spans.tolist() for c in range(start, end)}
    assert covered == set(range(len(text)))
    assert (np.diff(spans[:, 0]) >= 0).all()


@given(PIECES, st.lists(st.binary(max_size=4), max_size=12))
@settings(deadline=None, max_examples=150)
def test_what_does_not_spell_the_text_still_lies_in_it(text: str, pieces: list[bytes]) -> None:
    spans, _ = tokens.align(pieces, text)
    assert spans.shape == (len(pieces), 2)
    assert (spans >= 0).all() and (spans <= len(text)).all()
    assert (spans[:, 0] <= spans[:, 1]).all() and (np.diff(spans[:, 0]) >= 0).all()


def test_an_unknown_character_lies_between_its_neighbours() -> None:
    spans, exact = tokens.align([b" ab", b"<unk>", b" cd"], "abÿÿ cd")
    assert not exact and spans.tolist() == [[0, 2], [2, 4], [4, 7]]


@pytest.mark.parametrize(
    ("mutants", "used"), [(300, 12), pytest.param(10_000, 250, marks=pytest.mark.slow)]
)
def test_damaged_headers(tiny: Path, mutants: int, used: int) -> None:
    """No traceback, no hang, and no death of the process that loads what the probe let through."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "gguf_fuzz.py"), str(tiny), str(mutants), str(used), "1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sum(found.values()) == mutants and found["header"] > mutants / 2
    ends = {key for key in found if key.startswith("use")}
    assert ends <= {"use 0", "use 3"} and found["use 0"] > used / 4
    assert "probe hangs" not in found and "probe 9" not in found
