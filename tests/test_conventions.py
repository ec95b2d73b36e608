"""``--like all``: one table, and the reasons of what it lacks; with the built-in model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fairway
from fairway.protocol import CONVENTIONS
from fairway.report import dumps

PAGE = Path(__file__).parents[1] / "docs" / "conventions.md"

REFUSED = ("gptq", "paloma")
"""They need 2048 positions, and the built-in model has 512."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = [
        {"text": f"Row {n} of the report says that the river rose by {n} feet in the spring."}
        for n in range(150)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def run(data: Path, *words: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fairway", "eval", "--like", "all", "--data", str(data), *words],
        capture_output=True, text=True, env={**os.environ, "COLUMNS": str(columns)},
    )  # fmt: skip


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_says_everything_in_either_width(data: Path, columns: int) -> None:
    out = run(data, columns=columns)
    assert out.returncode == 0, out.stderr
    lines = out.stdout.splitlines()
    signatures = [line for line in lines if line.startswith("signature: ")]
    assert len(signatures) == len(CONVENTIONS) - len(REFUSED)
    body = [line for line in lines if line not in signatures]
    assert all(len(line) <= columns for line in body)
    flat = " ".join(out.stdout.split())
    for name, convention in CONVENTIONS.items():
        (*_, row) = [line for line in body if line.split()[:1] == [name]][:1]
        assert (f"2048 is what {name} needs" in flat) == (name in REFUSED)
        if name not in REFUSED:
            assert float(row.split()[1].replace(",", "")) > 1
            if columns < 110:
                assert convention.summary in flat


def test_json_holds_the_reports_and_stderr_the_reasons(data: Path) -> None:
    out = run(data, "--json")
    assert out.returncode == 0
    reports = json.loads(out.stdout)["reports"]
    assert [r["protocol"] for r in reports] == [n for n in CONVENTIONS if n not in REFUSED]
    for name in REFUSED:
        assert f"{name}: max_length 2048 is what {name} needs" in out.stderr
    whole = {r["protocol"]: r["metrics"] for r in reports}
    assert whole["fairway"]["documents"] == 150 and whole["hf-doc"]["documents"] == 1
    assert whole["fairway"]["perplexity"] != whole["llama.cpp"]["perplexity"]


def test_a_stride_leaves_out_all_whose_windows_are_disjoint(data: Path) -> None:
    out = run(data, "--json", "--limit", "3", "--stride", "64")
    names = [r["protocol"] for r in json.loads(out.stdout)["reports"]]
    assert names == ["fairway", "hf-doc", "hf-doc-as-published"]
    assert "lm-eval has disjoint windows" in out.stderr


def test_other_tables_name_the_convention(data: Path) -> None:
    for option in ("--md", "--latex"):
        out = run(data, option)
        assert all(f"rows.jsonl ({n})" in out.stdout for n in CONVENTIONS if n not in REFUSED)


def test_json_of_all_is_a_list_even_of_one() -> None:
    report = fairway.evaluate(data=["A text."])
    assert json.loads(dumps([report], several=True))["reports"] == [json.loads(dumps([report]))]


def test_the_page_shows_what_its_command_prints() -> None:
    """Figures may move in the last digit shown, since processors round differently."""
    page = PAGE.read_text("utf-8")
    assert "fairway eval --data sample:news --like all\n" in page
    shown = page[page.index("convention           perplexity") :].split("```")[0].splitlines()
    out = run(Path("sample:news"))
    assert out.returncode == 0, out.stderr
    printed = {line.split()[0]: line.split() for line in reversed(out.stdout.splitlines()) if line}
    assert len(shown) == len(CONVENTIONS) - len(REFUSED) + 1
    for line in shown:
        name, *cells = line.split()
        made = printed[name][1:]
        assert len(made) == len(cells), line
        for cell, other in zip(cells, made, strict=True):
            if cell.endswith("%"):
                assert abs(float(cell[:-1]) - float(other[:-1])) < 0.05
            elif cell[0].isdigit():
                wanted = float(cell.replace(",", ""))
                assert float(other.replace(",", "")) == pytest.approx(wanted, rel=2e-3)
            else:
                assert cell == other
