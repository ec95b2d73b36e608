"""``fairway doctor --model fairway:URL``: what a server has, and whether it answers right."""

from __future__ import annotations

from typing import Any

import typer

from fairway.errors import MissingExtra


def run(spec: str, json: bool, **options: Any) -> None:
    """Examine a server's model; exit code 1 on a defect.

    Args:
        spec: ``fairway:URL`` or ``fairway:NAME@URL``.
        json: print JSON.
        options: of the kind's loader.
    """
    try:
        from fairway.backends.remote import examining
    except ImportError:
        raise MissingExtra("Reaching a server", "serve") from None
    from fairway import scorer

    reached: Any = scorer.load(spec, **options)
    findings = examining.examine(reached)
    if json:
        import json as writer
        from dataclasses import asdict

        from fairway import __version__

        found = {
            "fairway": __version__,
            "model": spec,
            "signature": str(reached.signature),
            "findings": [asdict(finding) for finding in findings],
        }
        typer.echo(writer.dumps(found, ensure_ascii=False, indent=2))
    else:
        from fairway.render.findings import show

        show(findings, spec)
        typer.echo(f"fairway doctor --suite {spec} runs the conformance suite on it.")
    if any(finding.outcome == "defect" for finding in findings):
        raise typer.Exit(1)
