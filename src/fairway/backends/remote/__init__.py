"""Models that a fairway server has: ``fairway:URL`` or ``fairway:NAME@URL``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fairway.errors import InputError, MissingExtra, ProtocolError
from fairway.scorer import COMMON

if TYPE_CHECKING:
    from fairway.backends.remote.scoring import RemoteScorer

TOKEN = "FAIRWAY_TOKEN"
"""Environment variable with the token that a server asks for."""
NAMED = re.compile(r"(?:(?P<model>.*)@)?(?P<url>https?://.*)", re.I | re.S)
"""A model's name may hold any character; the last ``@`` before a URL ends it."""
ITS_OWN = (
    "adapter", "revision", "dtype", "device", "device_map", "batch_tokens", "threads",
    "trust_remote_code",
)  # fmt: skip
"""Options of which the server has decided when it loaded the model."""


def load(
    name: str,
    *,
    parallel: int = 4,
    patience: float = 120.0,
    timeout: float = 600.0,
    **settings: Any,
) -> RemoteScorer:
    """Reach a model that a fairway server has.

    Without further settings the protocol is the one that the server was started with. Where some
    are given, they alone make it, as if the model were loaded here with them.

    Args:
        name: ``URL``, for the server's only or first model, or ``NAME@URL``.
        parallel: requests that are under way at a time.
        patience: seconds that a request is tried again for, where the server has gone or is busy.
        timeout: seconds that one answer may take.
        settings: like, prefix, max_length, stride, special_tokens, chat, and what else the
            server's kind of model can be given; further options only as the server has them.

    Raises:
        MissingExtra: when httpx2 is not installed.
        InputError: when the address is none, or an option is the server's to choose.
        ModelError: when there is no server, no fairway server, or no such model.
        ProtocolError: when the model does not fit the settings, or cannot be given any.
    """
    try:
        import httpx2  # noqa: F401
    except ImportError:
        raise MissingExtra("Reaching a server", "serve") from None
    from fairway.backends.remote import scoring
    from fairway.backends.remote.calling import Caller

    model, url = address(name)
    own: dict[str, Any] = {"parallel": parallel, "patience": patience, "timeout": timeout}
    for option, value in own.items():
        if not isinstance(value, int | float) or not value > 0:
            raise InputError(f"{option} takes a number above 0, and not {value!r}.")
    caller = Caller(url, os.environ.get(TOKEN) or None, float(patience), float(timeout))
    described = scoring.find(caller, model)
    asked = _asked(described, settings)
    return scoring.build(caller, described, asked, max(1, int(parallel)))


def address(name: str) -> tuple[str | None, str]:
    """Split a name into the model's and the URL without ``/`` or ``/v1`` at its end.

    Raises:
        InputError: when there is no URL, or one that holds more than host, port and path.
    """
    found = NAMED.fullmatch(name)
    if found is None:
        raise InputError(
            "fairway: takes a URL, such as fairway:http://127.0.0.1:8080, or NAME@URL."
        )
    model, url = found["model"], found["url"]
    host = url.partition("://")[2].partition("/")[0]
    # What was given is not repeated: it may hold a password.
    if "@" in host:
        raise InputError(
            "The URL holds a user or a password, which runs would keep; leave it away, and put "
            f"the server's token into {TOKEN}."
        )
    if not host or "?" in url or "#" in url or not url.isprintable() or " " in url:
        raise InputError(
            "The server's URL is http:// or https://, a host, and a port or path, and nothing else."
        )
    return model or None, url.rstrip("/").removesuffix("/v1").rstrip("/")


def _asked(described: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Give the settings that the protocol is to be made of; none = the server's own.

    Raises:
        InputError: when an option is the server's to choose, and is another there.
        ProtocolError: when the server's convention is another, and cannot be changed.
    """
    from fairway.signature import parse

    if any(key in given for key in ("token", "key", "api_key")):
        raise InputError(f"A token is read from {TOKEN} alone, so that no run keeps it.")
    signature = parse(described["signature"])
    for key in ITS_OWN:
        value = given.get(key, COMMON[key])
        if value not in (COMMON[key], signature.get(key)):
            there = f" (here {signature.get(key)})" if signature.get(key) else ""
            raise InputError(
                f"{key} is the server's to choose{there}; leave --{key.replace('_', '-')} away."
            )
    asked = {
        key: value
        for key, value in given.items()
        if key not in ITS_OWN and value is not None and key != "like"
    }
    like = given.get("like", COMMON["like"])
    protocol = signature.get("protocol")
    if not asked and like == protocol:
        return {}
    if not described["settings"]:
        what = ", ".join(sorted(asked)) or f"--like {like}"
        raise ProtocolError(
            f"The server has {signature.get('model')} under {protocol}, and this kind of model "
            f"cannot be given {what} through a server; start the server with that."
        )
    return {"like": like, **asked}
