"""Train the built-in model's tokenizer: byte-level BPE, lossless for every string.

    python tools/builtin/tokenizer.py --text SCRATCH/train.jsonl --out SCRATCH/tokenizer

All 256 bytes are in the vocabulary, so nothing is unknown; no normaliser and no added prefix space,
so decode(encode(s)) == s and offsets point into s. Digits are separate tokens.
"""

import argparse
import json
import os
import re
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCABULARY = 3072  # tokens, the three special ones and 256 bytes included
# Ids 0, 1, 2; <unk> only stands for WikiText's lost words in training.
SPECIAL = ("<s>", "</s>", "<unk>")


def pieces(text):
    """Split training text at the marker of lost words; a space before the marker goes with it."""
    return re.split(r" ?<unk>", text)


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        (piece for text in texts for piece in pieces(text)),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return tokenizer


def save(tokenizer, folder):
    """Write a folder that AutoTokenizer loads offline. Text that looks like a special token stays
    text (split_special_tokens), so that the round trip holds for it, too."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings, indent=2) + "\n", encoding="utf-8"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    with open(options.text, encoding="utf-8") as lines:
        tokenizer = train_tokenizer([json.loads(line)["text"] for line in lines])
    save(tokenizer, options.out)
    print(f"{tokenizer.get_vocab_size()} tokens in {options.out}")


if __name__ == "__main__":
    main()
