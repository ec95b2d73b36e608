"""What a server says of a model, and whether its numbers stay what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairway import __version__, wire
from fairway.backends.remote.scoring import RemoteScorer, listed, sent
from fairway.conformance.case import SENTENCES, SOURCE, gap, nats, slack
from fairway.corpus import Document
from fairway.finding import Finding

EXTRAS = {
    "writes": "writes text", "takes_ids": "takes token ids", "spans": "tells where tokens lie",
    "tokenizes": "tells its vocabulary",
}  # fmt: skip
"""What a model may be able to do besides scoring."""


def examine(scorer: RemoteScorer) -> list[Finding]:
    """Ask a server what a model can do, and score a few sentences in several orders."""
    facts = scorer.facts
    found = [_server(scorer, listed(scorer.caller)), Finding("signature", "ok", facts["signature"])]
    found.append(_protocol(facts))
    columns = ", ".join(map(wire.shown, facts["columns"]))
    found.append(Finding("columns", "ok", columns or "log-probabilities alone"))
    can = [words for key, words in EXTRAS.items() if facts.get(key)]
    found.append(Finding("besides", "ok", ", ".join(can) or "nothing but scoring"))
    found += [
        Finding("texts", "note", line, "A loopback address, or https, keeps them from others.")
        for line in sent(scorer.caller.url, scorer.caller.token is not None)
    ]
    return [*found, _numbers(scorer)]


def _server(scorer: RemoteScorer, models: list[Mapping[str, Any]]) -> Finding:
    names = ", ".join(wire.shown(one["id"]) for one in models)
    version = wire.shown(scorer.facts.get("version"))
    told = f"fairway {version} at {scorer.caller.url}, with {names}; this one is {scorer.model}"
    if version == __version__:
        return Finding("server", "ok", told)
    return Finding(
        "server", "note", f"{told}; here is fairway {__version__}",
        "The version is in the signature: a comparison says where two differ.",
    )  # fmt: skip


def _protocol(facts: Mapping[str, Any]) -> Finding:
    if facts["settings"]:
        return Finding("protocol", "ok", "the server's, or as --like, --prefix, --max-length say")
    return Finding("protocol", "ok", "the server's own: this kind can be given no other here")


def _numbers(scorer: RemoteScorer) -> Finding:
    """Score sentences together, in reverse and one by one; all that may differ is rounding."""
    context = SOURCE if scorer.needs_context else ""
    given = [Document(f"sentence {n}", text, context) for n, text in enumerate(SENTENCES[:3])]
    together = list(scorer.score(given))
    reverse = list(scorer.score(given[::-1]))[::-1]
    alone = [score for one in given for score in scorer.score([one])]
    gaps = [
        gap(one, other)[0]
        for others in (reverse, alone)
        for one, other in zip(together, others, strict=True)
    ]
    if max(gaps) > slack(scorer.signature)[0]:
        return Finding(
            "numbers", "defect", f"a sentence in other company differs {nats(max(gaps))}",
            "Run fairway doctor on the model where it is served.",
        )  # fmt: skip
    tokens = sum(len(one) for one in together)
    return Finding("numbers", "ok", f"{tokens} tokens, alone and together to {max(gaps):.1g} nats")
