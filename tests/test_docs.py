"""README and docs say what is so: the tree, the commands, and what they print."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import fairway

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SOURCE = Path(fairway.__file__).parent
DOCS = sorted((ROOT / "docs").glob("*.md"))


def tree() -> list[Path]:
    """The files and folders that README's tree lists, from its indentation."""
    block = README[README.index("    src/fairway/\n") :]
    block = block[: block.index("\n\n")]
    found: list[Path] = []
    stack: list[tuple[int, Path]] = []
    for line in block.splitlines():
        depth = len(line) - len(line.lstrip())
        name = line.split()[0]
        while stack and stack[-1][0] >= depth:
            stack.pop()
        path = (stack[-1][1] if stack else ROOT) / name
        found.append(path)
        if name.endswith("/"):
            stack.append((depth, path))
    return found


def test_the_tree_lists_every_module_and_nothing_else() -> None:
    listed = {path for path in tree() if path.suffix == ".py"}
    there = {
        path
        for path in SOURCE.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py") or path.parent == SOURCE
    }
    assert {p.relative_to(SOURCE) for p in there - listed} == set()
    assert {p.relative_to(SOURCE) for p in listed - there} == set()


def test_listed_folders_exist() -> None:
    for path in tree():
        assert path.exists(), path


def test_the_table_of_speed_is_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import summary

    assert "\n".join(summary.lines()) in README


def test_results_say_where_they_were_measured() -> None:
    for path in (ROOT / "bench" / "results").glob("*.json"):
        result = json.loads(path.read_text("utf-8"))
        assert result["rows"] and result["machine"]["flags"] is not None, path.name
        assert "fairway" in result["versions"] and "goals" in result, path.name
        assert all({"value", "target", "met"} <= goal.keys() for goal in result["goals"].values())


def lines(text: str) -> list[str]:
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]


def test_the_demo_prints_what_readme_shows() -> None:
    """The figures may move in the last digit shown, since processors round differently."""
    shown = README[README.index("```text\nbuiltin on") + 8 :]
    shown = shown[: shown.index("```")]
    words = next(
        line.strip() for line in (ROOT / "Makefile").read_text("utf-8").splitlines()
        if "$(BIN)/fairway eval" in line
    ).split()[1:]  # fmt: skip
    made = subprocess.run(
        [sys.executable, "-m", "fairway", *words, "--no-cache"],
        capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    printed = lines(made.stdout)
    number = re.compile(r"-?[\d,]*\d(?:\.\d+)?")
    for line in lines(shown):
        blank = number.sub("#", line)
        matches = [one for one in printed if number.sub("#", one) == blank]
        assert matches, line
        wanted = [float(n.replace(",", "")) for n in number.findall(line)]
        assert any(
            all(
                a == pytest.approx(float(b.replace(",", "")), rel=2e-3)
                for a, b in zip(wanted, number.findall(one), strict=True)
            )
            for one in matches
        ), line


def commands() -> list[str]:
    """Every `fairway ...` line of README and docs."""
    found = []
    for text in [README, *(path.read_text("utf-8") for path in DOCS)]:
        for line in text.splitlines():
            line = line.strip().removeprefix("$ ")
            if re.match(r"fairway [a-z]", line) and not line.startswith("fairway import"):
                found.append(line.split("  #")[0].split(" | ")[0].rstrip("\\").strip())
    return sorted(set(found))


def test_every_option_that_the_docs_use_exists() -> None:
    from typer.main import get_command

    from fairway.cli import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands()) >= 8
    for line in commands():
        words = shlex.split(line, comments=True)
        assert words[1] in known, line
        command, rest = known[words[1]], words[2:]
        if hasattr(command, "commands"):
            assert rest[0] in command.commands, line
            command, rest = command.commands[rest[0]], rest[1:]
        options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        for word in rest:
            if word.startswith("--"):
                assert word.partition("=")[0] in options, line


def test_links_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]:
        for target in re.findall(r"\]\(([^)#]+)", path.read_text("utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_python_of_the_readme_runs() -> None:
    block = README[README.index("```python\n") + 10 :]
    first = block[: block.index("```")].splitlines()
    line = next(one for one in first if "score(" in one)
    space: dict[str, object] = {"fairway": fairway}
    value = eval(line, space)
    assert isinstance(value, float) and 0 < value < 8
