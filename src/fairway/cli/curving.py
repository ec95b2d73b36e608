"""``fairway curve``: a training's checkpoints, the best of them, and what was forgotten."""

from __future__ import annotations

import signal
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairway.cli import options as o
from fairway.errors import InputError, ModelError, ProtocolError, RunError
from fairway.request import Request

if TYPE_CHECKING:
    from fairway.cache import ScoreCache
    from fairway.checkpoints import Checkpoint
    from fairway.comparable import Side
    from fairway.curve import Curve
    from fairway.ledger import Ledger

LEFT_OUT = 2
"""Exit code where a checkpoint could not be used, although the others were shown."""


def curve(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN|FOLDER]...", help="Run directories, or folders of them."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="In place of runs: 'DIR/checkpoint-*' (quoted) or MODEL@REV,REV."),
    ] = None,
    data: Annotated[str, typer.Option(help="What they are evaluated on.")] = "sample:all",
    group_by: Annotated[
        str | None, typer.Option(help="Field whose values are domains, with a curve each.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first N documents only.")] = None,
    like: o.Like = "fairway",
    prefix: o.Prefix = None,
    max_length: o.MaxLength = None,
    stride: o.Stride = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    threads: o.Threads = None,
    trust_remote_code: o.Trust = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of their runs; a rerun scores only what is new.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Let this key of the signatures differ; may be repeated."),
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0.1, help="Look for new checkpoints so often, until Ctrl-C."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curve: .png, .svg or .pdf.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sign flips and the bootstrap.")] = 0,
    json: o.Json = False,
    csv: o.Csv = False,
    md: o.Md = False,
    html: o.Html = None,
) -> None:
    """Follow a training over its checkpoints, with the best step and what the last forgot."""
    if plot is not None:
        from fairway.render.plot import check

        check(plot)
    show = Show((json, csv, md), plot, allow or [], seed, html)
    if runs and model:
        raise InputError(
            f"{runs[0]} is given beside --model. Put the pattern into quotes, so that the shell "
            "leaves it alone: --model 'DIR/checkpoint-*'."
        )
    if not model:
        if watch is not None:
            raise InputError("--watch looks for checkpoints: give --model 'DIR/checkpoint-*'.")
        show.curve(_read(runs or []), [])
        return
    if data == "-":
        raise InputError("Standard input can be read once only; give --data a file.")
    from fairway.cli.evaluating import READING

    loading = {
        "like": like, "prefix": prefix, "max_length": max_length, "stride": stride,
        "dtype": dtype, "device": device, "threads": threads,
        "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    for spec in model:
        if "://" in spec:
            raise InputError(
                f"{spec} is a server's model, and a curve is of checkpoints: folders, or revisions "
                "of a model. Evaluate it with fairway eval."
            )
    # As eval asks, so that both can go on with the same run directories.
    asked = Request("", data, loading, {**READING, "limit": limit}, group_by, seed=seed)
    with ExitStack() as stack:
        from fairway.cache import ScoreCache
        from fairway.ledger import Ledger

        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cache = ScoreCache()
        stack.callback(cache.close)
        work = Work(asked, model, Ledger(folder), cache)
        if watch is None:
            work.once()
        else:
            work.watch(watch, show)
        show.curve(list(work.found.values()), work.problems)


@dataclass(slots=True)
class Work:
    """The checkpoints that are asked for, and what was found of them.

    Attributes:
        asked: the request, less its model.
        specs: models as the user named them.
        ledger: of the folder of runs.
        cache: of scores.
        found: checkpoints with their numbers, by the name of the run.
        problems: name and reason of those that could not be scored.
    """

    asked: Request
    specs: list[str]
    ledger: Ledger
    cache: ScoreCache
    found: dict[str, tuple[Checkpoint, Side]] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    known: str | None = None

    def once(self) -> None:
        """Take or score every checkpoint; those that cannot be loaded are left out."""
        from fairway.checkpoints import expand, several

        wanted: dict[str, Checkpoint] = {}
        for spec in self.specs:
            self.gone(spec)
            for one in expand(spec, none=several(spec) and bool(self.found)):
                wanted[one.model] = one
        for one in wanted.values():
            self.add(one)

    def gone(self, spec: str) -> None:
        """Take the runs of checkpoints that the trainer has deleted since."""
        from fairway.curve import read

        for name, model in self.ledger.gone(spec, self.asked, self.digest):
            self.found[name] = read(self.ledger.folder / name, model)

    def add(self, checkpoint: Checkpoint) -> bool:
        """Take a checkpoint's run, or score it; whether that went well."""
        from fairway.curve import read

        name = self.name(checkpoint)
        try:
            self._score(name, replace(self.asked, model=checkpoint.model))
        except (ModelError, ProtocolError, RunError) as problem:
            # What is wrong with the data or the options is wrong for all, and not caught here.
            self.problems.append((checkpoint.name, str(problem)))
            return False
        self.found[name] = read(self.ledger.folder / name, checkpoint.model)
        return True

    def name(self, checkpoint: Checkpoint) -> str:
        """Give the name of a checkpoint's run directory."""
        from fairway.cli.evaluating import run_name

        return run_name(replace(self.asked, model=checkpoint.model))

    def digest(self) -> str:
        """Read the corpus once for its digest: text may have changed under the same name."""
        if self.known is None:
            corpus = self._corpus()
            for _ in corpus:
                pass
            self.known = corpus.digest
        return self.known

    def _corpus(self) -> Any:
        from fairway.corpus import read

        ask = self.asked
        return read(ask.data, seed=ask.seed, group_by=ask.group_by, **ask.read)

    def _score(self, name: str, request: Request) -> None:
        from fairway.api import load, perform
        from fairway.checkpoints import fingerprint
        from fairway.cli.evaluating import progress_bar

        if self.ledger.stands(name, request, self.digest):
            return
        files = fingerprint(request.model)
        scorer = load(request.model, **request.load)
        corpus = self._corpus()
        aside = self.ledger.make_room(name, request.settings(scorer, corpus), self.digest)
        if aside is not None:
            typer.echo(
                f"{name} was of other weights, text or settings: moved to {aside}, scored again",
                err=True,
            )
        self.ledger.note(name, request.model, files)
        with progress_bar() as bar:
            perform(
                request, scorer, corpus, out=self.ledger.folder / name, cache=self.cache,
                progress=bar,
            )  # fmt: skip

    def watch(self, seconds: float, show: Show) -> None:
        """Score checkpoints once their files are at rest, until Ctrl-C."""
        from fairway.checkpoints import expand, fingerprint, has_weights

        seen: dict[str, Any] = {}
        done: dict[str, Any] = {}
        asked: list[int] = []

        def stop(number: int, frame: Any) -> None:
            # Noted first: an exception is lost where it comes while an object is being deleted.
            asked.append(number)
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, stop)
        try:
            for spec in self.specs:
                self.gone(spec)
            while not asked:
                for one in [one for spec in self.specs for one in expand(spec, none=True)]:
                    files = fingerprint(one.model)
                    rests = seen.get(one.model, files) == files and one.model in seen
                    seen[one.model] = files
                    whole = files is None or (has_weights(files) and "config.json" in files)
                    if not rests or not whole or (one.model in done and done[one.model] == files):
                        continue
                    done[one.model] = files
                    self.problems = [item for item in self.problems if item[0] != one.name]
                    if self.add(one):
                        show.line(one, self.found[self.name(one)][1])
                        show.picture(list(self.found.values()))
                    else:
                        typer.echo(f"fairway: {one.name}: {self.problems[-1][1]}", err=True)
                time.sleep(seconds)
        except KeyboardInterrupt:
            typer.echo("", err=True)
        finally:
            signal.signal(signal.SIGINT, before)


@dataclass(frozen=True, slots=True)
class Show:
    """How a curve is shown.

    Attributes:
        form: whether as JSON, CSV or Markdown.
        plot: file of the picture.
        allow: keys of the signatures that may differ.
        seed: of the sign flips.
        html: file of the page.
    """

    form: tuple[bool, bool, bool]
    plot: Path | None
    allow: list[str]
    seed: int
    html: str | None = None

    def trace(self, found: list[tuple[Checkpoint, Side]]) -> Curve:
        """Test the checkpoints."""
        from fairway.curve import trace

        return trace(found, self.allow, seed=self.seed)

    def line(self, checkpoint: Checkpoint, side: Side) -> None:
        """Print a new checkpoint in one line."""
        from fairway.render.visible import plain
        from fairway.scores import named

        byte = named("bits_per_byte", side.report.perplexity)
        interval = side.report.intervals.get(byte)
        span = ""
        if interval is not None:
            span = f" ({interval.level:.0%} {interval.low:.4f} to {interval.high:.4f})"
        text = f"{plain(checkpoint.name)}: {side.bits_per_byte:.4f} {byte.replace('_', ' ')}{span}"
        typer.echo(text, err=any(self.form))

    def picture(self, found: list[tuple[Checkpoint, Side]]) -> None:
        """Draw what is there so far."""
        if self.plot is not None:
            from fairway.render.plot import draw

            draw(self.trace(found), self.plot)

    def curve(self, found: list[tuple[Checkpoint, Side]], problems: list[tuple[str, str]]) -> None:
        """Print a curve, then what was left out.

        Raises:
            InputError: when there is nothing to show.
            typer.Exit: when something was left out.
        """
        if not found and problems:
            raise InputError(f"No checkpoint could be scored. {problems[0][0]}: {problems[0][1]}")
        from fairway.render import curve as render

        drawn = self.trace(found)
        json, csv, md = self.form
        if json:
            import json as encoder

            left_out = [{"name": name, "reason": reason} for name, reason in problems]
            typer.echo(encoder.dumps({**drawn.to_json(), "left_out": left_out}, indent=2))
        elif csv:
            typer.echo(render.as_csv(drawn), nl=False)
        elif md:
            typer.echo(render.markdown(drawn), nl=False)
        else:
            from rich.console import Console

            render.curve(Console(), drawn)
        if self.plot is not None:
            from fairway.render.plot import draw

            draw(drawn, self.plot)
        if self.html is not None:
            from fairway.cli.scoring import write
            from fairway.render.curve_page import page

            write(self.html, page(drawn))
        for name, reason in problems:
            typer.echo(f"fairway: {name} is left out: {reason}", err=True)
        if problems:
            raise typer.Exit(LEFT_OUT)


def _read(given: list[Path]) -> list[tuple[Checkpoint, Side]]:
    """Read runs; a folder that is none itself gives the finished runs in it.

    Raises:
        InputError: when there is none.
    """
    from fairway.curve import read
    from fairway.run import REPORT, SETTINGS

    if not given:
        raise InputError(
            "Give the runs of a training's checkpoints (from eval --out), or --model "
            "'DIR/checkpoint-*' and --data."
        )
    out = []
    for path in given:
        inner = [] if (path / SETTINGS).exists() else sorted(path.glob(f"*/{SETTINGS}"))
        models = [*path.glob("config.json"), *path.glob("*/config.json")]
        if models and not inner and not (path / SETTINGS).exists():
            raise InputError(
                f"{path} holds models and no runs; give them as --model 'DIR/checkpoint-*', in "
                "quotes."
            )
        finished = [one.parent for one in inner if (one.parent / REPORT).exists()]
        for one in inner:
            if one.parent not in finished:
                typer.echo(f"note: {one.parent} is unfinished and left out", err=True)
        out += [read(one) for one in finished or [path]]
    return out
