"""``fairway compare``: is a run, or a model, really better than another."""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairway.cli import options as o
from fairway.errors import InputError

if TYPE_CHECKING:
    from fairway.comparable import Side
    from fairway.comparison import Comparison

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
    seed: Annotated[int, typer.Option(help="Of the sign flips.")] = 0,
    kld: Annotated[
        bool,
        typer.Option("--kld", help="Whole distributions of variants against the first --model."),
    ] = False,
    json: o.Json = False,
    md: o.Md = False,
) -> None:
    """Compare runs or models document by document, whatever their tokenizers."""
    if kld:
        from fairway.cli.diverging import diverge

        diverge(
            model or [], data, limit, seed, (json, md),
            {"like": like, "prefix": prefix, "max_length": max_length, "stride": stride,
             "dtype": dtype, "device": device, "threads": threads},
            {"RUN": runs, "--group-by": group_by, "--out": out, "--allow": allow,
             "--fail-on": fail_on},
        )  # fmt: skip
        return
    most = limit_of(fail_on)
    if runs and model:
        raise InputError("Give run directories, or --model twice or more, and not both.")
    from fairway import comparison as comparing
    from fairway.comparable import read

    with ExitStack() as stack:
        if model:
            if len(model) < 2:
                raise InputError("One --model has nothing to be compared with; give another.")
            from fairway.cli.evaluating import run_models

            folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            loading = {
                "like": like, "prefix": prefix, "max_length": max_length, "stride": stride,
                "dtype": dtype, "device": device, "threads": threads,
            }  # fmt: skip
            named = run_models(model, data, loading, {"limit": limit}, group_by, folder)
            sides = [read(path, name) for path, name in named]
        else:
            if not runs or len(runs) < 2:
                raise InputError(
                    "A comparison takes two run directories or more (from eval --out), or --model "
                    "twice or more."
                )
            sides = [read(path, name) for path, name in zip(runs, _names(runs), strict=True)]
        found = [comparing.compare(sides[0], side, allow or (), seed=seed) for side in sides[1:]]
        _print(sides, found, allow or [], seed, json, md)
    worse = [
        one for one in found if one.verdict == "worse" and most is not None
        and one.byte.relative > most
    ]  # fmt: skip
    if worse:
        typer.echo(f"fairway: {worse[0].sentence()}", err=True)
        raise typer.Exit(WORSE)


def _print(
    sides: list[Side], found: list[Comparison], allow: list[str], seed: int, json: bool, md: bool
) -> None:
    from fairway import comparison as comparing

    if json:
        import json as encoder

        plain = [one.to_json() for one in found]
        typer.echo(encoder.dumps(plain if len(plain) > 1 else plain[0], indent=2))
        return
    from rich.console import Console

    from fairway.render import comparison as render

    if md:
        typer.echo(render.markdown(found), nl=False)
        return
    console = Console()
    for one in found:
        render.comparison(console, one)
        console.print()
    if len(sides) > 2:
        render.ranking(console, comparing.rank(sides, allow, seed=seed))


def _names(paths: list[Path]) -> list[str]:
    """Call runs by their folder, and by their path where two folders are called alike."""
    short = [path.name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


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
