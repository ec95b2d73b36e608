"""May two runs be compared: what forbids it, what must be known, which documents are the same."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fairway import run as runs
from fairway.errors import InputError, ProtocolError
from fairway.logs import detect
from fairway.logs.lm_eval import HASHED
from fairway.protocol import CONVENTIONS
from fairway.record import Record
from fairway.report import Report
from fairway.scores import OWN_OUTPUT, PSEUDO
from fairway.signature import UNKNOWN, Signature, diff

UNLIKE = {
    "digest": "other text",
    "protocol": "another convention",
    "prefix": "another prefix",
    "length": "windows of another length",
    "stride": "windows that overlap otherwise",
    "windows": "windows of another kind",
    "join": "documents joined otherwise",
    "norm": "text normalised otherwise",
    "special": "special tokens read otherwise",
    "chat": "other roles scored",
    "context": "the text given a source, and by itself",
    "pll": "another pseudo-log-likelihood",
    "words": "other words masked",
    "eos": "the end of the text scored or not",
    "bytes": "bytes counted otherwise",
    "agg": "another average",
    "oov": "words that one of them does not spell",
}
"""What makes two numbers incomparable, and what it means."""
OWN = ("prefix", "length", "stride", "special")
"""Keys that a kind of model has or has not: one without windows has no length of them."""
EITHER = (*OWN, "eos", "words")
"""Keys that forbid a comparison only where both have them."""
OPTIONS = {
    "protocol": "--like", "prefix": "--prefix", "length": "--max-length", "stride": "--stride",
    "norm": "--normalise", "special": "--special-tokens", "chat": "--chat",
    "pll": "--model-arg pll=", "words": "--model-arg words=", "eos": "--model-arg eos=",
}  # fmt: skip
"""The option that would make two runs alike."""


@dataclass(frozen=True, slots=True)
class Side:
    """A run as one side of a comparison.

    Attributes:
        name: what it is called.
        signature: how its numbers were made.
        report: its numbers.
        records: of its documents, in order.
    """

    name: str
    signature: Signature
    report: Report
    records: tuple[Record, ...]

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of all its documents."""
        return self.report.totals.per("bytes") / math.log(2)


def read(folder: Path, name: str | None = None) -> Side:
    """Read a finished run directory, or another tool's log, as a side of a comparison.

    Raises:
        InputError: when it is no finished run, a report without its documents, or a damaged log.
    """
    log = detect.read(folder)
    if log is not None:
        return Side(name or folder.name, log[1].signature, log[1], log[2])
    report = runs.read(folder)[1]
    if not folder.is_dir():
        raise InputError(
            f"{folder} is a report without its documents; a paired comparison needs the run "
            "directory that eval --out writes."
        )
    records = tuple(record for block in runs.read_blocks(folder) for record in block)
    return Side(name or folder.name, report.signature, report, records)


def refuse(first: Side, second: Side, allow: Collection[str] = ()) -> dict[str, tuple[str, str]]:
    """Refuse runs whose numbers cannot be compared.

    Returns:
        The differences that were allowed.

    Raises:
        ProtocolError: naming the first difference and the command that would mend it.
        InputError: when allow names a key that there is none of.
    """
    unknown = [key for key in allow if key not in UNLIKE]
    if unknown:
        raise InputError(f"--allow takes {', '.join(UNLIKE)}, and not {unknown[0]!r}.")
    found = {
        key: pair
        for key, pair in diff(first.signature, second.signature).items()
        if key in UNLIKE and UNKNOWN not in pair and not (key in EITHER and "" in pair)
    }  # fmt: skip
    lost = _unspelled(first), _unspelled(second)
    if lost[0] != lost[1]:
        found["oov"] = str(sum(lost[0].values())), str(sum(lost[1].values()))
    _alike(first, second)
    for key, (ours, theirs) in found.items():
        if key in allow:
            continue
        raise ProtocolError(
            f"{first.name} and {second.name} cannot be compared: {UNLIKE[key]} ({key}: "
            f"{ours or 'none'} and {theirs or 'none'}). {_mend(key, found, first, second)}"
        )
    return {key: pair for key, pair in found.items() if key in allow}


def _unspelled(side: Side) -> dict[str, int]:
    """Count the scored words that a model's vocabulary lacks, in each text that has some."""
    return {
        one.key: one.oov.tokens for one in side.records if one.oov is not None and one.oov.tokens
    }


def _alike(first: Side, second: Side) -> None:
    """Refuse pseudo-log-likelihoods beside likelihoods, and what tokenizers alone make differ.

    Raises:
        ProtocolError: for those.
    """
    names = first.report.perplexity, second.report.perplexity
    if PSEUDO in names and names[0] != names[1]:
        raise ProtocolError(
            f"{first.name} has {names[0]} and {second.name} {names[1]}: a masked model's is no "
            "probability of the text, so they cannot be compared."
        )
    if OWN_OUTPUT in names:
        raise ProtocolError(
            f"{first.name} has {names[0]} and {second.name} {names[1]}: what models themselves "
            "wrote is no common text, so they cannot be compared."
        )
    one, other = first.signature, second.signature
    if one.get("pll") == other.get("pll") == "original" and one.get("tok") != other.get("tok"):
        raise ProtocolError(
            f"{first.name} and {second.name} cannot be compared: their tokenizers differ, and the "
            "original pseudo-log-likelihood tells each piece of a word by the word's other pieces, "
            "so that the finer tokenizer wins. Evaluate both with --model-arg "
            "pll=within-word-l2r."
        )


def _mend(key: str, found: dict[str, tuple[str, str]], first: Side, second: Side) -> str:
    """Say what would make two runs alike."""
    if key == "oov":
        return (
            "An unknown word costs little because <unk> stands for all of them, so bits per byte "
            "would favour the model that knows fewer. Pass --allow oov to say so in the report."
        )
    if key == "digest":
        return "Evaluate both on the same data, or pass --allow digest if the texts are the same."
    for one in (first, second):
        if key == "length" and one.signature.get("state") == "carried":
            return (
                f"Evaluate {one.name} again with --model-arg state=restarted, or pass --allow "
                "length to say so in the report."
            )
    option = OPTIONS.get(key)
    if key == "context":
        return (
            "A model that reads a source is told more than one that does not; where both read it "
            "(--context-field, the same digest), pass --allow context."
        )
    if option is None:
        return f"Evaluate one of them again, or pass --allow {key}."
    value: str | int = found[key][0]
    side = second
    if second.signature.get("source"):  # a log stays as it is
        value, side = found[key][1], first
    if side.signature.get("source") or (key == "protocol" and value not in CONVENTIONS):
        return f"Pass --allow {key} to say so in the report."
    logged = first.signature.get("source") or second.signature.get("source")
    if key == "length" and not logged and all(one.isdigit() for one in found[key]):
        # The shorter window is the one that both models have.
        value, side = min((int(found[key][0]), second), (int(found[key][1]), first), key=_length)
    if not option.endswith("="):
        option += " "
    return (
        f"Evaluate {side.name} again with {option}{value or 'none'}, or pass --allow {key} to say "
        "so in the report."
    )


def _length(choice: tuple[int, Side]) -> int:
    return choice[0]


def warnings(first: Side, second: Side) -> tuple[str, ...]:
    """Name what does not forbid a comparison and must be known."""
    out = []
    for key, what in (("dtype", "dtypes"), ("version", "versions of fairway")):
        pair = first.signature.get(key), second.signature.get(key)
        if pair[0] != pair[1] and UNKNOWN not in pair and None not in pair:
            out.append(f"{what} differ: {pair[0]} and {pair[1]}")
    units = first.signature.get("unit"), second.signature.get("unit")
    if units[0] != units[1] and None not in units and UNKNOWN not in units:
        out.append(f"units differ: {units[0]} and {units[1]}; bits per byte have the same meaning")
    for one, other in ((first, second), (second, first)):
        lacking = [key for key in OWN if one.signature.get(key) and not other.signature.get(key)]
        if lacking and not other.signature.get("source"):
            out.append(
                f"{other.name} is of a kind that has no {', '.join(lacking)}: both read what they "
                "can before each token"
            )
        if one.signature.get("eos") == "yes" and other.signature.get("eos") is None:
            out.append(f"{one.name} also pays for the end of each text, {other.name} does not")
    for side in (first, second):
        unknown = [key for key, value in side.signature if value == UNKNOWN and key != "model"]
        if unknown:
            server = side.signature.get("server")
            what = "was scored by a server" if server else "is a log"
            out.append(
                f"{side.name} {what} that does not {'tell' if server else 'record'} "
                f"{', '.join(unknown)}: whether these are alike is not known"
            )
        if any(record.key.startswith(HASHED) for record in side.records):
            out.append(
                f"{side.name} does not hold all texts: documents are paired by their doc_hash"
            )
        lossy = sum(record.lossy for record in side.records)
        if lossy:
            out.append(
                f"{side.name}'s tokenizer does not give {lossy} of {len(side.records)} texts back "
                "unchanged: it codes a changed text"
            )
        skipped = sum(record.totals.tokens_skipped for record in side.records)
        if skipped:
            out.append(f"{side.name} left {skipped} tokens unscored, their bytes uncounted")
    if first.report.perplexity == PSEUDO:
        out.append(
            "pseudo-log-likelihoods tell each token by all others: they rank masked models, and "
            "are neither probabilities nor code lengths"
        )
    tokenizers = first.signature.get("tok"), second.signature.get("tok")
    if tokenizers[0] != tokenizers[1] and UNKNOWN not in tokenizers:
        out.append("tokenizers differ: token perplexities are not compared")
        if first.report.perplexity == PSEUDO:
            out.append(
                "masks tell how many tokens a word has, each tokenizer's own count: a difference "
                "may be partly the tokenizers'"
            )
    return tuple(out)


def match(first: Side, second: Side) -> list[tuple[Record, Record]]:
    """Pair the documents of two runs by their text.

    Raises:
        InputError: naming a document that one of them has not scored.
    """
    waiting: dict[str, list[Record]] = {}
    for record in second.records:
        waiting.setdefault(record.key, []).append(record)
    out = []
    for record in first.records:
        others = waiting.get(record.key)
        if not others:
            raise InputError(
                f"{record.id} is scored in {first.name} and not in {second.name}; a paired "
                "comparison needs both runs to score the same documents."
            )
        out.append((record, others.pop(0)))
    left = next((some[0] for some in waiting.values() if some), None)
    if left is not None:
        raise InputError(
            f"{left.id} is scored in {second.name} and not in {first.name}; a paired comparison "
            "needs both runs to score the same documents."
        )
    return out
