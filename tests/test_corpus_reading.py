"""From what a user names to documents: folders, globs, parts, data sets, names, fields."""

from __future__ import annotations

import http.server
import json
import threading
import time
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fairway
from fairway import hub
from fairway.corpus import NAMED, read
from fairway.corpus.web import fetch
from fairway.errors import InputError

datasets.disable_progress_bars()


def texts_of(*words: Any, **options: Any) -> list[str]:
    return [document.text for document in read(*words, **options)]


def test_folders_and_globs(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / ".hidden").write_text("never")
    (tmp_path / "deep" / "c.jsonl").write_text('{"text": "third"}')
    assert texts_of(tmp_path) == ["first", "second", "third"]
    assert texts_of(f"{tmp_path}/*.txt") == ["first", "second"]
    assert texts_of(f"{tmp_path}/**/*.jsonl") == ["third"]
    corpus = read(tmp_path)
    list(corpus)
    assert corpus.position == corpus.size
    assert str(tmp_path.parent) not in corpus.name
    (tmp_path / "none").mkdir()
    for wrong in (tmp_path / "none", tmp_path / "nothing.txt", "sample:none", "nosuch"):
        with pytest.raises(InputError):
            read(wrong)


texts = st.lists(st.text("ab ", min_size=1), max_size=30)


@given(texts, st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_parts_of_a_corpus(whole: list[str], limit: int, size: int, seed: int) -> None:
    assert texts_of(whole, limit=limit) == whole[:limit]
    drawn = [int(d.id) for d in read(whole, sample=size, seed=seed)]
    assert drawn == sorted(set(drawn)) and len(drawn) == min(size, len(whole))
    assert drawn == [int(d.id) for d in read(whole, sample=size, seed=seed)]
    both = [int(d.id) for d in read(whole, limit=limit, sample=size, seed=seed)]
    assert len(both) == min(limit, size, len(whole)) and all(i <= limit for i in both)


def test_samples_are_drawn_evenly() -> None:
    counts = [0] * 20
    for seed in range(600):
        for document in read([f"t{i}" for i in range(20)], sample=5, seed=seed):
            counts[int(document.id) - 1] += 1
    # 150 expected each; five standard deviations of a binomial are 53.
    assert all(abs(count - 150) < 53 for count in counts)


def test_the_digest_is_of_texts_in_order(tmp_path: Path) -> None:
    def digest(*words: Any, **options: Any) -> str:
        corpus = read(*words, **options)
        list(corpus)
        return corpus.digest

    assert digest(["a", "b"]) != digest(["b", "a"]) != digest(["ab"])
    (tmp_path / "x.txt").write_text("a\nb\n")
    (tmp_path / "y.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert digest(tmp_path / "x.txt", split="lines") == digest(tmp_path / "y.jsonl")
    assert digest(["a", "b"]) == digest(tmp_path / "y.jsonl")


def test_fields(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"body": "the cat", "q": "who?", "key": 7, "kind": "x"}, {"body": "b", "q": None}]
    path.write_text("\n".join(map(json.dumps, rows)))
    options = {"text_field": "body", "id_field": "key", "context_field": "q"}
    corpus = read(path, **options)
    (one,) = corpus
    assert (one.id, one.text, one.context) == ("7", "the cat", "who?")
    assert one.metadata == {"key": 7, "kind": "x"}
    assert "lacks the field 'key'" in corpus.skipped[0].reason
    with pytest.raises(InputError, match=r"it has: body, q, key, kind.*--text-field"):
        list(read(path))
    with pytest.raises(InputError, match="lacks the field 'prompt'"):
        list(read(path, text_field="body", context_field="prompt"))
    # A context that is null is no context.
    assert [d.context for d in read(path, text_field="body", context_field="q")] == ["who?", ""]


def test_the_grouping_field_must_be_there(small: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": "a", "kind": i % 2}) + "\n" for i in range(200)))
    report = fairway.evaluate(small, path, group_by="kind")
    assert [(g.name, g.totals.documents) for g in report.groups] == [("0", 100), ("1", 100)]
    assert set(report.macro) == {"bits_per_byte", "nll_per_token", "perplexity"}
    with pytest.raises(InputError, match=r"no field 'sort' to group by.*kind"):
        fairway.evaluate(small, path, group_by="sort")
    with pytest.raises(InputError, match="no field 'sort'"):
        list(read(path, group_by="sort", limit=3))


def test_normalisers(small: str, tmp_path: Path) -> None:
    page = ' = Title = \n \n The " quoted " 3 @.@ 5 km ( long ) , and the end . \n'
    path = tmp_path / "page.txt"
    path.write_text(page)
    assert texts_of(path, normalise="none") == [page]
    (readable,) = texts_of(path, normalise="readable-wikitext")
    assert 'The "quoted" 3.5 km (long), and the end.' in readable
    report = fairway.evaluate(small, path, corpus={"normalise": "readable-wikitext"})
    assert report.signature["norm"] == "readable-wikitext"
    with pytest.raises(InputError, match="--normalise"):
        read(path, normalise="nfkc")


def test_python_texts() -> None:
    corpus = read(["good", "", 5, "a\0b"])
    assert [d.text for d in corpus] == ["good"]
    assert [row.line for row in corpus.skipped] == [2, 3, 4]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets as `datasets` itself writes them."""
    folder = tmp_path_factory.mktemp("sets")
    rows = datasets.Dataset.from_dict({"text": ["one", "", "three"], "topic": ["a", "b", "a"]})
    other = datasets.Dataset.from_dict({"text": ["four"], "topic": ["c"]})
    rows.save_to_disk(folder / "flat")
    datasets.DatasetDict({"train": rows, "test": other}).save_to_disk(folder / "parts")
    for config in ("easy", "hard"):
        (folder / "repo" / config).mkdir(parents=True)
        rows.to_parquet(folder / "repo" / config / "train.parquet")
        other.to_parquet(folder / "repo" / config / "validation.parquet")
    card = ["---", "configs:"]
    for config in ("easy", "hard"):
        card += [f"- config_name: {config}", "  data_files:"]
        card += [
            line
            for part in ("train", "validation")
            for line in (f"  - split: {part}", f"    path: {config}/{part}.parquet")
        ]
    (folder / "repo" / "README.md").write_text("\n".join([*card, "---", ""]))
    return folder


def test_data_sets(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    corpus = read(f"hf:{made}/flat")
    assert [d.text for d in corpus] == ["one", "three"]
    assert corpus.skipped[0].reason == "the text is empty" and corpus.skipped[0].line == 2
    assert texts_of(f"hf:{made}/parts") == ["four"], "the test part, where there is one"
    assert texts_of(f"hf:{made}/parts::train") == ["one", "three"]
    assert texts_of(f"hf:{made}/repo:hard:validation") == ["four"]
    assert texts_of(f"hf:{made}/repo:easy:train", text_field="topic") == ["a", "b", "a"]
    with pytest.raises(InputError, match=r"no split 'dev'; it has train, test"):
        read(f"hf:{made}/parts::dev")
    with pytest.raises(InputError, match="cannot be opened"):
        read(f"hf:{made}/repo:medium")


def test_wikitext_by_rows_is_wikitext_by_file(tmp_path: Path) -> None:
    lines = [
        "", " = One = \n", "", " Text . \n", " = not a heading \n", "", " = = Part = = \n",
        " = 1 + 1 = \n", "", " = Two = \n", "", " More . \n",
    ]  # fmt: skip
    datasets.Dataset.from_dict({"text": lines}).save_to_disk(tmp_path / "set")
    path = tmp_path / "wiki.raw"
    path.write_text("".join(line or " \n" for line in lines))
    by_rows = texts_of(f"hf:{tmp_path}/set", split="wikitext")
    assert by_rows == texts_of(path, split="wikitext")
    assert len(by_rows) == 2 and "".join(by_rows) == path.read_text()


def test_wikitext_2(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if hub.reachable():
        pytest.skip("with a network the name means the hub's data set")
    monkeypatch.setenv("FAIRWAY_ASSETS", str(assets))
    corpus = read("wikitext-2")
    found = [d.text for d in corpus]
    whole = (assets / "corpora/wikitext2/wiki.test.raw").read_bytes().decode()
    assert len(found) == 60 and "".join(found) == whole
    assert corpus.name == "wikitext-2" and corpus.licence == "CC BY-SA 3.0"


def test_names_are_complete() -> None:
    assert {"wikitext-2", "wikitext-103", "c4", "cc-wet", "lambada", "cc-news", "eurlex"} <= set(
        NAMED
    )
    for entry in NAMED.values():
        assert entry.licence and entry.description
        assert entry.source.startswith(("hf:", "https://"))


def test_without_network_a_data_set_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("FAIRWAY_ASSETS", raising=False)
    start = time.monotonic()
    with pytest.raises(InputError, match="hub cannot be reached"):
        read("c4")
    assert time.monotonic() - start < 20


def test_a_file_of_the_web_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRWAY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data.txt").write_text("from afar")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(tmp_path))

        def log_message(self, *words: Any) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert texts_of(f"{address}/data.txt") == ["from afar"]
        assert texts_of(f"{address}/data.txt") == ["from afar"]
        assert asked == ["/data.txt"]
        with pytest.raises(InputError, match="cannot be fetched"):
            read(f"{address}/absent.txt")
        server.shutdown()
    with pytest.raises(InputError, match="no address of a file"):
        fetch("file:///etc/passwd")


def test_shipped_samples() -> None:
    for name in ("encyclopedic", "news", "legal", "web"):
        documents = list(read(f"sample:{name}"))
        assert len(documents) >= 12
        assert {d.metadata["domain"] for d in documents} == {name}
    assert len(texts_of("sample:all")) == 164
