"""From hidden states of scored rows to log-probabilities, in tiles of the vocabulary.

A tile holds ``weight[v : v + size] @ hidden.T``, a stretch of the vocabulary against some rows,
small enough to stay in the processor's cache; what is summed of it goes into a running
log-sum-exp. The ``(tokens, vocabulary)`` tensor never exists.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from fairway.backends.transformers.tree import rounded
from fairway.errors import InputError

ROWS = {"cpu": 512, "cuda": 4096}
"""Rows of hidden states that are scored together."""
TILE_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}
"""Float32 logits held at a time: on a CPU what its caches hold."""
FULL = (torch.float32, torch.float64)
"""Where a tile is as exact as the target's logit by itself; in half precision it is not."""
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Names under which architectures keep the height to which logits are squeezed."""
NAMES = re.compile(r"logprob|entropy|rank|boundary|top(\d*)")


@dataclass(frozen=True, slots=True)
class Head:
    """What a model does between its last hidden state and its logits.

    Attributes:
        module: the output embedding, bias included.
        scale: logits are multiplied by it.
        cap: logits are squeezed to ``cap * tanh(logits / cap)``; 0 = not.
        vocabulary: logits computed for each row.
    """

    module: Any
    scale: float
    cap: float
    vocabulary: int


def find(model: Any) -> Head | None:
    """Read a model's head from its configuration; None where it has none of the usual form."""
    module = model.get_output_embeddings()
    if module is None or not _usual(getattr(module, "weight", None)):
        return None
    config = model.config.get_text_config()
    scale = 1.0
    if getattr(config, "logits_scaling", None):
        scale /= float(config.logits_scaling)
    if getattr(config, "logit_scale", None):
        scale *= float(config.logit_scale)
    if getattr(config, "lm_head_multiplier", None):
        scale *= float(config.lm_head_multiplier)
    cap = next((float(getattr(config, key)) for key in CAPS if getattr(config, key, None)), 0.0)
    return Head(module, scale, cap, int(module.weight.shape[0]))


def _usual(weight: Any) -> bool:
    """Whether rows can be taken of weights; quantised ones are packed, or have their own class."""
    return (
        type(weight) in (torch.Tensor, torch.nn.Parameter)
        and weight.ndim == 2
        and weight.dtype in (*FULL, torch.bfloat16, torch.float16)
    )


def tops(want: Collection[str]) -> dict[str, int]:
    """Of what is wanted, the most likely tokens: ``top`` is one of them, ``top5`` are five."""
    found = {name: NAMES.fullmatch(name) for name in want if name.startswith("top")}
    return {name: int(match.group(1) or 1) for name, match in found.items() if match}


def check(want: Collection[str]) -> None:
    """Refuse a column that a model without marks of words has not.

    Raises:
        InputError: for one.
    """
    for name in want:
        match = NAMES.fullmatch(name)
        if name == "boundary":
            raise InputError(
                "This kind of model gives no probability that a word ends, so that of a word is "
                "the plain sum of its tokens': pass --uncorrected."
            )
        if not match or match.group(1) == "0":
            raise InputError(f"There is no column {name!r}; want takes entropy, rank, top, top5.")


def score_rows(
    head: Head,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    want: Collection[str],
    sets: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Score ``(rows, width)`` hidden states against ``(rows,)`` target ids.

    Args:
        head: the model's.
        hidden: what goes into it.
        targets: the tokens that were there.
        want: names of further columns.
        sets: ``(k, vocabulary)`` booleans: sets of tokens, for ``boundary``.

    Returns:
        On the CPU: ``logprob`` (nats, float64) and, where wanted, ``entropy`` (nats), ``rank``
        (tokens that are more likely), ``top`` (id of the most likely token), ``top5`` with
        ``top5_logprob`` (``(rows, 5)``; any number will do) and ``boundary`` (``(rows, k)``, the
        logarithm of each set's probability, nats).
    """
    kind = hidden.device.type
    size = ROWS.get(kind, ROWS["cpu"])
    parts = []
    for at in range(0, len(targets), size):
        real = min(size, len(targets) - at)
        # The last row again, up to a size that occurs often.
        places = torch.arange(at, at + rounded(real), device=targets.device)
        places = places.clamp(max=at + real - 1)
        some = hidden[places].to(head.module.weight.dtype)
        scored = sums(head, some, targets[places], want, sets).columns()
        parts.append({name: column[:real] for name, column in scored.items()})
    return fetch(parts)


def sums(
    head: Head,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    want: Collection[str],
    sets: torch.Tensor | None = None,
) -> Running:
    """Sum some rows over the vocabulary, in the dtype of the head's weights."""
    target = _target_logits(head, hidden, targets)
    held = TILE_BYTES.get(hidden.device.type, TILE_BYTES["cpu"])
    size = max(64, held // (4 * max(1, len(targets))))
    running = Running(target, targets, want, sets=sets)
    _fill(running, head, hidden, size)
    if running.overflown:
        # A logit lies too far above all that came before it for float32: the slower way.
        running = Running(target, targets, want, True, sets)
        _fill(running, head, hidden, size)
    return running


def _fill(running: Running, head: Head, hidden: torch.Tensor, size: int) -> None:
    for start in range(0, head.vocabulary, size):
        shift = running.shift(hidden.dtype)
        running.add(tile(head, hidden, start, start + size, shift), start, shift)


def _target_logits(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute the ``(rows,)`` logits of the targets alone, in float32 at least."""
    out = (_full(head.module.weight[targets]) * _full(hidden)).sum(-1)
    bias = getattr(head.module, "bias", None)
    if bias is not None:
        out += _full(bias[targets])
    return _finish(head, out)


def _full(values: torch.Tensor) -> torch.Tensor:
    """Lift half precision to float32."""
    return values if values.dtype in FULL else values.float()


def _finish(head: Head, logits: torch.Tensor) -> torch.Tensor:
    if head.scale != 1.0:
        logits = logits * head.scale
    if head.cap:
        logits = head.cap * torch.tanh(logits / head.cap)
    return logits


def tile(
    head: Head, hidden: torch.Tensor, start: int, end: int, shift: torch.Tensor
) -> torch.Tensor:
    """Compute ``(tokens, rows)`` logits of a stretch of the vocabulary, minus shift.

    Where nothing stands between product and logits the shift is taken off inside the product, in
    float32, before it is rounded to the model's dtype: logits near the shift keep their digits.
    """
    weight = head.module.weight[start:end]
    bias = getattr(head.module, "bias", None)
    if bias is None and head.scale == 1.0 and not head.cap:
        return _full(functional.linear(weight, hidden, -shift))
    rows = _full(functional.linear(weight, hidden))
    if bias is not None:
        rows += _full(bias[start:end, None])
    return _finish(head, rows).sub_(shift.to(rows.dtype))


class Running:
    """Sums over tiles of the vocabulary: an online log-sum-exp, and what else is wanted.

    Args:
        target: ``(rows,)`` logits of the targets.
        targets: ``(rows,)`` their ids.
        want: names of further columns.
        careful: take each tile's own largest logit off before exponentiating, and let logits of
            minus infinity count nothing in the entropy.
        sets: ``(k, vocabulary)`` booleans: sets of tokens, for ``boundary``.
    """

    def __init__(
        self,
        target: torch.Tensor,
        targets: torch.Tensor,
        want: Collection[str],
        careful: bool = False,
        sets: torch.Tensor | None = None,
    ) -> None:
        wide = torch.float32 if target.device.type == "mps" else torch.float64
        self.careful = careful
        self.targets = targets
        self.target = target.to(wide)
        self.found = self.target
        self.lse = torch.full_like(self.target, float("-inf"))
        self.mean = torch.zeros_like(self.target) if "entropy" in want else None
        self.rank = torch.zeros_like(targets) if "rank" in want else None
        # The targets' logits as tiles have them, and the largest: equal where a target is first.
        self.own = self.highest = self.lse
        self.tops = tops(want)
        self.most = max(self.tops.values(), default=0)
        self.best: tuple[torch.Tensor, torch.Tensor] | None = None
        self.sets = sets if "boundary" in want else None
        count = 0 if self.sets is None else len(self.sets)
        self.masses = [torch.full_like(self.lse, float("-inf"))] * count
        self.room: torch.Tensor | None = None

    def shift(self, dtype: torch.dtype) -> torch.Tensor:
        """Give the ``(rows,)`` reference that the next tile is computed against.

        Any value that is not far below the largest logit serves; the log-sum-exp so far is close
        to it, where the most frequent tokens come first in the vocabulary.
        """
        known = torch.maximum(self.lse, self.target)
        return torch.where(torch.isneginf(known), 0.0, known).to(dtype)

    def add(self, tile: torch.Tensor, start: int, shift: torch.Tensor) -> None:
        """Add a tile of ``(tokens, rows)`` logits minus shift, the first of them token start."""
        base = shift.to(self.lse.dtype)
        place = self.targets - start
        inside = (place >= 0) & (place < len(tile))
        own = tile.gather(0, place.clamp(0, len(tile) - 1)[None])[0]
        if shift.dtype in FULL:
            # The same product as in the sum, so that its rounding cancels for a likely token.
            self.found = torch.where(inside, own.to(base.dtype) + base, self.found)
        if self.most:
            self._merge(tile, start, base)
        if self.sets is not None:
            self._sum_sets(tile, start, base, self.sets)
        room = self._room(tile)
        top = tile.amax(0) if self.rank is not None or self.careful else None
        if self.rank is not None and top is not None:
            level = (self.target - base).to(shift.dtype).to(tile.dtype)
            # Rounded as the tile is; the target itself never counts. Sums of floats are faster
            # than those of booleans, and exact for any vocabulary below 2^24.
            above = torch.gt(tile, level, out=room).sum(0).long()
            self.rank += above - (inside & (own > level)).long()
            self.own = torch.where(inside, own.to(base.dtype) + base, self.own)
            self.highest = torch.maximum(self.highest, top.to(base.dtype) + base)
        if self.careful and top is not None:
            top = top.clamp_min(-1e30)
            tile -= top
            tile.clamp_min_(-1e30)
            base = base + top.to(base.dtype)
        exps = torch.exp(tile, out=room)
        sums = exps.sum(0)
        part = sums.to(base.dtype).log() + base
        total = torch.logaddexp(self.lse, part)
        if self.mean is not None:
            products = tile.mul_(exps).sum(0)
            mean = products.to(base.dtype) / sums.clamp_min(1e-30).to(base.dtype) + base
            before, now = (self.lse - total).exp(), (part - total).exp()
            self.mean = self.mean * before + torch.where(now > 0, mean * now, 0.0)
        self.lse = total

    def _room(self, tile: torch.Tensor) -> torch.Tensor:
        """Give a place as large as a tile: the same one for every tile, the tile itself if it may.

        Passes over a tile cost what its memory does; new memory would cost more than they.
        """
        if self.rank is None and self.mean is None:
            return tile
        if self.room is None or len(self.room) < len(tile):
            self.room = torch.empty_like(tile)
        return self.room[: len(tile)]

    def _merge(self, tile: torch.Tensor, start: int, base: torch.Tensor) -> None:
        """Keep the largest logits seen and their ids, ``(k, rows)``."""
        values, places = tile.topk(min(self.most, len(tile)), dim=0)
        wide, ids = values.to(base.dtype) + base, places + start
        if self.best is not None:
            wide, ids = torch.cat((self.best[0], wide)), torch.cat((self.best[1], ids))
            wide, order = wide.topk(min(self.most, len(wide)), dim=0)
            ids = ids.gather(0, order)
        self.best = wide, ids

    def _sum_sets(
        self, tile: torch.Tensor, start: int, base: torch.Tensor, sets: torch.Tensor
    ) -> None:
        """Add to each set's log-sum-exp, with a maximum of its own: it may be most unlikely."""
        for number, inside in enumerate(sets[:, start : start + len(tile)]):
            own = tile.masked_fill(~inside[:, None], float("-inf")).logsumexp(0)
            self.masses[number] = torch.logaddexp(self.masses[number], own.to(base.dtype) + base)

    @property
    def overflown(self) -> bool:
        """Whether a sum left what float32 can hold, or met a logit of minus infinity.

        Behind an infinite sum all is no number.
        """
        over = torch.isposinf(self.lse) | torch.isnan(self.lse)
        if self.mean is not None:
            over |= ~torch.isfinite(self.mean) & ~torch.isnan(self.lse)
        return bool(over.any())

    def columns(self) -> dict[str, torch.Tensor]:
        """Give what was asked for, a row for each row of hidden states."""
        # A certain token may end above 0 by the rounding of the last digit.
        out = {"logprob": (self.found - self.lse).clamp_max(0.0)}
        if self.mean is not None:
            out["entropy"] = (self.lse - self.mean).clamp_min(0.0)
        if self.rank is not None:
            out["rank"] = torch.where(self.own >= self.highest, 0, self.rank.clamp_min(1))
        if self.best is not None:
            values, ids = self.best
            for name, count in self.tops.items():
                out[name] = ids[0] if name == "top" else ids[:count].T
                if name != "top":
                    out[f"{name}_logprob"] = (values[:count] - self.lse).clamp_max(0.0).T
        if self.sets is not None:
            out["boundary"] = (torch.stack(self.masses, 1) - self.lse[:, None]).clamp_max(0.0)
        return out


def fetch(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Join the columns of several pieces and bring them to the CPU in one copy, as float64."""
    shapes = {name: column.shape[1:] for name, column in parts[0].items()}
    wide = parts[0]["logprob"].dtype
    flat = torch.cat(
        [
            torch.cat([column.reshape(len(column), -1).to(wide) for column in part.values()], 1)
            for part in parts
        ]
    )
    flat = flat.cpu().double()
    out, at = {}, 0
    for name, shape in shapes.items():
        size = int(shape[0]) if shape else 1
        out[name] = flat[:, at : at + size].reshape(len(flat), *shape)
        at += size
    return out


def columns(
    logits: torch.Tensor,
    targets: torch.Tensor,
    want: Collection[str],
    sets: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Score rows whose ``(rows, vocabulary)`` logits are there already; see `score_rows`."""
    return sums_of(logits, targets, want, sets).columns()


def sums_of(
    logits: torch.Tensor,
    targets: torch.Tensor,
    want: Collection[str],
    sets: torch.Tensor | None = None,
) -> Running:
    """Sum such rows over the vocabulary."""
    rows = _full(logits)
    target = rows.gather(1, targets[:, None]).squeeze(1)
    running = Running(target, targets, want, True, sets)
    shift = rows.amax(1)
    running.add(rows.T - shift, 0, shift)
    return running
