"""Whether the Hugging Face hub can be asked, so that a machine without network fails at once."""

from __future__ import annotations

import os
import socket
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
