"""What is kept of a scored document: its sums, and what the conventions' own averages need."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fairway import companions, oov
from fairway.companions import Companions
from fairway.oov import Oov
from fairway.protocol import PAGE, Convention, totals
from fairway.report import text_entry, token_squares
from fairway.scores import Score, Totals, number, read_totals, real

if TYPE_CHECKING:
    from fairway.corpus import Document


@dataclass(frozen=True, slots=True)
class Record:
    """One document's line in a run directory.

    Attributes:
        id: the document's id.
        key: hash of its text, context and scored spans.
        totals: its sums, counted as the convention does.
        token_nll2: sum of squared token nll.
        published: nll and weight as the Hugging Face documentation's loop weighs windows.
        lossy: whether the tokenizer does not give the text back.
        entry: the text with its tokens, where kept.
        group: the grouping field's value, where texts were grouped.
        companions: sums of what is reported beside perplexity, where they were wanted.
        oov: sums of words unknown to the model, where the scorer tells them.
    """

    id: str
    key: str
    totals: Totals
    token_nll2: float
    published: tuple[float, int] | None = None
    lossy: bool = False
    entry: Mapping[str, Any] | None = None
    group: str | None = None
    companions: Companions | None = None
    oov: Oov | None = None

    def to_json(self) -> dict[str, Any]:
        """Give plain data; floats round-trip exactly through JSON."""
        out: dict[str, Any] = {"id": self.id, "key": self.key, **self.totals.to_json()}
        out["token_nll2"] = number(self.token_nll2)
        if self.published is not None:
            out["published"] = list(self.published)
        if self.lossy:
            out["lossy"] = True
        if self.entry is not None:
            out["entry"] = self.entry
        if self.group is not None:
            out["group"] = self.group
        if self.companions is not None:
            out["companions"] = {
                "top1": self.companions.top1,
                "top5": self.companions.top5,
                "entropy": self.companions.entropy,
                "sketch": base64.b64encode(self.companions.sketch).decode("ascii"),
            }
        if self.oov is not None:
            out["oov"] = self.oov.to_json()
        return out


def from_json(data: Mapping[str, Any]) -> Record:
    """Read back what `Record.to_json` gave."""
    published = data.get("published")
    sums = read_totals(data)
    return Record(
        data["id"],
        data["key"],
        sums,
        real(data["token_nll2"]),
        (published[0], published[1]) if published else None,
        data.get("lossy", False),
        data.get("entry"),
        data.get("group"),
        _beside(data["companions"], sums) if "companions" in data else None,
        oov.from_json(data.get("oov")),
    )


def _beside(data: Mapping[str, Any], sums: Totals) -> Companions:
    sketch = base64.b64decode(data["sketch"])
    return Companions(sums.tokens, sums.nll, data["top1"], data["top5"], data["entropy"], sketch)


def key(document: Document) -> str:
    """Hash all of a document that its score depends on: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    parts: list[bytes] = [
        document.text.encode("utf-8", "surrogatepass"),
        document.context.encode("utf-8", "surrogatepass"),
        repr(document.scored).encode(),
    ]
    if document.ids is not None:
        parts.append(np.asarray(document.ids, dtype="<i8").tobytes())
        parts.append(repr(document.byte_count).encode())
        if document.context_ids:
            parts.append(f"context {document.context_ids}".encode())
    if document.windows is not None:
        parts.append(repr(document.windows).encode())
    if "messages" in document.metadata:
        parts.append(repr(document.metadata["messages"]).encode("utf-8", "surrogatepass"))
    if PAGE in document.metadata:
        parts.append(str(document.metadata[PAGE]).encode("utf-8", "surrogatepass"))
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:32]


def make(
    document: Document,
    score: Score,
    like: Convention,
    entry: bool,
    stride: bool,
    name: str | None = None,
) -> Record:
    """Make a record of a score.

    Args:
        document: what was scored.
        score: its log-probabilities.
        like: the convention, for its denominators and weights.
        entry: keep the tokens.
        stride: whether windows overlap, for the published weights.
        name: its `key`, where that is known already.
    """
    published = None
    if like.aggregate == "published":
        published = _published(score, stride)
    sums = totals(like, score)
    return Record(
        document.id,
        name or key(document),
        sums,
        token_squares(score),
        published,
        bool(score.lossy),
        text_entry(score) if entry else None,
        companions=companions.of(score, sums),
        oov=oov.of(score),
    )


def _published(score: Score, overlapping: bool) -> tuple[float, int]:
    """Weigh windows as the documentation's loop does: by their new tokens minus one.

    Source: transformers, ``docs/source/en/perplexity.md``: the number of loss tokens is the
    count of unmasked labels minus the batch size, although the shift drops a label only where
    the window's first token is unmasked.
    """
    window = score.extras["window"]
    nll, weight = 0.0, 0
    for one in np.unique(window[window >= 0]):
        values = score.logprobs[window == one]
        counted = len(values) - 1 if overlapping and one > 0 else len(values)
        nll -= float(np.mean(values)) * counted
        weight += counted
    return nll, weight
