"""Metrics: what happened in this process and how things stand, for Prometheus; the methods say what happened."""

import os
from functools import cache
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
    multiprocess,
    values,
)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """All metrics of one process, in a registry of their own; or, `shared`, of several behind one address.

    A gauge's `multiprocess_mode` says what one number is for several processes: the sum or the worst of those that
    live, or, where all speak of the whole hub, what was said last.
    """

    def __init__(self, version: str) -> None:
        self._registry = self._shown = CollectorRegistry()
        ProcessCollector(registry=self._shown)
        GCCollector(registry=self._shown)
        self._make(version)

    @classmethod
    def shared(cls, version: str, folder: Path, worker: int) -> "Metrics":
        """The metrics of one worker of several, whose `render` shows those of all. They are kept in files of the
        folder, where a worker counts on from where the one of the same number left off. Once a process, and first."""
        remove_worker_gauges(folder, worker)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        kept: Any = values  # whose functions say no types
        kept.ValueClass = kept.MultiProcessValue(lambda: worker)
        metrics = cls.__new__(cls)
        metrics._registry, metrics._shown = CollectorRegistry(), CollectorRegistry()
        multiprocess.MultiProcessCollector(metrics._shown, str(folder))
        metrics._make(version)
        return metrics

    def _make(self, version: str) -> None:
        registry = self._registry
        Info("xzepr_build", "Which hub this is.", registry=self._shown).info({"version": version})
        starts = Counter("xzepr_worker_starts", "Starts of the processes that serve here.", registry=registry)
        starts.inc()
        self._requests = Counter(
            "xzepr_http_requests", "Answered requests.", ["method", "route", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "xzepr_http_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._operations = Counter(
            "xzepr_graphql_operations",
            "GraphQL operations; the outcome is ok or the first error's code.",
            ["type", "outcome"],
            registry=registry,
        )
        self._operation_seconds = Histogram(
            "xzepr_graphql_operation_seconds", "Time to execute.", ["type"], buckets=_SECONDS, registry=registry
        )
        self._events = Counter("xzepr_events", "Recorded events.", ["success"], registry=registry)
        self._batch = Histogram(
            "xzepr_recorder_batch_events", "Events of one transaction.", buckets=_BATCHES, registry=registry
        )
        self._commit_seconds = Histogram(
            "xzepr_recorder_commit_seconds", "One batch, from lock to commit.", buckets=_SECONDS, registry=registry
        )
        self._queue = Gauge(
            "xzepr_recorder_queue_events",
            "Events that wait for a batch.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._gate_messages = Counter(
            "xzepr_gate_messages", "Gates that changed or passed.", ["kind"], registry=registry
        )
        self._head = Gauge(
            "xzepr_stream_head_position",
            "Newest position this process knows.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._relay_lag = Gauge(
            "xzepr_relay_lag_messages",
            "Messages of the stream not yet in Kafka.",
            ["route"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._relay_lag_seconds = Gauge(
            "xzepr_relay_lag_seconds",
            "Age of the oldest message not yet in Kafka.",
            ["route"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._dead_letters = Gauge(
            "xzepr_relay_dead_letters",
            "Messages that Kafka refused and nobody has dropped.",
            ["route"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._relay_state = Gauge(
            "xzepr_relay_state",
            "Processes whose relay does this.",
            ["route", "state"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._relay_was: dict[str, str] = {}
        self._feed_lag = Gauge(
            "xzepr_feed_lag_messages",
            "Messages that this process has not seen.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._feed_lag_seconds = Gauge(
            "xzepr_feed_lag_seconds",
            "Age of the oldest message that this process has not seen.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._subscriber_lag = Gauge(
            "xzepr_subscriber_lag_messages",
            "Messages that the slowest subscriber has not read.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._subscriber_lag_seconds = Gauge(
            "xzepr_subscriber_lag_seconds",
            "Age of the oldest message that the slowest subscriber has not read.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._connections = Gauge(
            "xzepr_connections", "Open connections.", ["transport"], multiprocess_mode="livesum", registry=registry
        )
        self._subscribers = Gauge(
            "xzepr_subscribers", "Open subscriptions.", ["transport"], multiprocess_mode="livesum", registry=registry
        )
        self._logins = Counter("xzepr_logins", "Logins by outcome.", ["outcome"], registry=registry)
        # Finding a child by its labels takes 2 µs, and every request needs four; their labels are a fixed few.
        self._requests_of = cache(self._requests.labels)
        self._request_seconds_of = cache(self._request_seconds.labels)
        self._operations_of = cache(self._operations.labels)
        self._operation_seconds_of = cache(self._operation_seconds.labels)

    def request_answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is the address as the application declares it, never as a client wrote it."""
        self._requests_of(method if method in _METHODS else "other", route, str(status)).inc()
        self._request_seconds_of(route).observe(seconds)

    def operation_executed(self, operation_type: str, outcome: str, seconds: float) -> None:
        """`operation_type` is query, mutation or subscription; `outcome` is `ok` or the code of the first error."""
        self._operations_of(operation_type, outcome).inc()
        self._operation_seconds_of(operation_type).observe(seconds)

    def batch_committed(self, size: int, seconds: float) -> None:
        """One transaction recorded `size` events and took `seconds` from asking for the lock."""
        self._batch.observe(size)
        self._commit_seconds.observe(seconds)

    def events_recorded(self, passed: int, failed: int) -> None:
        """That many events with success true and false."""
        self._events.labels("true").inc(passed)
        self._events.labels("false").inc(failed)

    def gate_messages_published(self, kind: str, times: int = 1) -> None:
        """`gate.completed` or `gate.regressed` went into the stream."""
        self._gate_messages.labels(kind).inc(times)

    def set_queue_size(self, events: int) -> None:
        """So many events wait for a batch."""
        self._queue.set(events)

    def set_head(self, position: int) -> None:
        """The stream is at least this long."""
        self._head.set(position)

    def set_relay_lag(self, route: str, messages: int, seconds: float) -> None:
        """That many messages are in the stream and not yet in the route's topic; the oldest is so old."""
        self._relay_lag.labels(route).set(messages)
        self._relay_lag_seconds.labels(route).set(seconds)

    def set_feed_lag(self, messages: int, seconds: float) -> None:
        """That many messages are in the stream and this process has not seen them; the oldest is so old."""
        self._feed_lag.set(messages)
        self._feed_lag_seconds.set(seconds)

    def set_subscriber_lag(self, messages: int, seconds: float) -> None:
        """That many messages, the oldest so old, wait for the subscriber that is most behind; 0 without subscribers."""
        self._subscriber_lag.set(messages)
        self._subscriber_lag_seconds.set(seconds)

    def set_connections(self, transport: str, connections: int) -> None:
        """So many are open, over `websocket` or `sse`."""
        self._connections.labels(transport).set(connections)

    def set_dead_letters(self, route: str, messages: int) -> None:
        """So many messages of the route were refused by Kafka and await somebody's decision."""
        self._dead_letters.labels(route).set(messages)

    def set_relay_state(self, route: str, state: str) -> None:
        """The relay of that route is now doing this, and nothing else: one word of a fixed few."""
        if route in self._relay_was:
            self._relay_state.labels(route, self._relay_was[route]).set(0)
        self._relay_was[route] = state
        self._relay_state.labels(route, state).set(1)

    def subscription_started(self, transport: str) -> None:
        """A subscription was opened, over `websocket` or `sse`."""
        self._subscribers.labels(transport).inc()

    def subscription_ended(self, transport: str) -> None:
        """A subscription has ended."""
        self._subscribers.labels(transport).dec()

    def login_attempted(self, outcome: str) -> None:
        """`outcome` is success, invalid, limited, overloaded or error."""
        self._logins.labels(outcome).inc()

    def render(self) -> bytes:
        """Everything in Prometheus's text format; its type is CONTENT_TYPE."""
        return generate_latest(self._shown)


def remove_worker_gauges(folder: Path, worker: int) -> None:
    """Takes back how things stood in a worker that has ended; what it has counted stays."""
    library: Any = multiprocess  # whose functions say no types
    library.mark_process_dead(worker, str(folder))
