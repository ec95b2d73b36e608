"""What models write, held to what scoring the same ids gives, and drawing held to probabilities."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import fairway
import lacking
import models
from fairway import generation
from fairway.backends.transformers import carry
from fairway.corpus import Document
from fairway.errors import InputError, ModelError
from fairway.generation import Sampling, Step

BEGIN = [5, 6, 7, 8, 9, 10, 11]
CLOSE = 2e-5
"""Nats by which a written token's log-probability may differ from the scored one's."""
FAST = ("gpt2", "mistral", "mamba", "xlstm", "bamba")


def scorer_of(name: str) -> Any:
    return fairway.load(models.build(name), tokenizer=models.tokenizer())


def last(scorer: Any, ids: list[int]) -> float:
    """The log-probability of the last id, by scoring it and as much before it as there is room."""
    room = scorer.room
    kept = ids if room is None else ids[-room:]
    (score,) = scorer.score([Document("ids", "", ids=np.array(kept))])
    return float(score.logprobs[-1])


def gap(scorer: Any, begin: list[int], steps: list[Step]) -> float:
    bare, ids, worst = scorer.bare(), [*begin], 0.0
    for step in steps:
        ids.append(step.id)
        worst = max(worst, abs(step.logprob - last(bare, ids)))
    return worst


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in models.CONFIGS]
)
def test_written_is_scored(name: str) -> None:
    """Behind 64 positions, which most of them have, the window slides."""
    scorer = scorer_of(name)
    sampling = Sampling(max_tokens=66, seed=3, ignore_end=True)
    steps = list(scorer.generate(BEGIN, sampling))
    assert len(steps) == 66
    assert gap(scorer, BEGIN, steps) < CLOSE


def test_a_step_is_the_models_own_softmax() -> None:
    model = models.build("gpt2")
    scorer = fairway.load(model, tokenizer=models.tokenizer())
    ids = [*BEGIN]
    for step in scorer.generate(BEGIN, Sampling(max_tokens=6, temperature=0, top=4)):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1].double()
        logp = torch.log_softmax(logits, -1).numpy()
        order = np.argsort(-logp)
        # Of its 300 logits some are of tokens that the tokenizer does not have.
        assert step.id == logp[: len(scorer.vocabulary.pieces)].argmax()
        assert list(step.top_ids) == order[:4].tolist()
        assert step.top_logprobs == pytest.approx(logp[order[:4]], abs=CLOSE)
        assert step.logprob == pytest.approx(logp[step.id], abs=CLOSE)
        ids.append(step.id)


def test_a_state_that_is_not_heeded_is_not_trusted() -> None:
    model = models.build("gpt2")
    own = model.forward

    def forgetful(*args: Any, past_key_values: Any = None, **options: Any) -> Any:
        return own(*args, **options)

    model.forward = forgetful
    scorer = fairway.load(model, tokenizer=models.tokenizer())
    steps = list(scorer.generate(BEGIN, Sampling(max_tokens=12, seed=3, ignore_end=True)))
    model.forward = own
    assert gap(scorer, BEGIN, steps) < CLOSE


def long_rotary() -> Any:
    """A Llama whose rotary positions are others once a text is longer than 16 tokens."""
    turned = {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
        "long_factor": [1.0, 2.0, 4.0, 8.0], "original_max_position_embeddings": 16, "factor": 4.0,
    }  # fmt: skip
    config = transformers.LlamaConfig(**models.GROUPED, rope_parameters=turned)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.load_state_dict(models.build("llama").state_dict())
    return fairway.load(model, tokenizer=models.tokenizer())


def test_keys_that_a_longer_text_turns_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(max_tokens=30, seed=3, ignore_end=True)
    scorer = long_rotary()
    assert gap(scorer, BEGIN, list(scorer.generate(BEGIN, sampling))) < CLOSE
    monkeypatch.setattr(carry, "MOVING", set())
    monkeypatch.setattr(carry, "TRIED", 12)
    monkeypatch.setattr(carry, "STEPPED", (9, 1, 1, 1))
    fooled = long_rotary()
    assert gap(fooled, BEGIN, list(fooled.generate(BEGIN, sampling))) > 1e-3


def test_a_prompt_longer_than_the_window_is_read_from_its_end() -> None:
    scorer = scorer_of("llama")
    draw = np.random.default_rng(0)
    ids = draw.integers(2, 260, models.POSITIONS + 1).tolist()
    for extra in (0, 9):
        long = [*draw.integers(2, 260, extra).tolist(), *ids]
        (step,) = scorer.generate(long, Sampling(max_tokens=1, temperature=0))
        (short,) = scorer.generate(ids[1:], Sampling(max_tokens=1, temperature=0))
        assert step == short


@pytest.mark.parametrize("name", ["gpt2", "mamba"])
def test_bare_takes_ids_as_they_are(name: str) -> None:
    scorer = scorer_of(name).bare()
    ids = np.random.default_rng(1).integers(0, 260, models.POSITIONS + 1)
    ids[0] = 0  # the prefix, which other scorers take away
    (score,) = scorer.score([Document("ids", "", ids=ids)])
    assert score.ids.tolist() == ids.tolist()
    assert math.isnan(score.logprobs[0]) and not np.isnan(score.logprobs[1:]).any()
    wanted = models.reference(models.build(name), ids[:-1].tolist(), 1)
    assert score.logprobs[1:-1] == pytest.approx(wanted, abs=2e-4)
    assert scorer.room == (models.POSITIONS + 1 if name == "gpt2" else None)
    longer = Document("ids", "", ids=np.append(ids, 7))
    if name == "gpt2":
        with pytest.raises(InputError, match="66 token ids are more than the 64"):
            list(scorer.score([longer]))
    else:
        assert len(next(scorer.score([longer]))) == len(ids) + 1


def test_a_seed_repeats_and_temperature_changes_only_the_drawing() -> None:
    scorer = scorer_of("gpt2")

    def drawn(**settings: Any) -> list[int]:
        return [s.id for s in scorer.generate(BEGIN, Sampling(max_tokens=12, **settings))]

    assert drawn(seed=4) == drawn(seed=4)
    assert drawn(seed=4) != drawn(seed=5)
    assert drawn(temperature=0) == drawn(temperature=1e-300, seed=1) == drawn(top_p=1e-9, seed=2)
    hot = list(scorer.generate(BEGIN, Sampling(max_tokens=8, temperature=2.5, seed=6)))
    assert gap(scorer, BEGIN, hot) < CLOSE


def test_a_text_ends_and_nothing_the_tokenizer_lacks_is_drawn() -> None:
    model = models.build("gpt2")
    scorer = fairway.load(model, tokenizer=models.tokenizer())
    size = len(scorer.vocabulary.pieces)
    assert size < models.VOCABULARY
    with torch.no_grad():
        # The last row spells nothing, the end comes next: both far above all else.
        head = torch.nn.Linear(models.WIDTH, models.VOCABULARY)
        head.weight.mul_(0)
        head.bias[:] = 0
        head.bias[-1], head.bias[1] = 20.0, 10.0
        model.lm_head = head
    (step,) = scorer.generate(BEGIN, Sampling(max_tokens=5, temperature=0, top=2))
    assert step.ends and step.id == 1 and step.piece == b""
    assert step.top_ids == (models.VOCABULARY - 1, 1)
    assert step.logprob == pytest.approx(-10.0, abs=1e-3)
    on = list(scorer.generate(BEGIN, Sampling(max_tokens=5, temperature=0, ignore_end=True)))
    assert [one.id for one in on] == [1] * 5 and not any(one.ends for one in on)


def test_numbers_that_are_none_are_an_error() -> None:
    model = models.build("gpt2")
    scorer = fairway.load(model, tokenizer=models.tokenizer())
    with torch.no_grad():
        model.lm_head.weight[4, :] = math.nan
    with pytest.raises(ModelError, match="not a number"):
        next(scorer.generate(BEGIN, Sampling()))


@pytest.mark.parametrize("ids", [[], [-1], [10**6]])
def test_what_cannot_be_read_is_refused(ids: list[int]) -> None:
    with pytest.raises(InputError, match="There is no token"):
        scorer_of("gpt2").generate(ids, Sampling())


@given(
    st.lists(st.floats(-12, 0), min_size=1, max_size=9),
    st.floats(0.2, 3),
    st.floats(0.01, 1),
    st.integers(0, 2**32),
)
@settings(deadline=None)
def test_draws_lie_in_the_nucleus(
    logprobs: list[float], temperature: float, top_p: float, seed: int
) -> None:
    values = np.array(logprobs)
    sampling = Sampling(temperature=temperature, top_p=top_p)
    token = generation.draw(values, sampling, np.random.default_rng(seed))
    # By a plain loop: what is likelier holds less than top_p.
    weights = [math.exp(one / temperature) for one in logprobs]
    above = sum(w for i, w in enumerate(weights) if (-w, i) < (-weights[token], token))
    assert above / sum(weights) < top_p + 1e-9


@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_draws_are_as_often_as_they_are_probable(top_p: float) -> None:
    values = np.log([0.5, 0.05, 0.3, 0.15])
    sampling = Sampling(temperature=0.7, top_p=top_p)
    random = np.random.default_rng(0)
    counts = np.bincount([generation.draw(values, sampling, random) for _ in range(20000)])
    # p^(1/0.7): the nucleus leaves the least likely out.
    weights = np.array([0.5, 0.05 if top_p == 1 else 0, 0.3, 0.15]) ** (1 / 0.7)
    assert counts / 20000 == pytest.approx(weights / weights.sum(), abs=0.012)
    assert (counts[1] == 0) == (top_p < 1)


def test_a_chat_is_written_out_by_the_template() -> None:
    words = models.tokenizer()
    words.chat_template = (
        "<s>{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    scorer = fairway.load(models.build("gpt2"), tokenizer=words)
    ids = scorer.chat([{"role": "user", "content": "the hen"}])
    assert ids[0] == 0 and words.decode(ids[1:]) == "[user] the hen\n[assistant] "
    with pytest.raises(InputError, match="special token '</s>'"):
        scorer.chat([{"role": "user", "content": "a </s> b"}])
    words.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(InputError, match="template refuses"):
        scorer.chat([{"role": "user", "content": "the hen"}])
    with pytest.raises(InputError, match="no chat template"):
        scorer_of("gpt2").chat([{"role": "user", "content": "the hen"}])


gguf = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason=lacking.gguf())


@gguf
@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_llama_cpp_writes_what_it_scores(kind: str, tmp_path: Path) -> None:
    import gguf_models

    scorer: Any = fairway.load(f"gguf:{getattr(gguf_models, kind)(tmp_path / 'm.gguf')}")
    begin = scorer.vocabulary.encode(["the one of an"])[0].ids.tolist()
    steps = list(scorer.generate(begin, Sampling(max_tokens=140, seed=1, ignore_end=True)))
    assert gap(scorer, begin, steps) < CLOSE
    # Scoring between two steps uses the same context.
    again = scorer.generate(begin, Sampling(max_tokens=5, seed=1, ignore_end=True))
    mixed = [next(again), next(again)]
    list(scorer.score([Document("other", "hello")]))
    assert [one.id for one in [*mixed, *again]] == [one.id for one in steps[:5]]
    with pytest.raises(InputError, match="holds no chat template"):
        scorer.chat([{"role": "user", "content": "hello"}])


@gguf
def test_llama_cpp_puts_messages_to_the_files_template(tmp_path: Path) -> None:
    import gguf_models

    template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    path = gguf_models.llama(
        tmp_path / "m.gguf", more=lambda writer: writer.add_chat_template(template)
    )
    scorer: Any = fairway.load(f"gguf:{path}")
    ids = scorer.chat([{"role": "user", "content": "the one"}])
    assert ids[0] == 1
    assert scorer.vocabulary.decode(ids[1:]) == "user: the one\n"
    with pytest.raises(InputError, match="special token"):
        scorer.chat([{"role": "user", "content": "</s>"}])
