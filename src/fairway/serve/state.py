"""The models that a server has, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from fairway.scorer import Scorer
from fairway.serve.gate.traffic import Traffic
from fairway.serve.lane import Lane
from fairway.serve.metrics import Metrics
from fairway.serve.problems import Problem
from fairway.serve.settings import Limits, Settings
from fairway.signature import Signature


@dataclass(frozen=True, slots=True)
class Served:
    """A model that is served.

    Attributes:
        name: by which requests ask for it.
        kind: of model, as in ``KIND:NAME``.
        lane: its work.
        signature: of its scorer, made once: hashing a tokenizer takes longer than a short text.
        others: scorers of the same model, and their signatures, by the settings asked for.
        vocabularies: the model's own, once it was asked for.
    """

    name: str
    kind: str
    lane: Lane
    signature: Signature
    others: dict[str, tuple[Scorer, Signature]] = field(default_factory=dict, repr=False)
    vocabularies: list[Any] = field(default_factory=list, repr=False)

    @property
    def scorer(self) -> Scorer:
        """The model."""
        return self.lane.scorer

    def signed(self, scorer: Scorer) -> Signature:
        """Give a scorer's signature: the model's, or another's of `others`."""
        return self.signature if scorer is self.scorer else scorer.signature


@dataclass(frozen=True, slots=True)
class State:
    """What every route needs.

    Attributes:
        settings: of the server.
        models: by name, in the order in which they were given.
        traffic: the requests that are in the house.
        metrics: what was done.
    """

    settings: Settings = field(default_factory=Settings)
    models: Mapping[str, Served] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=lambda: Traffic(Limits().waiting))
    metrics: Metrics = field(default_factory=Metrics)

    def find(self, name: Any = None) -> Served:
        """Give a model by its name; the first one where none is named.

        Raises:
            Problem: when there is none of that name.
        """
        if name is None and self.models:
            return next(iter(self.models.values()))
        if not isinstance(name, str) or name not in self.models:
            known = ", ".join(self.models) or "none"
            raise Problem(
                404, f"There is no model {name!r} here; there are: {known}.", "model_not_found"
            )
        return self.models[name]


def state(request: Request) -> State:
    """Give the state of the server that answers a request."""
    found: State = request.app.state.fairway
    return found
