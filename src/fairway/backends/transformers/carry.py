"""Models that carry a state from token to token: Mamba, RWKV, and hybrids with attention.

By default such a model reads windows as an attention model does, with a fresh state in each
(``state:restarted``). With ``state=carried`` a document is read from its first token to its last,
so that each token sees the whole past: in pieces, the state handed on, where the model's own code
can take several tokens behind a state; else token by token; else in one pass. Which of them is
right is tried on the model itself, since not every architecture that takes a state heeds it
(transformers 5.23's Mamba begins each piece of more than one token with an empty one).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from fairway import windows
from fairway.backends.transformers import memory
from fairway.errors import ProtocolError
from fairway.protocol import Plan

STATES = ("past_key_values", "cache_params", "state")
"""Names under which architectures take and give their state."""
RECURRENT = {"linear_attention", "mamba", "mamba2", "recurrent", "conv", "hybrid"}
"""Names of layers that hold a state which is no cache of attention."""
PIECE = 1024
"""Tokens that are read together."""
STATES_ALIKE = 1e-4
"""By which share of its largest number two float32 states of the same text may differ."""
TRIED, TRIED_PIECES = 24, (9, 1, 8, 6)
MOVING = {"dynamic", "longrope"}
"""Kinds of rotary positions that turn all of a text's keys otherwise once it is long."""
STEPPED = (9, *(1,) * (TRIED - 9))
ROUNDING, ROUGH = 2e-4, 0.25
"""What two orders of the same sums differ by, nats: in float32, and in half precision."""


@dataclass(frozen=True, slots=True)
class Carry:
    """How a model is read from a document's first token to its last.

    Attributes:
        name: of the argument that takes the state; None = it is read in one pass.
        single: whether one token at a time is read behind the first piece.
        placed: whether the model is told where a piece stands (Bamba counts from 0 otherwise).
    """

    name: str | None
    single: bool = False
    placed: bool = False

    def sizes(self, tokens: int) -> list[int]:
        """Cut so many tokens into pieces."""
        if self.name is None or tokens <= PIECE:
            return [tokens] if tokens else []
        step = 1 if self.single else PIECE
        return [PIECE] + [min(step, tokens - at) for at in range(PIECE, tokens, step)]

    def options(
        self, state: Any, at: int, size: int, ids: torch.Tensor
    ) -> dict[str, torch.Tensor | Any]:
        """Give what a model takes besides a piece of some tokens at a place of ids."""
        out: dict[str, Any] = {} if state is None else {str(self.name): state}
        if self.placed:
            out["position_ids"] = torch.arange(at, at + size, device=ids.device)[None]
        return out


def stateful(model: Any) -> bool:
    """Whether a model has a recurrent state, beside or instead of attention."""
    config = model.config.get_text_config()
    kinds = {str(one) for one in getattr(config, "layer_types", None) or ()}
    return bool(getattr(model, "_is_stateful", False) or kinds & RECURRENT)


def whole(plan: Plan, positions: int | None, asked: bool) -> Plan:
    """Take the windows out of a plan: a document is read in one go, however long it is.

    Args:
        plan: of a convention with rolling windows, or with none.
        positions: tokens that the model can read; None = no limit.
        asked: whether a max_length or a stride was asked for.

    Raises:
        ProtocolError: when the convention, or a setting, cuts texts.
    """
    if plan.convention.windowing == "single":
        return plan
    if plan.convention.windowing != "rolling" or plan.convention.join:
        raise ProtocolError(
            f"{plan.convention.name} cuts texts its own way, and state=carried reads them whole; "
            "leave one of them away."
        )
    if asked:
        raise ProtocolError(
            "state=carried reads a document whole; leave --max-length and --stride away."
        )
    front = len(plan.prefix)

    def cut(tokens: int) -> list[windows.Window]:
        if positions is not None and tokens + front > positions:
            raise ProtocolError(
                f"state=carried reads a document whole, one has {tokens} tokens, and the model's "
                f"attention reaches over {positions} positions; leave state=carried away."
            )
        return windows.single(tokens, front)

    return replace(plan, max_length=None, stride=None, cut=cut)


def walk(
    call: Callable[..., Any], ids: torch.Tensor, carry: Carry
) -> Iterator[tuple[int, int, Any]]:
    """Read ``(rows, n)`` ids in pieces, the state handed on.

    Yields:
        Where a piece begins, where it ends, and what the model gave for it.
    """
    sizes = carry.sizes(ids.shape[1])
    if len(sizes) < 2:
        yield 0, ids.shape[1], call(ids, use_cache=False)
        return
    state, at = None, 0
    for size in sizes:
        out = call(ids[:, at : at + size], use_cache=True, **carry.options(state, at, size, ids))
        state = getattr(out, str(carry.name))
        yield at, at + size, out
        at += size


def choose(model: Any, quantised: bool = False) -> Carry:
    """Find out on the model itself how its state can be handed on.

    Half precision rounds by more than a forgotten state may show, so that such weights are made
    float32 for the trial. Where that cannot be (quantised weights, too little memory), nothing but
    single steps is trusted.
    """
    carry = _named(model)
    if carry is None:
        return Carry(None)
    ids = _tried(model)
    with torch.no_grad(), _widened(model, quantised) as exact:
        right = _logprobs(model(input_ids=ids, use_cache=False).logits, ids)
        whole = _read(model, ids, carry, (TRIED,))
        steps = _gap(right, _read(model, ids, carry, (1,) * TRIED), ids)
        apart, pieces = float("inf"), _read(model, ids, carry, TRIED_PIECES)
        if exact and whole is not None and pieces is not None:
            # What was forgotten may hardly show in the numbers of a short text; it does in these.
            apart = _unlike(whole[1], pieces[1])
    if apart <= STATES_ALIKE and _gap(right, pieces, ids) <= ROUNDING:
        return carry
    return replace(carry, single=True) if steps <= (ROUNDING if exact else ROUGH) else Carry(None)


def choose_steps(model: Any, quantised: bool = False) -> Carry:
    """Find out whether a model can read a text and then token by token, its state handed on.

    This is how texts are written. Of a model without a recurrent state too, since only the trial
    tells that its code takes back what it gave.
    """
    found = _named(model)
    if found is None or _turns(model):
        return Carry(None)
    ids = _tried(model)
    with torch.no_grad(), _widened(model, quantised) as exact:
        right = _logprobs(model(input_ids=ids, use_cache=False).logits, ids)
        for sizes in (STEPPED, (1,) * TRIED):
            if not _gap(right, _read(model, ids, found, sizes), ids) <= (
                ROUNDING if exact else ROUGH
            ):
                return Carry(None)
    return found


def _turns(model: Any) -> bool:
    """Whether keys that were kept would not be those of a longer text."""
    config = model.config.get_text_config()
    for name in ("rope_parameters", "rope_scaling"):
        told = getattr(config, name, None) or {}
        for one in (told, *told.values()):
            if isinstance(one, dict) and one.get("rope_type", one.get("type")) in MOVING:
                return True
    return False


def _named(model: Any) -> Carry | None:
    """Give how a model takes its state, as its code says; None where it takes none."""
    taken = inspect.signature(model.base_model.forward).parameters
    name = next((one for one in STATES if one in taken), None)
    return None if name is None else Carry(name, placed="position_ids" in taken)


def _tried(model: Any) -> torch.Tensor:
    """Give ``(1, n)`` ids that a model is tried with."""
    size = min(model.get_input_embeddings().weight.shape[0], 1 << 20)
    ids = torch.tensor([[(7 + 37 * index * index) % size for index in range(TRIED)]])
    return ids.to(model.get_input_embeddings().weight.device)


@contextmanager
def _widened(model: Any, quantised: bool) -> Iterator[bool]:
    """Make half-precision weights float32 for a while; gives whether they are."""
    tensors = [*model.parameters(), *model.buffers()]
    half = [one for one in tensors if one.dtype in (torch.float16, torch.bfloat16)]
    if quantised or any(one.is_meta for one in tensors):
        yield False
        return
    before = [one.dtype for one in half]
    try:
        try:
            for one in half:
                one.data = one.data.float()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as problem:
            if not memory.lacking(problem):
                raise
            yield False
            return
        yield True
    finally:
        # Each half-precision number is a float32 too, so that this gives the same bits back.
        for one, dtype in zip(half, before, strict=True):
            one.data = one.data.to(dtype)
        memory.release()


def _logprobs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    logp = torch.log_softmax(logits[0].double(), -1)
    return logp[:-1].gather(1, ids[0, 1:, None])[:, 0]


def _read(
    model: Any, ids: torch.Tensor, carry: Carry, sizes: tuple[int, ...]
) -> tuple[torch.Tensor, Any] | None:
    """Read in pieces of these sizes; give the logits and the last state, None where it fails."""
    state, at, parts = None, 0, []
    try:
        for size in sizes:
            options = carry.options(state, at, size, ids)
            out = model(input_ids=ids[:, at : at + size], use_cache=True, **options)
            state = getattr(out, str(carry.name))
            if state is None:
                return None
            parts.append(out.logits)
            at += size
    except Exception:  # the architecture's own code, on a path that few take
        return None
    return torch.cat(parts, 1), state


def _gap(right: torch.Tensor, read: tuple[torch.Tensor, Any] | None, ids: torch.Tensor) -> float:
    """Give the largest difference of a log-probability, nats; infinity where reading failed."""
    if read is None:
        return float("inf")
    gap = float((_logprobs(read[0], ids) - right).abs().max())
    return gap if gap == gap else float("inf")


def _unlike(one: Any, other: Any) -> float:
    """Give the largest difference of two states, as a share of the largest number in a tensor."""
    worst = 0.0
    for a, b in zip(_tensors(one), _tensors(other), strict=False):
        if a.shape == b.shape and a.is_floating_point() and a.numel():
            most = float(a.double().abs().max())
            if most:
                worst = max(worst, float((a.double() - b.double()).abs().max()) / most)
    return worst


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    """Find the tensors of a state: a list of them, or a cache of transformers."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, list | tuple):
        for one in state:
            yield from _tensors(one)
    elif isinstance(state, dict):
        for one in state.values():
            yield from _tensors(one)
    elif hasattr(state, "layers"):
        for layer in state.layers:
            yield from _tensors(vars(layer))
