"""Named conventions: how text becomes windows, and what the sums are divided by.

Each convention is a row of data and a few small functions. `resolve` fits one to a model, which
gives a `Plan`: everything a scorer must know, and its part of the signature.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fairway import windows
from fairway.errors import ProtocolError
from fairway.normalise import lm_eval_pages, lm_eval_wikitext, rows
from fairway.scores import Score, Totals
from fairway.windows import Window

if TYPE_CHECKING:
    from fairway.corpus import Document

DEFAULT_LENGTH = 2048
POLICIES = ("auto", "bos", "eos", "none")
PAGE = "fairway:page"
"""Key under which a document's metadata keeps what it was before a normaliser."""


@dataclass(frozen=True, slots=True)
class Tokenizing:
    """What a protocol must know of a tokenizer and its model.

    Attributes:
        bos: id of the beginning-of-sequence token, or None.
        eos: id of the end-of-sequence token, or None.
        adds: ids that the tokenizer puts before a text by itself.
        positions: tokens that the model can read; None = no limit known.
        claimed: tokens that the tokenizer says the model reads; None = it does not say.
    """

    bos: int | None
    eos: int | None
    adds: tuple[int, ...]
    positions: int | None
    claimed: int | None = None


@dataclass(frozen=True, slots=True)
class Convention:
    """One way of computing perplexity.

    Attributes:
        name: as given to ``--like``.
        summary: what makes it differ, in one line.
        prefix: prefix policy: auto, bos, eos, none, bos-or-eos or bos-or-none.
        windowing: which function of `fairway.windows` cuts the text.
        length: default max_length; 0 = all the model's positions.
        stride: default stride; 0 = max_length, None = half of it.
        leading: whether the ids that the tokenizer puts first are part of the text.
        join: how documents become the text: "" = each for itself, else the separator.
        denominators: ``text`` (source bytes and words) or ``lm-eval`` (its counts).
        aggregate: ``ratio`` of sums, ``mean`` of the texts' perplexities, or ``published`` (the
            weights of the Hugging Face documentation's loop).
        error: ``documents`` or ``tokens``: the sampling unit of the printed error.
        special: ``text`` or ``parse``: what the spelling of a special token in a text is.
        normalise: the normaliser that WikiText goes through.
    """

    name: str
    summary: str
    prefix: str = "auto"
    windowing: str = "rolling"
    length: int | None = None
    stride: int | None = None
    leading: bool = False
    join: str = ""
    denominators: str = "text"
    aggregate: str = "ratio"
    error: str = "documents"
    special: str = "text"
    normalise: str | None = None


CONVENTIONS = {
    c.name: c
    for c in (
        Convention(
            "fairway",
            "each document by itself, prefix in every window, half-overlapping windows",
        ),
        Convention(
            "hf-doc",
            "rows joined by blank lines, windows without prefix, weighted by scored tokens",
            prefix="none", length=0, stride=512, leading=True, join="\n\n",
            special="parse",
        ),
        Convention(
            "hf-doc-as-published",
            "as hf-doc, with the documentation's weights: one token too few per later window",
            prefix="none", length=0, stride=512, leading=True, join="\n\n", aggregate="published",
            special="parse",
        ),
        Convention(
            "hf-evaluate",
            "mean of the texts' perplexities, no windows, BOS in front",
            prefix="bos-or-none", windowing="single", length=0, aggregate="mean",
            special="parse",
        ),
        Convention(
            "lm-eval",
            "disjoint windows, prefix only in the first, bytes and words of the untouched page",
            prefix="bos-or-eos", windowing="harness", length=0, stride=0, leading=True,
            denominators="lm-eval",
            special="parse", normalise="lm-eval-wikitext",
        ),
        Convention(
            "llama.cpp",
            "disjoint chunks of 512, the second half scored, BOS over token 0, tail dropped",
            prefix="bos", windowing="second_halves", length=512, stride=0, leading=True,
            join="\n", error="tokens",
        ),
        Convention(
            "gptq",
            "rows joined by blank lines, disjoint 2048-token rows, tail dropped",
            prefix="none", windowing="rows", length=2048, stride=0, leading=True, join="\n\n",
            special="parse",
        ),
        Convention(
            "paloma",
            "each document by itself, EOS in front, disjoint windows of 2048",
            prefix="eos", windowing="harness", length=2048, stride=0, denominators="lm-eval",
            special="parse",
        ),
    )
}  # fmt: skip

PAIRS = Convention(
    "lm-eval-pairs",
    "a context and its continuation, encoded as one and split by the context's own token count",
    prefix="bos-or-eos", windowing="pairs", length=0, stride=0, leading=True, special="parse",
)  # fmt: skip
"""How lm-eval reads multiple choice: its ``loglikelihood``. It scores no plain text."""


def convention(name: str) -> Convention:
    """Look a convention up.

    Raises:
        ProtocolError: when there is none of that name.
    """
    if name == PAIRS.name:
        return PAIRS
    if name not in CONVENTIONS:
        raise ProtocolError(
            f"There is no convention {name!r}; --like takes {', '.join(CONVENTIONS)}, or all."
        )
    return CONVENTIONS[name]


@dataclass(frozen=True, slots=True)
class Plan:
    """A convention fitted to a model.

    Attributes:
        convention: where it comes from.
        prefix: ids put in front of windows that take a prefix.
        leading: ids that stand before the text's own tokens, as part of it.
        prefix_name: bos, eos or none, as in the signature.
        max_length: tokens in a window, prefix counted; None = no windows.
        stride: tokens by which windows advance.
        cut: gives the windows of a text of so many tokens (leading ones counted).
    """

    convention: Convention
    prefix: tuple[int, ...]
    leading: tuple[int, ...]
    prefix_name: str
    max_length: int | None
    stride: int | None
    cut: Callable[[int], list[Window]]

    @property
    def doubled(self) -> bool:
        """Whether the prefix stands twice, as lm-eval does with some tokenizers."""
        return (
            bool(self.prefix)
            and self.leading[:1] == self.prefix[-1:]
            and self.convention.windowing == "harness"
        )

    def fields(self) -> dict[str, str | int | None]:
        """The protocol's part of the signature."""
        c = self.convention
        return {
            "protocol": c.name,
            "prefix": self.prefix_name + ("-doubled" if self.doubled else ""),
            "length": "all" if self.max_length is None else self.max_length,
            "stride": self.stride,
            "windows": None if c.windowing == "rolling" else c.windowing.replace("_", "-"),
            "join": {"": None, "\n\n": "blank-line", "\n": "newline"}[c.join],
            "bytes": None if c.denominators == "text" else c.denominators,
            "agg": c.aggregate,
        }


def _prefix(policy: str, facts: Tokenizing, name: str) -> tuple[tuple[int, ...], str]:
    if policy in ("auto", "bos-or-eos", "bos-or-none"):
        if facts.bos is not None:
            return (facts.bos,), "bos"
        if facts.eos is not None and policy != "bos-or-none":
            return (facts.eos,), "eos"
        if policy != "bos-or-eos":
            return (), "none"
        raise ProtocolError(f"{name} needs a BOS or EOS token, and the tokenizer has neither.")
    if policy == "none":
        return (), "none"
    if policy not in POLICIES:
        raise ProtocolError(f"{policy!r} is not a prefix policy; use one of {', '.join(POLICIES)}.")
    token = facts.bos if policy == "bos" else facts.eos
    if token is None:
        raise ProtocolError(
            f"prefix {policy!r} was asked for, and the tokenizer has no {policy.upper()} token; "
            "use --prefix auto or none."
        )
    return (token,), policy


def resolve(
    like: Convention,
    facts: Tokenizing,
    prefix: str | None = None,
    max_length: int | None = None,
    stride: int | None = None,
) -> Plan:
    """Fit a convention to a model.

    Args:
        like: the convention.
        facts: the tokenizer's and model's properties.
        prefix: overrides the convention's prefix policy.
        max_length: overrides its window, in tokens, prefix counted; 0 = all the model's positions.
        stride: overrides its stride, in tokens.

    Raises:
        ProtocolError: when the settings contradict each other or the model.
    """
    policy = prefix or like.prefix
    if like.name == "llama.cpp" and prefix is None and not facts.adds:
        policy = "none"
    ids, name = _prefix(policy, facts, like.name)
    if max_length == 0:
        max_length = facts.positions or facts.claimed or DEFAULT_LENGTH
    length = max_length
    if length is None:
        asked = DEFAULT_LENGTH if like.length is None else like.length
        if like.length is None or asked == 0:
            length = asked or facts.positions or facts.claimed or DEFAULT_LENGTH
            length = min(length, facts.positions or length)
        else:
            length = asked
    if facts.positions is not None and length > facts.positions:
        reason = "was asked for" if max_length is not None else f"is what {like.name} needs"
        raise ProtocolError(
            f"max_length {length} {reason}, and the model reads at most {facts.positions} "
            f"positions; give --max-length {facts.positions} or less."
        )
    asked_stride = stride
    if stride is None:
        default = max(1, length // 2) if like.stride is None else like.stride
        stride = min(default or length, length)
    windows.check(length, stride, len(ids))
    leading = facts.adds if like.leading else ()
    if prefix and ids and like.windowing != "second_halves":
        # A prefix that is asked for takes the place of what the tokenizer adds.
        leading = ()
    if like.windowing == "rolling":
        step = stride

        def cut(tokens: int) -> list[Window]:
            return windows.rolling(tokens, length, step, len(ids))

    elif like.windowing == "single":
        limit = max_length or facts.positions
        if asked_stride is not None:
            raise ProtocolError(f"{like.name} does not cut texts; leave --stride away.")

        def cut(tokens: int) -> list[Window]:
            if limit is not None and tokens + len(ids) > limit:
                raise ProtocolError(
                    f"{like.name} does not cut texts, and a text of {tokens} tokens exceeds the "
                    f"{limit} positions there are; split it or use another convention."
                )
            return windows.single(tokens, len(ids))

    elif stride != length:
        raise ProtocolError(
            f"{like.name} has disjoint windows; leave --stride away or use --like fairway."
        )
    elif like.windowing == "pairs":

        def cut(tokens: int) -> list[Window]:
            return [windows.pair(tokens, 1, length)]

    elif like.windowing == "harness":

        def cut(tokens: int) -> list[Window]:
            return windows.harness(tokens, length)

    elif like.windowing == "second_halves":

        def cut(tokens: int) -> list[Window]:
            if tokens < 2 * length:
                raise ProtocolError(
                    f"llama.cpp needs at least two chunks ({2 * length} tokens), and the text has "
                    f"{tokens}; give a smaller --max-length or more text."
                )
            return windows.second_halves(tokens, length, bool(ids))

    else:

        def cut(tokens: int) -> list[Window]:
            if tokens < length:
                raise ProtocolError(
                    f"gptq needs at least one row of {length} tokens, and the text has {tokens}; "
                    "give a smaller --max-length or more text."
                )
            return windows.rows(tokens, length, len(ids))

    whole = like.windowing == "single"
    return Plan(like, ids, leading, name, None if whole else length, None if whole else stride, cut)


def normaliser(like: Convention, wikitext: bool) -> str | None:
    """Name the normaliser that a convention applies by itself; None where it applies none."""
    return like.normalise if wikitext else None


def prepare(
    like: Convention, documents: Iterable[Document], wikitext: bool = False
) -> Iterator[Document]:
    """Turn a corpus into the texts that a convention scores.

    lm-eval cuts WikiText into pages in its own way, detokenises them and counts the untouched
    ones.

    A convention that joins takes each document as a row, and WikiText's articles as the file they
    were cut from; blank lines go between rows. A corpus of one document is first cut into its
    lines, as the WikiText data set has them: a row keeps its newline, a blank row is empty. The
    joined text is in memory as a whole. llama.cpp drops a file's last newline.
    """
    if normaliser(like, wikitext):
        yield from _pages(documents)
        return
    if not like.join:
        yield from documents
        return
    kept = list(documents)
    if not kept:
        return
    if any(document.ids is not None for document in kept):
        raise ProtocolError(
            f"{like.name} joins texts, and the corpus holds token ids; use --like fairway."
        )
    texts = [document.text for document in kept]
    if wikitext:
        texts = ["".join(texts)]
    if like.join == "\n\n":
        text = "\n\n".join(rows(texts[0]) if len(texts) == 1 else texts)
    else:
        text = like.join.join(texts).removesuffix("\n")
    if text == kept[0].text:
        yield kept[0]
    else:
        yield replace(kept[0], text=text, context="", scored=None)


def _pages(documents: Iterable[Document]) -> Iterator[Document]:
    pieces = ((document, document.text) for document in documents)
    for number, (source, page) in enumerate(lm_eval_pages(pieces), 1):
        metadata = {**source.metadata, PAGE: page}
        yield replace(source, id=f"page {number}", text=lm_eval_wikitext(page), metadata=metadata)


def totals(like: Convention, score: Score) -> Totals:
    """Count a text as a convention does.

    lm-eval divides by the words and bytes of the untouched page, words being the pieces between
    runs of white space, empty ones at the edges included (``api/task.py``, 0.4.13); Paloma's
    words are the same pieces (catwalk, ``predict_chunk_perplexity``).
    """
    sums = score.totals
    if like.denominators == "text" or score.token_bytes is not None:
        return sums
    page = str(score.metadata.get(PAGE, score.text))
    return replace(sums, words=len(re.split(r"\s+", page)), bytes=len(page.encode("utf-8")))
