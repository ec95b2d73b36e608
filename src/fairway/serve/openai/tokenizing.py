"""``POST /tokenize`` and ``/detokenize``, and how the tokens of a model are spelled in answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairway.scorer import Scorer
from fairway.serve.answering import answer, plain
from fairway.serve.problems import Problem, body
from fairway.serve.state import Served, state
from fairway.tokenizers.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Words:
    """What answers must know of a model's tokenizer.

    Attributes:
        vocabulary: the tokenizer.
        pieces: the bytes of every token; empty where it stands for no text.
        prefix: ids that stand before a text.
        bare: a scorer of token ids as they are; None = this model reads none.
        room: ids that such a one reads or predicts; None = any number.
        ends: tokens that end a text.
    """

    vocabulary: Vocabulary
    pieces: tuple[bytes, ...]
    prefix: tuple[int, ...]
    bare: Scorer | None
    room: int | None
    ends: frozenset[int] = frozenset()

    @classmethod
    def of(cls, scorer: Any) -> Words:
        """Read a scorer's; this may take a while."""
        vocabulary = scorer.vocabulary
        bare = scorer.bare() if hasattr(scorer, "bare") else None
        room = getattr(scorer if bare is None else bare, "room", None)
        prefix = tuple(getattr(scorer, "prefix", ()))
        ends = frozenset(getattr(scorer, "ends", ()))
        return cls(vocabulary, tuple(vocabulary.pieces), prefix, bare, room, ends)

    @property
    def positions(self) -> int | None:
        """Tokens that the model can read; None = any number."""
        return self.room if self.room is None or self.bare is None else self.room - 1

    def raw(self, token: int) -> bytes:
        """The bytes of a token; none for one that the tokenizer does not have."""
        return self.pieces[token] if token < len(self.pieces) else b""

    def name(self, token: int, raw: bytes | None = None, mark: str = "bytes:") -> str:
        """Spell a token in a text of its own.

        Args:
            token: its id.
            raw: its bytes, where they are not all that it may stand for.
            mark: stands before bytes that are no text by themselves, as OpenAI has it.
        """
        raw = self.raw(token) if raw is None else raw
        if not raw:
            return self.special(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return mark + "".join(f"\\x{byte:02x}" for byte in raw)

    def special(self, token: int) -> str:
        """Name a token that stands for no text."""
        known = token < len(self.pieces)
        return (self.vocabulary.decode([token]) if known else "") or f"token_id:{token}"

    def spelled(self, text: str, ids: Sequence[int]) -> list[bytes]:
        """Give the bytes of a text's tokens, without the blank that some tokenizers put first."""
        found = [self.raw(one) for one in ids]
        if b"".join(found) == b" " + text.encode("utf-8", "replace"):
            first = next(place for place, raw in enumerate(found) if raw)
            found[first] = found[first][1:]
        return found


async def words(request: Request, served: Served) -> Words:
    """Give what is known of a model's tokenizer; read once.

    Raises:
        Problem: when the model has none.
    """
    if not hasattr(type(served.scorer), "vocabulary") and not hasattr(served.scorer, "vocabulary"):
        raise Problem(
            400, f"{served.name} ({served.kind}:) has no tokenizer that can be asked.", "no_tokens"
        )
    if not hasattr(request.app.state, "words"):
        request.app.state.words = {}
    known: dict[str, Words] = request.app.state.words
    if served.name not in known:
        known[served.name] = await served.lane.call(lambda: Words.of(served.scorer))
    return known[served.name]


async def tokenize(request: Request) -> Response:
    """Give a text's tokens, their places and their spelling."""
    data = await body(request)
    served = state(request).find(data.get("model"))
    text = next((data[key] for key in ("content", "prompt", "text") if key in data), None)
    if not isinstance(text, str):
        raise Problem(400, "Send a text as content, prompt or text.")
    known = await words(request, served)
    (coded,) = await served.lane.call(lambda: known.vocabulary.encode([text]))
    special = bool(data.get("add_special_tokens", data.get("add_special", False)))
    front = list(known.prefix) if special else []
    ids = front + coded.ids.tolist()
    return await answer(
        len(text),
        lambda: {
            "tokens": ids,
            "count": len(ids),
            "max_model_len": known.positions,
            "offsets": [[0, 0]] * len(front) + coded.offsets.tolist(),
            "pieces": [known.special(one) for one in front]
            + [_piece(raw) for raw in known.spelled(text, coded.ids.tolist())],
        },
    )


def _piece(raw: bytes) -> str | list[int]:
    """Write bytes as llama-server does: a text, or numbers where they are none."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)


async def detokenize(request: Request) -> Response:
    """Give the text that tokens spell."""
    data = await body(request)
    served = state(request).find(data.get("model"))
    known = await words(request, served)
    ids = check_ids(data.get("tokens"), known, "tokens")
    text = await served.lane.call(lambda: known.vocabulary.decode(ids))
    return plain({"text": text, "prompt": text, "content": text})


def check_ids(value: Any, known: Words, name: str) -> list[int]:
    """Read token ids.

    Raises:
        Problem: for what is none, or none of this tokenizer.
    """
    if not isinstance(value, list) or not all(type(one) is int for one in value):
        raise Problem(400, f"{name} is no list of token ids.")
    wrong = next((one for one in value if not 0 <= one < len(known.pieces)), None)
    if wrong is not None:
        raise Problem(
            400, f"{name} holds token id {wrong}, and the tokenizer has {len(known.pieces)}."
        )
    return value


ROUTES = (
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
)
