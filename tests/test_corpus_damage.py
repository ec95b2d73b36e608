"""Damage and mistakes: nothing is lost, doubled or cut short without a word."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

import fairway
from fairway import Document
from fairway.corpus import read
from fairway.corpus.formats import Fields
from fairway.corpus.hub import _rows
from fairway.corpus.web import fetch
from fairway.errors import InputError, ProtocolError
from fairway.request import of_signature
from fairway.signature import parse


def listed(source: Any, **options: Any) -> tuple[list[str], list[str]]:
    corpus = read(source, **options)
    texts = [document.text for document in corpus]
    return texts, [row.reason for row in corpus.skipped]


@pytest.mark.parametrize("packed", [True, False])
def test_a_web_archive_that_breaks_off_says_so(tmp_path: Path, packed: bool) -> None:
    draw = random.Random(0)
    pages = [f"page {number} " + draw.randbytes(300).hex() for number in range(30)]
    whole, ends = b"", []
    for number, page in enumerate(pages):
        head = (
            "WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\n"
            f"WARC-Target-URI: http://x/{number}\r\nContent-Length: {len(page)}\r\n\r\n"
        )
        record = f"{head}{page}\r\n\r\n".encode()
        whole += gzip.compress(record) if packed else record
        ends.append(len(whole))
    path = tmp_path / ("a.wet.gz" if packed else "a.wet")
    for cut in range(50, len(whole), 397):
        # In plain text, the two line ends behind a record are no part of it.
        if any(end - 4 <= cut <= end for end in ends):
            continue
        path.write_bytes(whole[:cut])
        texts, reasons = listed(path)
        assert texts == pages[: len(texts)], cut
        assert reasons, cut
    path.write_bytes(whole)
    assert listed(path) == (pages, [])


def test_a_text_in_zstandard_that_breaks_off_is_not_taken_as_whole(tmp_path: Path) -> None:
    draw = random.Random(0)
    whole = " ".join(draw.randbytes(8).hex() for _ in range(30_000))
    packed = zstandard.compress(whole.encode())
    path = tmp_path / "a.txt.zst"
    path.write_bytes(packed[: len(packed) // 2])
    texts, reasons = listed(path)
    assert texts == [] and "damaged" in reasons[0]
    path.write_bytes(packed + zstandard.compress(b" and a second frame"))
    assert listed(path) == ([whole + " and a second frame"], [])
    path.write_bytes(whole.encode())
    assert "damaged" in listed(path)[1][0]
    # A run of one byte unpacks to many times its size.
    path.write_bytes(zstandard.compress(b"a" * 20_000_000))
    assert [len(text) for text in listed(path)[0]] == [20_000_000]


def test_arrays_hold_as_many_ids_as_they_say(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(100, dtype=np.int64))
    whole = path.read_bytes()
    path.write_bytes(whole[:-80])
    corpus = read(path)
    (document,) = corpus
    assert document.ids is not None and len(document.ids) == 90
    assert corpus.skipped[0].reason == "the file lacks 10 of its 100 ids"
    path.write_bytes(whole + b"\7" * 16)
    (document,) = read(path)
    assert document.ids is not None and document.ids.tolist() == list(range(100))
    path.write_bytes(b"no array at all")
    assert "cannot be read" in listed(path)[1][0]
    np.save(path, np.asfortranarray(np.arange(12).reshape(3, 4)))
    with pytest.raises(InputError, match="ascontiguousarray"):
        list(read(path))


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ("[]", "empty"),
        ("[-3, 4]", "negative or too large"),
        (f"[{2**70}]", "negative or too large"),
        ("[true]", "no list of whole numbers"),
        ("[1.5]", "no list of whole numbers"),
    ],
)
def test_ids_that_are_none(tmp_path: Path, ids: str, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": {ids}}}\n')
    texts, reasons = listed(path)
    assert texts == [] and reason in reasons[0]


def test_ids_that_begin_with_the_prefix_get_no_second_one(small: str) -> None:
    scorer: Any = fairway.load(small, max_length=16, stride=8)
    tokenizer = scorer.loaded.tokenizer
    text = "the cat in the hat and then an other cat in an other hat"
    ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"])
    begun = np.concatenate(([tokenizer.bos_token_id], ids))
    assert scorer.plan.prefix == (tokenizer.bos_token_id,) and len(ids) > 16
    plain, bare, own = scorer.score(
        [
            Document("text", text),
            Document("ids", "", ids=ids),
            Document("with BOS", "", ids=begun, byte_count=len(text)),
        ]
    )
    # Rows of one batch round differently where several threads share the work: 2e-5 is the bound
    # for every batch, and a doubled BOS moves these by nats.
    for other in (bare, own):
        np.testing.assert_allclose(other.logprobs, plain.logprobs, rtol=0, atol=2e-5)
    assert own.totals.tokens_skipped == 0
    assert own.totals.bytes == plain.totals.bytes == len(text)


def test_without_a_scored_token_there_are_no_bytes(small: str) -> None:
    scorer = fairway.load(small, prefix="none")
    (score,) = scorer.score([Document("a", "", ids=np.array([70]), byte_count=9)])
    assert score.totals.tokens == 0 and score.totals.bytes == 0
    assert np.isnan(score.metrics["bits_per_byte"])


def test_the_count_of_bytes_is_in_the_digest() -> None:
    def digest(size: int | None) -> str:
        corpus = read([Document("a", "", ids=np.array([5, 6]), byte_count=size)])
        list(corpus)
        return corpus.digest

    assert len({digest(None), digest(2), digest(3)}) == 3


def test_files_in_folders(tmp_path: Path) -> None:
    for folder, text in (("a", "one"), ("b", "two"), (".git", "never"), ("b/.cache", "never")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jsonl").write_text(json.dumps({"text": text}) + "\nbroken\n")
    corpus = read(tmp_path)
    assert [(d.id, d.text) for d in corpus] == [("a/x.jsonl:1", "one"), ("b/x.jsonl:1", "two")]
    assert [row.source for row in corpus.skipped] == ["a/x.jsonl", "b/x.jsonl"]
    assert [d.id for d in read(f"{tmp_path}/*/x.jsonl")] == ["a/x.jsonl:1", "b/x.jsonl:1"]


def test_a_broken_row_does_not_hide_that_the_field_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('broken\n{"body": "a"}\n')
    with pytest.raises(InputError, match=r"it has: body.*--text-field"):
        list(read(path))


def test_a_row_without_an_id_is_called_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "key": null}\n{"text": "b", "key": 3}\n')
    assert [d.id for d in read(path, id_field="key")] == ["rows.jsonl:1", "3"]


def test_negative_parts() -> None:
    for options in ({"limit": -1}, {"sample": -1}):
        with pytest.raises(InputError, match="negative"):
            read(["a"], **options)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "npy", "warc"])
def test_damage_on_standard_input(kind: str) -> None:
    code = (
        "from fairway.corpus import read\n"
        f"corpus = read('{kind}:-')\n"
        "print(list(corpus), corpus.skipped)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], input=b"no such thing\n", capture_output=True
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.startswith(b"[] [SkippedRow(source='stdin'")


def test_a_data_set_that_breaks_off_is_an_error() -> None:
    def rows() -> Any:
        yield {"text": "one"}
        raise ConnectionError("the line went dead")

    items = _rows(rows(), Fields(), "far")
    assert next(items).text == "one"  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"broke off behind row 1: the line went dead"):
        next(items)


def test_files_of_one_name_from_two_folders_of_a_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import http.server
    import threading

    monkeypatch.setenv("FAIRWAY_CACHE", str(tmp_path / "cache"))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.txt").write_text(folder)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(tmp_path))

        def log_message(self, *words: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        found = [fetch(f"{address}/{folder}/data.txt") for folder in ("a", "b")]
        server.shutdown()
    assert [path.read_text() for path in found] == ["a", "b"]
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_wikitext_is_not_normalised_twice(small: str, tmp_path: Path) -> None:
    path = tmp_path / "wiki.raw"
    path.write_text(" \n = Title = \n \n A sentence , of words . \n")
    reading = {"split": "wikitext", "normalise": "readable-wikitext"}
    with pytest.raises(ProtocolError, match="--normalise away"):
        fairway.evaluate(small, path, like="lm-eval", corpus=reading)
    with pytest.raises(ProtocolError, match="--normalise away"):
        reading["normalise"] = "lm-eval-wikitext"
        fairway.evaluate(small, path, like="lm-eval", corpus=reading)
    asked = of_signature(
        parse("model:x|protocol:lm-eval|norm:lm-eval-wikitext|data:wikitext-2|split:wikitext")
    )
    assert "normalise" not in asked.read
    asked = of_signature(parse("model:x|protocol:fairway|norm:readable-wikitext|data:a.txt"))
    assert asked.read["normalise"] == "readable-wikitext"
