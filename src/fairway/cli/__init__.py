"""The command line: one file per command; only typer is imported before one is chosen."""

from __future__ import annotations

import os
import sys

import typer

from fairway import __version__
from fairway.cli import (
    bundling,
    choosing,
    comparing,
    contexts,
    curving,
    evaluating,
    examining,
    listing,
    ngram_training,
    scoring,
    serving,
    showing,
    tokenizing,
)
from fairway.errors import FairwayError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="fairway",
    help="Perplexity you can compare: right, reproducible scores with units, error bars and a "
    "signature.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"fairway {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


app.command("score", rich_help_panel="Numbers")(scoring.score)
# What a shell made of an unquoted pattern gets a sentence of its own.
app.command("eval", rich_help_panel="Numbers", context_settings={"allow_extra_args": True})(
    evaluating.evaluate
)
app.command("compare", rich_help_panel="Numbers")(comparing.compare)
app.command("context", rich_help_panel="Numbers")(contexts.context)
app.command("show", rich_help_panel="Numbers")(showing.show)
app.command("choose", rich_help_panel="Numbers")(choosing.choose)
app.command("doctor", rich_help_panel="Models")(examining.doctor)
app.command("tokenizers", rich_help_panel="Models")(tokenizing.tokenizers)
app.command("list", rich_help_panel="Models")(listing.list_)
ngram = typer.Typer(help="Train n-gram models, and bundle them with all that they need.",
                    no_args_is_help=True)  # fmt: skip
ngram.command("train")(ngram_training.train)
ngram.command("bundle")(bundling.bundle)
app.add_typer(ngram, name="ngram", rich_help_panel="Models")
app.command("curve", rich_help_panel="Training")(curving.curve)
app.command("serve", rich_help_panel="Live")(serving.serve)


def main() -> None:
    """Run the command line; a user's mistake is one or two sentences and exit code 2."""
    try:
        app()
    except FairwayError as problem:
        print(f"fairway: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, SystemExit) as end:
        # Typer turns Ctrl-C into an exit of its own.
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        print(
            "fairway: interrupted; a run with --out continues with the same command.",
            file=sys.stderr,
        )
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output has gone; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
