"""A real server and a real browser: the page of `fairway serve`, and everything that it does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

CHROMIUM = Path("/usr/bin/chromium")


def lacking() -> str | None:
    """Say why there is no browser; None where there is one."""
    if not CHROMIUM.exists():
        return f"{CHROMIUM} is not there: apt-get install chromium"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install playwright"
    return None


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Run an application in a thread, on a free port; give its address."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", lifespan="on", timeout_graceful_shutdown=2)
    )
    ready = threading.Event()
    begin = server.startup

    async def startup(sockets: Any = None) -> None:
        await begin(sockets)
        ready.set()

    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert ready.wait(20)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@dataclass
class Seen:
    """What must not happen while a page is used.

    Attributes:
        requests: addresses that were asked for.
        wrong: errors, messages of the console, dialogs.
    """

    requests: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def browser() -> Iterator[Any]:
    """Start chromium; skip where there is none."""
    why = lacking()
    if why is not None:
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as one:
        found = one.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield found
        found.close()


@contextmanager
def browsing(chromium: Any) -> Iterator[Any]:
    """Give a browser without cookies of others."""
    context = chromium.new_context()
    yield context
    context.close()


def watch(page: Any) -> Seen:
    """Note what a page asks for and what goes wrong in it, violations of its policy too."""
    seen = Seen()

    def dialog(one: Any) -> None:
        seen.wrong.append(f"dialog {one.message}")
        one.dismiss()

    page.on("request", lambda one: seen.requests.append(one.url))
    page.on("console", lambda one: seen.wrong.append(f"{one.type} {one.text}"))
    page.on("pageerror", lambda one: seen.wrong.append(f"error {one}"))
    page.on("dialog", dialog)
    return seen


SCRIPT = (Path(__file__).parent / "pages.js").read_text("utf-8")


def look(page: Any, what: str, given: Any = None) -> Any:
    """Evaluate one of the functions of pages.js in a page."""
    return page.evaluate(f"(given) => {SCRIPT.rstrip()}.{what}(given)", given)


TEXT = (
    "The keeper of the lighthouse had not spoken to anyone. He counted ships, one by one!\n\n"
    "“Nobody will read it,” he said. Naïve 你好 😀 and then."
)
NAME = "<img src=x onerror=alert(9)>\u202e"
"""What the second model is called."""


@contextmanager
def playground(folder: Path) -> Iterator[str]:
    """Serve models of several kinds: the built-in one, and small ones."""
    import arpas
    import fairway
    import kinds
    import models
    from fairway.serve import app

    models.build("llama").save_pretrained(folder / "small")
    models.tokenizer().save_pretrained(folder / "small")
    words = folder / "words.arpa"
    words.write_text(arpas.write(arpas.draw(3, ["the", "cat", "and"], 3), 3), "utf-8")
    chosen = {
        "builtin": ("hf", fairway.load()),
        NAME: ("hf", fairway.load(str(folder / "small"), max_length=64)),
        "bigram": ("arpa", fairway.load(f"arpa:{words}")),
        "bert": ("masked", fairway.load(kinds.masked(folder / "bert"))),
        "t5": ("seq2seq", fairway.load(kinds.seq2seq(folder / "t5"))),
    }
    with served(app.build(chosen)) as found:
        yield found


@contextmanager
def opening(chromium: Any, address: str) -> Iterator[Any]:
    """Open the page as often as wanted; at the end nothing went wrong and nobody else was asked."""
    made = []

    def open_page(fragment: str = "", quiet: bool = True, **options: Any) -> Any:
        size = {"width": 1280, "height": 900}
        context = chromium.new_context(**{"viewport": size, "reduced_motion": "reduce", **options})
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
        page = context.new_page()
        made.append((context, watch(page), quiet))
        page.goto(f"{address}/{fragment}")
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context, seen, quiet in made:
        context.close()
        assert not (seen.wrong if quiet else [one for one in seen.wrong if "resource" not in one])
        assert all(one.startswith((address, "blob:")) for one in seen.requests)


def score(page: Any, text: str, *models: str, second: str | None = None) -> None:
    """Fill the form, send it, and wait for what is drawn."""
    page.fill("#text", text)
    if second is not None:
        page.click("#two")
        page.fill("#second", second)
    for index, name in enumerate(("builtin", NAME, "bigram", "bert", "t5")):
        page.set_checked(f"#model-{index}", name in (models or ("builtin",)))
    send(page)


def send(page: Any) -> None:
    page.click("#score")
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_selector("#results:not([hidden])")
    drawn(page)


def drawn(page: Any) -> None:
    """Wait until all tokens are drawn."""
    page.wait_for_selector(".strip:not([data-drawn])", state="detached")


def clipboard(page: Any) -> str:
    return str(page.evaluate("navigator.clipboard.readText()"))


def ask(address: str, text: str, model: str = "builtin") -> Any:
    """Ask for what the page asks for."""
    data = {"model": model, "text": text, "columns": ["rank", "entropy", "top5"], "sentences": True}
    return httpx2.post(f"{address}/v1/score", json=data, timeout=60).json()
