"""Write the trained model as the folder that the package ships.

    python tools/builtin/export.py --scratch SCRATCH --run NAME --out src/fairway/data/models/mini

Weights are float16: half the size, and their rounding moves bits per byte by less than 0.001,
which evaluate.py measures against the unrounded checkpoint.
"""

import argparse
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from train import model_config
from transformers import LlamaForCausalLM
from transformers.utils import logging


def load(scratch, run):
    """Load a checkpoint in float32; returns the model and the number of its steps."""
    tokenizer = Tokenizer.from_file(str(scratch / "tokenizer" / "tokenizer.json"))
    model = LlamaForCausalLM(model_config(tokenizer.get_vocab_size()))
    state = torch.load(scratch / run / "checkpoint.pt", weights_only=True)
    model.load_state_dict(state["model"])
    return model.eval(), state["step"]


def export(scratch, run, out):
    """Write model.safetensors, the configuration and the tokenizer into a folder."""
    model, steps = load(scratch, run)
    logging.disable_progress_bar()
    model.to(torch.float16).save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(scratch / "tokenizer" / name, out / name)
    for path in out.iterdir():
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
    print(f"{size:,} bytes in {out}, trained for {steps} steps")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", required=True, type=Path)
    parser.add_argument("--run", required=True, help="name of the run's folder in SCRATCH")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    export(options.scratch, options.run, options.out)


if __name__ == "__main__":
    main()
