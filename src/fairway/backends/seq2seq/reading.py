"""From documents to sources and targets, and from log-probabilities to scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fairway.backends.transformers import encode
from fairway.backends.transformers.encode import Encoded
from fairway.backends.transformers.loading import Loaded
from fairway.corpus import Document
from fairway.errors import InputError, ModelError, ProtocolError
from fairway.protocol import DEFAULT_LENGTH
from fairway.scores import CONDITIONAL, Score

NAMES = {"required": "source", "bare": "source-bare", "empty": "empty"}
"""What the signature calls what the encoder reads."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model's texts become sources and targets.

    Attributes:
        tokenizer: the model's.
        shift: gives the ``(n,)`` ids that the decoder reads to predict ``(n,)`` labels.
        front: ids of the special tokens before a source.
        back: those behind it.
        opening: those before a target; they are read and not scored.
        ending: those behind it.
        source: ``required``, ``bare`` or ``empty``.
        eos: place of the end of the text in ending; None = it is not scored.
        lengths: tokens that a source and a target may have; None = any number.
        start: the tokens that the decoder reads before a target's own, by name.
        parse_special: read the text of special tokens as those tokens.
    """

    tokenizer: Any
    shift: Callable[[NDArray[np.int64]], NDArray[np.int64]]
    front: tuple[int, ...]
    back: tuple[int, ...]
    opening: tuple[int, ...]
    ending: tuple[int, ...]
    source: str
    eos: int | None
    lengths: tuple[int | None, int | None]
    start: str
    parse_special: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """A document on its way through the model.

    Attributes:
        document: the text.
        encoded: its tokens.
        source: ids that the encoder reads.
        inputs: ids that the decoder reads.
        targets: what is predicted at each of its places.
        first: the place that predicts the text's first token.
        ends: whether the last place predicts the end of the text.
    """

    document: Document
    encoded: Encoded
    source: NDArray[np.int64]
    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    first: int
    ends: bool

    @property
    def size(self) -> int:
        """Places that are scored."""
        return len(self.inputs) - self.first


def speak(loaded: Loaded, source: str | None, target: str | None) -> None:
    """Set the languages of a tokenizer that has some.

    Raises:
        InputError: where it has none, or not this one.
    """
    tokenizer = loaded.tokenizer
    for key, language in (("src_lang", source), ("tgt_lang", target)):
        if language is None:
            continue
        if not hasattr(tokenizer, key):
            raise InputError(f"{loaded.name}'s tokenizer has no languages; leave {key} away.")
        if tokenizer.convert_tokens_to_ids(language) in (None, tokenizer.unk_token_id):
            raise InputError(
                f"{loaded.name}'s tokenizer has no language {language!r}; {key} takes codes such "
                f"as {getattr(tokenizer, key)}."
            )
        setattr(tokenizer, key, language)


def plan(
    loaded: Loaded, source: str, eos: bool, max_length: int | None, parse_special: bool
) -> Plan:
    """Fit the settings to a model.

    Raises:
        ModelError: when the model has no encoder and decoder, or does not say how its decoder
            begins.
        ProtocolError: when settings contradict the model.
    """
    tokenizer, model = loaded.tokenizer, loaded.model
    if not getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{loaded.name} is no encoder-decoder model; if it is a causal one, put hf: before its "
            "name."
        )
    front, back = encode.around(tokenizer)
    opening, ending = encode.around(tokenizer, target=True)
    if source == "bare":
        front, back = (), ()
    if source == "empty" and not front + back:
        raise ProtocolError(
            f"{loaded.name}'s tokenizer puts no special tokens around a source, so that nothing is "
            "left of an empty one."
        )
    end = None
    if eos:
        if tokenizer.eos_token_id is None:
            raise ProtocolError(
                f"{loaded.name}'s tokenizer has no token for the end of a text; pass --model-arg "
                "eos=no."
            )
        if tokenizer.eos_token_id not in ending:
            ending = (tokenizer.eos_token_id, *ending)
        end = ending.index(tokenizer.eos_token_id)
    shift = shifter(loaded)
    sample = np.concatenate((opening, _sample(tokenizer), ending)).astype(np.int64)
    before = shift(sample)[: len(opening) + 1].tolist()
    start = "+".join(map(str, tokenizer.convert_ids_to_tokens(before)))
    return Plan(
        tokenizer, shift, front, back, opening, ending, source, end, lengths(loaded, max_length),
        start, parse_special,
    )  # fmt: skip


def _sample(tokenizer: Any) -> NDArray[np.int64]:
    """Give a few tokens of text: none of them stands for padding, which models treat apart."""
    return encode.encode_many(tokenizer, ["a a a"], target=True)[0].ids


def shifter(loaded: Loaded) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
    """Take from a model how its decoder's input comes of the labels, as in its training.

    Raises:
        ModelError: when the model does not say, or does otherwise than to shift by one.
    """
    own: Any = getattr(loaded.model, "prepare_decoder_input_ids_from_labels", None)
    device = loaded.model.get_input_embeddings().weight.device

    def shift(labels: NDArray[np.int64]) -> NDArray[np.int64]:
        made = own(labels=torch.from_numpy(labels)[None].to(device))
        return np.asarray(made[0].cpu().numpy(), np.int64)

    sample = _sample(loaded.tokenizer)
    try:
        if own is not None and np.array_equal(shift(sample)[1:], sample[:-1]):
            return shift
    except (ValueError, TypeError, RuntimeError):
        pass
    raise ModelError(
        f"{loaded.name} does not say what its decoder begins with; set decoder_start_token_id in "
        "its config.json."
    )


def lengths(loaded: Loaded, max_length: int | None) -> tuple[int | None, int | None]:
    """Give the tokens that a source and a target may have.

    Raises:
        ProtocolError: when more are asked for than the model has positions.
    """
    config = loaded.model.config
    if getattr(config, "relative_attention_num_buckets", None):
        most: tuple[int | None, int | None] = (None, None)
    else:
        most = (
            getattr(config, "max_encoder_position_embeddings", loaded.positions),
            getattr(config, "max_decoder_position_embeddings", loaded.positions),
        )
    if max_length is None:
        return most[0] or DEFAULT_LENGTH, most[1] or DEFAULT_LENGTH
    if max_length == 0:
        return most
    if max_length < 0:
        raise ProtocolError(f"max_length {max_length} is below 0.")
    for one in most:
        if one is not None and max_length > one:
            raise ProtocolError(
                f"max_length {max_length} was asked for, and the model reads at most {one} "
                f"positions; give --max-length {one} or less."
            )
    return max_length, max_length


def prepare(plan: Plan, documents: Sequence[Document]) -> list[Pair]:
    """Tokenize sources and targets.

    Raises:
        InputError: for documents that are not text, have no source or one too many, are too long,
            or whose tokens cannot be aligned with the text.
    """
    for document in documents:
        encode.refuse(document, "seq2seq")
        _source(plan, document)
    contexts = list(dict.fromkeys(document.context for document in documents))
    made = plan.tokenizer(
        contexts, add_special_tokens=False, verbose=False,
        split_special_tokens=not plan.parse_special,
    )["input_ids"]  # fmt: skip
    sources = {
        context: np.asarray((*plan.front, *ids, *plan.back), np.int64)
        for context, ids in zip(contexts, made, strict=True)
    }
    texts = [document.text for document in documents]
    with encode.a_rows_fault(documents):
        encoded = encode.encode_many(plan.tokenizer, texts, plan.parse_special, target=True)
    return [
        _pair(plan, document, item, sources[document.context])
        for document, item in zip(documents, encoded, strict=True)
    ]


def _source(plan: Plan, document: Document) -> None:
    if plan.source == "empty" and document.context:
        raise InputError(
            f"{document.id} has a source, and source=empty reads none; leave one of them away."
        )
    if plan.source != "empty" and not document.context.strip():
        raise InputError(
            f"{document.id} has no source, and the model gives the probability of a target given "
            "one: name it with --context, or the field that holds it with --context-field; or pass "
            "--model-arg source=empty."
        )


def _pair(plan: Plan, document: Document, item: Encoded, source: NDArray[np.int64]) -> Pair:
    labels = np.concatenate((plan.opening, item.ids, plan.ending)).astype(np.int64)
    first = len(plan.opening)
    # Whether a stretch that alone is scored ends the text nobody asked.
    ends = plan.eos is not None and document.scored is None
    last = first + len(item.ids)
    if ends:
        assert plan.eos is not None
        last += plan.eos + 1
    inputs, targets = plan.shift(labels)[:last], labels[:last]
    for what, size, most in (
        ("source", len(source), plan.lengths[0]), ("target", len(inputs), plan.lengths[1]),
    ):  # fmt: skip
        if most is not None and size > most:
            raise InputError(
                f"The {what} of {document.id} has {size} tokens, more than the {most} that are "
                "read; shorten it, or give a larger --max-length if the model has one."
            )
    return Pair(document, item, source, inputs, targets, first, ends)


def finish(pair: Pair, values: NDArray[np.float64], extras: Mapping[str, NDArray[Any]]) -> Score:
    """Make a score of a target; its end is a token without characters.

    Args:
        pair: the document.
        values: ``(pair.size,)`` log-probabilities.
        extras: further columns of that length.
    """
    document, item = pair.document, pair.encoded
    size = len(item.ids)
    kept = np.arange(size + 1 if pair.ends else size)
    if pair.ends:
        kept[-1] = pair.size - 1
    offsets, ids = item.offsets, item.ids
    if pair.ends:
        end = len(document.text)
        offsets = np.concatenate((offsets, [[end, end]]))
        ids = np.append(ids, pair.targets[-1])
    score = Score(
        document.id, document.text, offsets, values[kept], ids, document.scored, None, item.lossy,
        {key: column[kept] for key, column in extras.items()}, document.metadata,
        perplexity=CONDITIONAL,
    )  # fmt: skip
    if document.scored is not None:
        score.logprobs[~score.wanted] = np.nan
    return score
