"""Choices: definitions against a plain loop, ties, lengths, what is refused, two models."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import fairway
from fairway import accuracy, flips, signature
from fairway.choices import Decision, Rule
from fairway.cli import app
from fairway.corpus.choices import Item, Items, digest, read
from fairway.errors import FairwayError, InputError, ProtocolError
from fairway.statistics import quantile

ITEMS = (
    Item("a", "The cat sat on the", ("mat", "moon and the stars above it", "Straße"), 0, "x"),
    Item("b", "Хлеб:", ("bread", "хлеб", "パン"), 1, "x"),
    Item("c", "", ("the end", "then an end", "in the an"), 2, "y"),
    Item("d", "in the ", ("an", "the"), 1, "y"),
)


class Fixed:
    """A scorer that gives each text the log-probabilities it is told, a token a character."""

    signature = signature.Signature.of({"model": "fixed", "protocol": "fairway"})

    def __init__(self, values: dict[str, float]) -> None:
        self.values = values

    def score(
        self, documents: Iterable[fairway.Document], want: Collection[str] = ()
    ) -> Iterator[fairway.Score]:
        for document in documents:
            size = len(document.text)
            logprobs = np.full(size, self.values[document.text] / size)
            logprobs[0] += self.values[document.text] - math.fsum(logprobs)
            spans = np.stack((np.arange(size), np.arange(1, size + 1)), 1)
            yield fairway.Score(
                document.id, document.text, spans, logprobs, np.zeros(size, np.int64)
            )


@pytest.fixture(scope="module")
def model(small: str) -> tuple[Any, Any]:
    loaded = AutoModelForCausalLM.from_pretrained(small, dtype=torch.float32).double()
    return loaded, AutoTokenizer.from_pretrained(small)


def looped(model: Any, tokenizer: Any, context: str, text: str) -> tuple[float, int]:
    """Sum over the tokens that touch the text's characters, one forward for each token."""
    coded = tokenizer(context + text, add_special_tokens=False, return_offsets_mapping=True)
    ids = [tokenizer.bos_token_id, *coded["input_ids"]]
    total, count = 0.0, 0
    for place, (_, end) in enumerate(coded["offset_mapping"], 1):
        if end > len(context):
            with torch.no_grad():
                logits = model(torch.tensor([ids[:place]])).logits[0, -1]
            total += float(torch.log_softmax(logits, -1)[ids[place]])
            count += 1
    return total, count


def test_definitions_are_those_of_a_plain_loop(model: tuple[Any, Any]) -> None:
    scorer = fairway.load(model[0], tokenizer=model[1])
    report = accuracy.choose(scorer, ITEMS, Rule(unconditional="Answer:"))
    assert [one.item for one in report.decisions] == list(ITEMS)
    right = dict.fromkeys(report.accuracies, 0)
    for item, one in zip(ITEMS, report.decisions, strict=True):
        blank = " " if item.context else ""
        pairs = [looped(*model, item.context, blank + choice) for choice in item.choices]
        lls = [pair[0] for pair in pairs]
        alone = [looped(*model, "Answer:", blank + choice)[0] for choice in item.choices]
        assert one.logprobs == pytest.approx(lls, abs=1e-9)
        assert one.tokens.tolist() == [pair[1] for pair in pairs]
        assert one.unconditional == pytest.approx(alone, abs=1e-9)
        for metric, values in {
            "acc": lls,
            "acc_norm": [ll / len(c) for ll, c in zip(lls, item.choices, strict=True)],
            "acc_bytes": [ll / len(c.encode()) for ll, c in zip(lls, item.choices, strict=True)],
            "acc_tokens": [ll / n for ll, n in pairs],
            "acc_mutual_info": [ll - other for ll, other in zip(lls, alone, strict=True)],
        }.items():
            chosen = values.index(max(values))
            assert one.chosen(metric) == chosen
            right[metric] += chosen == item.answer
    assert {name: one.right for name, one in report.accuracies.items()} == right
    assert len(right) == 5


def test_characters_and_bytes_are_not_the_same() -> None:
    # 4 characters in 8 bytes against 6 in 6: per character the first is less likely, per byte more.
    item = Item("u", "", ("хлеб", "breads"), 0)
    report = accuracy.choose(Fixed({"хлеб": -6.0, "breads": -7.0}), [item])
    assert report.accuracies["acc"].right == 1
    assert report.accuracies["acc_norm"].right == 0
    assert report.accuracies["acc_bytes"].right == 1


@pytest.mark.parametrize(("ties", "answer", "right"), [
    ("wrong", 0, 0), ("wrong", 1, 0), ("first", 0, 1), ("first", 1, 0),
])  # fmt: skip
def test_ties_are_counted_and_decided(ties: str, answer: int, right: int) -> None:
    item = Item("t", "", ("one", "two", "six"), answer)
    scorer = Fixed({"one": -2.0, "two": -2.0, "six": -3.0})
    report = accuracy.choose(scorer, [item], Rule(ties=ties))
    assert report.accuracies["acc"].right == right
    assert report.accuracies["acc"].ties == 1
    # Places below the first may be shared without harm.
    other = accuracy.choose(Fixed({"one": -2.0, "two": -2.0, "six": -1.0}), [item], Rule())
    assert other.accuracies["acc"].ties == 0


@given(st.lists(st.integers(-6, -1), min_size=2, max_size=5), st.data())
def test_the_order_of_choices_does_not_matter(values: list[int], data: Any) -> None:
    names = [chr(97 + place) * (1 + place % 3) for place in range(len(values))]
    answer = data.draw(st.integers(0, len(values) - 1))
    order = data.draw(st.permutations(range(len(values))))
    scorer = Fixed({name: float(value) for name, value in zip(names, values, strict=True)})
    item = Item("i", "", tuple(names), answer)
    turned = Item("i", "", tuple(names[place] for place in order), order.index(answer))
    one, other = (accuracy.choose(scorer, [which]) for which in (item, turned))
    for metric, found in one.accuracies.items():
        assert other.accuracies[metric].right == found.right
        assert other.accuracies[metric].ties == found.ties
    first = accuracy.choose(scorer, [item], Rule(ties="first"))
    if not first.accuracies["acc"].ties:
        assert first.accuracies["acc"].right == one.accuracies["acc"].right


def test_intervals_groups_and_macro() -> None:
    kept = [Item(f"{n}", "", ("good", "bad"), int(n >= 6), "ab"[n >= 4]) for n in range(8)]
    report = accuracy.choose(Fixed({"good": -1.0, "bad": -2.0}), kept)
    found = report.accuracies["acc"]
    assert (found.right, found.items) == (6, 8)
    z, p, n = 1.959963984540054, 0.75, 8
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert found.interval[:2] == pytest.approx((centre - reach, centre + reach), abs=1e-9)
    assert {name: one["acc"].value for name, one in report.groups.items()} == {"a": 1, "b": 0.5}
    assert report.macro["acc"].value == 0.75
    # Two clusters: residuals 4 - 3 and 2 - 3, SE = sqrt(2 / 1 * 2) / 8.
    assert found.clustered is not None
    low = 0.75 - quantile(2) * math.sqrt(2 * 2) / 8
    assert found.clustered.low == pytest.approx(max(0.0, low))
    assert found.clustered.high == 1.0 and "clusters" in found.clustered.method
    assert report.chance == 0.5
    signed = report.signature
    assert signed["items"] == "8" and signed["digest"] == digest(kept)
    assert signature.parse(str(signed)) == signed


def test_two_models_are_paired() -> None:
    kept = [Item(f"{n}", f"{n}", (f"yes{n}", f"no{n}"), 0) for n in range(12)]
    first = Fixed({f" yes{n}": -1.0 if n < 6 else -3.0 for n in range(12)}
                  | {f" no{n}": -2.0 for n in range(12)})  # fmt: skip
    second = Fixed({f" yes{n}": -1.0 if n else -3.0 for n in range(12)}
                   | {f" no{n}": -2.0 for n in range(12)})  # fmt: skip
    both = [accuracy.choose(scorer, kept) for scorer in (first, second)]
    found = flips.compare(*both).flips["acc"]
    assert (found.gained, found.lost) == (tuple(map(str, range(6, 12))), ("0",))
    assert found.difference.value == pytest.approx(5 / 12)
    assert found.p == pytest.approx(2 * binom.cdf(1, 7, 0.5))
    apart = np.array([-1.0] + [0.0] * 5 + [1.0] * 6)
    reach = quantile(12) * apart.std(ddof=1) / math.sqrt(12)
    assert found.difference.interval is not None
    assert found.difference.interval.low == pytest.approx(5 / 12 - reach)
    assert flips.mcnemar(0, 0) == 1.0
    other = accuracy.choose(first, kept, Rule(ties="first"))
    with pytest.raises(ProtocolError, match="ties is wrong and first"):
        flips.compare(both[0], other)


def test_the_model_guesses_single_choices(model: tuple[Any, Any]) -> None:
    scorer = fairway.load(model[0], tokenizer=model[1])
    for context in map("the an in {}".format, "abcdefghijklmnopqrstuvwxyz"):
        ids = [model[1].bos_token_id, *model[1](context, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            ids.append(int(model[0](torch.tensor([ids])).logits[0, -1].argmax()))
        word = model[1].decode(ids[-1:])
        if model[1](context + word, add_special_tokens=False)["input_ids"] == ids[1:]:
            break
    else:
        pytest.fail("the model's guess is never text")
    kept = [
        Item("guess", context, (word,), 0),
        Item("other", context, ("q" if word != "q" else "x",), 0),
    ]
    report = accuracy.choose(scorer, kept, Rule(delimiter=""))
    assert [one.greedy for one in report.decisions] == [True, False]
    assert list(report.accuracies) == ["acc"] and report.accuracies["acc"].right == 1
    nll = [-looped(*model, context, item.choices[0])[0] for item in kept]
    assert report.item_perplexity is not None
    assert report.item_perplexity.value == pytest.approx(math.exp(sum(nll) / 2), rel=1e-9)


def test_one_bad_item_does_not_lose_the_others(model: tuple[Any, Any]) -> None:
    scorer = fairway.load(model[0], tokenizer=model[1], like="lm-eval-pairs")
    long = Item("long", "in", ("the " * 200, "an"), 0)
    report = accuracy.choose(scorer, [ITEMS[0], long, ITEMS[1]])
    assert [one.item.id for one in report.decisions] == ["a", "b"]
    blank = accuracy.choose(scorer, [ITEMS[0], Item("blank", " ", ("the", "an"), 0)])
    assert "no token stands before it" in blank.skipped[0].reason
    assert report.skipped[0].source == "long" and "positions" in report.skipped[0].reason
    with pytest.raises(InputError, match="^long: "):
        accuracy.choose(scorer, [ITEMS[0], long], strict=True)
    with pytest.raises(InputError, match="No item"):
        accuracy.choose(scorer, [long])


def test_without_a_prefix_the_first_token_is_said_to_lack(model: tuple[Any, Any]) -> None:
    scorer = fairway.load(model[0], tokenizer=model[1], prefix="none")
    report = accuracy.choose(scorer, [Item("p", "", ("the end", "an end"), 0)])
    assert report.notes and "not scored" in report.notes[0]
    with pytest.raises(InputError, match="choice 0 of s has no token"):
        accuracy.choose(scorer, [Item("s", "", ("x", "y"), 0)])


@pytest.mark.parametrize(("item", "said"), [
    (("e", "", (), 0), "e has no choices"),
    (("e", "", ("a", ""), 0), "e: choice 1 is empty"),
    (("e", "", ("a", "b"), 2), "e names answer 2"),
    (("e", "", ("a", "b"), -1), "e names answer -1"),
    (("e", "", ("a", 3), 0), "choice 1 is int"),
    (("e", "\0", ("a", "b"), 0), "context holds a NUL"),
])  # fmt: skip
def test_items_that_are_none_are_refused(item: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Item(*item)


def test_single_and_several_choices_are_not_mixed() -> None:
    kept = [Item("one", "", ("a",), 0), Item("two", "", ("a", "b"), 0)]
    for some in (kept, kept[::-1]):
        with pytest.raises(InputError, match=f"Up to {some[1].id}, .* split the data"):
            accuracy.choose(Fixed({"a": -1.0, "b": -2.0}), some)


ROWS: dict[str, tuple[dict[str, Any], Item]] = {
    "blimp": (
        {"sentence_good": "He runs.", "sentence_bad": "He run.", "UID": "u", "pairID": "7"},
        Item("u:7", "", ("He runs.", "He run."), 0, "u"),
    ),
    "lambada": ({"text": "to be or\nnot"}, Item("rows.jsonl:1", "to be", ("or\nnot",), 0)),
    "hellaswag": (
        {"activity_label": "Jump", "ctx_a": "A man [x] runs.", "ctx_b": "he", "label": "1",
         "endings": ["sits [title] Down.", "jumps."]},
        Item("rows.jsonl:1", "Jump: A man runs. He", ("sits. Down.", "jumps."), 1),
    ),
    "arc": (
        {"id": "q9", "question": "What?", "choices": {"text": ["x", "y"], "label": ["A", "B"]},
         "answerKey": "B"},
        Item("q9", "Question: What?\nAnswer:", ("x", "y"), 1),
    ),
    "jsonl": (
        {"question": "What?", "choices": ["x", "y"], "answer": "y"},
        Item("rows.jsonl:1", "What?", ("x", "y"), 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("task", ROWS)
def test_rows_of_each_task_are_read(task: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row, wanted = ROWS[task]
    path.write_text(json.dumps(row) + "\n", "utf-8")
    found = read(path)
    assert (found.task, found.name, found.items) == (task, "rows.jsonl", (wanted,))
    assert read(path, task).items == found.items


def test_hellaswag_as_text_and_a_file_that_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("Jump: he\n2\na\nb\nc\nd\nRun: she\n1\n", "utf-8")
    found = read(path)
    assert found.task == "hellaswag"
    assert found.items == (Item("some.txt:1", "Jump: he", ("a", "b", "c", "d"), 2),)
    assert "ends within an item" in found.skipped[0].reason


def test_bad_rows_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"context": "a", "choices": ["x", "y"], "answer": 0, "kind": "k"}
    lines = [json.dumps(good), "{broken", json.dumps({**good, "answer": 5}),
             json.dumps({**good, "choices": []}), json.dumps({"context": "a", "choices": ["x"]}),
             json.dumps({**good, "answer": True}), json.dumps({**good, "kind": "l"})]  # fmt: skip
    path.write_text("\n".join(lines), "utf-8")
    found = read(path, group_by="kind")
    assert [item.group for item in found.items] == ["k", "l"]
    assert [row.line for row in found.skipped] == [2, 3, 4, 5, 6]
    assert found.skipped_total == 5
    assert "names answer 5" in found.skipped[1].reason and "no choices" in found.skipped[2].reason
    assert len(read(path, limit=1).items) == 1
    assert len(read(path, group_by="kind", per_group=1).items) == 2
    with pytest.raises(InputError, match="rows.jsonl:2: broken JSON"):
        read(path, strict=True)
    with pytest.raises(InputError, match="lacks the field 'domain'"):
        read(path, group_by="domain")
    with pytest.raises(InputError, match="no task 'arcs'"):
        read(path, "arcs")


def test_the_digest_tells_boundaries_apart() -> None:
    pairs = [("ab", ("c", "d")), ("a", ("bc", "d")), ("", ("ab", "c", "d"))]
    assert len({digest([Item("i", context, some, 0)]) for context, some in pairs}) == 3
    assert digest([Item("i", "", ("a", "b"), 0)]) != digest([Item("i", "", ("a", "b"), 1)])
    assert digest([Item("i", "", ("a", "b"), 0)]) == digest([Item("j", "", ("a", "b"), 0, "g")])


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fairway", "choose", *words], capture_output=True, text=True
    )


def test_the_command(tmp_path: Path, small: str) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows = [{"context": f"Say {n}\u001b[31m", "choices": ["the", "an end"], "answer": n % 2,
             "kind": f"k{n % 3}"} for n in range(9)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"choices": []}]), "utf-8")
    words = ("--data", str(path), "--group-by", "kind", "--like", "lm-eval")
    done = run(*words, "--model", small, "--model", "hf:builtin", "--json", "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["items"] for one in found["reports"]] == [9, 9]
    assert found["reports"][0]["skipped_total"] == 1
    assert found["contests"][0]["metrics"]["acc"]["items"] == 9
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert (
        len(lines) == 18
        and sum(one["right"]["acc"] for one in lines[:9])
        == (found["reports"][0]["accuracies"]["acc"]["right"])
    )
    for form in ((), ("--md",), ("--csv",)):
        shown = CliRunner().invoke(app, ["choose", *words, "--model", small, *form])
        assert shown.exit_code == 0 and "k2" in shown.stdout and "\x1b" not in shown.stdout
    for wrong, said in (
        (("--data", str(tmp_path / "none.jsonl")), "is no file"),
        (("--data", str(path), "--like", "gptq"), "fairway or lm-eval"),
        (("--data", str(path), "--out", str(tmp_path)), "cannot be written"),
        (("--data", str(path), "--strict"), "rows.jsonl:10"),
    ):
        failed = CliRunner().invoke(app, ["choose", "--model", small, *wrong])
        assert isinstance(failed.exception, FairwayError) and said in str(failed.exception)
    failed_at_all = run("--model", small, "--data", str(tmp_path / "none.jsonl"))
    assert failed_at_all.returncode == 2 and "Traceback" not in failed_at_all.stderr


def test_the_facade(small: str) -> None:
    scorer = fairway.load(small)
    report = fairway.choose(scorer, list(ITEMS))
    assert report.accuracies["acc"].items == 4 and report.model == scorer.signature["model"]
    with pytest.raises(FairwayError, match="lm-eval-pairs"):
        fairway.choose(scorer, list(ITEMS), like="lm-eval")
    assert isinstance(report.decisions[0], Decision)
    named = Items(ITEMS, "mine", "jsonl")
    assert fairway.choose(small, named, like="lm-eval").signature["data"] == "mine"
