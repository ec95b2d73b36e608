"""Run directories in a browser: the same numbers as on the command line, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fairway
from fairway import curve
from fairway.cli.curving import Show
from fairway.errors import InputError, ProtocolError
from fairway.render import curve_page, html, verdict
from fairway.serve.rundirs import catalogue, runs
from fairway.serve.rundirs.catalogue import Catalogue
from fairway.serve.settings import Settings
from guarded import ask, serving

TEXTS = ["The cat sat in the garden.", "A hen, a cat and <b>no</b> dog.", "Lines\nand lines."]
SECRET = "never-to-be-seen"
ODD = (
    " two  blanks ", "ünï cødé ☃", "%2e%2e", "x..%2f", "back\\slash", "a#b?c&d=e", "tab\tbell\x07",
    "quote\"'<b onclick=x()>", "x" * 200, "compare", "curve", "-rf", "x...", "\u202egnp.exe",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(small: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: good ones, odd names, damaged ones, and links that lead out of it."""
    place = tmp_path_factory.mktemp("served")
    root = place / "runs"
    for name, model, length in (("a", small, 32), ("b", "hf:builtin", 32), ("c", small, 24)):
        fairway.evaluate(
            model, TEXTS, texts=True, out=root / name, max_length=length, stride=length // 2
        )
    for name in (*ODD, "training/checkpoint-1", "training/checkpoint-20"):
        shutil.copytree(root / "a", root / name)
    outside = shutil.copytree(root / "a", place / "outside")
    for path in outside.iterdir():
        path.write_text(path.read_text("utf-8").replace("small-llama", SECRET), "utf-8")
    (root / "link").symlink_to(outside)
    for name, change in DAMAGE.items():
        change(shutil.copytree(root / "a", root / "bad" / name), outside)
    late = shutil.copytree(root / "a", root / "late") / "report.json"
    late.write_text(late.read_text("utf-8").replace('"notes": []', '"notes": [1]'), "utf-8")
    for name in (b"not-utf8-\xff", b"new\nline"):
        os.mkdir(os.fsencode(root) + b"/" + name)
        shutil.copy(root / "a" / "run.json", os.fsencode(root) + b"/" + name + b"/run.json")
    return root


def _link(name: str) -> Any:
    def change(run: Path, outside: Path) -> None:
        (run / name).unlink()
        (run / name).symlink_to(outside / name)

    return change


def _pipe(run: Path, _: Path) -> None:
    (run / "report.json").unlink()
    os.mkfifo(run / "report.json")


def _write(name: str, text: str) -> Any:
    return lambda run, _: (run / name).write_text(text, "utf-8")


DAMAGE: dict[str, Any] = {
    "settings": _write("run.json", "{"), "list": _write("run.json", "[]"),
    "binary": lambda run, _: (run / "run.json").write_bytes(b"\xff\xfe\0"),
    "deep": _write("report.json", "[" * 100_000), "cut": _write("report.json", '{"fairway": "'),
    "number": _write("report.json", "1"), "empty": _write("report.json", "{}"),
    "huge number": _write("report.json", '{"format": ' + "9" * 5000 + "}"),
    "linked report": _link("report.json"), "linked settings": _link("run.json"), "pipe": _pipe,
    "folder": lambda run, _: [(run / "report.json").unlink(), (run / "report.json").mkdir()],
}  # fmt: skip


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with serving({}, Settings(runs=str(folder))) as found:
        yield found


def listed(port: int) -> dict[str, dict[str, Any]]:
    status, _, body = ask(port, "/v1/runs")
    assert status == 200
    return {one["name"]: one for one in json.loads(body)["data"]}


def sentence(body: bytes) -> str:
    text = body.decode()
    return unescape(text.partition('<p class="problem">')[2].partition("</p>")[0])


def test_runs_are_listed_whatever_else_lies_there(port: int, folder: Path) -> None:
    found = listed(port)
    assert {"a", "b", "c", *ODD, "training/checkpoint-1"} <= found.keys()
    assert not {"link", "bad/linked settings", "new\nline"} & found.keys()
    assert {name for name, one in found.items() if one["state"] == "damaged"} == {
        f"bad/{name}" for name in DAMAGE if name != "linked settings"
    }
    report = json.loads((folder / "b" / "report.json").read_text("utf-8"))
    assert found["b"]["perplexity"] == report["metrics"]["perplexity"]
    assert found["b"]["bits_per_byte"] == report["metrics"]["bits_per_byte"]
    assert found["b"]["documents"] == 3 and found["b"]["model"] == "hf:builtin"
    page = ask(port, "/runs")[2].decode()
    for body in (page, json.dumps(found)):
        assert SECRET not in body and str(folder) not in body
    assert page.count("<tr>") == len(found) + 1 and "<b" not in page.replace("<button", "").replace(
        "<body", ""
    )


def test_every_run_that_is_listed_opens(port: int, folder: Path) -> None:
    report = fairway.run.read(folder / "a")[1]
    for name in ("a", *ODD):
        address = listed(port)[name]["url"]
        assert address.isascii() and " " not in address
        status, headers, body = ask(port, address)
        assert status == 200, name
        page = html.page([report], runs.plain(name))
        assert body.decode() == page.replace("<body>", '<body><p><a href="/runs">All runs</a></p>')
        assert headers["content-security-policy"] == runs.policy(page).lower()
        assert "unsafe" not in headers["content-security-policy"]
        assert ' style="' not in page


OUT = [
    "../outside", "..%2foutside", "%2e%2e/outside", "%2e%2e%2foutside", "a/../../outside",
    "link", "link/", "link/report.json", "a/report.json", "a/.", "./a", "a//", "/a", "//a", "",
    "%00", "a%00", "a%00.json", "..\\outside", "..%5coutside", "%252e%252e/outside", ".", "..",
    "/etc/passwd", "%2fetc%2fpasswd", "....//outside", "%c0%ae%c0%ae/outside", "%ff", "A",
    "y" * 9000, "bad", "bad/linked%20settings", "%ed%a0%80", "a;b", "~root",
]  # fmt: skip


@pytest.mark.parametrize("path", OUT)
def test_no_path_leads_out_of_the_folder(port: int, folder: Path, path: str) -> None:
    for address in (f"/runs/{path}", f"/runs/curve?folder={path}",
                    f"/runs/compare?first=a&second={path}", f"/v1/runs/{path}"):  # fmt: skip
        status, headers, body = ask(port, address)
        assert status in (307, 404, 422), address
        assert SECRET.encode() not in body and b"root:" not in body
        assert str(folder).encode() not in body and b"Traceback" not in body
        assert not headers.get("location", f"http://127.0.0.1:{port}/").startswith("//")


PIECES = st.sampled_from(
    ["a", "b", "/", "..", ".", "%2e", "%2f", "%5c", "%00", "%0a", "%25", "link", "outside", "bad",
     "training", "compare", "curve", "?first=", "&second=", "?folder=", "&allow=", "%ff", "\u202e",
     "report.json", "checkpoint-1", "%20", "+", ";", "'", "%22", "<", "cut", "~", "runs"]
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(PIECES, max_size=8))
def test_any_address_is_answered_and_none_leads_out(
    port: int, folder: Path, pieces: list[str]
) -> None:
    address = "/runs/" + quote("".join(pieces), safe="/%?&=+;'~")
    status, _, body = ask(port, address)
    assert status in (200, 307, 400, 404, 422), address
    assert SECRET.encode() not in body and str(folder).encode() not in body


def test_damaged_runs_give_a_sentence(port: int, folder: Path) -> None:
    for name in DAMAGE:
        if name == "linked settings":
            continue
        status, _, body = ask(port, f"/runs/bad/{quote(name)}")
        told = sentence(body)
        assert status == 422 and told.endswith((".", ")")), name
        assert str(folder) not in told and SECRET not in told, told
        assert name in told or "damaged" in told or "report" in told


def test_what_only_a_page_finds_wrong_is_a_sentence_too(port: int) -> None:
    assert listed(port)["late"]["state"] == "finished"
    status, _, body = ask(port, "/runs/late")
    assert status == 422
    assert sentence(body) == "late is damaged and cannot be read (TypeError)."


def test_verdicts_are_those_of_compare(port: int, folder: Path) -> None:
    found = fairway.compare(folder / "a", folder / "b")
    status, headers, body = ask(port, "/runs/compare?first=a&second=b")
    assert status == 200 and "unsafe" not in headers["content-security-policy"]
    assert found.sentence() in unescape(body.decode())
    assert "Where the difference sits" in body.decode()
    with pytest.raises(ProtocolError) as refused:
        fairway.compare(folder / "a", folder / "c")
    status, _, body = ask(port, "/runs/compare?first=a&second=c")
    assert status == 422 and sentence(body) == str(refused.value)
    again = "/runs/compare?first=a&amp;second=c&amp;allow=length"
    assert f'<a href="{again}">' in body.decode()
    allowed = fairway.compare(folder / "a", folder / "c", allow=["length", "stride"])
    status, _, body = ask(port, "/runs/compare?first=a&second=c&allow=length&allow=stride")
    assert status == 200 and allowed.sentence() in unescape(body.decode())
    assert "--allow takes" in sentence(ask(port, "/runs/compare?first=a&second=b&allow=x")[2])
    others = {"first=a&second=a": "itself", "first=a": "Choose two",
              "first=a&second=nothing": "no such run", "x=y": "Choose two"}  # fmt: skip
    for query, words in others.items():
        status, _, body = ask(port, f"/runs/compare?{query}")
        assert status in (404, 422) and words in sentence(body)


def test_curves_are_those_of_curve(port: int, folder: Path, tmp_path: Path) -> None:
    data = json.loads(ask(port, "/v1/runs")[2])
    assert [one["name"] for one in data["curves"]] == ["training"]
    both = [curve.read(folder / "training" / f"checkpoint-{n}") for n in (1, 20)]
    item = curve.trace(both)
    status, headers, body = ask(port, data["curves"][0]["url"])
    page = unescape(body.decode())
    assert status == 200 and "unsafe" not in headers["content-security-policy"]
    assert all(line in page for line in item.sentences())
    assert [step.label for step in item.steps] == ["1", "20"] and "<polyline" in page
    assert "runs" in sentence(ask(port, "/runs/curve?folder=bad/none")[2])
    assert ' style="' not in page
    Show((False, True, False), None, [], 0, str(tmp_path / "curve.html")).curve(both, [])
    assert (tmp_path / "curve.html").read_text("utf-8") == curve_page.page(item)


def test_large_files_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "LARGEST", 2000)
    shelf = Catalogue(folder)
    for ask_for in (lambda: shelf.report("a"), lambda: shelf.compare("a", "b"),
                    lambda: shelf.curve("training")):  # fmt: skip
        with pytest.raises(InputError, match="does not read"):
            ask_for()


def test_hundreds_of_runs_are_listed_and_read_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        shutil.copytree(folder / "a", tmp_path / f"run-{number:03}")
    shelf = Catalogue(tmp_path)
    first, _, more = shelf.list()
    assert len(first) == 300 and not more and all(one.documents == 3 for one in first)
    monkeypatch.setattr("fairway.run.read", None)
    assert shelf.list()[0] == first
    monkeypatch.undo()
    text = (tmp_path / "run-007" / "report.json").read_text("utf-8")
    (tmp_path / "run-007" / "report.json").write_text(text + " ", "utf-8")
    shutil.rmtree(tmp_path / "run-008")
    again = shelf.list()[0]
    assert len(again) == 299 and len(shelf.known) == 299
    monkeypatch.setattr(catalogue, "RUNS", 20)
    some, _, more = shelf.list()
    assert len(some) == 20 and more
    # Without time for numbers the names are there.
    monkeypatch.setattr(catalogue, "BUDGET", -1.0)
    assert {one.state for one in Catalogue(tmp_path).list()[0]} == {"finished"}


def test_runs_are_opened_only_where_that_was_asked_for(tmp_path: Path) -> None:
    with serving({}, Settings()) as port:
        for path in ("/runs", "/v1/runs", "/runs/a", "/runs/compare?first=a&second=b"):
            status, _, body = ask(port, path)
            assert status == 404 and b"--runs FOLDER" in body
    with pytest.raises(InputError, match="no folder"):
        catalogue.check(str(tmp_path / "none"))


BAIT = "\"'><img src=x onerror=fired()><script>fired()</script></style></title><a style='x'>"


class Tags(HTMLParser):
    """Collects elements and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(f"{tag} {key}" for key, _ in attrs)}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value[:2])
        for key, inner in items:
            yield from leaves(inner, (*path, key))
    else:
        yield path


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def test_no_word_of_a_report_becomes_an_element(folder: Path) -> None:
    data = json.loads((folder / "a" / "report.json").read_text("utf-8"))
    data["perplexity_name"] = "perplexity"
    data["notes"] = ["a note"]
    data["skipped_rows"] = [{"source": "s", "line": 1, "reason": "r"}]
    data["skipped_total"] = 1
    data["groups"] = [{"name": "g", **{key: data[key] for key in
                       ("metrics", "reasons", "intervals", "companions")}}]  # fmt: skip
    data["texts"] = [{**one, "tokens": one["tokens"][:3]} for one in data["texts"]]
    fair = Tags(html.page([fairway.report.from_json(data)])).found
    drawn = 0
    for path in leaves(data):
        try:
            page = html.page([fairway.report.from_json(replaced(data, path, BAIT))])
        except (InputError, ValueError, TypeError, KeyError, AttributeError):
            continue
        drawn += 1
        assert Tags(page).found <= fair, path
    assert drawn > 20


def test_baits_in_runs_are_inert_in_a_browser(folder: Path, tmp_path: Path) -> None:
    chromium = "/usr/bin/chromium"
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path(chromium).exists():
        pytest.skip("there is no /usr/bin/chromium")
    root = tmp_path / "runs"
    for name in (
        "a",
        "b",
        BAIT.replace("/", "∕"),
        "training/checkpoint-1",
        "training/checkpoint-2",
    ):
        source = folder / ("b" if name == "b" else "a")
        run = shutil.copytree(source, root / name)
        for path in run.iterdir():
            text = path.read_text("utf-8")
            bait = json.dumps(BAIT)[1:-1]
            for word in ("garden", "text 1", "text 2", "small-llama", "texts", "hf:builtin"):
                if word != "texts":
                    text = text.replace(word, bait)
            path.write_text(text, "utf-8")
    with serving({}, Settings(runs=str(root))) as port, playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("pageerror", lambda problem: said.append(str(problem)))
        base = f"http://127.0.0.1:{port}"
        for path in ("/runs", "/runs/a", "/runs/compare?first=a&second=b",
                     "/runs/curve?folder=training", "/runs/nothing" + quote(BAIT)):  # fmt: skip
            assert page.goto(base + path).status in (200, 404)
            assert page.locator("script, img, [onerror], [style]").count() == 0
            if path != "/runs/nothing" + quote(BAIT):
                assert "<script>fired()" in page.locator("body").inner_text(), path
        page.goto(f"{base}/runs/a")
        colour = "getComputedStyle(document.querySelector('.fw-heat .l0')).backgroundColor"
        assert page.evaluate(colour) == "rgb(255, 247, 214)"
        page.goto(f"{base}/runs")
        page.get_by_label("measure: a").check()
        page.get_by_label("against: b").check()
        page.get_by_role("button", name="Compare").click()
        assert "against" in page.locator("h2").first.inner_text()
        page.go_back()
        page.locator("table a").first.click()
        assert page.locator(".fw-heat").count() == len(TEXTS)
        browser.close()
    style = "static/style.css"
    assert not [one for one in said if style not in one and "404" not in one], said


def test_pages_of_comparisons_need_no_inline_styles(folder: Path) -> None:
    shelf = Catalogue(folder)
    page = verdict.page([shelf.compare("a", "b")])
    assert ' style="' not in page and "style='" not in page and page.count("<style>") == 1
