"""The scorer of models behind servers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway import __version__, words
from fairway.backends.openai import columns
from fairway.backends.openai.crew import Crew
from fairway.backends.openai.reading import Way
from fairway.backends.openai.transport import Link
from fairway.corpus import Document
from fairway.errors import InputError
from fairway.scores import Score, Totals
from fairway.signature import UNKNOWN, Signature

BYTES = 4
"""Of text to a token, as a rule of thumb for a price."""


@dataclass(slots=True)
class OpenAIScorer:
    """Scores documents by way of a server.

    Attributes:
        way: how it is asked.
        crew: asks for several documents at a time.
        price: US dollars for a million tokens; None = not told.
        notes: what the run must say.
    """

    way: Way
    crew: Crew
    price: float | None = None
    notes: list[str] = field(default_factory=list)

    cacheable = False
    ahead = 1
    block_bytes = 2 << 10
    """Source bytes after which a run's block is committed: what was paid for is kept."""

    @property
    def link(self) -> Link:
        """The connection to the server."""
        return self.way.link

    @property
    def columns(self) -> tuple[str, ...]:
        """What `score` can be asked for besides log-probabilities, as far as it was told."""
        route = self.way.chosen.route.name
        return {"prompt_logprobs": ("rank", "top"), "sglang": ("top",)}.get(route, ())

    @property
    def signature(self) -> Signature:
        """The scorer's and the protocol's part; the weights behind a server are not known."""
        way, plan = self.way, self.way.plan
        fields: dict[str, str | int | None] = (
            plan.fields()
            if plan is not None
            else {
                "protocol": "fairway",
                "prefix": way.chosen.prefix,
                "length": way.longest or "all",
                "agg": "ratio",
            }
        )
        open_ = plan is None and way.chosen.hidden > 0 and not way.chosen.first
        return Signature.of(
            {
                "kind": "openai",
                "model": bare(way.server.model) or way.server.name,
                "weights": UNKNOWN,
                "dtype": UNKNOWN,
                "tok": way.coder.name if way.coder is not None else None,
                **way.server.identity,
                **fields,
                "special": "text" if not way.spelled else "as-server",
                "unit": "token",
                "version": __version__,
                "server": way.server.shown,
                "route": way.chosen.route.name,
                "first": "unscored" if open_ else None,
            }
        )

    @property
    def engine(self) -> dict[str, Any]:
        """What only changes speed, and what was sent so far, for a run's record."""
        counts = self.link.counts
        return {
            "concurrency": self.crew.size, "host": self.link.address.host,
            "requests": counts.requests, "repeated": counts.repeated, "tokens": counts.tokens,
        }  # fmt: skip

    @property
    def room(self) -> int | None:
        """Tokens that a window holds, the prefix not counted; None = not known."""
        plan = self.way.plan
        if plan is None:
            return self.way.longest
        return None if plan.max_length is None else plan.max_length - len(plan.prefix)

    def remarks(self, totals: Totals, unknown: int | None) -> list[str]:
        """Say what was sent, and what it cost."""
        return [spent(self.link, self.price)]

    def estimate(self, size: int | None, documents: int | None) -> str | None:
        """Say what so much text will cost; None where no price was told.

        Args:
            size: bytes of the source; None = not known.
            documents: that are scored at most; None = all.
        """
        plan = self.way.plan
        again = 1.0
        if plan is not None and plan.max_length and plan.stride:
            again = plan.max_length / plan.stride
        return foretell(self.price, size, documents, again)

    def spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Tokenize texts and give their tokens' character spans, ``(n, 2)`` each.

        Raises:
            ModelError: when no answer came.
        """
        documents = [Document(str(place), text) for place, text in enumerate(texts)]
        return [one.offsets for one in self.score(documents)]

    def score(self, documents: Iterable[Document], want: Collection[str] = ()) -> Iterator[Score]:
        """Score documents in their order; see `fairway.scorer.Scorer`.

        Each document is asked for once; the first of them as soon as this is called.

        Args:
            documents: what to score.
            want: ``rank``, ``top``, ``top5``, where the server tells them; see ``columns``.

        Raises:
            InputError: for a column that it does not tell, or a text that cannot be sent.
            ModelError: when no answer came, or it is wrong.
        """
        for name in want:
            if name == words.COLUMN:
                raise InputError(
                    "A server does not tell with what words may begin; give --by word with "
                    "--uncorrected."
                )
            base = "top" if columns.TOPS.fullmatch(name) else name
            if base not in self.columns:
                told = ", ".join(self.columns) or "none"
                raise InputError(f"This server tells no column {name!r}; it tells: {told}.")
        return self.crew.score(documents, want)


def spent(link: Link, price: float | None) -> str:
    """Say how much was asked of a server, and its price."""
    counts = link.counts
    line = f"{counts.answered:,} answers of {link.address.host} for {counts.tokens:,} tokens"
    if price is not None:
        line += f", about {counts.tokens * price / 1e6:.4f} USD"
    return line


def foretell(
    price: float | None, size: int | None, documents: int | None, again: float = 1.0, more: int = 0
) -> str | None:
    """Estimate a price before anything is sent; None where none was told.

    Args:
        price: US dollars for a million tokens.
        size: bytes of the source; None = not known.
        documents: that are scored at most; None = all.
        again: how often a token of a long text is read.
        more: tokens that are written behind each document, at most.
    """
    if price is None:
        return None
    if size is None:
        return f"at {price:g} USD for a million tokens; how much text there is is not known before"
    tokens = size / BYTES
    line = f"about {tokens:,.0f} tokens at {BYTES} bytes each, {tokens * price / 1e6:.4f} USD"
    if again > 1:
        line += f" (up to {again * tokens * price / 1e6:.4f} where texts are longer than a window)"
    if more:
        line += f", and up to {more} tokens written behind each document"
    if documents is not None:
        line += f"; of that only the first {documents:,} documents"
    return f"estimate: {line}"


def bare(name: str) -> str:
    """Give a model's name without the folder that some servers put before it."""
    absolute = name.startswith(("/", "~", "./", "../")) or name[1:3] in (":\\", ":/")
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2] if absolute else name
