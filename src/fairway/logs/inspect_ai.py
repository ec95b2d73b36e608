"""Logs of inspect_ai whose samples were scored by ``perplexity()`` or ``target_perplexity()``.

An ``.eval`` file is an archive of ``header.json`` and ``samples/<id>_epoch_<n>.json`` (or, for
large samples, a folder of that name with ``sample.json``); a ``.json`` log is one object with
``eval`` and ``samples``. A score's metadata holds ``num_tokens`` and ``sum_log_probs``; the tokens
themselves are in ``output.choices[0].prompt_logprobs.content``. Source: inspect_ai, August 2026
(``scorer/_perplexity.py``, ``scorer/_target_perplexity.py``, ``log/_recorders``).
"""

from __future__ import annotations

import importlib
import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fairway.errors import InputError, MissingExtra
from fairway.logs.prompts import CLAMPED, lacking, make
from fairway.logs.reporting import Read, Source, report
from fairway.logs.untrusted import (
    MOST,
    brief,
    count,
    dig,
    label,
    logprob,
    mapping,
    named,
    parse,
    refuse,
    sequence,
    whole,
)  # fmt: skip
from fairway.logs.vllm import WHOLE
from fairway.record import Record
from fairway.signature import UNKNOWN

ZSTANDARD = 93
ENTRIES = 1_000_000
"""Files that an archive may hold."""
TOTAL = 1 << 34
"""Bytes that all samples of an archive may unpack to."""
SAMPLE = re.compile(r"samples/[^/]+(?:/sample)?\.json")


def recognise(value: Any) -> bool:
    """Whether a value is a log of inspect_ai."""
    return isinstance(value, dict) and isinstance(value.get("eval"), dict) and "status" in value


def read(path: Path) -> Read:
    """Read a log, of either form.

    Raises:
        InputError: when it is damaged, or holds no log-probabilities.
        MissingExtra: for zstandard without its package.
    """
    with path.open("rb") as stream:
        packed = stream.read(2) == b"PK"
    if packed:
        header, samples = _archive(path)
    else:
        header = mapping(whole(path), str(path), "the log")
        listed = sequence(header.get("samples") or [], str(path), "'samples'")
        samples = ((f"{path}, sample {i}", one) for i, one in enumerate(listed, 1))
    return _read(path, header, samples)


def _read(path: Path, header: dict[str, Any], samples: Iterator[tuple[str, Any]]) -> Read:
    records: list[Record] = []
    skipped: list[dict[str, Any]] = []
    scorers: list[str] = []
    unknown = clamped = repeated = 0
    for number, (where, raw) in enumerate(samples, 1):
        sample = mapping(raw, where, "the sample")
        if dig(sample, "epoch") not in (None, 1):
            repeated += 1
            continue
        found = _score(sample)
        if found is None:
            skipped.append({"source": str(path), "line": number, "reason": _why(sample)})
            continue
        name, metadata = found
        scorers += [name] * (name not in scorers)
        if name != scorers[0]:
            refuse(where, f"it was scored by {brief(name)}, others by {brief(scorers[0])}", _WAY)
        made, known, least = _record(sample, name, metadata, where)
        records.append(made)
        unknown += not known
        clamped += least
    spec = header.get("eval")
    version = dig(spec, "packages", "inspect_ai")
    tool = f"inspect_ai-{version}" if isinstance(version, str) else "inspect_ai"
    notes = [
        "read from inspect_ai's log, in which a prompt is scored in one piece",
        "not recorded: tokenizer, whether BOS stood in front, a digest of the text",
    ]
    if clamped:
        notes.append(f"{clamped:,} log-probabilities are vLLM's least, -9999, or less")
    firsts = sum(one.totals.tokens_skipped for one in records)
    if firsts:
        notes.append(f"the first token of {firsts:,} texts was not scored, its bytes not counted")
    if repeated:
        notes.append(f"{repeated:,} samples of later epochs are the same texts again: left out")
    if header.get("status") not in ("success", None):
        notes.append(f"the evaluation's status is {brief(header.get('status'))}")
    dtype = dig(spec, "model_args", "dtype")
    fields = {
        "model": named(dig(spec, "model")) or UNKNOWN,
        "dtype": dtype if isinstance(dtype, str) and dtype != "auto" else UNKNOWN,
        "tok": UNKNOWN, "protocol": WHOLE, "prefix": UNKNOWN, "special": UNKNOWN,
        "length": UNKNOWN, "stride": UNKNOWN, "windows": UNKNOWN,
        "data": named(dig(spec, "dataset", "name")) or named(dig(spec, "task")) or path.name,
        "digest": UNKNOWN, "unit": "token", "agg": "ratio",
    }  # fmt: skip
    return report(
        records, Source(tool, fields, lacking(unknown, len(records)), notes, skipped), str(path)
    )


_WAY = "log one scorer at a time"


def _score(sample: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Give the first score that has sums of log-probabilities, and its scorer."""
    scores = sample.get("scores")
    for name, score in scores.items() if isinstance(scores, dict) else ():
        metadata = dig(score, "metadata")
        if isinstance(metadata, dict) and {"num_tokens", "sum_log_probs"} <= metadata.keys():
            return str(name), metadata
    return None


def _why(sample: dict[str, Any]) -> str:
    """Say why a sample has no perplexity."""
    scores = sample.get("scores")
    for score in scores.values() if isinstance(scores, dict) else ():
        told = dig(score, "explanation")
        if isinstance(told, str) and "logprobs" in told:
            return label(told)
    if sample.get("error"):
        return "the sample ended with an error"
    return (
        "no score with log-probabilities: evaluate with the scorer perplexity() or "
        "target_perplexity() and prompt_logprobs=1"
    )


def _record(
    sample: dict[str, Any], scorer: str, metadata: dict[str, Any], where: str
) -> tuple[Record, bool, int]:
    """Make a sample's record; whether its bytes are known; how many tokens are clamped."""
    tokens = count(metadata["num_tokens"], where, "'num_tokens'")
    total = logprob(metadata["sum_log_probs"], where, "'sum_log_probs'")
    target = "target" in scorer
    name = label(sample.get("id", "?"))
    content = dig(sample, "output", "choices", 0, "prompt_logprobs", "content")
    text = _prompt(sample.get("input"))
    listed = content if isinstance(content, list) else []
    if target:
        listed = listed[len(listed) - tokens :] if tokens <= len(listed) else []
    if tokens and len(listed) == tokens:
        values = [logprob(dig(one, "logprob"), where, f"token {i}") for i, one in enumerate(listed)]
        if not math.isclose(math.fsum(values), total, rel_tol=1e-9, abs_tol=1e-9):
            refuse(
                where,
                f"its tokens' log-probabilities sum to {math.fsum(values):.9g}, and its score says "
                f"{total:.9g}",
                "score the log again (inspect score)",
            )
        spelt = [dig(one, "token") for one in listed]
        known = [one for one in spelt if isinstance(one, str)]
        made, sure = make(name, values, known if len(known) == tokens else None, text, target)
        return made, sure, sum(value <= CLAMPED for value in values)
    made, sure = make(name, [total], None, text, target)
    sums = type(made.totals)(made.totals.nll, tokens, documents=1)
    return Record(name, made.key, sums, math.nan), False, 0


def _prompt(value: Any) -> str | None:
    """Give the prompt of a sample: its input, or the one message of it."""
    if isinstance(value, list) and len(value) == 1:
        value = dig(value, 0, "content")
    return value if isinstance(value, str) and value else None


def _archive(path: Path) -> tuple[dict[str, Any], Iterator[tuple[str, Any]]]:
    """Open an archive: its header, and its samples one at a time."""
    way = "take a whole copy of the log"
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as problem:
        refuse(str(path), f"the archive is damaged ({brief(str(problem))})", way)
    names = archive.infolist()
    if len(names) > ENTRIES:
        refuse(str(path), f"it holds {len(names):,} files", way)
    by_name = {one.filename: one for one in names}
    start = by_name.get("header.json") or by_name.get("_journal/start.json")
    if start is None:
        refuse(str(path), "it holds no header.json", "is it a log of inspect_ai?")
    header = mapping(_member(archive, start, path)[0], f"{path}, {start.filename}", "the header")

    def samples() -> Iterator[tuple[str, Any]]:
        left = TOTAL
        with archive:
            for one in names:
                if not SAMPLE.fullmatch(one.filename):
                    continue
                value, size = _member(archive, one, path)
                left -= size
                if left < 0:
                    refuse(str(path), f"its samples unpack to over {TOTAL:,} bytes", "cut it up")
                yield f"{path}, {one.filename[:200]!r}", value

    return header, samples()


def _member(archive: zipfile.ZipFile, one: zipfile.ZipInfo, path: Path) -> tuple[Any, int]:
    """Unpack and parse a file of an archive; what its header says of its size is not trusted."""
    where = f"{path}, {one.filename[:200]!r}"
    way = "take a whole copy of the log"
    if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, ZSTANDARD):
        refuse(where, f"it is packed by method {one.compress_type}, which inspect_ai has not", way)
    try:
        with _opened(archive, one, path) as stream:
            data = stream.read(MOST + 1)
    except _damage() as problem:
        refuse(where, f"it cannot be unpacked ({brief(str(problem))})", way)
    if len(data) > MOST:
        refuse(where, f"it unpacks to over {MOST:,} bytes", "leave that sample out")
    return parse(data, where), len(data)


def _damage() -> tuple[type[Exception], ...]:
    """Give the errors of a damaged part, with that of Python's own zstandard where it has one."""
    found = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)
    if not hasattr(zipfile, "ZIP_ZSTANDARD"):
        return found
    return (*found, importlib.import_module("compression.zstd").ZstdError)


def _opened(archive: zipfile.ZipFile, one: zipfile.ZipInfo, path: Path) -> IO[bytes]:
    """Open a file of an archive; zstandard, which Python unpacks from 3.14, by its package."""
    if one.compress_type != ZSTANDARD or hasattr(zipfile, "ZIP_ZSTANDARD"):
        return archive.open(one)
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("Reading .eval files packed with zstandard", "data") from None
    with path.open("rb") as stream:
        stream.seek(one.header_offset)
        head = stream.read(30)
        if head[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile("no local header")
        behind = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        stream.seek(one.header_offset + 30 + behind)
        packed = stream.read(min(one.compress_size, MOST))
    try:
        reader = zstandard.ZstdDecompressor().stream_reader(
            io.BytesIO(packed), read_across_frames=True
        )
        return io.BytesIO(reader.read(MOST + 1))
    except zstandard.ZstdError as problem:
        raise InputError(f"{path}: {one.filename[:200]!r} cannot be unpacked: {problem}.") from None
