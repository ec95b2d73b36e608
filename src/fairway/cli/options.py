"""Options that mean the same in every command."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fairway.errors import InputError

Adapter = Annotated[str | None, typer.Option(help="Folder of a PEFT adapter.")]
Arg = Annotated[
    list[str] | None,
    typer.Option(
        "--model-arg", metavar="KEY=VALUE", help="A setting of the kind of model; may be repeated."
    ),
]
Batch = Annotated[
    int | None,
    typer.Option("--batch-tokens", min=1, help="Tokens in a batch; as memory allows by default."),
]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or mps; cuda:0,cuda:1 takes a process for each.")
]
DeviceMap = Annotated[
    str | None, typer.Option(help="As transformers takes it, for a model larger than one device.")
]
Dtype = Annotated[str, typer.Option(help="auto (float32 on a CPU), float32, bfloat16 or float16.")]
Generated = Annotated[
    bool,
    typer.Option("--generated", help="openai: models: score what the server itself writes."),
]
Html = Annotated[str | None, typer.Option(metavar="FILE", help="Write a self-contained page.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print a LaTeX table.")]
Like = Annotated[
    str, typer.Option(help="Convention: fairway, hf-doc, lm-eval, ... (see: fairway list).")
]
MaxLength = Annotated[int | None, typer.Option(help="Tokens in a window, the prefix counted.")]
MaxRequests = Annotated[
    int | None, typer.Option(min=1, help="openai: models: stop after so many requests.")
]
Md = Annotated[bool, typer.Option("--md", help="Print a Markdown table.")]
Prefix = Annotated[str | None, typer.Option(help="auto, bos, eos or none.")]
Revision = Annotated[str | None, typer.Option(help="Commit, branch or tag on the hub.")]
Special = Annotated[
    str | None,
    typer.Option("--special-tokens", help="text: their spelling is data; parse: read them."),
]
Stride = Annotated[int | None, typer.Option(help="Tokens by which windows advance.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of the processor; all cores by default.")
]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that the checkpoint brings.")
]


def arguments(
    given: list[str] | None, generated: bool = False, max_requests: int | None = None
) -> dict[str, Any]:
    """Read ``KEY=VALUE`` settings: yes and no are booleans, numbers numbers, the rest text.

    Args:
        given: the pairs.
        generated: a setting that has an option of its own; here only where it is set.
        max_requests: likewise.

    Raises:
        InputError: for what is no such pair.
    """
    out: dict[str, Any] = {}
    if generated:
        out["generated"] = True
    if max_requests is not None:
        out["max_requests"] = max_requests
    for one in given or ():
        key, equals, value = one.partition("=")
        if not equals or not key.replace("-", "_").isidentifier():
            raise InputError(f"--model-arg takes KEY=VALUE, such as eos=no, and not {one!r}.")
        out[key.replace("-", "_")] = _value(value)
    return out


def _value(text: str) -> Any:
    words = {"yes": True, "true": True, "no": False, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
