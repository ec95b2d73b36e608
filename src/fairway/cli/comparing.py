"""``fairway compare``: is a run, or a model, really better than another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairway.cli import options as o
from fairway.errors import InputError

if TYPE_CHECKING:
    from fairway.comparable import Side
    from fairway.comparison import Comparison
    from fairway.where import Where

WORSE = 1
"""Exit code where ``--fail-on`` applies."""


def compare(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Run directories or other tools' logs, the first is the measure.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="In place of runs: models, the first is the measure; repeat it."),
    ] = None,
    data: Annotated[str, typer.Option(help="What the models are evaluated on.")] = "sample:all",
    group_by: Annotated[
        str | None, typer.Option(help="Field whose values get a comparison each.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first N documents only.")] = None,
    like: o.Like = "fairway",
    prefix: o.Prefix = None,
    max_length: o.MaxLength = None,
    stride: o.Stride = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    threads: o.Threads = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the models' runs.")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Let this key of the signatures differ; may be repeated."),
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="worse[:X%]",
            help="Exit with 1 when a later run is worse than the first (by more than X% of bits).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and the sign flips.")] = 0,
    correct: Annotated[
        str, typer.Option(help="Correct the groups' p values: holm, or bh (Benjamini-Hochberg).")
    ] = "holm",
    fair: Annotated[
        bool, typer.Option("--fair", help="Give all models the same bytes of context.")
    ] = False,
    template: Annotated[
        list[str] | None,
        typer.Option(help="One --model under several prompts that end with {text}; repeat it."),
    ] = None,
    where: Annotated[
        bool, typer.Option("--where", help="Show in which kinds of text and spans they differ.")
    ] = False,
    kld: Annotated[
        bool,
        typer.Option("--kld", help="Whole distributions of variants against the first --model."),
    ] = False,
    model_arg: o.Arg = None,
    json: o.Json = False,
    md: o.Md = False,
    csv: o.Csv = False,
    latex: o.Latex = False,
    html: o.Html = None,
) -> None:
    """Compare runs or models document by document, whatever their tokenizers."""
    loading = {
        "like": like, "prefix": prefix, "max_length": max_length, "stride": stride,
        "dtype": dtype, "device": device, "threads": threads, **o.arguments(model_arg),
    }  # fmt: skip
    if kld:
        from fairway.cli.diverging import diverge

        diverge(
            model or [], data, limit, seed, (json, md), loading,
            {"RUN": runs, "--group-by": group_by, "--out": out, "--allow": allow,
             "--fail-on": fail_on, "--fair": fair, "--template": template, "--where": where,
             "--csv": csv, "--latex": latex, "--html": html},
        )  # fmt: skip
        return
    most = limit_of(fail_on)
    _agree(runs or [], model or [], template or [], fair)
    from fairway import comparison as comparing
    from fairway.cli import sides as made

    if correct not in comparing.CORRECTIONS:
        raise InputError(f"--correct {correct!r} is neither holm nor bh (Benjamini-Hochberg).")
    reading = {"limit": limit}
    keep = where or html is not None
    passed = list(allow or ())
    if template:
        sides = made.of_templates(
            (model or ["hf:builtin"])[0], template, data, loading, reading, group_by, keep, out
        )
        passed += made.TEMPLATED
    elif model:
        of = made.of_fair if fair else made.of_models
        sides = of(model, data, loading, reading, group_by, keep, out)
    else:
        sides = made.of_runs(runs or [])
    found = [
        comparing.compare(sides[0], side, passed, seed=seed, correction=correct)
        for side in sides[1:]
    ]
    if template:
        # What differs by the templates' nature is what was asked for, and nothing let pass.
        found = [
            replace(one, allowed={k: v for k, v in one.allowed.items() if k in (allow or ())})
            for one in found
        ]
    located = _locate(sides, found, where, seed) if keep else [None] * len(found)
    shown = located if where else [None] * len(found)
    if csv or latex:
        from fairway.render import comparison as render

        typer.echo(render.as_csv(found) if csv else render.latex(found), nl=False)
    else:
        _print(sides, found, shown, passed, seed, json, md)
    if html:
        from fairway.cli.scoring import write
        from fairway.render.verdict import page

        # Last, so that a file that cannot be written does not hide the verdict.
        write(html, page(list(zip(found, located, strict=True))))
    worse = [
        one for one in found if one.verdict == "worse" and most is not None
        and one.byte.relative > most
    ]  # fmt: skip
    if worse:
        typer.echo(f"fairway: {worse[0].sentence()}", err=True)
        raise typer.Exit(WORSE)


def _agree(runs: list[Path], models: list[str], templates: list[str], fair: bool) -> None:
    """Refuse what does not go together.

    Raises:
        InputError: naming what is wrong.
    """
    if runs and (models or templates):
        raise InputError("Give run directories, or --model twice or more, and not both.")
    if templates:
        if len(templates) < 2:
            raise InputError("One --template has nothing to be compared with; give another.")
        if len(models) > 1 or fair:
            raise InputError("Templates are compared under one --model, without --fair.")
        return
    if fair and not models:
        raise InputError("--fair evaluates models anew: give --model twice or more.")
    if len(models) == 1:
        raise InputError("One --model has nothing to be compared with; give another.")
    if not models and len(runs) < 2:
        raise InputError(
            "A comparison takes two run directories or more (from eval --out), or --model twice or "
            "more."
        )


def _locate(
    sides: list[Side], found: list[Comparison], asked: bool, seed: int
) -> list[Where | None]:
    """Say where the runs differ; runs that kept no tokens go without, unless it was asked for."""
    from fairway.where import locate

    out: list[Where | None] = []
    for one in found:
        kept = all(any(r.entry for r in side.records) for side in (one.first, one.second))
        out.append(locate(one.first, one.second, seed=seed) if kept or asked else None)
    return out


def _print(
    sides: list[Side],
    found: list[Comparison],
    located: Sequence[Where | None],
    allow: list[str],
    seed: int,
    json: bool,
    md: bool,
) -> None:
    from fairway import comparison as comparing

    if json:
        import json as encoder

        plain = [
            {**one.to_json(), **({"where": place.to_json()} if place else {})}
            for one, place in zip(found, located, strict=True)
        ]
        typer.echo(encoder.dumps(plain if len(plain) > 1 else plain[0], indent=2))
        return
    from rich.console import Console

    from fairway.render import comparison as render
    from fairway.render.where import where

    if md:
        typer.echo(render.markdown(found), nl=False)
        return
    console = Console()
    for one, place in zip(found, located, strict=True):
        render.comparison(console, one)
        console.print()
        if place is not None:
            where(console, place, one.first.name, one.second.name)
            console.print()
    if len(sides) > 2:
        render.ranking(console, comparing.rank(sides, allow, seed=seed))


def limit_of(text: str | None) -> float | None:
    """Read ``worse`` or ``worse:1.5%`` as the largest share of additional bits that is let pass.

    Raises:
        InputError: when it is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"worse(?::([0-9]*\.?[0-9]+)(%?))?", text.strip())
    if match is None:
        raise InputError(f"--fail-on {text!r} is neither worse nor worse:X%, such as worse:0.5%.")
    if match.group(1) is None:
        return 0.0
    return float(match.group(1)) / (100 if match.group(2) else 1)
