"""The page at /: hostile text stays text, links and files are read with care, errors are told."""

from __future__ import annotations

import random
import re
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import pytest

import fairway
import pages
from fairway.render.visible import figure, plain, visible
from fairway.serve import app
from fairway.serve.playground import files
from fairway.serve.settings import Settings
from models import build, tokenizer
from pages import NAME, TEXT, ask, clipboard, drawn, score, send

HOSTILE = (
    "<img src=x onerror=alert(1)> </script><script>alert(2)</script> javascript:alert(3) "
    "\u202eevil\u202c {{7*7}} ${alert(4)} <svg/onload=alert(5)> \u2028 \x1b[31m \x00end"
)


def test_words_and_numbers_are_written_as_elsewhere(opened: Any) -> None:
    page = opened()
    both = "async ([texts]) => { const t = await import('/static/text.js'); return texts.map((one)"
    texts = [HOSTILE, "a b\tc\n", "é\u0301\xad\u200b\ufeff\xa0", "\U000e0001 \ue000"]
    assert page.evaluate(f"{both} => t.visible(one)); }}", [texts]) == [visible(t) for t in texts]
    assert page.evaluate(f"{both} => t.plain(one)); }}", [texts]) == [plain(t) for t in texts]
    values = [0, 1, 2.5, 1234.5, 0.00012345, 123456789.5, 1e-7, 3.2e12, 99995, 0.99995, 57.282]
    assert page.evaluate(f"{both} => t.figure(one)); }}", [values]) == [figure(v) for v in values]


@pytest.mark.parametrize("model", ["builtin", NAME])
def test_hostile_text_stays_text(opened: Any, model: str) -> None:
    page = opened()
    score(page, HOSTILE.replace("\x00", "\x01"), model)
    for name in ("sentences", "tokenizer", "heat"):
        page.check(f"input[name=view][value={name}]")
        drawn(page)
    for index in range(0, 60, 7):
        page.locator(".strip span").nth(index).click()
    assert (
        page.evaluate("document.querySelectorAll('main img, main script, main iframe').length") == 0
    )
    assert page.evaluate("document.querySelectorAll('main svg svg, #picture svg').length") == 0
    shown = page.inner_text("#picture").replace("\n", "")
    assert "\\u202e" in shown and "\\u2028" in shown and "\\x1b" in shown
    assert not re.search("[\u202e\u202c\u2028\x1b]", page.inner_text("body"))
    assert "<img·src=x·onerror=alert(1)>" in shown
    assert plain(NAME) in page.inner_text("#models")


def spoilt(data: Any, key: str = "") -> Any:
    """Put hostile text into every text of a report but those that are numbers or its own text."""
    if isinstance(data, dict):
        return {name: spoilt(value, name) for name, value in data.items()}
    if isinstance(data, list):
        return [spoilt(one, key) for one in data]
    kept = key == "perplexity_name" or not isinstance(data, str) or data in ("inf", "-inf")
    return data if kept else HOSTILE + data


def test_every_word_of_a_report_stays_text(opened: Any, address: str) -> None:
    page = opened()
    wanted = {"text": "The cat. It ran.", "explain": True, "sentences": True}
    report = httpx2.post(
        f"{address}/v1/score", json={**wanted, "columns": ["rank", "entropy", "top5"]}
    ).json()
    text = report["texts"][0]["text"]
    report = spoilt({**report, "notes": ["a note"], "explain": ["Rule of thumb", "else"]})
    report["texts"][0]["text"] = text
    page.route("**/v1/score", lambda one: one.fulfill(json=report))
    score(page, "The cat. It ran.")
    for one in page.locator(".card summary").all():
        one.click()
    page.locator(".strip span").nth(1).click()
    shown = page.inner_text("main")
    assert shown.count("onerror=alert(1)") >= 9
    for name in ("sentences", "tokenizer"):
        page.check(f"input[name=view][value={name}]")
        page.locator("#picture summary, .strip span").first.click()
    elements = (
        "document.querySelectorAll('main :is(img, script, iframe, object, a, svg svg)').length"
    )
    assert page.evaluate(elements) == 0
    assert not re.search("[\u202e\u202c\u2028\x1b]", page.inner_text("main"))


def test_a_link_restores_the_view_and_is_never_sent(opened: Any, address: str) -> None:
    page = opened()
    page.click("#before summary")
    page.fill("#context", "Before.")
    score(page, TEXT, "builtin", NAME, second="Another text.")
    page.check("input[name=view][value=tokenizer]")
    page.click("#link")
    page.wait_for_selector("#status:has-text('address bar')")
    link = page.url
    assert TEXT[:20] not in link and clipboard(page) == link
    again = opened(link.removeprefix(f"{address}/"))
    drawn(again)
    assert again.input_value("#text") == TEXT
    assert again.input_value("#second") == "Another text."
    assert again.input_value("#context") == "Before."
    assert again.is_checked("input[name=view][value=tokenizer]")
    assert (
        again.locator("[data-metric=perplexity]").all_inner_texts()
        == page.locator("[data-metric=perplexity]").all_inner_texts()
    )
    noise = random.Random(3).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=60_000)
    page.route("**/v1/score", lambda one: one.fulfill(json=ask(address, "short")))
    page.fill("#text", "".join(noise))
    page.fill("#second", "b")
    send(page)
    page.click("#link")
    page.wait_for_selector("#problem:has-text('too long for a link')")
    for damaged in ("#v1.!!!", "#v1.AAAA", link.removeprefix(f"{address}/")[:-9]):
        broken = opened(damaged)
        assert "damaged" in broken.inner_text("#problem")


def test_a_link_with_a_long_text_waits_to_be_asked(opened: Any) -> None:
    page = opened()
    script = "async (text) => (await import('/static/link.js')).fold({texts: [text], models: []})"
    fragment = page.evaluate(script, "word " * 5000)
    again = opened(f"#{fragment}")
    again.wait_for_selector("#status:has-text('press Score')")
    assert again.input_value("#text") == "word " * 5000 and again.is_hidden("#results")
    script = "async (view) => (await import('/static/link.js')).fold(view)"
    view = {"texts": ["a b"], "models": ["builtin", "gone"]}
    other = opened(f"#{page.evaluate(script, view)}")
    assert "does not have gone" in other.inner_text("#problem")
    assert other.locator(".card").count() == 1


def test_files_are_read_as_they_are(opened: Any, tmp_path: Path) -> None:
    page = opened()
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo é".encode())
    page.set_input_files("#file", path)
    page.wait_for_selector("#size:has-text('bytes')")
    assert page.inner_text("#size") == "10 characters, 11 bytes"
    page.click("#score")
    page.wait_for_selector("#results:not([hidden])")
    assert "11 bytes" in page.inner_text(".counts")
    drop = """([where, text]) => {
      const data = new DataTransfer();
      data.items.add(new File([text], "b.txt"));
      const event = { dataTransfer: data, bubbles: true, cancelable: true };
      document.querySelector(where).dispatchEvent(new DragEvent("drop", event));
    }"""
    page.click("#two")
    for where, box, size in (("#second", "#second", "#second-size"), ("h1", "#text", "#size")):
        page.evaluate(drop, [where, f"on {where}"])
        page.wait_for_selector(f"{size}:has-text('{len(where) + 3} characters')")
        assert page.input_value(box) == f"on {where}"
    path.write_bytes(b"\xff\xfe\x00")
    page.set_input_files("#file", path)
    page.wait_for_selector("#problem:not([hidden])")
    assert "a.txt is not UTF-8 text" in page.inner_text("#problem")


def test_what_goes_wrong_is_a_sentence(opened: Any, address: str) -> None:
    page = opened(quiet=False)
    page.click("#score")
    assert "There is no text" in page.inner_text("#problem")
    refusal = {"error": {"message": "Too much at once. <b>", "type": "x", "code": "busy"}}
    page.route(
        "**/v1/score",
        lambda one: one.fulfill(status=429, json=refusal, headers={"retry-after": "3"}),
    )
    page.fill("#text", "The cat.")
    page.click("#score")
    page.wait_for_selector("#problem:not([hidden])")
    assert page.inner_text("#problem") == "Too much at once. <b> Try again in 3 seconds."
    page.unroute("**/v1/score")
    page.route("**/v1/score", lambda one: one.fulfill(body='{"texts": [{"te'))
    page.click("#score")
    page.wait_for_selector("#problem:has-text('broke off')")
    page.unroute("**/v1/score")
    page.route("**/v1/score", lambda one: one.abort())
    page.click("#score")
    page.wait_for_selector("#problem:has-text('cannot be reached')")


def test_a_request_in_flight_can_be_stopped(opened: Any) -> None:
    page = opened()
    held = []
    page.route("**/v1/score", lambda one: held.append(one))
    page.fill("#text", "The cat.")
    page.click("#score")
    page.wait_for_selector("#stop:not([hidden])")
    page.click("#stop")
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_selector("#status:text-is('Stopped.')")
    assert page.is_hidden("#results") and page.is_enabled("#score")


def test_a_browser_that_has_shown_the_token_uses_the_page(chromium: Any, tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path / "m")
    tokenizer().save_pretrained(tmp_path / "m")
    (tmp_path / "runs").mkdir()
    settings = Settings(token="t" * 20, runs=str(tmp_path / "runs"))
    served = app.build({"small": ("hf", fairway.load(str(tmp_path / "m")))}, settings)
    with pages.served(served) as address, pages.browsing(chromium) as context:
        page = context.new_page()
        page.goto(f"{address}/")
        page.fill("input[name=token]", "t" * 20)
        page.click("button")
        page.wait_for_selector("html[data-ready]")
        assert "t" * 20 not in page.url
        page.fill("#text", "the hen")
        pages.send(page)
        context.clear_cookies()
        page.click("#score")
        page.wait_for_selector("#problem:not([hidden])")
        assert page.inner_text("#problem").endswith("Load this page again to give it.")
        assert page.get_by_role("link", name="Runs").get_attribute("href") == "runs"


def test_only_the_pages_own_files_are_served(address: str) -> None:
    answer = httpx2.get(f"{address}/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    text = answer.text
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=|https?://", text)
    for name in files():
        if name.endswith((".js", ".css")):
            source = files()[name].decode()
            assert len(source.splitlines()) <= 400, name
            assert not re.search(r"innerHTML|outerHTML|document\.write|eval\(|localStorage", source)
            found = httpx2.get(f"{address}/static/{name}")
            assert found.status_code == 200 and found.content == files()[name]
            tag = {"if-none-match": found.headers["etag"]}
            assert httpx2.get(f"{address}/static/{name}", headers=tag).status_code == 304
    for path in ("../playground.py", "%2e%2e/playground.py", "playground.py", "..%2fapp.py", ""):
        assert httpx2.get(f"{address}/static/{path}").status_code in (404, 405), path


@pytest.mark.slow
def test_the_wheel_holds_the_page(tmp_path: Path) -> None:
    import subprocess
    import sys

    root = Path(__file__).parents[1]
    code = (
        "from hatchling.builders.wheel import WheelBuilder\n"
        f"print(next(WheelBuilder({str(root)!r}).build(directory={str(tmp_path)!r})))"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "No module named 'hatchling'" in made.stderr:
        pytest.skip("hatchling is not installed: pip install hatchling")
    assert made.returncode == 0, made.stderr
    held = zipfile.ZipFile(made.stdout.strip()).namelist()
    assert {f"fairway/serve/page/{name}" for name in files()} <= set(held)
