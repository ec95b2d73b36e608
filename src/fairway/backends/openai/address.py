"""Where a server is, what it is known to be, and which environment variable holds its key."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from fairway.errors import InputError


@dataclass(frozen=True, slots=True)
class Preset:
    """A server that is known by name.

    Attributes:
        url: where it is by default.
        key: environment variable of its key; None = none is sent.
    """

    url: str
    key: str | None = None


PRESETS: Mapping[str, Preset] = {
    "vllm": Preset("http://127.0.0.1:8000", "VLLM_API_KEY"),
    "llama-server": Preset("http://127.0.0.1:8080", "LLAMA_API_KEY"),
    "llama-cpp-python": Preset("http://127.0.0.1:8000"),
    "sglang": Preset("http://127.0.0.1:30000"),
    "ollama": Preset("http://127.0.0.1:11434"),
    "tgi": Preset("http://127.0.0.1:3000"),
    "lmstudio": Preset("http://127.0.0.1:1234"),
    "fairway": Preset("http://127.0.0.1:8080", "FAIRWAY_TOKEN"),
    "openai": Preset("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "openrouter": Preset("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "together": Preset("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "fireworks": Preset("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "deepseek": Preset("https://api.deepseek.com/beta/v1", "DEEPSEEK_API_KEY"),
}
"""Servers by name, as ``--model-arg server=`` takes them."""


@dataclass(frozen=True, slots=True)
class Address:
    """A model behind a server.

    Attributes:
        model: its name there; empty = the only one there is.
        root: the server's URL, without the ``/v1`` of OpenAI's routes.
        server: a name of `PRESETS`; None = to be found out.
        key: what requests are signed with; None = they are not.
        key_name: the environment variable it came from.
    """

    model: str
    root: str
    server: str | None = None
    key: str | None = field(default=None, repr=False)
    key_name: str | None = None

    @property
    def host(self) -> str:
        """Host and port, as they may be told."""
        return urlsplit(self.root).netloc


def parse(name: str, server: str | None = None, key: object = None) -> Address:
    """Read ``MODEL@URL``, ``URL``, or with a known server ``MODEL`` alone.

    Args:
        name: as written behind ``openai:``.
        server: a name of `PRESETS`.
        key: name of the environment variable with the key; None = the server's own, where it was
            named or its host is known. A key itself is refused, and not repeated.

    Raises:
        InputError: for what is no address, an unknown server, or a key.
    """
    if server is not None and server not in PRESETS:
        raise InputError(f"server={server} is not known; use one of {', '.join(PRESETS)}.")
    found = re.search(r"(?:^|@)(https?://.*)$", name, re.S)
    if found is not None:
        model, url = name[: found.start()], found.group(1)
    elif server is not None:
        model, url = name, PRESETS[server].url
    else:
        raise InputError(
            "openai: takes MODEL@URL, such as openai:llama-3@http://127.0.0.1:8000, or a model and "
            f"--model-arg server=, one of {', '.join(PRESETS)}."
        )
    root = _root(url)
    # A key goes to no host but the one that it is meant for.
    known = server or next(
        (n for n, p in PRESETS.items() if p.url.startswith("https:") and _same(root, p.url)), None
    )
    variable = _own_variable(known, root) if key is None else None
    if key is not None:
        variable = _variable(key)
    return Address(model, root, known, _key(variable), variable)


def _key(variable: str | None) -> str | None:
    key = os.environ.get(variable, "").strip() if variable else ""
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise InputError(
            f"The variable {variable} holds no key: there are blanks or accents in it."
        )
    return key or None


def _root(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InputError("The URL behind openai: cannot be read; write http://HOST:PORT.") from None
    if "@" in parts.netloc:
        raise InputError(
            "The URL behind openai: holds a name or a password; leave it out, and name the "
            "environment variable of a key with --model-arg key=."
        )
    if not parts.hostname or port == 0 or re.search(r"[^\x21-\x7e]", url):
        raise InputError("The URL behind openai: has no host; write http://HOST:PORT.")
    if parts.query or parts.fragment:
        raise InputError(
            "The URL behind openai: holds a query or a fragment; write http://HOST:PORT, and name "
            "the environment variable of a key with --model-arg key=."
        )
    path = parts.path.rstrip("/").removesuffix("/v1")
    return urlunsplit((parts.scheme, parts.netloc.lower(), path, "", ""))


def _same(root: str, url: str) -> bool:
    one, other = urlsplit(root), urlsplit(url)
    return one.scheme == other.scheme and one.netloc == other.netloc


def _own_variable(known: str | None, root: str) -> str | None:
    """Name a server's own variable; that of a hosted one goes with its own host alone."""
    if known is None:
        return None
    preset = PRESETS[known]
    return None if preset.url.startswith("https:") and not _same(root, preset.url) else preset.key


def _variable(key: object) -> str:
    if isinstance(key, str) and re.fullmatch(r"[A-Za-z_]\w{0,63}", key, re.A) and key in os.environ:
        return key
    raise InputError(
        "--model-arg key= takes the name of an environment variable that is set and holds the key; "
        "what was given is none, and is not repeated here. Never write a key into a command."
    )
