"""List the causal language models of transformers whose attention cannot be replaced.

    python tools/packable.py

Those are scored in padded batches sorted by length in place of packed rows; docs/engine.md has the
list. What a class says of itself is read here; every model that is loaded is probed besides.
"""

from __future__ import annotations

import importlib
import warnings

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES


def main() -> None:
    """Print the model types, those that can be packed counted."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    packable, padded, absent = [], [], []
    for kind, names in NAMES.items():
        name = names if isinstance(names, str) else names[0]
        try:
            found = getattr(transformers, name)
            importlib.import_module(found.__module__)
            usable = bool(getattr(found, "_supports_attention_backend", False))
        except Exception as problem:  # some models need packages of their own to be imported
            absent.append(f"{kind} ({type(problem).__name__})")
            continue
        (packable if usable else padded).append(kind)
    print(f"transformers {transformers.__version__}: {len(packable)} kinds can be packed")
    print(f"{len(padded)} cannot: {', '.join(sorted(padded))}")
    if absent:
        print(f"{len(absent)} could not be imported: {', '.join(sorted(absent))}")


if __name__ == "__main__":
    main()
