"""Train the built-in model: seeded, resumable after a kill at any moment.

    python tools/builtin/train.py --scratch SCRATCH --run NAME --steps N

Reads SCRATCH/train.jsonl and SCRATCH/tokenizer; writes SCRATCH/NAME/checkpoint.pt every two minutes
(by an atomic rename) and log.jsonl. The same command goes on where the checkpoint is.
The batches are a pure function of the seed: a resumed run reads what an uninterrupted one reads.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from tokenizer import pieces
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

SEED = 20
CONTEXT = 512  # tokens in a training sequence, BOS included
BATCH = 8  # sequences
PEAK_RATE = 3e-3
WARMUP = 50  # steps
DECAY = 0.4  # last share of the steps, linear to zero
WEIGHT_DECAY = 0.1
CHECKPOINT_SECONDS = 120
BOS, EOS, LOST = 0, 1, 2
IGNORED = -100
# How often an epoch reads each source: the three domains of the held-out text come first.
REPEATS = {
    "wiki": 3.0,
    "licences": 3.0,
    "bronte": 0.8,
    "oz": 1.0,
    "legalbench": 0.7,
    "darwin": 0.4,
    "speeches": 0.4,
    "tinystories": 0.5,
}


def model_config(vocabulary):
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=None,
    )


def encode(tokenizer, text):
    """Ids of a training document: lost words become LOST, the end is EOS; no BOS."""
    ids = []
    for number, piece in enumerate(pieces(text)):
        if number:
            ids.append(LOST)
        ids += tokenizer.encode(piece, add_special_tokens=False).ids
    return np.array([*ids, EOS], dtype=np.int32)


def epoch_batches(documents, epoch):
    """The batches of one epoch: BOS + up to 511 tokens of one document, cut at an offset that
    changes with the epoch; batches hold sequences of similar length."""
    rng = np.random.default_rng((SEED, epoch))
    sequences = []
    for source, ids in documents:
        whole, part = divmod(REPEATS[source], 1)
        for repeat in range(int(whole) + (part > 0)):
            share = part if repeat == int(whole) else 1.0
            first = int(rng.integers(1, CONTEXT))
            cuts = [0, *range(first, len(ids), CONTEXT - 1), len(ids)]
            for a, b in zip(cuts, cuts[1:], strict=False):
                if b - a >= 16 and rng.random() < share:
                    sequences.append(ids[a:b])
    order = rng.permutation(len(sequences))
    batches = []
    for start in range(0, len(order), 16 * BATCH):
        block = sorted((sequences[i] for i in order[start : start + 16 * BATCH]), key=len)
        batches += [block[i : i + BATCH] for i in range(0, len(block), BATCH)]
    return [batches[i] for i in rng.permutation(len(batches))]


def batch_tensors(batch):
    """Return input ids and labels; padding is on the right, where causal attention ignores it."""
    width = 1 + max(map(len, batch))
    ids = np.full((len(batch), width), EOS, dtype=np.int64)
    labels = np.full_like(ids, IGNORED)
    for row, sequence in enumerate(batch):
        ids[row, 0] = BOS
        ids[row, 1 : 1 + len(sequence)] = sequence
        labels[row, 1 : 1 + len(sequence)] = np.where(sequence == LOST, IGNORED, sequence)
    return torch.from_numpy(ids), torch.from_numpy(labels)


def rate(step, steps):
    """Learning rate over its peak: warm-up, plateau, linear decay."""
    left = (steps - step) / (DECAY * steps)
    return min(1.0, (step + 1) / WARMUP, left)


def optimizers(model):
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(
        matrices, lr=PEAK_RATE, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
    )
    return muon, torch.optim.AdamW(rest, lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.0)


def save_checkpoint(path, model, parts, step, seconds):
    state = {"model": model.state_dict(), "step": step, "seconds": seconds}
    state["optimizers"] = [part.state_dict() for part in parts]
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, path)


def train(scratch, run, steps, dtype):
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    tokenizer = Tokenizer.from_file(str(scratch / "tokenizer" / "tokenizer.json"))
    with open(scratch / "train.jsonl", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    documents = [(row["source"], encode(tokenizer, row["text"])) for row in rows]
    model = LlamaForCausalLM(model_config(tokenizer.get_vocab_size()))
    model.train()
    parts = optimizers(model)
    folder = scratch / run
    folder.mkdir(exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    done, before = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for part, saved in zip(parts, state["optimizers"], strict=True):
            part.load_state_dict(saved)
        done, before = state["step"], state["seconds"]
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, from step {done}", flush=True
    )
    start = last = time.monotonic()
    step, epoch, total, tokens = 0, 0, 0.0, 0
    while step < steps:
        for batch in epoch_batches(documents, epoch):
            if step >= steps:
                break
            step += 1
            if step <= done:
                continue
            for part in parts:
                for group in part.param_groups:
                    group["lr"] = PEAK_RATE * rate(step - 1, steps)
            ids, labels = batch_tensors(batch)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for part in parts:
                part.step()
                part.zero_grad()
            total, tokens = total + loss.item(), tokens + ids.numel()
            now = time.monotonic()
            if step % 20 == 0:
                line = {"step": step, "epoch": epoch, "loss_nats_per_token": round(total / 20, 4)}
                line |= {"tokens_per_second": round(tokens / (now - start))}
                line |= {"seconds": round(before + now - start)}
                with open(folder / "log.jsonl", "a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
                total = 0.0
            if now - last > CHECKPOINT_SECONDS:
                save_checkpoint(checkpoint, model, parts, step, before + now - start)
                last = time.monotonic()
        epoch += 1
    save_checkpoint(checkpoint, model, parts, step, before + time.monotonic() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", required=True, type=Path)
    parser.add_argument("--run", required=True, help="name of the run's folder in SCRATCH")
    parser.add_argument("--steps", required=True, type=int)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    train(options.scratch, options.run, options.steps, options.dtype)


if __name__ == "__main__":
    main()
