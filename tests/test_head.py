"""The tiled head against a plain float64 softmax: every transformation, extra and tile size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fairway.backends.transformers import head as heads
from fairway.backends.transformers.head import Head

WANT = ("entropy", "rank", "top", "top3")


def make(vocabulary: int, width: int, bias: bool, scale: float, cap: float, seed: int) -> Head:
    torch.manual_seed(seed)
    module = torch.nn.Linear(width, vocabulary, bias=bias)
    with torch.no_grad():
        module.weight.mul_(4.0)
        if bias:
            module.bias.normal_(0, 2)
    return Head(module, scale, cap, vocabulary)


def plain(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> dict[str, np.ndarray]:
    """The same from whole float64 logits."""
    head.module.requires_grad_(False)
    logits = hidden.double() @ head.module.weight.double().T
    if head.module.bias is not None:
        logits = logits + head.module.bias.double()
    logits = logits * head.scale
    if head.cap:
        logits = head.cap * torch.tanh(logits / head.cap)
    logp = torch.log_softmax(logits, -1)
    chosen = logp.gather(1, targets[:, None])
    order = logp.topk(min(3, logp.shape[1]), dim=1)
    return {
        "logprob": chosen[:, 0].numpy(),
        "entropy": torch.special.entr(logp.exp()).sum(1).numpy(),
        "rank": (logp > chosen).sum(1).numpy(),
        "ties": (logp - chosen).abs().lt(2e-5).sum(1).numpy() - 1,
        "top3_logprob": order.values.numpy(),
        "all": logp.numpy(),
    }


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    vocabulary=st.integers(3, 700),
    bias=st.booleans(),
    scale=st.sampled_from([1.0, 0.25, 1.5]),
    cap=st.sampled_from([0.0, 12.0]),
    tile=st.sampled_from([1 << 10, 1 << 14, 1 << 22]),
    chunk=st.sampled_from([3, 512]),
    seed=st.integers(0, 1000),
)
def test_equals_a_plain_softmax(
    rows: int, vocabulary: int, bias: bool, scale: float, cap: float, tile: int, chunk: int,
    seed: int,
) -> None:  # fmt: skip
    head = make(vocabulary, 16, bias, scale, cap, seed)
    hidden = torch.randn(rows, 16) * 2
    targets = torch.randint(0, vocabulary, (rows,))
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setitem(heads.TILE_BYTES, "cpu", tile)
        patch.setitem(heads.ROWS, "cpu", chunk)
        found = heads.score_rows(head, hidden, targets, WANT)
    wanted = plain(head, hidden, targets)
    for key in ("logprob", "entropy", "top3_logprob"):
        assert np.abs(found[key].numpy() - wanted[key]).max() < 2e-5, key
    assert (found["logprob"] <= 0).all()
    assert (np.abs(found["rank"].numpy() - wanted["rank"]) <= wanted["ties"]).all()
    ids = found["top3"].long().numpy()
    assert np.array_equal(found["top"].numpy(), ids[:, 0])
    assert all(len(set(row)) == len(row) for row in ids.tolist())
    named = np.take_along_axis(wanted["all"], ids, 1)
    assert np.abs(named - wanted["top3_logprob"]).max() < 2e-5


def test_logits_too_far_apart_for_float32() -> None:
    """A token 300 nats below the best one, which comes last: exp overflows without care."""
    head = make(500, 1, False, 1.0, 0.0, 0)
    with torch.no_grad():
        head.module.weight.zero_()
        head.module.weight[499] = 300.0
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setitem(heads.TILE_BYTES, "cpu", 1 << 8)
        found = heads.score_rows(head, torch.ones(2, 1), torch.tensor([3, 499]), WANT)
    assert found["logprob"].tolist() == pytest.approx([-300.0, 0.0], abs=1e-4)
    assert found["rank"].tolist() == [1, 0] and found["top"].tolist() == [499, 499]
    assert found["entropy"].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("tile", [1 << 8, 1 << 22])
def test_logits_of_minus_infinity_count_nothing(tile: int) -> None:
    """Some models forbid ids by a bias of minus infinity: 0 * inf must not reach the entropy."""
    head = make(500, 8, True, 1.0, 0.0, 0)
    hidden, targets = torch.randn(6, 8), torch.tensor([1, 130, 260, 390, 499, 2])
    with torch.no_grad():
        head.module.bias[[0, 2, 131, 498]] = -torch.inf
        head.module.bias[200:300:2] = -torch.inf
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setitem(heads.TILE_BYTES, "cpu", tile)
        found = heads.score_rows(head, hidden, targets, WANT)
        whole = heads.fetch([heads.columns(head.module(hidden), targets, WANT)])
    wanted = plain(head, hidden, targets)
    for columns in (found, whole):
        assert np.abs(columns["entropy"].numpy() - wanted["entropy"]).max() < 2e-5
        assert columns["rank"].tolist() == wanted["rank"].tolist()
        assert columns["logprob"].isinf().tolist() == [False, False, True, False, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_likeliest_token_has_rank_0(dtype: torch.dtype) -> None:
    """Also where rounding of the model's dtype would set it below itself."""
    torch.manual_seed(1)
    module = torch.nn.Linear(32, 3000, bias=False).to(dtype)
    head = Head(module, 1.0, 0.0, 3000)
    hidden = (torch.randn(400, 32) * 8).to(dtype)
    with torch.inference_mode():
        targets = module(hidden).argmax(1)
        targets[::4] = torch.arange(100)
        found = heads.score_rows(head, hidden, targets, ("rank", "top2"))
    first = found["top2"][:, 0] == targets
    tied = found["top2_logprob"][:, 0] == found["top2_logprob"][:, 1]
    assert 250 < first.sum() < 350
    assert (found["rank"][first] == 0).all()
    assert tied[(found["rank"] == 0) & ~first].all()


def test_not_a_number_stays_one() -> None:
    head = make(50, 4, False, 1.0, 0.0, 0)
    hidden = torch.randn(3, 4)
    hidden[1] = float("nan")
    with torch.inference_mode():
        found = heads.score_rows(head, hidden, torch.tensor([1, 2, 3]), ())
    assert torch.isnan(found["logprob"]).tolist() == [False, True, False]


def test_a_certain_token_in_half_precision() -> None:
    """Rounding of large logits to bfloat16 must not lift a probability above 1."""
    torch.manual_seed(0)
    module = torch.nn.Linear(64, 4000, bias=False).to(torch.bfloat16)
    head = Head(module, 1.0, 0.0, 4000)
    hidden = module.weight[:300].detach() * 60
    with torch.inference_mode():
        found = heads.score_rows(head, hidden, torch.arange(300), ())
    exact = torch.log_softmax(hidden.double() @ module.weight.double().T, -1)
    wanted = exact[torch.arange(300), torch.arange(300)]
    assert (found["logprob"] <= 0).all()
    assert (found["logprob"] - wanted).abs().max() < 0.02
    assert (found["logprob"] - wanted).mean().abs() < 2e-3


class Largest(TorchDispatchMode):
    """Notes the most numbers that any operation gives."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, torch.Tensor):
                self.most = max(self.most, one.numel())
        return out


@pytest.mark.parametrize("want", [(), WANT])
def test_rows_by_vocabulary_never_exist(want: tuple[str, ...]) -> None:
    rows, vocabulary = 1500, 40_000
    head = make(vocabulary, 8, False, 1.0, 0.0, 0)
    with torch.inference_mode(), Largest() as seen:
        heads.score_rows(head, torch.randn(rows, 8), torch.randint(0, vocabulary, (rows,)), want)
    # The weight itself, seen as a view, and a tile, are all there is.
    assert seen.most <= max(vocabulary * 8, heads.TILE_BYTES["cpu"] // 4)
    assert seen.most < rows * vocabulary / 50
