"""What lm-evaluation-harness writes with ``--log_samples``.

    samples_<task>_<date>.jsonl    a sample per line
    results_<date>.json            settings and figures of the same evaluation, beside it

Read in lm-eval 0.4.13 (``loggers/evaluation_tracker.py``, ``evaluator.py``, ``api/task.py``) and
checked against what it writes. Earlier versions write lists where this one writes objects, and one
JSON list in place of lines; both are read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairway import record
from fairway.corpus import Document
from fairway.errors import InputError
from fairway.logs.reporting import Read, Source, report
from fairway.logs.untrusted import (
    brief,
    count,
    dig,
    label,
    logprob,
    mapping,
    named,
    refuse,
    rows,
    sequence,
    whole,
)  # fmt: skip
from fairway.normalise import lm_eval_wikitext
from fairway.protocol import PAGE
from fairway.record import Record
from fairway.scores import Totals
from fairway.signature import UNKNOWN, Value

SAMPLES = re.compile(
    r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.jsonl"
)
KINDS = ("loglikelihood_rolling", "loglikelihood", "multiple_choice")
HASHED = "doc_hash:"
"""How the key of a record begins whose text the log does not hold."""


def recognise(value: Any) -> bool:
    """Whether a value is a sample as lm-eval logs it."""
    return isinstance(value, dict) and "filtered_resps" in value and "doc_id" in value


def find(path: Path) -> Path | None:
    """Give the file of samples that a folder or a results file of lm-eval stands for.

    Returns:
        The file; None where the path is no log of lm-eval.

    Raises:
        InputError: naming them, when there are several.
    """
    if path.is_file() and SAMPLES.fullmatch(path.name):
        return path
    if path.is_dir():
        found = [one for one in path.iterdir() if SAMPLES.fullmatch(one.name)]
        found = found or [one for one in path.glob("*/*") if SAMPLES.fullmatch(one.name)]
    elif date := re.search(r"_(\d{4}-\d\d-\d\dT[-\d.]+)\.json$", path.name):
        found = [one for one in path.parent.iterdir() if one.name.endswith(f"_{date[1]}.jsonl")]
    else:
        return None
    if len(found) > 1:
        names = ", ".join(sorted(str(one) for one in found)[:5])
        raise InputError(f"{path} holds samples of {len(found)} tasks or dates; name one: {names}.")
    return found[0] if found else None


@dataclass(slots=True)
class Tally:
    """What was met among the samples.

    Attributes:
        kind: lm-eval's output type; None before the first sample.
        pages: samples whose text is what lm-eval's WikiText task makes of a page.
        odd: samples whose counts are not those of their text, for another reason.
        certain: samples with a log-likelihood of exactly 0.
        hashed: samples without text.
        filters: names of the filters met.
    """

    kind: str | None
    pages: int = 0
    odd: int = 0
    certain: int = 0
    hashed: int = 0
    filters: tuple[str, ...] = ()


def read(path: Path) -> Read:
    """Read a file of samples.

    Raises:
        InputError: when it is damaged, or its task has no log-likelihoods.
    """
    match = SAMPLES.fullmatch(path.name)
    task = match["task"] if match else path.stem
    results = _results(path, match["date"] if match else None)
    kind = dig(results, "configs", task, "output_type")
    tally = Tally(kind if isinstance(kind, str) else None)
    records: list[Record] = []
    skipped: list[dict[str, Any]] = []
    for number, (where, row) in enumerate(rows(path), 1):
        sample = mapping(row, where, "the sample")
        name = label(sample.get("filter", "none"))
        if name not in tally.filters:
            tally.filters = (*tally.filters, name)
        if name != tally.filters[0]:
            continue
        found = _sample(sample, where, task, tally)
        if isinstance(found, str):
            skipped.append({"source": str(path), "line": number, "reason": found})
        else:
            records.append(found)
    if records and tally.certain == len(records):
        refuse(
            str(path),
            "every log-likelihood is exactly 0, as where a server returns no log-probabilities "
            "of the prompt",
            "evaluate again with a backend that does",
        )
    source = _source(task, results, tally, records, skipped)
    return report(records, source, str(path))


def _results(path: Path, date: str | None) -> dict[str, Any]:
    """Read the results beside the samples; empty where there are none."""
    if date is None:
        return {}
    for one in sorted(path.parent.glob(f"*_{date}.json")):
        return mapping(whole(one), str(one), "it")
    return {}


def _sample(sample: dict[str, Any], where: str, task: str, tally: Tally) -> Record | str:
    """Make a sample's record, or say why there is none."""
    requests = _arguments(sample, where)
    if tally.kind is None:
        tally.kind = _kind(requests)
    if tally.kind not in KINDS:
        refuse(
            where,
            f"{task} is a task of type {brief(tally.kind)}, which has no log-likelihoods",
            f"log a task of type {', '.join(KINDS)}",
        )
    answers = sequence(sample.get("filtered_resps"), where, "'filtered_resps'")
    if len(answers) < len(requests) or not requests:
        refuse(where, f"it has {len(requests)} requests and {len(answers)} answers", "log it again")
    place = 0
    if tally.kind == "multiple_choice":
        gold = _gold(sample, requests)
        if gold is None:
            return f"which choice is right is not told by the target {brief(sample.get('target'))}"
        place = gold
    value = logprob(_first(answers[place]), where, "the log-likelihood")
    nll = max(0.0, -value)
    tally.certain += nll == 0
    name = label(f"{task}:{sample.get('doc_id')}")
    if tally.kind == "loglikelihood_rolling":
        text = requests[place][-1] if requests[place] else None
        return _rolling(sample, where, name, nll, text, tally)
    context, text = requests[place][0], requests[place][1]
    if not isinstance(text, str) or not isinstance(context, str):
        return "the request holds no text"
    key = record.key(Document(name, text, context))
    size = len(text.encode("utf-8", "surrogatepass"))
    return Record(name, key, Totals(nll, chars=len(text), bytes=size, documents=1), math.nan)


def _rolling(
    sample: dict[str, Any], where: str, name: str, nll: float, text: Any, tally: Tally
) -> Record:
    """Make the record of a text that is scored whole, with lm-eval's own counts."""
    words = _counted(sample, where, "word_perplexity")
    size = _counted(sample, where, "byte_perplexity", "bits_per_byte")
    if not isinstance(text, str):
        text = sample.get("target")
    if not isinstance(text, str) or not text:
        tally.hashed += 1
        key = HASHED + label(sample.get("doc_hash", sample.get("doc_id")))
        return Record(name, key, Totals(nll, 0, 0, words or 0, 0, size or 0, 1), math.nan)
    metadata: dict[str, str] = {}
    page = dig(sample, "doc", "page")
    if isinstance(page, str) and page != text and lm_eval_wikitext(page) == text:
        metadata = {PAGE: page}
        tally.pages += 1
    untouched = metadata.get(PAGE, text)
    own = len(re.split(r"\s+", untouched)), len(untouched.encode("utf-8", "surrogatepass"))
    words, size = own[0] if words is None else words, own[1] if size is None else size
    tally.odd += (words, size) != own
    key = record.key(Document(name, text, metadata=metadata))
    return Record(name, key, Totals(nll, 0, 0, words, len(text), size, 1), math.nan)


def _counted(sample: dict[str, Any], where: str, *metrics: str) -> int | None:
    """Give the count by which lm-eval divides, from the first metric that has it."""
    for metric in metrics:
        pair = sample.get(metric)
        if isinstance(pair, list) and len(pair) == 2:
            return count(pair[1], where, f"the count of {metric!r}")
    return None


def _arguments(sample: dict[str, Any], where: str) -> list[list[Any]]:
    """Give every request's arguments, of either shape."""
    value = sample.get("arguments")
    if isinstance(value, dict):
        return [
            list(mapping(value[key], where, f"{key!r}").values())
            for key in sorted(value, key=lambda key: (len(key), key))
        ]
    return [sequence(one, where, "a request") for one in sequence(value, where, "'arguments'")]


def _kind(requests: list[list[Any]]) -> str:
    """Tell the output type by the requests."""
    if len(requests) == 1 and len(requests[0]) == 1:
        return "loglikelihood_rolling"
    if not all(len(one) == 2 and isinstance(one[1], str) for one in requests):
        return "generate_until"
    return "loglikelihood" if len(requests) == 1 else "multiple_choice"


def _gold(sample: dict[str, Any], requests: list[list[Any]]) -> int | None:
    """Give the place of the right choice; None where the target does not name one of them.

    With ``acc_mutual_info`` the choices follow once more without their context.
    """
    choices = [one[1] if len(one) == 2 else None for one in requests]
    half = len(choices) // 2
    if half and choices[:half] == choices[half:] and requests[half][0] == "":
        choices = choices[:half]
    if len(set(map(str, choices))) < len(choices):
        return None
    target = str(sample.get("target"))
    if target.isdecimal() and len(target) < 6:
        return int(target) if int(target) < len(choices) else None
    places = [i for i, one in enumerate(choices) if str(one).strip() == target.strip()]
    return places[0] if len(places) == 1 else None


def _first(value: Any) -> Any:
    """Give the log-likelihood of an answer, which may stand in lists."""
    while isinstance(value, list) and value:
        value = value[0]
    return value


def _source(
    task: str,
    results: dict[str, Any],
    tally: Tally,
    records: list[Record],
    skipped: list[dict[str, Any]],
) -> Source:
    version = results.get("lm_eval_version")
    tool = f"lm-eval-{version}" if isinstance(version, str) else "lm-eval"
    rolling = tally.kind == "loglikelihood_rolling"
    lacking = {"tokens": "not in the log"}
    if not rolling:
        lacking["words"] = "not counted by lm-eval"
    elif any(not one.totals.chars for one in records) and tally.hashed:
        lacking["chars"] = "the log does not hold the text"
    notes = ["read from lm-eval's log, which has sums and no single tokens"]
    if not results:
        notes.append(
            "no results_*.json of the same date stands beside it: model, dtype and max_length are "
            "not known"
        )
    notes += _warnings(task, results, tally, len(records) + len(skipped), rolling)
    return Source(tool, _fields(task, results, tally, rolling), lacking, notes, skipped)


def _fields(task: str, results: dict[str, Any], tally: Tally, rolling: bool) -> dict[str, Value]:
    config = results.get("config")
    hub = str(dig(config, "model") or "").startswith("hf")
    length = results.get("max_length")
    length = length if isinstance(length, int) else UNKNOWN
    norm: Value = "lm-eval-wikitext" if tally.pages else None
    if tally.odd or (rolling and tally.hashed):
        norm = UNKNOWN
    sha = dig(config, "model_sha")
    quantised = [
        key for key in ("load_in_4bit", "load_in_8bit", "gptqmodel", "autogptq")
        if dig(config, "model_args", key)
    ]  # fmt: skip
    return {
        "model": named(dig(config, "model_args", "pretrained"))
        or named(results.get("model_name")) or UNKNOWN,
        "revision": sha[:12] if isinstance(sha, str) and sha else None,
        "adapter": named(dig(config, "model_args", "peft")),
        "dtype": _dtype(config),
        "quant": quantised[0] if quantised else None,
        "tok": UNKNOWN,
        "protocol": "lm-eval",
        "prefix": UNKNOWN,
        "special": "parsed" if hub else UNKNOWN,
        "length": length,
        "stride": length if rolling else UNKNOWN,
        "windows": "harness" if rolling else UNKNOWN,
        "norm": norm,
        "data": task,
        "digest": UNKNOWN,
        "unit": "token",
        "bytes": "lm-eval",
        "agg": "ratio",
    }  # fmt: skip


def _dtype(config: Any) -> str:
    for value in (dig(config, "model_dtype"), dig(config, "model_args", "dtype")):
        if isinstance(value, str) and value and value != "auto":
            return value.removeprefix("torch.")
    return UNKNOWN


def _warnings(
    task: str, results: dict[str, Any], tally: Tally, samples: int, rolling: bool
) -> list[str]:
    out = [
        "not recorded: how many tokens were scored, hashes of tokenizer and weights, a digest of "
        "the text" + (", whether BOS stood twice" if rolling else "")
    ]
    if _dtype(results.get("config")) in ("bfloat16", "float16"):
        out.append("lm-eval adds a window's log-probabilities up in half precision by default")
    if not rolling:
        out += [
            "scored is the right continuation after its context; lm-eval's own perplexity of such "
            "a task is per continuation, and not per token",
            "before a context BOS stands at most once: hold --like lm-eval --prefix bos against it",
        ]
    effective = dig(results, "n-samples", task, "effective")
    if isinstance(effective, int) and effective != samples:
        out.append(f"the results count {effective:,} samples, and the log has {samples:,}")
    if tally.odd:
        out.append(f"{tally.odd:,} samples are divided by counts that are not those of their text")
    if tally.hashed:
        out.append(
            f"{tally.hashed:,} samples have no text: they are paired by doc_hash, and only with "
            "another such log"
        )
    if tally.certain:
        out.append(
            f"{tally.certain:,} samples have a log-likelihood of exactly 0; comparisons leave "
            "them out"
        )
    if len(tally.filters) > 1:
        out.append(f"of {len(tally.filters)} filters only {brief(tally.filters[0])} was read")
    return out
