"""The same targets under several prompts: only the target counts, and pairs are the targets'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fairway
from fairway import templates
from fairway.cli import app
from fairway.corpus import Document
from fairway.errors import InputError
from models import build, tokenizer

CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</{{ m['role'] }}>\n{% endfor %}"


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "chatty"
    build("llama").save_pretrained(folder)
    words = tokenizer()
    words.chat_template = CHAT
    words.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "texts.jsonl"
    rows = [{"text": f"cat number {n}", "topic": ["hats", "hens"][n % 2]} for n in range(10)]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return str(path)


def test_templates_are_filled() -> None:
    document = Document("d", "the target {topic}", metadata={"topic": "cats"})
    filled = templates.read("On {topic}, {{so}}: {text}").fill(document)
    assert filled.context == "On cats, {so}: " and filled.text == document.text
    chat = templates.read("chat:Say it of {topic}.").fill(document)
    assert chat.metadata["messages"] == [
        {"role": "user", "content": "Say it of cats."},
        {"role": "assistant", "content": "the target {topic}"},
    ]
    given = '[{"role": "system", "content": "S"}, {"role": "assistant", "content": "{text}"}]'
    assert (
        templates.read(f"chat:{given}").fill(document).metadata["messages"][0]["role"] == "system"
    )
    assert templates.read("{text}").fill(document).context == ""
    assert len(templates.read("x " * 80 + "{text}").name) < 45


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("no place", "must end with"), ("{text} and more", "must end with"),
        ("chat:[1]", "no JSON list"), ('chat:[{"role": "user", "content": "x"}]', "last message"),
        ("chat:{text} again {text}", "assistant's answer"),
    ],
)  # fmt: skip
def test_what_is_no_template_is_refused(source: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        templates.read(source)


def test_what_cannot_be_filled_is_refused() -> None:
    with pytest.raises(InputError, match="no field 'topic'.*its fields are text"):
        templates.read("{topic} {text}").fill(Document("d", "x"))
    with pytest.raises(InputError, match="context"):
        templates.read("{text}").fill(Document("d", "x", "before"))


def test_only_the_target_is_scored(chatty: str, data: str) -> None:
    """The difference equals that of scores with each context, one text at a time."""
    words = ["compare", "--model", chatty, "--data", data, "--json"]
    words += ["--template", "{text}", "--template", "About {topic}:{text}"]
    done = CliRunner().invoke(app, [*words, "--template", "chat:About {topic}"])
    assert done.exit_code == 0, done.output
    plain, chat = json.loads(done.stdout)
    scorer = fairway.load(chatty)
    nats = [0.0, 0.0]
    size = 0
    for row in map(json.loads, Path(data).read_text("utf-8").splitlines()):
        size += len(row["text"])
        for place, before in enumerate(("", f"About {row['topic']}:")):
            score = next(iter(scorer.score([Document("d", row["text"], before)])))
            nats[place] += score.totals.nll
    bits = (nats[1] - nats[0]) / size / 0.6931471805599453
    assert plain["bits_per_byte"]["difference"] == pytest.approx(bits, abs=1e-6)
    assert plain["bits_per_byte"]["documents"] == 10 and not plain["allowed"]
    assert (
        chat["bits_per_byte"]["documents"] == 10 and "chat:assistant" in chat["second"]["signature"]
    )


def test_a_template_from_a_file_and_bad_ones(chatty: str, data: str, tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("About {topic}:\n{text}", "utf-8")
    words = ["compare", "--model", chatty, "--data", data, "--template", "{text}"]
    done = CliRunner().invoke(app, [*words, "--template", f"@{path}"])
    assert done.exit_code == 0 and "About {topic}" in done.output
    for more, reason in (
        ([], "One --template"),
        (["--template", "@absent"], "cannot be read"),
        (["--template", "{text}", "--model", "x"], "under one --model"),
    ):
        wrong = CliRunner().invoke(app, [*words, *more])
        assert wrong.exit_code != 0 and reason in str(wrong.exception)
