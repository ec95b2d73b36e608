"""The corpora that people mean by a name."""

from __future__ import annotations

from typing import NamedTuple


class Named(NamedTuple):
    """A corpus by name.

    Attributes:
        source: what `fairway.read` takes.
        licence: of the text.
        split: as ``--split``, for line-wise sources; None = documents as they come.
        text_field: field of the text.
        description: one line.
    """

    source: str
    licence: str
    split: str | None
    text_field: str
    description: str


NAMED: dict[str, Named] = {
    "wikitext-2": Named(
        "hf:Salesforce/wikitext:wikitext-2-raw-v1:test", "CC BY-SA 3.0", "wikitext", "text",
        "WikiText-2 raw, test: Wikipedia articles, one document each",
    ),
    "wikitext-103": Named(
        "hf:Salesforce/wikitext:wikitext-103-raw-v1:test", "CC BY-SA 3.0", "wikitext", "text",
        "WikiText-103 raw, test: the same articles as WikiText-2's",
    ),
    "c4": Named(
        "hf:allenai/c4:en:validation", "ODC-By 1.0", None, "text",
        "C4, English validation: cleaned Common Crawl pages",
    ),
    "lambada": Named(
        "hf:EleutherAI/lambada_openai:default:test", "CC BY 4.0", None, "text",
        "LAMBADA in OpenAI's detokenised form, whole passages",
    ),
}  # fmt: skip
