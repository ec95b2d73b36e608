"""What a server did, as Prometheus reads it: no text, and no label made of what a request says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from fairway.corpus import Document
from fairway.scores import Score
from fairway.serve.lane import Crash, Outcome, Record

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """One server's figures, in a registry of their own, so that two servers share a process.

    Args:
        waiting: gives the number of requests that are taken in and not yet answered.
    """

    def __init__(self, waiting: Callable[[], int] = lambda: 0) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "fairway_requests", "Answers by route and status; 499: the client went away.",
            ("route", "status"), registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "fairway_request_seconds", "From a request's head to the end of its answer.",
            ("route",), registry=self.registry, buckets=SECONDS,
        )  # fmt: skip
        self.rejected = Counter(
            "fairway_rejected_requests", "Answered with 429, since too many waited.",
            registry=self.registry,
        )  # fmt: skip
        inside = Gauge(
            "fairway_waiting_requests", "Taken in and not yet answered.", registry=self.registry
        )
        inside.set_function(waiting)
        by_model: dict[str, Any] = {"labelnames": ("model",), "registry": self.registry}
        self.batches = Histogram(
            "fairway_batch_documents", "Documents scored in one call.", buckets=SIZES, **by_model
        )
        self.batch_seconds = Histogram(
            "fairway_batch_seconds", "Time of such a call.", buckets=SECONDS, **by_model
        )
        self.tokens = Counter("fairway_scored_tokens", "Tokens with a log-probability.", **by_model)
        self.bytes = Counter("fairway_scored_bytes", "Bytes of text that they spell.", **by_model)
        self.failures = Counter("fairway_failed_documents", "Those without a score.", **by_model)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def recorder(self, model: str) -> Record:
        """Give what counts a model's batches."""
        batches, spent = self.batches.labels(model), self.batch_seconds.labels(model)
        tokens, size = self.tokens.labels(model), self.bytes.labels(model)
        failures = self.failures.labels(model)

        def record(
            documents: Sequence[Document], outcomes: Sequence[Outcome | Crash], seconds: float
        ) -> None:
            batches.observe(len(documents))
            spent.observe(seconds)
            sums = [one.totals for one in outcomes if isinstance(one, Score)]
            tokens.inc(sum(one.tokens for one in sums))
            size.inc(sum(one.bytes for one in sums))
            failures.inc(len(outcomes) - len(sums))

        return record
