"""``fairway doctor``: is anything wrong with a model or its tokenizer?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fairway.cli import options as o
from fairway.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from fairway.backends.transformers.doctor import Finding
    from fairway.corpus import Document

MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "defect": ("✗", "red"),
         "skipped": ("-", "dim")}  # fmt: skip


def doctor(
    model: Annotated[str, typer.Option(help="Hub id, folder, or hf:NAME.")] = "hf:builtin",
    data: Annotated[
        str | None, typer.Option(help="Your corpus, as eval takes it; default: a shipped sample.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Documents of the corpus to look at.")] = 8,
    text_field: Annotated[str, typer.Option(help="Field of rows that holds the text.")] = "text",
    adapter: o.Adapter = None,
    revision: o.Revision = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    trust_remote_code: o.Trust = False,
    json: o.Json = False,
) -> None:
    """Examine a model and its tokenizer; exit code 1 when something gives wrong numbers."""
    from fairway.scorer import split

    kind, name = split(model)
    if kind != "hf":
        raise InputError(f"doctor examines Hugging Face models (hf:NAME), and not {kind}: ones.")
    documents, source = _sample(data, limit, text_field)
    try:
        from fairway.backends.transformers import doctor as room
        from fairway.backends.transformers import loading
    except ImportError:
        raise MissingExtra("Examining a Hugging Face model", "hf") from None

    base, at, commit = name.partition("@")

    def load(chosen: str) -> loading.Loaded:
        return loading.load(
            base if at else name, revision=revision or commit or None, adapter=adapter,
            dtype=chosen, device=device, trust_remote_code=trust_remote_code,
        )  # fmt: skip

    loaded = load(dtype)
    findings = room.examine(loaded, documents, lambda: load("float32"))
    if json:
        import json as writer
        from dataclasses import asdict

        from fairway import __version__

        found = {
            "fairway": __version__,
            "model": loaded.name,
            "dtype": loaded.dtype,
            "data": source,
            "documents": len(documents) if documents is not None else len(room.SENTENCES),
            "findings": [asdict(finding) for finding in findings],
        }
        typer.echo(writer.dumps(found, ensure_ascii=False, indent=2))
    else:
        _show(findings, f"{model} ({loaded.dtype}) on {source}")
    if any(finding.outcome == "defect" for finding in findings):
        raise typer.Exit(1)


def _sample(data: str | None, limit: int, field: str) -> tuple[list[Document] | None, str]:
    """Read the first documents of the user's corpus, else some of the shipped samples."""
    from fairway.corpus import read

    if data is not None:
        corpus = read(data, limit=limit, text_field=field)
        documents = list(corpus)
        if not documents:
            reason = f" ({corpus.skipped[0].reason})" if corpus.skipped else ""
            raise InputError(
                f"{corpus.name} holds no usable document{reason}; give another --data."
            )
        return documents, f"{corpus.name} ({_count(documents)})"
    documents = list(read("sample:all", sample=limit))
    if documents:
        return documents, f"sample:all ({_count(documents)})"
    return None, "built-in sentences"


def _count(documents: Sequence[Document]) -> str:
    return f"{len(documents)} document{'s' * (len(documents) != 1)}"


def _show(findings: Sequence[Finding], title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fairway.render.visible import plain

    console = Console()
    console.print(Text(plain(title), style="bold"), soft_wrap=True)
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        mark, style = MARKS[finding.outcome]
        said = Text(plain(finding.evidence), style="dim" if finding.outcome == "skipped" else "")
        if finding.fix:
            said.append(f"\n→ {plain(finding.fix)}", style="bold")
        table.add_row(Text(f"{mark} {finding.outcome}", style=style), Text(finding.check), said)
    console.print(table)
    defects = sum(finding.outcome == "defect" for finding in findings)
    notes = sum(finding.outcome == "note" for finding in findings)
    skipped = sum(finding.outcome == "skipped" for finding in findings)
    console.print(
        Text(
            f"{defects} defect{'s' * (defects != 1)}, {notes} note{'s' * (notes != 1)}; "
            f"{len(findings) - skipped} checks run, {skipped} not applicable",
            style="bold",
        )
    )
