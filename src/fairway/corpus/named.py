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
        normaliser: the normaliser that undoes its tokenisation, for ``--normalise``.
        asset: where FAIRWAY_ASSETS holds the same text, for machines without the hub.
    """

    source: str
    licence: str
    split: str | None
    text_field: str
    description: str
    normaliser: str | None = None
    asset: str | None = None


NAMED: dict[str, Named] = {
    "wikitext-2": Named(
        "hf:Salesforce/wikitext:wikitext-2-raw-v1:test", "CC BY-SA 3.0", "wikitext", "text",
        "WikiText-2 raw, test: Wikipedia articles, one document each",
        "readable-wikitext", "corpora/wikitext2/wiki.test.raw",
    ),
    "wikitext-103": Named(
        "hf:Salesforce/wikitext:wikitext-103-raw-v1:test", "CC BY-SA 3.0", "wikitext", "text",
        "WikiText-103 raw, test: the same articles as WikiText-2's",
        "readable-wikitext", "corpora/wikitext2/wiki.test.raw",
    ),
    "c4": Named(
        "hf:allenai/c4:en:validation", "ODC-By 1.0", None, "text",
        "C4, English validation: cleaned Common Crawl pages",
    ),
    "cc-wet": Named(
        "https://data.commoncrawl.org/crawl-data/CC-MAIN-2024-22/segments/1715971057216.39/wet/"
        "CC-MAIN-20240517233122-20240518023122-00000.warc.wet.gz",
        "Common Crawl terms of use", None, "text",
        "the first WET file of Common Crawl's May 2024: uncleaned pages in all languages",
    ),
    "cc-news": Named(
        "hf:vblagoje/cc_news:plain_text:train", "the publishers'; Common Crawl terms of use", None,
        "text", "CC-News: English news articles of 2017 to 2019",
    ),
    "c4-news": Named(
        "hf:allenai/c4:realnewslike:validation", "ODC-By 1.0", None, "text",
        "C4 from news sites, validation: cleaned English pages",
    ),
    "eurlex": Named(
        "hf:coastalcph/lex_glue:eurlex:test", "CC BY 4.0", None, "text",
        "EUR-LEX, test: laws of the European Union in English",
    ),
    "lambada": Named(
        "hf:EleutherAI/lambada_openai:default:test", "CC BY 4.0", None, "text",
        "LAMBADA in OpenAI's detokenised form, whole passages",
    ),
}  # fmt: skip
