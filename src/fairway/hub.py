"""Whether the Hugging Face hub can be asked, and which commit a revision of a model is."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

ENDPOINT = "https://huggingface.co"


def reachable() -> bool:
    """Say whether the hub's name resolves; behind a proxy only a request could tell, so yes.

    The hub's client repeats a request to an unknown host for half a minute.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    if getproxies():
        return True
    host = urlsplit(os.environ.get("HF_ENDPOINT") or ENDPOINT).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def commit(name: str, revision: str | None = None) -> str | None:
    """Give the commit of a model's revision in the hub's cache here; None where it is not there.

    After a model was loaded, this is the commit that it was loaded from.
    """
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except Exception:  # the package is absent, or the name is none that the hub could have
        return None
    return Path(found).parent.name if isinstance(found, str) else None
