"""Every format and compression gives the same documents; bad rows are listed, never fatal."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fairway
from fairway.corpus import Corpus, read
from fairway.corpus.compressed import CHUNK
from fairway.errors import InputError

TEXTS = [
    'a "quoted", text; with a comma', "two\nlines\n\nand a third", "👩‍🚀 ภาษาไทย 中文 e\u0301",
    "  blanks at both ends  ", "tab\there", "'", "=1+1", "\ufeffmark", "x" * 3000,
]  # fmt: skip
COMPRESSIONS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def written(kind: str, texts: list[str]) -> bytes:
    rows = [{"text": one, "n": i} for i, one in enumerate(texts)]
    if kind == "jsonl":
        return "".join(json.dumps(r, ensure_ascii=bool(r["n"] % 2)) + "\n" for r in rows).encode()
    if kind in ("csv", "tsv"):
        out = io.StringIO(newline="")
        table = csv.DictWriter(out, ["text", "n"], delimiter="," if kind == "csv" else "\t")
        table.writeheader()
        table.writerows(rows)
        return out.getvalue().encode()
    import pyarrow
    import pyarrow.parquet

    columns = pyarrow.table({"text": texts, "n": list(range(len(texts)))})
    sink = io.BytesIO()
    if kind == "parquet":
        pyarrow.parquet.write_table(columns, sink, row_group_size=2)
    else:
        make = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
        with make(sink, columns.schema) as out:
            out.write_table(columns, max_chunksize=2)
    return sink.getvalue()


def texts_of(corpus: Corpus) -> list[str]:
    return [document.text for document in corpus]


@pytest.mark.parametrize("packing", COMPRESSIONS)
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet", "arrow", "stream"])
def test_every_format_gives_the_same_documents(tmp_path: Path, kind: str, packing: str) -> None:
    path = tmp_path / f"data.{'arrow' if kind == 'stream' else kind}{packing}"
    path.write_bytes(COMPRESSIONS[packing](written(kind, TEXTS)))
    corpus = read(path)
    assert texts_of(corpus) == TEXTS
    assert corpus.skipped_total == 0 and corpus.documents == len(TEXTS)
    assert corpus.digest == _digest(TEXTS)
    assert corpus.position == corpus.size == path.stat().st_size


def _digest(texts: list[str]) -> str:
    corpus = read(texts)
    list(corpus)
    return corpus.digest


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(text, min_size=1, max_size=5), st.sampled_from(["jsonl", "csv", "parquet"]))
def test_any_text_survives(tmp_path: Path, texts: list[str], kind: str) -> None:
    path = tmp_path / f"data.{kind}"
    path.write_bytes(written(kind, texts))
    assert texts_of(read(path)) == texts


@pytest.mark.parametrize("packing", COMPRESSIONS)
def test_plain_text(tmp_path: Path, packing: str) -> None:
    whole = "First line.\n\nA paragraph\nof two lines.\r\n\n\nLast, without newline"
    path = tmp_path / f"notes.txt{packing}"
    path.write_bytes(COMPRESSIONS[packing](whole.encode()))
    assert texts_of(read(path)) == [whole]
    assert "".join(texts_of(read(path, split="paragraphs"))) == whole
    assert len(texts_of(read(path, split="paragraphs"))) == 3
    lines = texts_of(read(path, split="lines"))
    assert lines == ["First line.", "A paragraph", "of two lines.", "Last, without newline"]
    assert texts_of(read(tmp_path / f"notes.txt{packing}"))[0].encode() == whole.encode()


BAD = [
    (b'{"text": "good"}', None),
    (b'{"text": \n', "broken JSON"),
    (b'{"text": "caf\xe9"}', "not UTF-8"),
    (b'{"other": "x"}', "lacks the field 'text'"),
    (b'{"text": 5}', "is int, and not a string"),
    (b'{"text": null}', "is NoneType, and not a string"),
    (b'{"text": ""}', "empty"),
    (b'{"text": "a\\u0000b"}', "NUL"),
    (b'{"text": "a\\ud800b"}', "lone surrogate"),
    (b"[1, 2]", "not a JSON object"),
    (b"[" * 100_000, "broken JSON"),
    (b'{"text": [1, "a"]}', "no list of whole numbers"),
    (b'{"text": "also good"}', None),
]


def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join(line.rstrip(b"\n") for line, _ in BAD) + b"\n")
    return path


def test_bad_rows_are_listed_with_line_and_reason(tmp_path: Path) -> None:
    corpus = read(bad(tmp_path))
    assert texts_of(corpus) == ["good", "also good"]
    wanted = [(number, why) for number, (_, why) in enumerate(BAD, 1) if why]
    assert [row.line for row in corpus.skipped] == [number for number, _ in wanted]
    for row, (_, why) in zip(corpus.skipped, wanted, strict=True):
        assert row.source == "bad.jsonl" and why in row.reason


def test_bad_rows_on_the_command_line(small: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "fairway", "eval", "--model", small, "--data"]
    words.append(str(bad(tmp_path)))
    out = subprocess.run([*words, "--json"], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    report = json.loads(out.stdout)
    assert report["metrics"]["documents"] == 2 and report["skipped_total"] == len(BAD) - 2
    strict = subprocess.run([*words, "--strict"], capture_output=True, text=True)
    assert strict.returncode == 2 and "bad.jsonl:2: broken JSON" in strict.stderr
    assert "Traceback" not in strict.stderr


def test_bad_rows_of_tables(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(b'text,n\ngood,1\ncaf\xe9,2\n,3\n"two\nlines",4\n"a\0b",5\nshort\n')
    corpus = read(path)
    assert texts_of(corpus) == ["good", "two\nlines", "short"]
    assert [row.line for row in corpus.skipped] == [3, 4, 7]


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".zst"])
def test_a_file_that_breaks_off_keeps_what_came_before(tmp_path: Path, packing: str) -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choice("abcdefgh ") for _ in range(200)) for _ in range(6000)]
    packed = COMPRESSIONS[packing](written("jsonl", texts))
    path = tmp_path / f"broken.jsonl{packing}"
    path.write_bytes(packed[: len(packed) * 9 // 10])
    corpus = read(path)
    got = texts_of(corpus)
    assert 0 < len(got) < len(texts) and got == texts[: len(got)]
    assert corpus.skipped_total >= 1


def test_binary_files_and_long_lines(small: str, tmp_path: Path) -> None:
    binary = tmp_path / "photo.png"
    binary.write_bytes(bytes(random.Random(1).randbytes(50_000)))
    corpus = read(binary)
    assert texts_of(corpus) == [] and corpus.skipped[0].reason == "not UTF-8 text"
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"text": "a b " * 2_500_000}) + '\n{"text": "next"}\n', "utf-8")
    sizes = [len(document.text) for document in read(long)]
    assert sizes == [10_000_000, 4]


@pytest.mark.slow
def test_a_line_of_ten_megabytes_is_scored(small: str, tmp_path: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text("the cat and " * 850_000, "utf-8")
    report = fairway.evaluate(small, long, corpus={"split": "lines"})
    assert report.totals.bytes == long.stat().st_size and report.totals.tokens_skipped == 0


def test_memory_does_not_grow_with_a_table(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "big.parquet"
    schema = pyarrow.schema([("text", pyarrow.string())])
    draw = random.Random(0)
    with pyarrow.parquet.ParquetWriter(
        path, schema, compression="none", use_dictionary=False
    ) as out:
        for _ in range(20):
            rows = [draw.randbytes(500).hex() for _ in range(2000)]
            out.write_table(pyarrow.table({"text": rows}, schema))
    assert path.stat().st_size > 39_000_000
    corpus = read(path)
    tracemalloc.start()
    count = sum(1 for _ in corpus)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 40_000 and peak < 10_000_000
    assert corpus.position <= path.stat().st_size


@pytest.mark.parametrize("split", ["lines", "paragraphs", None])
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, split: str | None) -> None:
    path = tmp_path / ("big.jsonl" if split is None else "big.txt")
    row = json.dumps({"text": "word " * 200}) if split is None else "word " * 200 + "\n"
    with path.open("w") as stream:
        for _ in range(40):
            stream.write((row + "\n") * 1000)
    assert path.stat().st_size > 39_000_000
    corpus = read(path, split=split)
    tracemalloc.start()
    count = sum(1 for _ in corpus)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 40_000 and peak < 40 * CHUNK


def test_web_archives(assets: Path) -> None:
    corpus = read(assets / "corpora/web/whirlwind.warc.wet.gz")
    documents = list(corpus)
    assert len(documents) == 1 and corpus.skipped_total == 0
    assert documents[0].metadata["url"] == "https://an.wikipedia.org/wiki/Escopete"
    assert documents[0].text.startswith("Escopete - Biquipedia")
    html = read(assets / "corpora/web/whirlwind.warc.gz")
    assert list(html) == [] and "give the WET file" in html.skipped[0].reason


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_made_web_archive(tmp_path: Path) -> None:
    from warcio.warcwriter import WARCWriter

    bodies = [b"first page", "second \u00e9".encode(), b"", b"caf\xe9"]
    for packed in (True, False):
        path = tmp_path / f"made.wet{'.gz' if packed else ''}"
        with path.open("wb") as out:
            writer = WARCWriter(out, gzip=packed)
            for number, body in enumerate(bodies):
                record = writer.create_warc_record(
                    f"http://x/{number}", "conversion", payload=io.BytesIO(body),
                    warc_content_type="text/plain",
                )  # fmt: skip
                writer.write_record(record)
        corpus = read(path)
        assert texts_of(corpus) == ["first page", "second é"]
        assert [row.line for row in corpus.skipped] == [3, 4]


IDS = [[5, 9, 300, 2], [7], [70, 71, 72]]


def ids_of(corpus: Corpus) -> list[list[int]]:
    return [document.ids.tolist() for document in corpus if document.ids is not None]


def test_token_ids_in_files(tmp_path: Path) -> None:
    stream = [one for ids in IDS for one in (*ids, 1)]
    for kind, name in ((np.uint16, "a.bin"), (np.uint32, "bin32"), (np.int64, "a.npy")):
        path = tmp_path / name
        if name.endswith(".npy"):
            np.save(path, np.array(stream, kind))
        else:
            np.array(stream, kind).tofile(path)
        source = f"bin32:{path}" if name == "bin32" else str(path)
        assert ids_of(read(source, split_at=1)) == IDS
        assert ids_of(read(source)) == [stream]
    np.save(tmp_path / "rows.npy", np.arange(12, dtype=np.uint16).reshape(3, 4))
    assert ids_of(read(tmp_path / "rows.npy")) == np.arange(12).reshape(3, 4).tolist()
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2), np.uint16))
    np.save(tmp_path / "real.npy", np.zeros(4))
    np.save(tmp_path / "object.npy", np.array(["a", {}], dtype=object), allow_pickle=True)
    for name in ("cube", "real", "object"):
        with pytest.raises(InputError, match="token ids are whole numbers"):
            list(read(tmp_path / f"{name}.npy"))
    (tmp_path / "odd.bin").write_bytes(b"\5\0\6")
    odd = read(tmp_path / "odd.bin")
    assert ids_of(odd) == [[5]] and "whole uint16" in odd.skipped[0].reason


def test_streams_of_ids_are_cut_wherever_the_chunks_end(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    stream = draw.integers(1, 40, 3_000_000).astype(np.uint16)
    stream.tofile(tmp_path / "a.bin")
    got = ids_of(read(tmp_path / "a.bin", split_at=7))
    want = [p[p != 7] for p in np.split(stream, np.flatnonzero(stream == 7))]
    assert got == [p.tolist() for p in want if len(p)]


def test_ids_with_bytes_give_the_numbers_of_their_text(small: str, tmp_path: Path) -> None:
    scorer: Any = fairway.load(small)
    texts = ["the cat in the hat", "an émigré 猫"]
    words = scorer.loaded.tokenizer
    path = tmp_path / "ids.jsonl"
    with path.open("w") as out:
        for one in texts:
            ids = words(one, add_special_tokens=False)["input_ids"]
            out.write(json.dumps({"ids": ids, "size": len(one.encode()), "text": one}) + "\n")
    plain = fairway.evaluate(scorer, texts)
    for options in (
        {"ids_field": "ids"}, {"text_field": "ids", "bytes_field": "size"},
        {"ids_field": "ids", "bytes_field": "size"}, {"text_field": "ids"},
    ):  # fmt: skip
        report = fairway.evaluate(scorer, path, corpus=options)
        assert report.totals.nll == pytest.approx(plain.totals.nll, abs=1e-4)
        assert report.totals.tokens == plain.totals.tokens
        # The vocabulary spells bytes, so even without a count its own is right here.
        assert report.totals.bytes == plain.totals.bytes
        spelled = options == {"text_field": "ids"}
        assert (report.signature.get("bytes") == "tokens") == spelled
        assert report.reasons["bits_per_char"] == (
            "the corpus holds token ids, whose characters are not known"
        )


def test_ids_that_the_tokenizer_lacks(small: str, tmp_path: Path) -> None:
    path = tmp_path / "ids.jsonl"
    path.write_text('{"text": [1, 2, 99999]}\n{"text": [5, 6]}\n', "utf-8")
    report = fairway.evaluate(small, path)
    assert report.totals.documents == 1 and "another tokenizer" in report.skipped_rows[0]["reason"]


def test_standard_input(small: str) -> None:
    words = [sys.executable, "-m", "fairway", "eval", "--model", small, "--json", "--data"]
    raw = subprocess.run([*words, "-"], input=b"the cat\nand", capture_output=True)
    assert json.loads(raw.stdout)["metrics"]["bytes"] == 11
    rows = subprocess.run(
        [*words, "jsonl:-"], input=b'{"text": "the"}\n{"text": "cat"}\n', capture_output=True
    )
    assert json.loads(rows.stdout)["metrics"]["documents"] == 2, rows.stderr


def test_unreadable_file(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    path = tmp_path / "a.txt"
    path.write_text("x")
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        list(read(path))
