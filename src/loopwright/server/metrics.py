"""What a server counts and measures, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

__all__ = ["Metrics"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000)


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.requests = self._counter("http_requests", "HTTP requests.", ["method", "route", "status"])
        self.request_seconds = self._histogram("http_request_seconds", "Seconds to the end of an answer.", ["route"])
        self.rejected = self._counter("rejected", "Requests that were refused.", ["code"])
        self.submitted = self._counter("jobs_submitted", "Jobs that were accepted.")
        self.ended = self._counter("jobs_ended", "Jobs that ended.", ["status"])
        self.resumed = self._counter("jobs_resumed", "Jobs that went on from a checkpoint.")
        self.restarted = self._counter("jobs_restarted", "Jobs that had to begin again.")
        self.queue_seconds = self._histogram("queue_seconds", "Seconds that jobs waited before they first ran.")
        self.first_step_seconds = self._histogram("first_step_seconds", "Seconds from submission to the first step.")
        self.job_seconds = self._histogram("job_seconds", "Seconds from submission to success.")
        self.steps = self._counter("steps", "Iterations of the loops of all jobs.")
        self.checkpoint_seconds = self._histogram("checkpoint_seconds", "Seconds to write a checkpoint's file.")
        self.storage_failures = self._counter("storage_failures", "What could not be written.", ["what"])

    def _counter(self, name: str, text: str, labels: Any = ()) -> Counter:
        return Counter(f"loopwright_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Any = ()) -> Gauge:
        return Gauge(f"loopwright_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: Any = ()) -> Histogram:
        return Histogram(f"loopwright_{name}", text, labels, registry=self.registry, buckets=_SECONDS)

    def show(self, name: str, text: str, values: Mapping[str, Callable[[], float]], label: str | None = None) -> None:
        """Add a gauge whose values are asked for when the metrics are.

        Args:
            name: its name, without the prefix.
            text: what it is.
            values: what to ask, by the value of the label; one entry, of any name, without a label.
            label: the name of the label.
        """
        gauge = self._gauge(name, text, [] if label is None else [label])
        for value, ask in values.items():
            (gauge if label is None else gauge.labels(value)).set_function(ask)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
