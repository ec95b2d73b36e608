"""``fairway doctor --suite``: does a scorer of some kind keep the rules of the seam?"""

from __future__ import annotations

from typing import Any

import typer


def run(spec: str, vectors: str | None, json: bool, **options: Any) -> None:
    """Run the conformance suite; exit code 1 on a defect.

    Args:
        spec: ``KIND:NAME``.
        vectors: name of published vectors to hold it against; None = none.
        json: print JSON.
        options: of the kind's loader.
    """
    from fairway import conformance, scorer
    from fairway.conformance import vectors as published

    kind, _ = scorer.split(spec)
    held = published.read(vectors) if vectors is not None else None

    def load(**more: Any) -> scorer.Scorer:
        return scorer.load(spec, **{**options, **more})

    first = load()
    findings = conformance.examine(first, load, kind)
    if held is not None:
        findings += published.examine(held, load)
    if json:
        import json as writer
        from dataclasses import asdict

        from fairway import __version__

        found = {
            "fairway": __version__,
            "model": spec,
            "signature": str(first.signature),
            "vectors": vectors,
            "findings": [asdict(finding) for finding in findings],
        }
        typer.echo(writer.dumps(found, ensure_ascii=False, indent=2))
    else:
        from fairway.render.findings import show

        show(findings, f"{spec}: conformance")
    if any(finding.outcome == "defect" for finding in findings):
        raise typer.Exit(1)
