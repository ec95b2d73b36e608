"""What servers get wrong: each planted bug is named, and no wrong number comes through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import fairway
import gguf_models
import standin
import test_openai_real
from fairway.backends.openai import pairs, probe, transport
from fairway.backends.openai.address import parse
from fairway.backends.openai.defects import find
from fairway.backends.openai.routes import ROUTES
from fairway.cli import app as commands
from fairway.corpus import Document
from fairway.errors import InputError, ModelError
from fairway.serve import app, faults
from fairway.serve.faults.bugs import BUGS
from serving import serving

TEXTS = (
    "The ferry to the island leaves at half past nine, and it comes back late.",
    "na\u00efve caf\u00e9 \U0001f600 \u65e5\u672c\u8a9e, she said to nobody at all.",
    "ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha ha",
)

NAMES = {
    "zeros": {"all zeros"},
    "generated-only": {"generated tokens only", "no prompt log-prob"},
    "clamped": {"clamped log-probabilities"},
    "missing": {"missing log-probabilities", "log-probabilities."},
    "infinite": {"infinite numbers"},
    "positive": {"positive log-probabilities"},
    "first-number": {"wrong first token"},
    "first-zero": {"wrong first token"},
    "bos-scored": {"BOS scored"},
    "null-inside": {"null inside"},
    "head-cut": {"truncated prompt"},
    "tail-cut": {"truncated prompt"},
    "lost-bytes": {"lost tokens", "tokens are lost"},
    "lost-characters": {"lost tokens", "lost bytes", "tokens are lost"},
    "replacement": {"replacement characters"},
    "shifted": {"shifted by one", "the probability of the place behind it"},
    "shifted-late": {"shifted by one", "contradicting alternatives"},
    "copied-top": {"copied alternatives"},
    "doubled": {"repeated tokens"},
    "repeated": {"repeated tokens"},
    "temperature": {"scaled by the temperature"},
    "stale": {"dependent on earlier requests"},
    "log10": {"wrong units"},
    "log2": {"reading contradicts writing", "wrong units"},
    "log2-all": {"wrong units"},
    "swapped": {"mixed up in a request"},
    "no-logprobs": {"no prompt log-prob"},
}
"""What the doctor may call each bug."""

EQUAL = ("none", "replacement", "copied-top", "temperature", "swapped")
"""Bugs that change no number that is used: a token's own, at temperature 1, one prompt a time."""

DOCTORS = "log2-all"
"""The one that scoring does not find: numbers that agree with each other in another unit. Drawing
tokens shows it, which takes more than a start should; docs/server-defects.md says so."""


@pytest.fixture(scope="module")
def patient() -> Iterator[tuple[str, faults.Faults]]:
    """A server of the built-in model, whose faults a test sets."""
    scorer = fairway.load("hf:builtin", prefix="none")
    made = faults.Faults(app.build({"builtin": ("hf", scorer)}))
    with serving(made) as url:
        yield f"builtin@{url}", made


@pytest.fixture(scope="module")
def clean() -> list[Any]:
    return scored(fairway.load("hf:builtin", prefix="none"))


def scored(scorer: Any) -> list[Any]:
    return [
        one.logprobs for one in scorer.score([Document(str(n), t) for n, t in enumerate(TEXTS)])
    ]


def test_every_bug_has_its_name() -> None:
    assert set(NAMES) == set(BUGS) | {"swapped", "no-logprobs"}


@pytest.mark.slow
@pytest.mark.parametrize("bug", [*(one for one in NAMES if one != DOCTORS), "none"])
def test_no_silent_wrong_number(patient: Any, clean: Any, bug: str) -> None:
    address, server = patient
    server.faults = () if bug == "none" else (faults.parse(bug),)
    try:
        found = scored(fairway.load(f"openai:{address}"))
    except ModelError as problem:
        assert bug != "none"
        assert any(name in str(problem) for name in NAMES[bug]), problem
        return
    assert bug in EQUAL
    for mine, theirs in zip(found, clean, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("bug", list(NAMES))
def test_the_doctor_names_every_bug(patient: Any, bug: str) -> None:
    address, server = patient
    server.faults = (faults.parse(bug),)
    findings = [one for one in probe.examine(address) if one.found]
    told = " ".join(f"{one.check} {one.evidence}" for one in findings)
    assert any(name in told for name in NAMES[bug]), told


def test_a_right_server_has_no_finding(patient: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "DRAWS", 32)
    address, server = patient
    server.faults = ()
    found = CliRunner().invoke(commands, ["doctor", "--model", f"openai:{address}", "--json"])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    outcomes = {one["check"]: one["outcome"] for one in told["findings"]}
    assert set(outcomes.values()) == {"ok", "skipped"}, told
    assert {"text: emoji", "text: empty", *pairs.PAIRS, *pairs.FURTHER} <= set(outcomes)


def test_a_wrong_server_gives_exit_code_1(patient: Any) -> None:
    address, server = patient
    server.faults = (faults.parse("stale"), faults.parse("plain"))
    found = CliRunner().invoke(commands, ["doctor", "--model", f"openai:{address}"])
    assert found.exit_code == 1
    assert "dependent on earlier requests" in " ".join(found.output.split())
    server.faults = (faults.parse("no-logprobs"),)
    assert any("returns no prompt" in one.evidence for one in probe.examine(address))


@pytest.mark.parametrize(
    "more, said",
    [
        (["--data", "texts.txt"], "prompts of its own"),
        (["--model-arg", "route=nonsense"], "nonsense"),
        (["--vectors", "builtin"], "--suite"),
    ],
)
def test_what_does_not_go_with_a_server(patient: Any, more: list[str], said: str) -> None:
    found = CliRunner().invoke(commands, ["doctor", "--model", f"openai:{patient[0]}", *more])
    assert isinstance(found.exception, InputError) and said in str(found.exception)


def test_nobody_there() -> None:
    with pytest.raises(ModelError, match="Is it running"):
        probe.examine("m@http://127.0.0.1:9")


def served_by_llama_cpp(folder: Path, bos: bool) -> Any:
    file = gguf_models.llama(folder / f"{bos}.gguf", bos=bos)
    return standin.serve(test_openai_real.llama_cpp(file, gguf_models.POSITIONS))


@pytest.mark.slow
def test_llama_cpp_python_with_bos_has_no_defect(tmp_path: Path) -> None:
    with served_by_llama_cpp(tmp_path, True) as url:
        findings = probe.examine(url, load=lambda: fairway.load(f"openai:{url}"))
        assert not [one for one in findings if one.outcome == "defect"], findings
        link = transport.Link(parse(url))
        case = pairs.Case(link, ROUTES["echo"], "", 1, 40)
        pairs.settle(case)

        @settings(max_examples=40, deadline=None)
        @given(
            st.one_of(
                st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
                st.builds(lambda word, n: word * n, st.sampled_from(["ha ", "the", "a"]),
                          st.integers(1, 14)),
            )
        )  # fmt: skip
        def right(text: str) -> None:
            while len(text.encode()) > 100:
                text = text[: len(text) // 2]
            found = find(case.asked(text[:40]), case.ask(text))
            assert not any(one.refuse for one in found), found

        right()
        link.close()


@pytest.mark.slow
def test_llama_cpp_python_without_bos_is_one_place_off(tmp_path: Path) -> None:
    with served_by_llama_cpp(tmp_path, False) as url:
        findings = probe.examine(url)
        assert any("shifted by one" in one.evidence for one in findings), findings
        with pytest.raises(ModelError, match="the place behind it"):
            fairway.load(f"openai:{url}")
