"""What tests share: the assets folder, a cache of their own, small models with peaked logits."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def assets() -> Path:
    folder = os.environ.get("FAIRWAY_ASSETS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("FAIRWAY_ASSETS does not name a folder of test assets")
    return Path(folder)


@pytest.fixture(scope="session")
def stories(assets: Path) -> str:
    return str(assets / "models" / "stories260K" / "hf")


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["FAIRWAY_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a random Llama and a byte-level tokenizer: fast, and needs no assets."""
    import models

    folder = tmp_path_factory.mktemp("models") / "small-llama"
    models.build("llama").save_pretrained(folder)
    models.tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The docs' backend, installed as a package of its own."""
    folder = tmp_path_factory.mktemp("site-packages")
    import kinds

    kinds.install(folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with three models and its page."""
    import pages

    why = pages.lacking()
    if why is not None:
        pytest.skip(why)
    with pages.playground(tmp_path_factory.mktemp("playground")) as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    import pages

    with pages.browser() as found:
        yield found


@pytest.fixture
def opened(chromium: Any, address: str) -> Iterator[Any]:
    """Open the page, whose console stays empty and which asks nobody but its server."""
    import pages

    with pages.opening(chromium, address) as found:
        yield found
