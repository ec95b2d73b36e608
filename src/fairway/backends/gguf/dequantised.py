"""A GGUF file read by transformers: its weights, dequantised, in the engine of ``hf:``."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stderr
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairway import hashes
from fairway.backends.gguf import files, header
from fairway.backends.gguf.header import Header
from fairway.errors import FairwayError, InputError, MissingExtra, ModelError

if TYPE_CHECKING:
    from fairway.backends.transformers.scoring import TransformersScorer

TRIED = (
    "a", "Hello there.", " lead", "  two  blanks", "trail  ", "\n\n lines\r\n\t", "1234567 3.14",
    "don't WON'T", "\u65e5\u672c\u8a9e", "e\u0301 \u00e9", "\U0001f999\u200d", "\u00a0\u3000",
    "</s>", "\u2581x",
)  # fmt: skip
"""Texts on which tokenizers of one vocabulary part company."""


def load(name: str, dtype: str, device: str, **options: Any) -> TransformersScorer:
    """Load a GGUF file as a model of transformers.

    Args:
        name: the file.
        dtype: of the dequantised weights: auto (float32), float32, bfloat16, float16.
        device: auto, cpu, cuda or mps.
        options: of the convention and the engine, as the kind ``hf`` takes them.

    Raises:
        InputError: for a setting that there is none of.
        MissingExtra: when torch, transformers or gguf are not installed.
        ModelError: when the file is damaged, or transformers does not know the architecture.
    """
    try:
        import gguf  # noqa: F401
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging as hf_logging
    except ImportError:
        raise MissingExtra("Reading a GGUF file with transformers", "hf,gguf") from None
    from fairway.backends import transformers as engine
    from fairway.backends.transformers import loading

    parts = files.find(name)
    path = parts[0]
    if len(parts) > 1:
        raise ModelError(f"transformers reads no model in parts; join those of {path.name} first.")
    read = header.read(path)
    read.refuse(path.name)
    if dtype != "auto" and dtype not in loading.DTYPES:
        raise InputError(f"{dtype!r} is no dtype; use auto, {', '.join(loading.DTYPES)}.")
    where = {"gguf_file": path.name, "local_files_only": True}
    before = hf_logging.get_verbosity()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        # Its progress bar knows no setting.
        with redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(
                str(path.parent), dtype=loading.DTYPES.get(dtype, torch.float32), **where
            )
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **where)
        mend(tokenizer, read)
        model = model.to(loading.choose_device(device))
    except FairwayError:
        raise
    except Exception as problem:  # transformers raises every kind of error here
        reason = " ".join(str(problem).split())[:240] or type(problem).__name__
        raise ModelError(f"transformers cannot read {path.name}: {reason}") from problem
    finally:
        hf_logging.set_verbosity(before)
        hf_logging.enable_progress_bar()
    kind = read.main_type()
    scorer = _named(engine.load(model, tokenizer=tokenizer, **options))
    scorer.loaded = replace(
        scorer.loaded,
        name=files.called(path),
        weights=hashes.file_hash([path]),
        quant=None if kind in header.FLOATS else f"gguf-{kind}-dequantised",
    )
    other = differences(scorer.loaded.tokenizer, path) if find_spec("llama_cpp") else []
    if other:
        scorer.notes.append(
            f"transformers makes other tokens of this file than llama.cpp does, of {len(other)} of "
            f"{len(TRIED)} texts tried, such as {other[0]!r}: expect another number"
        )
    return scorer


def mend(tokenizer: Any, read: Header) -> None:
    """Let a SentencePiece tokenizer put a blank before every text, as llama.cpp does.

    transformers (5.23) leaves it away where the text begins with a blank.
    """
    if read.fields.get("tokenizer.ggml.model") != "llama":
        return
    if not read.fields.get("tokenizer.ggml.add_space_prefix", True):
        return
    from tokenizers import normalizers

    core = tokenizer.backend_tokenizer
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    core.pre_tokenizer = None


def differences(tokenizer: Any, path: Path) -> list[str]:
    """Give the texts, of those tried, that llama.cpp cuts into other tokens."""
    from fairway.backends.gguf import loading
    from fairway.backends.gguf.tokens import Tokenizer
    from fairway.backends.transformers import encode

    own = Tokenizer.of(loading.load(str(path), "cpu"))
    found = encode.encode_many(tokenizer, TRIED)
    return [
        text
        for text, one in zip(TRIED, found, strict=True)
        if own.encode_text(text).ids.tolist() != one.ids.tolist()
    ]


def _named(scorer: TransformersScorer) -> TransformersScorer:
    """Let a scorer's signature say what it is."""
    from fairway.backends.transformers.scoring import TransformersScorer
    from fairway.signature import Signature

    class Dequantised(TransformersScorer):
        """The engine of ``hf:`` with a GGUF file's weights."""

        __slots__ = ()

        @property
        def signature(self) -> Signature:
            plain = TransformersScorer.signature.fget(self)  # type: ignore[attr-defined]
            named: Signature = plain.with_(kind="gguf", engine="transformers")
            return named

    return Dequantised(
        **{one.name: getattr(scorer, one.name) for one in fields(scorer) if one.init}
    )
