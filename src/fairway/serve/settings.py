"""What an operator sets: limits, and who may ask."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may cost.

    Attributes:
        body: bytes of a request.
        documents: texts in a request.
        text: characters of all texts of a request together, contexts too.
        tokens: that are written in answer to a request.
        waiting: requests that are taken in and not yet answered; further ones are told to wait.
        gather: seconds that a batch waits for further requests, where they are likely to come.
        batch: bytes of text that are scored together, at most.
        turn: seconds that a batch should take, at most; only a single long text takes longer.
        patience: seconds within which a request's head and body must have come.
        farewell: seconds that running requests have when the server stops.
    """

    body: int = 10 << 20
    documents: int = 1024
    text: int = 4 << 20
    tokens: int = 4096
    waiting: int = 256
    gather: float = 0.002
    batch: int = 64 << 10
    turn: float = 1.0
    patience: float = 20.0
    farewell: float = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """One server.

    Attributes:
        host: that it binds to.
        port: likewise; 0 = any free one.
        token: that a request must bring; None = none is asked for, which goes with a loopback host.
        hosts: names by which a browser may call it, besides the loopback's.
        runs: folder with run directories that may be opened; None = none.
        limits: what a request may cost.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()
    runs: str | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return loopback(self.host)


def loopback(host: str) -> bool:
    """Whether a host's name or address is of this machine alone."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
