"""Options that mean the same in every command."""

from __future__ import annotations

from typing import Annotated

import typer

Adapter = Annotated[str | None, typer.Option(help="Folder of a PEFT adapter.")]
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
Html = Annotated[str | None, typer.Option(metavar="FILE", help="Write a self-contained page.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print a LaTeX table.")]
Like = Annotated[
    str, typer.Option(help="Convention: fairway, hf-doc, lm-eval, ... (see: fairway list).")
]
MaxLength = Annotated[int | None, typer.Option(help="Tokens in a window, the prefix counted.")]
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
