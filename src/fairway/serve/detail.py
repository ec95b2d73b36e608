"""What a report can hold beyond ``fairway score --json``: columns, sentences, an explanation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from fairway.render.explain import explain
from fairway.report import Report, renamed
from fairway.scorer import Scorer, fills
from fairway.scores import Score, number, ratios
from fairway.sentences import by_sentence
from fairway.serve.openai.tokenizing import Words, words
from fairway.serve.problems import Problem
from fairway.serve.state import Served

TOP = "top5"
COLUMNS = ("entropy", "rank", TOP)
"""Columns that a request may name."""
MOST = 200_000
"""Characters of the texts of a request that asks for alternatives: their answer is 40 times as long
as the text."""

Spell = Callable[[int], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Detail:
    """What a request asks for besides the report.

    Attributes:
        columns: out of `COLUMNS`.
        sentences: the sums of each sentence, and intervals over them.
        explain: the report in plain words.
    """

    columns: tuple[str, ...] = ()
    sentences: bool = False
    explain: bool = False

    def want(self, scorer: Scorer) -> tuple[str, ...]:
        """Give the columns that the scorer can fill."""
        return tuple(one for one in self.columns if fills(scorer, ["top" if one == TOP else one]))


def asked(data: dict[str, Any], length: int) -> Detail:
    """Read ``columns``, ``sentences`` and ``explain`` of a request.

    Args:
        data: the request.
        length: characters of its texts.

    Raises:
        Problem: for another column, and what is of another type; for alternatives in more than
            `MOST` characters.
    """
    columns = data.get("columns") or []
    if not isinstance(columns, list) or not all(one in COLUMNS for one in columns):
        raise Problem(400, f"columns must be a list out of {', '.join(COLUMNS)}.")
    if TOP in columns and length > MOST:
        raise Problem(
            413, f"{TOP} is told for texts of {MOST:,} characters at most, and these have "
            f"{length:,}; send them in several requests, or leave {TOP} away.", "too_large",
        )  # fmt: skip
    for name in ("sentences", "explain"):
        if data.get(name) not in (None, True, False):
            raise Problem(400, f"{name} must be true or false.")
    return Detail(
        tuple(one for one in COLUMNS if one in columns),
        bool(data.get("sentences")),
        bool(data.get("explain")),
    )


async def speller(request: Request, served: Served, detail: Detail) -> Words | None:
    """Give what spells alternatives; None where none are asked for, or nothing is known of them."""
    scorer = served.scorer
    if TOP not in detail.want(scorer) or not hasattr(scorer, "vocabulary"):
        return None
    return await words(request, served)


def write(report: Report, scores: Sequence[Score], known: Words | None, detail: Detail) -> Any:
    """Give the report as JSON, with what was asked for.

    ``texts[i].tokens[j]`` gets ``entropy`` (nats), ``rank`` (tokens that are likelier) and ``top``
    (the most likely tokens: id, text, logprob in nats; ``bytes``, hexadecimal, where they are no
    text), each null where the token is not scored; ``texts[i]`` gets ``sentences``,
    ``sentence_intervals``, ``sentence_rule`` and, where there is no interval, ``sentence_reason``;
    the report gets ``explain``. A column that the kind of model lacks is left away.
    """
    out = report.to_json()
    spelled: dict[int, dict[str, Any]] = {}

    def spell(index: int) -> dict[str, Any]:
        if index not in spelled:
            spelled[index] = _spell(index, known)
        return spelled[index]

    for entry, score in zip(out.get("texts", ()), scores, strict=True):
        _columns(entry["tokens"], score, detail, spell)
        if detail.sentences:
            entry.update(_sentences(score))
    if detail.explain:
        out["explain"] = explain(report).splitlines()
    return out


def _columns(rows: list[dict[str, Any]], score: Score, detail: Detail, spell: Spell) -> None:
    for name in ("entropy", "rank"):
        if name in detail.columns and name in score.extras:
            for row, value in zip(rows, score.extras[name].tolist(), strict=True):
                whole = name == "rank" and value == value
                row[name] = int(value) if whole else number(float(value))
    if TOP in detail.columns and TOP in score.extras:
        ids, logprobs = score.extras[TOP].tolist(), score.extras[f"{TOP}_logprob"].tolist()
        for row, some, theirs in zip(rows, ids, logprobs, strict=True):
            row["top"] = [
                {**spell(int(one)), "logprob": number(value)}
                for one, value in zip(some, theirs, strict=True)
                if one == one
            ] or None


def _spell(index: int, known: Words | None) -> dict[str, Any]:
    """Say what a token is as text; of bytes that are none by themselves their code."""
    raw = b"" if known is None else known.raw(index)
    if known is None or not 0 <= index < len(known.pieces):
        return {"id": index, "text": None}
    if not raw:
        return {"id": index, "text": known.special(index), "special": True}
    try:
        return {"id": index, "text": raw.decode()}
    except UnicodeDecodeError:
        return {"id": index, "text": known.name(index, mark=""), "bytes": raw.hex(" ")}


def _sentences(score: Score) -> dict[str, Any]:
    found = by_sentence(score)
    rows = [
        {
            "start": one.start,
            "end": one.end,
            "first_token": one.first,
            "last_token": one.last,
            "metrics": {
                **{k: number(v) for k, v in ratios(one.totals, score.perplexity).items()},
                **one.totals.to_json(),
            },
        }
        for one in found.sentences
    ]
    spans = {
        key: {"low": number(i.low), "high": number(i.high), "level": i.level, "method": i.method}
        for key, i in renamed(found.intervals, score.perplexity).items()
    }
    reason = {"sentence_reason": found.reason} if found.reason else {}
    return {
        "sentences": rows, "sentence_intervals": spans, "sentence_rule": found.rule, **reason,
    }  # fmt: skip
