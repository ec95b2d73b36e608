"""What a real browser makes of the guard: sessions, other sites' pages, names pointed here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from fairway.serve.settings import Settings
from guarded import serving

CHROMIUM = "/usr/bin/chromium"
TOKEN = "a-token-of-the-browser-1"
SEEN: list[str] = []
"""Requests that came to a route."""
RULES = "MAP evil.example 127.0.0.1, MAP rebound.example 127.0.0.1"


async def mark(request: Request) -> Response:
    SEEN.append(f"{request.method} {request.url.path}")
    return HTMLResponse("<!DOCTYPE html><title>here</title><p>a page of the server")


ROUTES = [Route("/mark", mark, methods=["GET", "POST"]), Route("/mark.js", mark)]
ATTACK = """async (base) => {
  const out = {};
  const send = async (name, address, init) => {
    try { out[name] = (await fetch(base + address, init)).type; } catch { out[name] = 'refused'; }
  };
  const all = {credentials: 'include'};
  await send('read', '/mark', all);
  await send('blind', '/mark', {...all, mode: 'no-cors'});
  await send('form', '/mark', {...all, mode: 'no-cors', method: 'POST', body: '{}'});
  await send('json', '/mark', {...all, method: 'POST', body: '{}',
    headers: {'Content-Type': 'application/json'}});
  const load = (tag, key) => new Promise(done => {
    const one = document.createElement(tag);
    one.onload = () => done(one.contentDocument === null ? 'closed' : 'loaded');
    one.onerror = () => done('refused');
    one[key] = base + '/mark.js';
    document.body.append(one);
  });
  out.script = await load('script', 'src');
  out.image = await load('img', 'src');
  out.frame = await load('iframe', 'src');
  return out;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as engine:
        # Rules for names alone: nothing is asked of a network.
        flags = ["--no-sandbox", f"--host-resolver-rules={RULES}",
                 "--disable-features=LocalNetworkAccessChecks"]  # fmt: skip
        found = engine.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield found
        found.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving({}, Settings(token=TOKEN), ROUTES) as found:
        yield found


def test_a_token_opens_a_session_and_leaves_the_address(browser: Any, port: int) -> None:
    context = browser.new_context()
    page = context.new_page()
    base = f"http://127.0.0.1:{port}"
    assert page.goto(f"{base}/mark").status == 401
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button").click()
    assert "asks for a token" in page.locator("h1").inner_text()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button").click()
    page.wait_for_url(f"{base}/")
    assert TOKEN not in page.url
    assert page.goto(f"{base}/mark").status == 200
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("fetch('/mark').then(answer => answer.status)") == 200
    (cookie,) = context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and TOKEN not in cookie["value"]
    context.close()


def test_another_sites_page_reaches_nothing(browser: Any, port: int) -> None:
    context = browser.new_context()
    page = context.new_page()
    base = f"http://127.0.0.1:{port}"
    page.goto(f"{base}/?token={TOKEN}")
    SEEN.clear()
    assert page.goto(f"{base}/mark").status == 200
    assert SEEN == ["GET /mark"]
    SEEN.clear()
    with serving({}, Settings(hosts=("evil.example",)), [Route("/evil", evil)]) as other:
        # One on another port is of the same site, and sends the cookie along.
        for place in (f"http://127.0.0.1:{other}", f"http://evil.example:{other}"):
            assert page.goto(f"{place}/evil").status == 200
            found = page.evaluate(ATTACK, base)
            assert found.pop("frame") == "closed"
            # A blind request ends with an answer that cannot be read.
            assert set(found.values()) <= {"refused", "opaque"}, found
            assert found["read"] == found["json"] == found["script"] == "refused"
            assert SEEN == []
        # A link that a person follows is another thing; the session stays behind.
        page.evaluate("base => { location = base + '/mark' }", base)
        page.wait_for_url(f"{base}/mark")
        assert "asks for a token" in page.locator("h1").inner_text() and SEEN == []
    context.close()


async def evil(_: Request) -> Response:
    policy = {"content-security-policy": "script-src 'unsafe-inline' *"}
    return HTMLResponse("<!DOCTYPE html><body>", headers=policy)


def test_a_name_that_was_pointed_here_is_refused(browser: Any, port: int) -> None:
    page = browser.new_page()
    answer = page.goto(f"http://rebound.example:{port}/mark")
    assert answer.status == 421 and "--allow-host" in page.locator("body").inner_text()
    page.close()
