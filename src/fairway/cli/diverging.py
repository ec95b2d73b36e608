"""``fairway compare --kld``: what variants of a model lose, in the table that people publish."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fairway.errors import InputError

if TYPE_CHECKING:
    from fairway.distributions import Distributions

DTYPES = ("float32", "bfloat16", "float16")


def diverge(
    models: list[str],
    data: str,
    limit: int | None,
    seed: int,
    form: tuple[bool, bool],
    loading: Mapping[str, Any],
    others: Mapping[str, Any],
) -> None:
    """Compare the distributions of models with those of the first.

    Args:
        models: names as ``--model`` takes them, each with ``:DTYPE`` or ``:SCHEME`` behind it where
            it has one of its own.
        data: as ``--data`` takes it.
        limit: the first so many documents.
        seed: of the sign flips.
        form: whether to print JSON, or Markdown.
        loading: options of `fairway.load`.
        others: options of ``compare`` that are for runs.

    Raises:
        InputError: when the options do not go together, or the models have no common vocabulary.
    """
    for name, value in others.items():
        if value:
            raise InputError(f"--kld walks models, and {name} is for runs; leave one of them away.")
    if len(models) < 2:
        raise InputError("--kld takes --model twice or more; the first is the measure.")
    if data == "-" and len(models) > 2:
        raise InputError("Standard input can be read once, for one variant; give a file.")
    from fairway.api import load
    from fairway.corpus import read
    from fairway.errors import ModelError
    from fairway.protocol import convention
    from fairway.variants import tabulate

    def loader(spec: str) -> Callable[[], Any]:
        name, last = dtype_of(spec)
        own = {} if last is None else {"dtype" if last in DTYPES else "quantize": last}
        return lambda: load(name, **{**loading, **own})

    names = [_name(spec) for spec in models]
    if len(set(names)) < len(names):
        names = models
    try:
        base = loader(models[0])()
    except ModelError as problem:
        raise ModelError(f"{names[0]}: {problem}") from None
    variants = [(name, loader(spec)) for name, spec in zip(names[1:], models[1:], strict=True)]
    with _bar() as progress:
        table = tabulate(
            (names[0], base),
            variants,
            lambda: read(data, limit=limit),
            convention(loading["like"]),
            seed=seed,
            progress=progress,
        )
    json, md = form
    if json:
        import json as encoder

        typer.echo(encoder.dumps(table.to_json(), indent=2))
        return
    from rich.console import Console

    from fairway.render import variants as render

    if md:
        typer.echo(render.markdown(table), nl=False)
    else:
        render.table(Console(), table)


def dtype_of(spec: str) -> tuple[str, str | None]:
    """Split ``MODEL:DTYPE`` and ``MODEL:SCHEME``, a scheme that quantises while loading.

    Without one of `DTYPES` or `SCHEMES` behind the last colon it is a name alone.
    """
    from fairway.backends.transformers.quantised import SCHEMES

    name, colon, last = spec.rpartition(":")
    if colon and name and (last in DTYPES or last in SCHEMES) and not Path(spec).exists():
        return name, last
    return spec, None


def _name(spec: str) -> str:
    """Call a model by its folder."""
    name, dtype = dtype_of(spec)
    return Path(name.rstrip("/")).name + (f":{dtype}" if dtype else "")


@contextmanager
def _bar() -> Iterator[Callable[[Distributions, float], None] | None]:
    """Show tokens and their rate on stderr, only on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = SpinnerColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("walking")
        started, tokens = time.monotonic(), 0

        def show(block: Distributions, _: float) -> None:
            nonlocal tokens
            tokens += len(block)
            rate = tokens / max(1e-9, time.monotonic() - started)
            progress.update(task, description=f"{tokens:,} tokens, {rate:,.0f} tokens/s")

        yield show
