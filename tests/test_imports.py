"""The structure, computed from the source: imports point down, lazy ones included."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fairway

ROOT = Path(fairway.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
CORE = (
    "errors", "hub", "text", "windows", "signature", "scores", "statistics", "corpus",
    "protocol", "scorer", "report", "record", "request", "repeat", "store", "cache", "run",
    "evaluation", "longcontext", "render", "cli", "tokenizers", "words", "segmenters", "segments",
    "where", "pairs", "comparable", "comparison", "choices", "accuracy", "flips", "logs", "fair",
    "distributions", "divergence", "variants", "checkpoints", "ledger", "curve",
    "finding", "conformance", "sentences", "wire", "generation", "serve",
)  # fmt: skip


def name(path: Path) -> str:
    parts = ["fairway", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """Modules of fairway that a file imports anywhere but under TYPE_CHECKING."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
    found &= set(MODULES)
    # Every module may ask its package for __version__.
    return found - {"fairway", name(path)}


def test_the_graph_has_no_cycle() -> None:
    graph = {module: imports(path) for module, path in MODULES.items() if module != "fairway"}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("room", ["render", "serve", "monitor"])
def test_what_shows_never_imports_a_backend(room: str) -> None:
    for module, path in MODULES.items():
        if module.startswith(f"fairway.{room}"):
            assert not any(i.startswith("fairway.backends") for i in imports(path)), module


def test_the_core_never_imports_torch() -> None:
    for module, path in MODULES.items():
        if module.split(".")[1:2] and module.split(".")[1] in CORE:
            text = path.read_text("utf-8")
            assert "import torch" not in text and "from torch" not in text, module


def test_no_file_is_long() -> None:
    for path in FILES:
        assert len(path.read_text("utf-8").splitlines()) <= 400, path


def test_all_names_are_public_and_there() -> None:
    assert fairway.__all__ == sorted(fairway.__all__)
    assert set(fairway.__all__) == {*fairway._LAZY, "__version__"}
    for public in fairway.__all__:
        assert getattr(fairway, public) is not None


@pytest.mark.parametrize("code", ["import fairway", "import fairway.cli"])
def test_starting_loads_nothing_heavy(code: str) -> None:
    check = f"{code}\nimport sys\nprint([m for m in ('numpy', 'torch') if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "[]"
