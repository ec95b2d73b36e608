"""Models behind other servers: ``openai:MODEL@URL``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.errors import InputError, MissingExtra, ProtocolError
from fairway.protocol import Plan, Tokenizing, convention, resolve

if TYPE_CHECKING:
    from fairway.backends.openai.choose import Chosen
    from fairway.backends.openai.server import Server
    from fairway.backends.openai.tokens import Coder
    from fairway.scorer import Scorer


def load(
    name: str,
    *,
    like: str = "fairway",
    prefix: str | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    special_tokens: str | None = None,
    dtype: str = "auto",
    server: str | None = None,
    key: str | int | bool | None = None,
    route: str | None = None,
    tokenizer: str | None = None,
    concurrency: int = 4,
    max_requests: int | None = None,
    retries: int = 8,
    timeout: float = 300.0,
    price: float | None = None,
    generated: bool = False,
    max_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> Scorer:
    """Find out what a server is and how it tells log-probabilities of prompts.

    Args:
        name: ``MODEL@URL``; ``URL``, for the server's only model; with server, ``MODEL``.
        like: fairway, the only convention that servers are asked by.
        prefix: auto, bos or none; overrides the server's own, where token ids can be sent.
        max_length: tokens in a window, prefix counted; the server's own is the most.
        stride: tokens by which windows advance, where token ids can be sent.
        special_tokens: text or parse; as the server has it, where texts are sent.
        dtype: auto: the server's, which is not known.
        server: a name of `fairway.backends.openai.address.PRESETS`; None = found out.
        key: name of the environment variable with the key, never a key.
        route: the one way to ask; None = the first that works. ``stepwise`` is a request a token.
        tokenizer: the model's own tokenizer.json, or its folder.
        concurrency: requests at a time.
        max_requests: that are sent in all.
        retries: repetitions of a request to which no whole answer came.
        timeout: seconds without a byte after which a request is given up.
        price: US dollars for a million tokens.
        generated: score what the server itself writes behind each text.
        max_tokens: that it writes then, at most.
        temperature: at which it writes.
        seed: with which it writes.

    Raises:
        InputError: for a setting or an address that cannot be.
        MissingExtra: when httpx2 is not installed.
        ModelError: when the server cannot be reached, or gives no log-probabilities.
        ProtocolError: when settings contradict each other or the server.
    """
    _numbers(
        concurrency=(concurrency, 1), max_requests=(max_requests, 1), retries=(retries, 0),
        timeout=(timeout, 1), price=(price, 0), max_tokens=(max_tokens, 1),
        temperature=(temperature, 0), seed=(seed, 0),
    )  # fmt: skip
    if like != "fairway":
        raise ProtocolError("A server is asked by --like fairway only; leave --like away.")
    try:
        import httpx2  # noqa: F401
    except ImportError:
        raise MissingExtra("Scoring through a server", "serve") from None
    from fairway.backends.openai import address, choose, pairs, reading, tokens
    from fairway.backends.openai import generated as own
    from fairway.backends.openai import server as servers
    from fairway.backends.openai.crew import Crew
    from fairway.backends.openai.reading import Way
    from fairway.backends.openai.scoring import OpenAIScorer
    from fairway.backends.openai.transport import Link

    place = address.parse(name, server, key)
    link = Link(place, timeout=timeout, retries=retries, max_requests=max_requests)
    found = servers.find(link, place)
    if dtype not in ("auto", "unknown", found.identity.get("dtype")):
        raise InputError(f"--dtype {dtype} cannot be asked of a server; leave it away.")
    if generated:
        how = own.Writing(max_tokens, temperature, seed)
        return own.load(link, found, concurrency, how, price)
    coder: Coder | None = tokens.local(tokenizer) if tokenizer is not None else None
    chosen = choose.choose(link, found, route)
    said: list[str] = []
    if chosen.route.name not in ("stepwise", choose.CHAT):
        trusted = pairs.trust(link, chosen.route, found.model, chosen.write, found.positions)
        said = [f"the server: {one}" for one in trusted]
    if coder is None and chosen.route.ids:
        coder = tokens.remote(link, found)
    plan = None
    if coder is not None and chosen.route.ids:
        plan = _plan(found, chosen, coder, prefix, max_length, stride)
    elif prefix not in (None, "auto", chosen.prefix):
        raise ProtocolError(
            f"--prefix {prefix} cannot be had here: the server puts {chosen.prefix} before a text, "
            "and takes no token ids (or none are known: give --model-arg tokenizer=FILE)."
        )
    elif stride is not None:
        raise ProtocolError(
            "--stride needs windows of token ids, which this server does not take or which are not "
            "known here: give --model-arg tokenizer=FILE, or leave --stride away."
        )
    longest = found.positions
    if max_length:
        longest = min(max_length, longest or max_length)
    spelled = coder is None or plan is None or (not coder.here and plan.prefix_name == chosen.prefix
                                                and chosen.route.name != "stepwise")  # fmt: skip
    if special_tokens == ("parse" if not spelled else "text"):
        raise ProtocolError(
            f"--special-tokens {special_tokens} cannot be had by this route; leave it away."
        )
    way = Way(link, found, chosen, coder, plan, longest, spelled)
    crew = Crew(lambda d, w: reading.score(way, d, w), concurrency)
    return OpenAIScorer(way, crew, price, said)


def _plan(
    server: Server,
    chosen: Chosen,
    coder: Coder,
    prefix: str | None,
    max_length: int | None,
    stride: int | None,
) -> Plan:
    """Fit the protocol: windows of ids, a place left for the token that the server must write."""
    positions = server.positions - chosen.write if server.positions else None
    bos = coder.adds[0] if len(coder.adds) == 1 else None
    facts = Tokenizing(bos, None, coder.adds, positions)
    return resolve(convention("fairway"), facts, prefix, max_length, stride)


def _numbers(**given: tuple[object, int]) -> None:
    """Refuse settings that are no number, or too small a one; None is left as it is."""
    for name, (value, least) in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        whole = name in ("timeout", "price", "temperature") or isinstance(value, int)
        if value is None:
            continue
        if not number or not whole or not least <= float(str(value)) < 1e9:
            raise InputError(f"--model-arg {name}={value} is not a number from {least} on.")
