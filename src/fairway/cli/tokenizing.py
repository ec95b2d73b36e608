"""``fairway tokenizers``: what tokenizers make of texts, and how much of a perplexity is theirs."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairway.cli import options as o
from fairway.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from fairway.corpus import Corpus, Document
    from fairway.tokenizers import Audit, Vocabulary


def tokenizers(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Hub ids, folders, tokenizer.json files, builtin."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="As eval takes it; several are a group each, unless --group-by."),
    ] = None,
    group_by: Annotated[str | None, typer.Option(help="Field whose values are groups.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="Group of premiums' measure; English, else the first.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field that holds the text.")] = "text",
    split: Annotated[
        str | None, typer.Option(help="lines, paragraphs or wikitext, for text files.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The first N documents of each --data.")
    ] = None,
    models: Annotated[
        bool,
        typer.Option("--models", help="The names are models too: split their perplexities."),
    ] = False,
    runs: Annotated[
        bool,
        typer.Option("--runs", help="The names are run directories: split their perplexities."),
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Let this key of the runs' signatures differ."),
    ] = None,
    marginal: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A short text's bits over all its tokenizations."),
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Tokenizations drawn for it.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    prefix: o.Prefix = None,
    max_length: o.MaxLength = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    threads: o.Threads = None,
    revision: o.Revision = None,
    trust_remote_code: o.Trust = False,
    json: o.Json = False,
    md: o.Md = False,
    csv: o.Csv = False,
) -> None:
    """Compare tokenizers: fertility, round trips, byte counts, their part in a perplexity."""
    form = "json" if json else "md" if md else "csv" if csv else ""
    loading = {
        "prefix": prefix, "max_length": max_length, "dtype": dtype, "device": device,
        "threads": threads, "revision": revision, "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    if runs:
        if data or models or marginal is not None:
            raise InputError("--runs takes finished runs, and no --data, --models or --marginal.")
        paths = [Path(name) for name in names or ()]
        _splits(paths, [path.name for path in paths], allow or [], form)
        return
    if not names:
        raise InputError("Name a tokenizer: a hub id, a folder, a tokenizer.json, or builtin.")
    if marginal is not None:
        if data or models or group_by:
            raise InputError("--marginal takes a text of its own, and no --data or --models.")
        _marginals(names, marginal, samples, seed, loading, form)
        return
    if models and len(names) < 2:
        raise InputError("--models splits a difference; name two models or more.")
    if models and data and len(data) > 1:
        raise InputError("--models takes one --data; --group-by tells its parts apart.")
    sources = data or ["sample:all"]
    if models and sources[0].rpartition(":")[2] == "-":
        raise InputError("--models reads the data several times; give a file in place of -.")
    reading = {"text_field": text_field, "split": split, "limit": limit}
    found, chosen = _audit(names, sources, group_by, reference, reading, revision,
                           trust_remote_code)  # fmt: skip
    if not models:
        _print(found, chosen, form)
        return
    if form in ("md", "csv"):
        raise InputError("--models prints on the terminal or as --json.")
    from fairway.cli.evaluating import run_models

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = {"like": "fairway", **loading}
        named = run_models(names, sources[0], options, reading, group_by, folder)
        if not form:
            _print(found, chosen, form)
        paths, shown = [path for path, _ in named], [name for _, name in named]
        _splits(paths, shown, allow or [], form, _plain(found, chosen) if form else None)


def _load(names: list[str], revision: str | None, trust: bool) -> list[Vocabulary]:
    try:
        from fairway.backends.transformers import tokenizing
        from fairway.scorer import load, split
    except ImportError:
        raise MissingExtra("Reading a tokenizer", "hf") from None
    out = []
    for spec in names:
        kind, name = split(spec)
        if kind == "fairway":
            vocabulary = getattr(load(spec), "vocabulary", None)
            if vocabulary is None:
                raise InputError(f"The model of {spec} does not tell its vocabulary.")
            out.append(vocabulary)
            continue
        if kind != "hf":
            raise InputError(f"{spec} is no Hugging Face tokenizer; those are hf:NAME or a file.")
        out.append(tokenizing.load(name, revision=revision, trust_remote_code=trust))
    short = [one.name for one in out]
    return [
        replace(one, name=spec) if short.count(one.name) > 1 else one
        for one, spec in zip(out, names, strict=True)
    ]


def _audit(
    names: list[str],
    sources: list[str],
    group_by: str | None,
    reference: str | None,
    reading: dict[str, Any],
    revision: str | None,
    trust: bool,
) -> tuple[list[Audit], str | None]:
    """Read the data once and count; give the group that premiums are measured against."""
    from fairway.corpus import read
    from fairway.evaluation import group_of
    from fairway.tokenizers import audit
    from fairway.tokenizers.fertility import reference_group

    corpora = [read(source, group_by=group_by, **reading) for source in sources]
    vocabularies = _load(names, revision, trust)

    def documents() -> Iterator[tuple[str, Document]]:
        for corpus in corpora:
            for document in _shown(corpus):
                yield (group_of(document, group_by) if group_by else corpus.name), document
            if corpus.skipped_total:
                one = corpus.skipped[0]
                typer.echo(
                    f"fairway: {corpus.skipped_total} rows of {corpus.name} were skipped "
                    f"({one.source}:{one.line}: {one.reason}).",
                    err=True,
                )

    found = audit(vocabularies, documents())
    groups = list(found[0].groups)
    if reference is not None and reference not in groups:
        raise InputError(f"There is no group {reference!r}; there are {', '.join(groups)}.")
    return found, reference or (reference_group(groups) if len(groups) > 1 else None)


def _shown(corpus: Corpus) -> Iterator[Document]:
    """Read a corpus under a progress bar, on a terminal."""
    if not sys.stderr.isatty() or not corpus.size:
        yield from corpus
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"tokenizing {corpus.name}", total=corpus.size)
        for document in corpus:
            bar.update(task, completed=corpus.position)
            yield document


def _plain(found: list[Audit], reference: str | None) -> list[dict[str, Any]]:
    from fairway.tokenizers.fertility import to_json

    return [to_json(one, reference, found[0] if len(found) > 1 else None) for one in found]


def _print(found: list[Audit], reference: str | None, form: str) -> None:
    if form == "json":
        _dump({"tokenizers": _plain(found, reference)})
        return
    from rich.console import Console

    from fairway.render import tokenizers as render

    if form:
        make = render.audits_markdown if form == "md" else render.audits_csv
        typer.echo(make(found, reference), nl=False)
    else:
        render.audits(Console(), found, reference)


def _splits(
    paths: list[Path],
    names: list[str],
    allow: list[str],
    form: str,
    audits: list[dict[str, Any]] | None = None,
) -> None:
    """Split the differences of the runs' perplexities from the first run's."""
    from fairway import comparable
    from fairway.tokenizers import split

    if len(paths) < 2:
        raise InputError("--runs takes two run directories or more (from eval --out).")
    if form == "csv":
        raise InputError("Splits are printed on the terminal, with --md, or as --json.")
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    sides = [comparable.read(path, name) for path, name in zip(paths, names, strict=True)]
    first = sides[0]
    found, notes = [], []
    for side in sides[1:]:
        comparable.refuse(first, side, allow)
        comparable.match(first, side)
        notes += [w for w in comparable.warnings(first, side) if not w.startswith("tokenizers")]
        ours = {group.name: group.totals for group in first.report.groups}
        groups = {
            group.name: split(ours[group.name], group.totals)
            for group in side.report.groups
            if group.name in ours
        }
        found.append((split(first.report.totals, side.report.totals), groups))
    if form == "json":
        out = [
            {
                "run": side.name,
                "against": first.name,
                **whole.to_json(),
                "sentence": whole.sentence(first.name, side.name),
                "groups": {name: one.to_json() for name, one in groups.items()},
            }
            for side, (whole, groups) in zip(sides[1:], found, strict=True)
        ]
        made = {"splits": out, "notes": list(dict.fromkeys(notes))}
        _dump(made if audits is None else {"tokenizers": audits, **made})
        return
    from rich.console import Console

    from fairway.render import tokenizers as render

    if form:
        typer.echo(render.splits_markdown(sides, found), nl=False)
    else:
        render.splits(Console(), sides, found, list(dict.fromkeys(notes)))


def _marginals(
    names: list[str], text: str, samples: int, seed: int, loading: dict[str, Any], form: str
) -> None:
    """Estimate a text's bits over all its tokenizations with each model."""
    if form in ("md", "csv"):
        raise InputError("--marginal prints on the terminal or as --json.")
    from fairway.scorer import load
    from fairway.tokenizers import marginal

    found = [(name, marginal(load(name, **loading), text, samples, seed)) for name in names]
    if form:
        _dump({"marginals": [{"model": name, **one.to_json()} for name, one in found]})
        return
    from rich.console import Console

    from fairway.render import tokenizers as render

    render.marginals(Console(), found)


def _dump(value: Any) -> None:
    import json as writer

    typer.echo(writer.dumps(value, ensure_ascii=False, indent=2))
