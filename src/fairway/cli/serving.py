"""``fairway serve``: log-probabilities and a page over HTTP."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fairway.cli import options as o
from fairway.errors import InputError, MissingExtra

TOKEN = "FAIRWAY_TOKEN"
"""Environment variable with the token that requests must bring."""
KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}
"""How many compiled kernels oneDNN and torch's layer over it keep. Each number of tokens in a batch
has its own, and of the 1,024 that they keep by default hardly one is used again: hundreds of MB."""


def serve(
    model: Annotated[
        list[str] | None, typer.Option(help="KIND:NAME, a hub id or a folder; may be repeated.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="What requests call a model; once for each --model, in their order."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to bind to; one that others reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the token that requests must bring, else {TOKEN}."),
    ] = None,
    max_body: Annotated[int, typer.Option(min=1, metavar="BYTES", help="Largest request.")] = 10
    << 20,
    max_text: Annotated[
        int, typer.Option(min=1, metavar="CHARACTERS", help="Most text in a request.")
    ] = 4 << 20,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Requests at a time; further ones get 429.")
    ] = 256,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens that are written in answer to a request.")
    ] = 4096,
    farewell: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Time of running requests at the stop.")
    ] = 30.0,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name by which it may be called; may be repeated."),
    ] = None,
    runs: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Folder whose run directories it opens.")
    ] = None,
    like: o.Like = "fairway",
    prefix: o.Prefix = None,
    max_length: o.MaxLength = None,
    stride: o.Stride = None,
    special_tokens: o.Special = None,
    adapter: o.Adapter = None,
    revision: o.Revision = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    device_map: o.DeviceMap = None,
    batch_tokens: o.Batch = None,
    threads: o.Threads = None,
    trust_remote_code: o.Trust = False,
    model_arg: o.Arg = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:RATE]",
            help="Misbehave on purpose, to test clients (docs/server-defects.md); may be repeated.",
        ),
    ] = None,
) -> None:
    """Serve models: scoring, OpenAI's completions with right log-probabilities, and a page."""
    try:
        from fairway.serve import app, faults, running
        from fairway.serve.gate import callers
        from fairway.serve.rundirs import catalogue
        from fairway.serve.settings import Limits, Settings
    except ImportError:
        raise MissingExtra("Serving", "serve") from None
    from fairway import api, scorer
    from fairway.render.visible import plain

    for key, value in KERNELS.items():
        os.environ.setdefault(key, value)
    specs = model or ["hf:builtin"]
    if name and len(name) != len(specs):
        raise InputError(
            f"--name is given {len(name)} times for {len(specs)} models; give one to each."
        )
    if not name and len(set(specs)) < len(specs):
        raise InputError("A model is given twice; name each once, or give each a --name.")
    limits = Limits(
        body=max_body, text=max_text, waiting=max_waiting, tokens=max_tokens, farewell=farewell
    )
    if runs is not None:
        catalogue.check(runs)
    settings = Settings(host, port, _token(token_file), tuple(allow_host or ()), runs, limits)
    with running.bind(settings) as sock:
        # Before models are loaded, which takes longer.
        callers.check(settings)
        models: dict[str, tuple[str, scorer.Scorer]] = {}
        for place, spec in enumerate(specs):
            kind, _ = scorer.split(spec)
            loaded = api.load(
                spec, like=like, prefix=prefix, max_length=max_length, stride=stride,
                special_tokens=special_tokens, adapter=adapter, revision=revision, dtype=dtype,
                device=device, device_map=device_map, batch_tokens=batch_tokens, threads=threads,
                trust_remote_code=trust_remote_code, **o.arguments(model_arg),
            )  # fmt: skip
            called = name[place] if name else loaded.signature.get("model") or spec
            if called in models and not name:
                called = spec
            if called in models:
                raise InputError(f"Two models are called {called}; give each a --name.")
            models[called] = kind, loaded
        built = app.build(models, settings)

        def say(url: str) -> None:
            names = ", ".join(plain(one) for one in models)
            print(f"fairway: serving {names} at {url} (Ctrl-C stops)", file=sys.stderr, flush=True)

        running.run(faults.around(built, fault or ()), settings, sock, say)
    if any(one.lane.busy for one in built.state.fairway.models.values()):
        # A batch whose requests are given up runs on in its thread, and would be waited for.
        sys.stderr.flush()
        os._exit(0)


def _token(file: Path | None) -> str | None:
    """Read the token from a file, else from the environment.

    Raises:
        InputError: when the file cannot be read or is empty.
    """
    if file is None:
        return os.environ.get(TOKEN, "").strip() or None
    try:
        found = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"--token-file: {file} cannot be read ({problem}).") from None
    if not found:
        raise InputError(f"--token-file: {file} is empty; write a long random word into it.")
    return found
