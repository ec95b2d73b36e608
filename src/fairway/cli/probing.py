"""``fairway doctor --model openai:MODEL@URL``: what a server gives, and what it gets wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from fairway.errors import InputError, MissingExtra

TAKEN = ("server", "key", "route", "timeout")
"""Arguments of the model that change how the server is asked."""


def run(kind: str, name: str, json: bool, data: str | None, given: Mapping[str, Any]) -> None:
    """Examine a server and print what was found; exit code 1 when numbers are wrong.

    Args:
        kind: ``openai``, or ``fairway``, which says what it can do by itself.
        name: ``MODEL@URL``.
        json: print JSON.
        data: the user's corpus, which a server is not examined on.
        given: arguments of the model.

    Raises:
        InputError: for an option that does not go with a server.
    """
    if data is not None:
        raise InputError("A server is examined on prompts of its own; leave --data away.")
    if kind == "fairway":
        from fairway.cli import reaching

        reaching.run(f"fairway:{name}", json, **given)
        return
    try:
        from fairway.backends.openai import probe
    except ImportError:
        raise MissingExtra("Examining a server", "serve") from None
    from fairway import api

    asked = {key: value for key, value in given.items() if key in TAKEN}
    findings = probe.examine(
        name, server_name=asked.get("server"), key=asked.get("key"), only=asked.get("route"),
        timeout=float(asked.get("timeout", 60.0)),
        load=lambda: api.load(f"openai:{name}", **given),
    )  # fmt: skip
    if json:
        import json as writer
        from dataclasses import asdict

        from fairway import __version__

        found = {
            "fairway": __version__,
            "model": f"openai:{name}",
            "findings": [asdict(finding) for finding in findings],
        }
        typer.echo(writer.dumps(found, ensure_ascii=False, indent=2))
    else:
        from fairway.render.findings import show

        show(findings, f"openai:{name}")
    if any(finding.outcome == "defect" for finding in findings):
        raise typer.Exit(1)
