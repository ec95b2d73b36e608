"""What would change a number without a word: each case is a row, a refusal, or right."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import zstandard

from fairway.corpus import Document, read
from fairway.errors import InputError


def both(source: object, **options: object) -> tuple[list[str], list[tuple[int, str]]]:
    corpus = read(source, **options)  # type: ignore[arg-type]
    texts = [document.text for document in corpus]
    return texts, [(row.line, row.reason) for row in corpus.skipped]


def ids_of(source: object, **options: object) -> list[list[int]]:
    documents = list(read(source, **options))  # type: ignore[arg-type]
    return [document.ids.tolist() for document in documents if document.ids is not None]


def test_standard_input_is_read_once(small: str) -> None:
    """The second model would get an empty corpus."""
    words = [sys.executable, "-m", "fairway", "eval", "--json", "--no-cache", "--data", "-"]
    out = subprocess.run(
        [*words, "--model", small, "--model", small, "--dtype", "float32"],
        input=b"the cat in the hat", capture_output=True,
    )  # fmt: skip
    assert out.returncode == 2 and b"Standard input can be read only once" in out.stderr
    assert b"Traceback" not in out.stderr


def test_a_row_with_an_unquoted_comma_is_not_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n,text\n1,hello\n2,hello, world\n3,last\n")
    texts, skipped = both(path)
    assert texts == ["hello", "last"]
    assert skipped == [(3, "the row has more fields than the header")]


@pytest.mark.parametrize("mark", [",", "\t"])
def test_an_open_quotation_mark_does_not_make_one_text_of_the_rest(
    tmp_path: Path, mark: str
) -> None:
    path = tmp_path / ("a.csv" if mark == "," else "a.tsv")
    path.write_text('text,n\ngood,0\n"never closed,1\nnext,2\nlast,3\n'.replace(",", mark))
    texts, skipped = both(path)
    assert texts == ["good"]
    assert skipped == [(3, "broken row: unexpected end of data")]
    path.write_text('text,n\n"shut" and more,1\nnext,2\n'.replace(",", mark))
    texts, skipped = both(path)
    assert texts == ["next"] and skipped[0][0] == 2
    path.write_text('text,n\nan "inner" mark,1\n"a ""doubled"" one",2\n'.replace(",", mark))
    assert both(path) == (['an "inner" mark', 'a "doubled" one'], [])
    path.write_text('"text,n\na,1\n'.replace(",", mark))
    assert both(path) == ([], [(1, "broken header: unexpected end of data")])


def test_a_text_that_a_normaliser_empties_is_a_row(tmp_path: Path) -> None:
    texts, skipped = both([" ", "b"], normalise="readable-wikitext")
    assert texts == ["b"]
    assert skipped == [(1, "the text is empty after readable-wikitext")]


def test_wide_ids_are_not_read_as_narrow_ones(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 130_000, 600)
    path = tmp_path / "a.bin"
    ids.astype("<u4").tofile(path)
    with pytest.raises(InputError, match="bin32:"):
        list(read(path))
    assert ids_of(f"bin32:{path}") == [ids.tolist()]
    narrow = ids % 50_000
    narrow.astype("<u2").tofile(path)
    assert ids_of(path) == [narrow.tolist()]
    # Padding alone says nothing about the width.
    np.zeros(600, "<u2").tofile(path)
    assert ids_of(path) == [[0] * 600]


@pytest.mark.parametrize(("magic", "kind"), [(20240520, "<u2"), (20240801, "<u4")])
def test_shards_with_a_header(tmp_path: Path, magic: int, kind: str) -> None:
    header = np.zeros(256, "<i4")
    ids = np.array([50256, 7, 8, 50256, 9] * 700)
    header[:3] = magic, 1, len(ids)
    path = tmp_path / "shard.bin"
    path.write_bytes(header.tobytes() + ids.astype(kind).tobytes())
    assert ids_of(path) == [ids.tolist()]
    assert ids_of(path, split_at=50256) == [[7, 8], [9]] * 700
    path.write_bytes(header.tobytes() + ids.astype(kind).tobytes()[:-40])
    corpus = read(path)
    list(corpus)
    assert "of its 3500 ids" in corpus.skipped[0].reason


def test_a_context_before_token_ids_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "a", "ids": [1, 2], "q": "who?"}\n{"text": [3], "ids": [4], "q": ""}\n'
    )
    corpus = read(path, context_field="q", ids_field="ids")
    assert [document.ids.tolist() for document in corpus if document.ids is not None] == [[4]]
    assert "token ids take no context" in corpus.skipped[0].reason
    path.write_text('{"text": [3], "q": "who?"}\n')
    assert both(path, context_field="q")[1][0][0] == 1


def test_a_context_is_no_document_of_its_own_in_the_digest() -> None:
    def digest(*documents: Document) -> str:
        corpus = read(documents)
        list(corpus)
        return corpus.digest

    first = digest(Document("1", "a", context="b"), Document("2", "c"))
    assert first != digest(Document("1", "a"), Document("2", "b", context="c"))
    assert digest(Document("1", "a")) == digest(Document("2", "a"))


def test_a_pipe_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=('{"text": "a"}\n{"text": "b"}\n',))
    writer.start()
    assert both(f"jsonl:{path}") == (["a", "b"], [])
    writer.join()


def test_zstandard_that_looks_far_back(tmp_path: Path) -> None:
    """As ``zstd --long=31`` packs large dumps: more than the library takes by itself."""
    settings = zstandard.ZstdCompressionParameters(window_log=28)
    packer = zstandard.ZstdCompressor(compression_params=settings)
    body = packer.compressobj()
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(body.compress(b'{"text": "far"}\n') + body.flush())
    assert both(path) == (["far"], [])


def test_a_wrong_checksum_says_that_earlier_rows_may_be_damaged(tmp_path: Path) -> None:
    import gzip

    packed = bytearray(gzip.compress(b'{"text": "one"}\n{"text": "two"}\n'))
    packed[-6] ^= 255
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed)
    texts, skipped = both(path)
    assert texts == ["one", "two"] and "damaged here or before" in skipped[0][1]


def test_columns_without_a_value_in_python_are_left_out(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    far = pyarrow.array([2**62, 1], pyarrow.timestamp("s"))
    table = pyarrow.table({"text": ["a", "b"], "when": far, "topic": ["x", "y"]})
    with pytest.raises(OverflowError):
        table.to_pylist()
    with pyarrow.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as out:
        out.write_table(table)
    documents = list(read(tmp_path / "a.arrow"))
    assert [(d.text, d.metadata) for d in documents] == [
        ("a", {"topic": "x"}),
        ("b", {"topic": "y"}),
    ]
    corpus = read(tmp_path / "a.arrow", text_field="when")
    assert list(corpus) == [] and "cannot be read" in corpus.skipped[0].reason
