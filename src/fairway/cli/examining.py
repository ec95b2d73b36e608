"""``fairway doctor``: is anything wrong with a model or its tokenizer?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fairway.cli import options as o
from fairway.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from fairway.corpus import Document


def doctor(
    model: Annotated[
        str, typer.Option(help="Hub id, folder, hf:NAME, openai:MODEL@URL or fairway:URL.")
    ] = "hf:builtin",
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:NAME", help="Run the conformance suite on a scorer of any kind instead."
        ),
    ] = None,
    vectors: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="With --suite: hold it against published numbers too: builtin or stories260K.",
        ),
    ] = None,
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
    model_arg: o.Arg = None,
    json: o.Json = False,
) -> None:
    """Examine a model and its tokenizer; exit code 1 when something gives wrong numbers."""
    if suite is not None:
        if data is not None:
            raise InputError("The suite brings its own texts; leave --data away.")
        from fairway.cli import conforming

        conforming.run(
            suite, vectors, json,
            adapter=adapter, revision=revision, dtype=dtype, device=device,
            trust_remote_code=trust_remote_code, **o.arguments(model_arg),
        )  # fmt: skip
        return
    from fairway.scorer import split

    kind, name = split(model)
    if kind in ("openai", "fairway") and vectors is None:
        from fairway.cli import probing

        probing.run(kind, name, json, data, o.arguments(model_arg))
        return
    if vectors is not None or model_arg:
        given = "--vectors" if vectors is not None else "--model-arg"
        raise InputError(f"{given} goes with --suite KIND:NAME.")
    if kind != "hf":
        raise InputError(
            f"doctor examines Hugging Face models (hf:NAME) and servers, and not {kind}: ones; for "
            f"those there is --suite {kind}:{name}."
        )
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
        from fairway.render.findings import show

        show(findings, f"{model} ({loaded.dtype}) on {source}")
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
