"""The published recipes as plain loops over a model's own logits, one text, one window at a time.

They share no code with fairway: each follows its recipe's description line by line and sums
float64 log-probabilities of the model's logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch


class Result(NamedTuple):
    """What a recipe prints: perplexity, tokens scored, and its own error where it has one."""

    perplexity: float
    tokens: int
    error: float = math.nan


def dataset_rows(text: str) -> list[str]:
    """The rows of a WikiText file as the data set has them: blank lines are empty strings."""
    lines = text.split("\n")
    kept = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    return [line if line.strip() else "" for line in kept]


def next_logprobs(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """ln p of ids[1:], each given all before it."""
    with torch.no_grad():
        logits = model(torch.tensor([list(ids)]), use_cache=False).logits[0, :-1]
    table = torch.log_softmax(logits.double(), -1)
    return table.gather(1, torch.tensor(list(ids[1:]))[:, None])[:, 0]


def hf_doc(model: Any, tokenizer: Any, rows: Iterable[str], max_length: int, stride: int) -> Result:
    """The sliding window of transformers' perplexity page, each scored token weighted once."""
    ids = tokenizer("\n\n".join(rows), verbose=False)["input_ids"]
    nll, tokens, done = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + max_length, len(ids))
        fresh = end - done
        if end - begin > 1:
            values = next_logprobs(model, ids[begin:end])[-min(fresh, end - begin - 1) :]
            nll -= float(values.sum())
            tokens += len(values)
        done = end
        if end == len(ids):
            break
    return Result(math.exp(nll / tokens), tokens)


def hf_doc_as_published(
    model: Any, tokenizer: Any, rows: Iterable[str], max_length: int, stride: int
) -> Result:
    """The page's own accounting: transformers' loss of a window times its labels minus one."""
    ids = torch.tensor([tokenizer("\n\n".join(rows), verbose=False)["input_ids"]])
    length = ids.shape[1]
    total, weights, done = 0.0, 0, 0
    for begin in range(0, length, stride):
        end = min(begin + max_length, length)
        labels = ids[:, begin:end].clone()
        labels[:, : end - begin - (end - done)] = -100
        with torch.no_grad():
            loss = model(ids[:, begin:end], labels=labels).loss
        weight = int((labels != -100).sum()) - 1
        if weight:
            total += float(loss) * weight
            weights += weight
        done = end
        if end == length:
            break
    return Result(math.exp(total / weights), weights)


def gptq(model: Any, tokenizer: Any, rows: Iterable[str], length: int) -> Result:
    """The quantisation papers' loop: whole rows of tokens, the mean of their mean losses."""
    ids = tokenizer("\n\n".join(rows), verbose=False)["input_ids"]
    count = len(ids) // length
    sums = [
        float(-next_logprobs(model, ids[i * length : (i + 1) * length]).mean()) * length
        for i in range(count)
    ]
    return Result(math.exp(sum(sums) / (count * length)), count * (length - 1))


def llama_cpp(model: Any, tokenizer: Any, text: str, n_ctx: int) -> Result:
    """llama-perplexity: whole chunks, BOS over their first token, the second half scored.

    BOS is put there only where the tokenizer adds one, special tokens in the text are plain text,
    and a file's last newline is dropped; the error takes all scored tokens as independent.
    """
    text = text[:-1] if text.endswith("\n") else text
    plain = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
    adds = tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
    ids = [*([tokenizer.bos_token_id] if adds else []), *plain["input_ids"]]
    first = n_ctx // 2
    nll = squares = 0.0
    count = 0
    for chunk in range(len(ids) // n_ctx):
        piece = ids[chunk * n_ctx : (chunk + 1) * n_ctx]
        if adds:
            piece = [tokenizer.bos_token_id, *piece[1:]]
        values = next_logprobs(model, piece)[first:]
        nll -= float(values.sum())
        squares += float((values**2).sum())
        count += n_ctx - first - 1
    mean = nll / count
    spread = math.sqrt((squares / count - mean * mean) / (count - 1))
    return Result(math.exp(mean), count, math.exp(mean) * spread)


def paloma(model: Any, tokenizer: Any, texts: Iterable[str], length: int) -> Result:
    """Paloma's engine: EOS, then disjoint predictions; a last short part gets full context."""
    nll, tokens = 0.0, 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        stream = [tokenizer.eos_token_id, *ids]
        for begin in range(0, len(ids), length):
            end = min(begin + length, len(ids))
            # ids[k] is stream[k + 1]: `length` tokens are read, and the one after them predicted.
            start = max(0, end - length)
            values = next_logprobs(model, stream[start : end + 1])[-(end - begin) :]
            nll -= float(values.sum())
            tokens += end - begin
    return Result(math.exp(nll / tokens), tokens)
