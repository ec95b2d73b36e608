"""Published vectors, the suite on the command line, and the code of its page."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fairway
from fairway import conformance, scorer
from fairway.conformance import vectors
from fairway.errors import MissingExtra
from kinds import bigram, block


@pytest.mark.parametrize("name", vectors.NAMES)
def test_the_hf_kind_holds_the_published_vectors(name: str, request: Any) -> None:
    spec = "hf:builtin"
    if name == "stories260K":
        spec = f"hf:{request.getfixturevalue('stories')}"
    held = vectors.read(name)
    findings = vectors.examine(held, lambda **options: scorer.load(spec, **options))
    assert {f.outcome for f in findings} == {"ok"} and len(findings) == 10
    assert {c["protocol"] for c in held["cases"]} >= {"fairway", "lm-eval", "llama.cpp", "gptq"}


def test_vectors_find_another_dtype_other_windows_and_another_model(small: str) -> None:
    held = vectors.read("builtin")
    one = {**held, "cases": [c for c in held["cases"] if c["settings"].get("stride") == 24]}
    load = scorer.load
    (rough,) = vectors.examine(one, lambda **o: load("hf:builtin", dtype="bfloat16", **o))
    assert rough.outcome == "defect" and "differ by up to" in rough.evidence
    (cut,) = vectors.examine(one, lambda **o: load("hf:builtin", **{**o, "stride": 12}))
    assert cut.outcome == "defect" and "differ by up to" in cut.evidence
    (other,) = vectors.examine(one, lambda **o: load(f"hf:{small}", **o))
    assert other.outcome == "defect" and "other token ids" in other.evidence


def test_the_tool_makes_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the built-in model's short texts, under each protocol that takes them."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "tools"))
    tool = importlib.import_module("vectors")
    folder = Path(fairway.__file__).parent / "data" / "models" / "mini"
    model, words = tool.Llama(folder), tool.Tokenizer.from_file(str(folder / "tokenizer.json"))
    held = vectors.read("builtin")
    assert held["texts"] == tool.TEXTS
    short = [case for case in held["cases"] if case["text"] in ("tiny", "blank")]
    assert len(short) > 8
    for case in short:
        made = tool.make(model, words, True, (case["protocol"], case["settings"], ()), case["text"])
        assert made["ids"] == case["ids"] and made["offsets"] == case["offsets"]
        assert {**made["totals"], "nll": 0} == {**case["totals"], "nll": 0}
        for one, other in zip(made["logprobs"], case["logprobs"], strict=True):
            assert one == pytest.approx(other, abs=1e-6)


def test_vectors_add_up() -> None:
    """The file by itself: sums are those of its log-probabilities, bytes those of its texts."""
    for name in vectors.NAMES:
        held = vectors.read(name)
        for case in held["cases"]:
            kept = [value for value in case["logprobs"] if value is not None]
            text = held["texts"][case["text"]]
            assert len(case["ids"]) == len(case["offsets"]) == len(case["logprobs"])
            assert case["totals"]["tokens"] == len(kept) and max(kept, default=0) <= 0
            assert case["totals"]["nll"] == pytest.approx(-sum(kept), abs=1e-4)
            assert case["totals"]["bytes"] <= len(text.encode())


# The command line.


def run(*words: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    paths = [str(Path(fairway.__file__).parents[1]), *([str(site)] if site else [])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "100"}
    command = [sys.executable, "-m", "fairway", *words]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def test_the_commands_run_the_suite_on_another_packages_kind(plugin: Path, tmp_path: Path) -> None:
    spec = bigram(tmp_path)
    listed = run("list", site=plugin)
    assert "bigram" in listed.stdout and "fairway-bigram" in listed.stdout
    done = run("doctor", "--suite", spec, site=plugin)
    assert done.returncode == 0 and "0 defects" in done.stdout, done.stderr
    found = json.loads(run("doctor", "--suite", spec, "--json", site=plugin).stdout)
    assert len(found["findings"]) == len(conformance.CHECKS) and "bigram" in found["signature"]
    held = run("doctor", "--suite", spec, "--vectors", "builtin", site=plugin)
    assert held.returncode == 1 and "other token ids" in held.stdout
    assert "have no setting max_length" in " ".join(held.stdout.split())
    missing = run("doctor", "--suite", "bigram:nowhere.txt", site=plugin)
    assert missing.returncode == 2 and "Traceback" not in missing.stderr
    assert run("doctor", "--vectors", "builtin").returncode == 2
    assert run("doctor", "--suite", spec, "--vectors", "gpt2", site=plugin).returncode == 2


def test_a_kind_that_is_not_installed_shows_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fairway.cli.listing import list_

    absent = scorer.Kind("nowhere.at_all:load", "another kind", "gguf", ("no_such_package",))
    monkeypatch.setitem(scorer.BACKENDS, "other", absent)
    list_()
    shown = capsys.readouterr().out
    assert "lacks no_such_package: pip install 'fairway[gguf]'" in " ".join(shown.split())
    list_(json=True)
    kinds = json.loads(capsys.readouterr().out)["kinds"]
    assert kinds["hf"]["installed"] and kinds["hf"]["install"] is None
    assert kinds["other"]["install"] == "pip install 'fairway[gguf]'"
    with pytest.raises(MissingExtra, match="Scoring with other: models .* 'fairway\\[gguf\\]'"):
        scorer.load("other:x")


def test_a_package_whose_kind_cannot_be_imported_is_named(tmp_path: Path) -> None:
    info = tmp_path / "gone-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gone\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fairway.scorers]\ngone = gone_away:load\n")
    done = run("score", "text", "--model", "gone:x", site=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "from the package gone" in done.stderr and "gone_away" in done.stderr


def test_a_defect_is_exit_code_one(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(
        "from fairway.scores import Score\n"
        "from fairway.signature import Signature\n"
        "import numpy as np\n"
        "class Faulty:\n"
        "    signature = Signature.of({'kind': 'faulty', 'model': 'x'})\n"
        "    def score(self, documents, want=()):\n"
        "        for d in documents:\n"
        "            spans, values = np.array([[0, 99]]), np.array([1.0])\n"
        "            yield Score(d.id, d.text, spans, values, np.array([0]))\n"
        "def load(name):\n"
        "    return Faulty()\n"
    )
    info = tmp_path / "faulty-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fairway.scorers]\nfaulty = faulty:load\n")
    done = run("doctor", "--suite", "faulty:x", site=tmp_path)
    assert done.returncode == 1 and "→" in done.stdout and "Traceback" not in done.stderr


def test_the_docs_twenty_lines_hold(tmp_path: Path) -> None:
    exec(compile(block("conformance.md", "python"), "conformance.md", "exec"), {})
