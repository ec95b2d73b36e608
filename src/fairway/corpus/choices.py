"""Items to choose from: multiple choice, minimal pairs and last words, from files."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fairway.corpus.compressed import COMPRESSED, opened, standard_input
from fairway.corpus.document import LACKS, Corpus, SkippedRow
from fairway.corpus.formats import guarded, objects, unusable
from fairway.corpus.reading import files
from fairway.errors import InputError

HELLASWAG_LINES = 6
"""Lines of an item in the text form of HellaSwag: context, answer, four endings."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question.

    Attributes:
        id: names it in reports.
        context: what stands before each choice; may be empty.
        choices: what is chosen from; a single one is to be the model's own first guess.
        answer: index of the right one.
        group: what it is counted under, where items are grouped.

    Raises:
        InputError: when there is no choice, one is empty, or the answer is none of them.
    """

    id: str
    context: str
    choices: tuple[str, ...]
    answer: int
    group: str | None = None

    def __post_init__(self) -> None:
        if not self.choices:
            raise InputError(f"{self.id} has no choices.")
        for number, choice in enumerate(self.choices):
            if problem := unusable(choice):
                what = problem.removeprefix("the text ")
                raise InputError(f"{self.id}: choice {number} {what}.")
        if self.context and (problem := unusable(self.context)):
            raise InputError(f"{self.id}: the context {problem.removeprefix('the text ')}.")
        if not 0 <= self.answer < len(self.choices):
            raise InputError(
                f"{self.id} names answer {self.answer}, and its choices are 0 to "
                f"{len(self.choices) - 1}."
            )


@dataclass(frozen=True, slots=True)
class Items:
    """What a source holds.

    Attributes:
        items: the questions, in the source's order.
        name: of the source; never a path.
        task: a key of `TASKS`.
        skipped: rows that are no items, the first thousand.
        skipped_total: all of them.
    """

    items: tuple[Item, ...]
    name: str
    task: str
    skipped: tuple[SkippedRow, ...] = ()
    skipped_total: int = 0


Values = Mapping[str, Any]


def _blimp(values: Values, name: str) -> Item:
    good, bad = _field(values, "sentence_good"), _field(values, "sentence_bad")
    group = values.get("UID")
    if group is not None and values.get("pairID") is not None:
        name = f"{group}:{values['pairID']}"
    return Item(name, "", (good, bad), 0, None if group is None else str(group))


def _lambada(values: Values, name: str) -> Item:
    text = _field(values, "text")
    if not isinstance(text, str):
        raise InputError(f"{name}: the text is {type(text).__name__}, and not a string.")
    before, blank, word = text.rpartition(" ")
    if not blank or not word:
        raise InputError(f"{name}: the text has no last word after a blank.")
    return Item(name, before, (word,), 0)


def tidy(text: str) -> str:
    """Take WikiHow's brackets out of a piece of HellaSwag.

    Source: ``preprocess`` of lm-eval's hellaswag task, 0.4.13.
    """
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _hellaswag(values: Values, name: str) -> Item:
    endings, label = _field(values, "endings"), _field(values, "label")
    if "context" in values:  # the text form, tidied by whoever made it
        return Item(name, values["context"], tuple(endings), _index(label, name))
    parts = [_field(values, key) for key in ("activity_label", "ctx_a", "ctx_b")]
    if not isinstance(endings, list) or not all(isinstance(x, str) for x in [*endings, *parts]):
        raise InputError(f"{name}: endings, activity_label, ctx_a and ctx_b are no strings.")
    context = tidy(f"{parts[0]}: {parts[1]} {parts[2].capitalize()}")
    return Item(name, context, tuple(map(tidy, endings)), _index(label, name))


def _arc(values: Values, name: str) -> Item:
    question, choices = _field(values, "question"), _field(values, "choices")
    key = _field(values, "answerKey")
    texts = choices.get("text") if isinstance(choices, dict) else None
    labels = choices.get("label") if isinstance(choices, dict) else None
    if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
        raise InputError(f"{name}: choices hold no text and label of the same length.")
    if key not in labels:
        raise InputError(f"{name} names answer {key!r}, and its labels are {labels}.")
    # The prompt of lm-eval's arc_easy and arc_challenge, 0.4.13.
    return Item(name, f"Question: {question}\nAnswer:", tuple(texts), labels.index(key))


def _plain(values: Values, name: str) -> Item:
    context = values.get("context", values.get("question", values.get("query", "")))
    choices = _field(values, "choices")
    answer = values.get("answer", values.get("gold", values.get("label")))
    if not isinstance(choices, list):
        raise InputError(f"{name}: choices are no list.")
    if answer is None:
        raise InputError(f"{name}: {_lacking(values, 'answer')}.")
    if isinstance(answer, str) and choices.count(answer) == 1:
        answer = choices.index(answer)
    if not isinstance(context, str | None):
        raise InputError(f"{name}: the context is {type(context).__name__}, and not a string.")
    return Item(name, context or "", tuple(choices), _index(answer, name))


TASKS: dict[str, Callable[[Values, str], Item]] = {
    "blimp": _blimp, "lambada": _lambada, "hellaswag": _hellaswag, "arc": _arc, "jsonl": _plain,
}  # fmt: skip
"""How a row of each task becomes an item."""


def task_of(values: Values) -> str:
    """Tell a row's task by its fields.

    Raises:
        InputError: when it has those of none.
    """
    for key, task in (
        ("sentence_good", "blimp"), ("endings", "hellaswag"), ("answerKey", "arc"),
        ("choices", "jsonl"), ("text", "lambada"),
    ):  # fmt: skip
        if key in values:
            return task
    raise InputError(
        f"A row with the fields {', '.join(map(str, values)) or 'none'} is of no known task; it "
        "needs context, choices and answer (see docs/choices.md for the others)."
    )


def _field(values: Values, key: str) -> Any:
    if key not in values:
        raise InputError(_lacking(values, key))
    return values[key]


def _lacking(values: Values, key: str) -> str:
    return f"{LACKS} {key!r} (it has: {', '.join(map(str, values)) or 'none'})"


def _index(value: Any, name: str) -> int:
    """Read an answer's index: a number, or a number as text, as the hub's HellaSwag has it."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{name} names answer {value!r}, which is no index and no single choice.")
    return value


def read(
    source: str | os.PathLike[str],
    task: str | None = None,
    *,
    group_by: str | None = None,
    limit: int | None = None,
    per_group: int | None = None,
    strict: bool = False,
) -> Items:
    """Read items from a file, a folder, a glob, or ``-`` (standard input).

    Args:
        source: JSONL (also .gz, .bz2, .zst); ``.txt`` is HellaSwag in lines, six an item.
        task: a key of `TASKS`; None = told by the first row's fields.
        group_by: field that items are grouped by; None = BLiMP's paradigm, else not grouped.
        limit: the first so many items.
        per_group: the first so many items of each group.
        strict: stop at the first bad row.

    Raises:
        InputError: when there is no such source, no item in it, or a bad row where strict.
    """
    if task is not None and task not in TASKS:
        raise InputError(f"There is no task {task!r}; --task takes {', '.join(TASKS)}.")
    rows, name = _rows(os.fspath(source))
    log = Corpus(name, lambda _: iter(()), strict=strict)
    kept: list[Item] = []
    counts: Counter[str | None] = Counter()
    for found in rows:
        if limit is not None and len(kept) >= limit:
            break
        if isinstance(found, SkippedRow):
            log.skip(found.source, found.reason, found.line)
            continue
        place, number, values = found
        try:
            task = task or task_of(values)
            item = _item(task, values, f"{place}:{number}", group_by)
        except InputError as problem:
            log.skip(place, str(problem).removeprefix(f"{place}:{number}: ").rstrip("."), number)
            continue
        counts[item.group] += 1
        if per_group is None or counts[item.group] <= per_group:
            kept.append(item)
    if not kept:
        why = f": {log.skipped[0].reason}" if log.skipped else ""
        raise InputError(f"{name} holds no item to choose from{why}.")
    return Items(tuple(kept), name, task or "jsonl", tuple(log.skipped), log.skipped_total)


def _item(task: str, values: Values, name: str, group_by: str | None) -> Item:
    if values.get("id") is not None:
        name = str(values["id"])
    item = TASKS[task](values, name)
    if group_by is None:
        return item
    return Item(item.id, item.context, item.choices, item.answer, str(_field(values, group_by)))


Numbered = tuple[str, int, dict[str, Any]]


def _rows(source: str) -> tuple[Iterator[Numbered | SkippedRow], str]:
    if source == "-":
        return _parsed(standard_input(), "stdin", objects), "stdin"
    paths, name = files(source)
    common = os.path.commonpath([path.parent for path in paths])

    def every() -> Iterator[Numbered | SkippedRow]:
        for path in paths:
            inner = path.with_suffix("") if path.suffix in COMPRESSED else path
            reader = _six_lines if inner.suffix == ".txt" else objects
            with opened(path, Corpus(name, lambda _: iter(()))) as stream:
                yield from _parsed(stream, path.relative_to(Path(common)).as_posix(), reader)

    return every(), name


def _parsed(
    stream: IO[bytes],
    name: str,
    reader: Callable[[IO[bytes], str], Iterator[tuple[int, dict[str, Any]] | SkippedRow]],
) -> Iterator[Numbered | SkippedRow]:
    for found in guarded(reader(stream, name), name):
        yield found if isinstance(found, SkippedRow) else (name, *found)


def _six_lines(stream: IO[bytes], name: str) -> Iterator[tuple[int, dict[str, Any]] | SkippedRow]:
    """Read HellaSwag as text: a line of context, one of the answer's index, four endings.

    Source: klosax/hellaswag_text_data, which llama.cpp's ``--hellaswag`` reads.
    """
    held: list[str] = []
    number = 0
    for number, line in enumerate(stream, 1):
        held.append(line.decode("utf-8").rstrip("\r\n"))
        if len(held) == HELLASWAG_LINES:
            values = {"context": held[0], "endings": held[2:], "label": held[1]}
            yield number - HELLASWAG_LINES + 1, values
            held = []
    if any(line.strip() for line in held):
        yield SkippedRow(name, number, f"the file ends within an item of {HELLASWAG_LINES} lines")


def digest(items: Iterable[Item]) -> str:
    """Hash what the numbers rest on: 12 hexadecimal digits of SHA-256 over length-prefixed parts.

    Groups and ids are not in it.
    """
    out = hashlib.sha256()
    for item in items:
        parts = [item.context, *item.choices, str(item.answer)]
        out.update(len(parts).to_bytes(8, "little"))
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            out.update(len(data).to_bytes(8, "little"))
            out.update(data)
    return out.hexdigest()[:12]
