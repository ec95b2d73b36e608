"""What an evaluation was asked for, kept so that it can be asked again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fairway.errors import InputError
from fairway.normalise import NORMALISERS

if TYPE_CHECKING:
    from fairway.corpus import Corpus
    from fairway.scorer import Scorer
    from fairway.signature import Signature

IGNORED = ("ask", "engine", "companions")
"""Settings that may differ when a run goes on: the model's path, what sets the pace; and whether
there are companions, which stays as the run began."""
SPECIAL = {"parsed": "parse", "as-server": None}
"""What a signature says of special tokens, as an option."""


@dataclass(frozen=True, slots=True)
class Request:
    """One model on one corpus.

    Attributes:
        model: as `fairway.load` takes it.
        data: as `fairway.read` takes it.
        load: options of `fairway.load`.
        read: options of `fairway.read`.
        group_by: metadata field with a report for each of its values.
        texts: whether every token is kept.
        precision: relative half-width of perplexity's interval at which to stop.
        seed: of sampling and of the bootstrap.
        companions: report accuracy, entropy, calibration and the tail of surprisal too.
    """

    model: str
    data: str
    load: Mapping[str, Any] = field(default_factory=dict)
    read: Mapping[str, Any] = field(default_factory=dict)
    group_by: str | None = None
    texts: bool = False
    precision: float | None = None
    seed: int = 0
    companions: bool = True

    def settings(self, scorer: Scorer, corpus: Corpus) -> dict[str, Any]:
        """Give what a run directory keeps: what decides the numbers, and how to ask again."""
        # Not at the top: the command line reads this file before it knows that numpy is needed.
        from fairway.companions import WANT
        from fairway.scorer import fills

        return {
            "signature": str(scorer.signature),
            "data": corpus.name,
            "read": _plain(self.read),
            "group_by": self.group_by,
            "texts": self.texts,
            "precision": self.precision,
            "seed": self.seed,
            "companions": self.companions and fills(scorer, WANT),
            "engine": getattr(scorer, "engine", None),
            "ask": {"model": self.model, "data": self.data, "load": _plain(self.load)},
        }


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what JSON can hold: a tokenizer object cannot be asked for again."""
    return {
        key: value
        for key, value in options.items()
        if value is None or isinstance(value, str | int | float | list)
    }


def of_settings(settings: Mapping[str, Any]) -> Request:
    """Read a request back from a run's settings.

    Raises:
        InputError: when the run was made from Python objects, which have no name.
    """
    ask = settings.get("ask") or {}
    if not isinstance(ask.get("model"), str) or not isinstance(ask.get("data"), str):
        raise InputError(
            "This run does not say which model and data to load (it was made from objects in "
            "Python); name them with --model and --data."
        )
    return Request(
        ask["model"],
        ask["data"],
        ask.get("load") or {},
        settings.get("read") or {},
        settings.get("group_by"),
        bool(settings.get("texts")),
        settings.get("precision"),
        int(settings.get("seed") or 0),
        settings.get("companions") is not False,
    )


def _own(kept: Mapping[str, str]) -> dict[str, Any]:
    """Read back the settings of a kind's own that a signature tells."""
    if kept.get("kind") == "masked":
        return {key: kept[key] for key in ("pll", "words") if key in kept}
    if kept.get("kind") == "seq2seq":
        sources = {"source-bare": "bare", "empty": "empty"}
        source = sources.get(kept.get("context", ""), "required")
        languages = {key: kept[key] for key in ("src_lang", "tgt_lang") if key in kept}
        return {"eos": kept.get("eos") == "yes", "source": source, **languages}
    if kept.get("kind") == "openai" and kept["protocol"] == "own-output":
        written = {"max_tokens": int(kept["written"]), "temperature": float(kept["temperature"])}
        return {"like": "fairway", "generated": True, **written, "seed": int(kept.get("drawn", 0))}
    if kept.get("kind") == "openai":
        return {"route": kept["route"]} if "route" in kept else {}
    return {}


def of_signature(
    signature: Signature, model: str | None = None, data: str | None = None
) -> Request:
    """Make the request that a signature describes.

    A signature holds names and never paths, so a local model or file must be named beside it.
    A run that took the first documents only is repeated by the signature's count of documents.

    Raises:
        InputError: when fields that a repetition needs are absent.
    """
    kept = dict(signature.fields)
    missing = [key for key in ("model", "protocol", "data") if key not in kept]
    if missing:
        raise InputError(
            f"The signature lacks {', '.join(missing)}; give the whole line, as a report prints it."
        )
    chat = kept.get("chat")
    load = {
        "like": kept["protocol"],
        "prefix": kept.get("prefix", "").removesuffix("-doubled") or None,
        "max_length": int(kept["length"]) if kept.get("length", "all") != "all" else None,
        "stride": int(kept["stride"]) if kept.get("stride") else None,
        "special_tokens": SPECIAL.get(kept.get("special", ""), "text"),
        "dtype": kept.get("dtype", "auto"),
        "revision": kept.get("revision"),
        "chat": chat.split("+") if chat else None,
    }
    load |= _own(kept)
    if model is not None:
        load.pop("revision")
    split = kept.get("split")
    read = {
        "split": split if split in ("lines", "paragraphs", "wikitext") else None,
        "limit": int(kept["documents"]) if kept.get("documents") else None,
        "chat": chat is not None,
        "normalise": kept.get("norm") if kept.get("norm") in NORMALISERS else None,
    }
    if kept["protocol"] == "lm-eval" and read["split"] == "wikitext":
        read.pop("normalise")  # the convention's own
    return Request(
        model or f"{kept.get('kind', 'hf')}:{kept['model']}",
        data or kept["data"],
        {key: value for key, value in load.items() if value is not None},
        {key: value for key, value in read.items() if value},
        seed=int(kept.get("seed") or 0),
    )
