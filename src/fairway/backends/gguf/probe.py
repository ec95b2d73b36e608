"""Load a GGUF file and read a few tokens with it, as a process of its own that may die.

    python -P probe.py FILE

A damaged file can end the process that loads it. This one is run first, on any file that was not
seen before. The last line of its standard output is ``ok`` or a reason where it ends with 0; where
it does not, it is what it was about. It is run as a file, so that it needs nothing of fairway.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys

POINTS = (*range(1, 0x800), *range(0x800, 0xD800, 97), *range(0xE000, 0x110000, 997))
"""Characters with every byte that UTF-8 has, and enough of them that a vocabulary lacks some: a
tokenizer that has no token for one of the bytes ends the process that asks it."""


def main(path: str) -> str:
    """Try a file; give ``ok`` or the reason why it cannot be used."""
    import llama_cpp as api

    lines: list[bytes] = []
    say("while it loads it")
    collect = api.llama_log_callback(lambda level, text, _: lines.append(text))
    api.llama_log_set(collect, ctypes.c_void_p(0))
    settings = api.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = api.llama_model_load_from_file(os.fsencode(path), settings)
    if not model:
        return reason(lines)
    vocabulary = api.llama_model_get_vocab(model)
    size = api.llama_vocab_n_tokens(vocabulary)
    if api.llama_model_has_encoder(model) or not size:
        return "ok"
    say("while it tokenizes; its tokenizer lacks tokens for some bytes, perhaps")
    text = "Ab 1.\0" + "".join(map(chr, POINTS)) + "\U0001f999"
    raw = text.encode()
    room = 4 * len(raw)
    ids = (ctypes.c_int32 * room)()
    count = api.llama_tokenize(vocabulary, raw, len(raw), ids, room, True, True)
    if not 0 < count <= room:
        return "its tokenizer makes no tokens of a text"
    piece = ctypes.create_string_buffer(256)
    for token in range(size):
        api.llama_token_to_piece(vocabulary, token, piece, len(piece), 0, True)
    say("while it reads tokens")
    options = api.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = 256
    options.n_threads = options.n_threads_batch = 1
    options.type_k = options.type_v = api.GGML_TYPE_F32
    context = api.llama_init_from_model(model, options)
    if not context:
        return reason(lines)
    count = min(count, 200)
    if api.llama_decode(context, api.llama_batch_get_one(ids, count)):
        return reason(lines)
    logits = api.llama_get_logits_ith(context, -1)
    if not logits or not all(math.isfinite(logits[token]) for token in range(size)):
        return "its logits are not numbers"
    return "ok"


def say(stage: str) -> None:
    """Tell on standard output what comes next, in case it is the last thing."""
    sys.stdout.write(stage + "\n")
    sys.stdout.flush()


def reason(lines: list[bytes]) -> str:
    """Give the last line of the log that says what failed."""
    text = b"".join(lines).decode("utf-8", "replace").splitlines()
    named = [line for line in text if "error" in line or "failed" in line or "invalid" in line]
    first = named[0] if named else (text[-1] if text else "no reason is given")
    return first.strip()[:400]


if __name__ == "__main__":
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass  # no core files to avoid here
    said = main(sys.argv[1])
    sys.stdout.write(said)
    sys.stdout.flush()
    # What is left is freed with the process.
    os._exit(0)
