"""Prometheus metrics: counters of what happened, and gauges of the current state."""

import asyncio
import os
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)

from xzepr.infra.telemetry.counting import BucketHistogram, PlainCounter, PlainHistogram

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_FLUSH_SECONDS = 1.0  # other workers show what this one counted after at most this time


class Metrics:
    """The metrics of one process in a separate registry, or the `shared` metrics of several workers at one address.

    `multiprocess_mode` is how the values of a gauge are combined: the sum or the maximum of the running workers, or the
    latest value if each worker reports on the whole hub.
    """

    def __init__(self, version: str) -> None:
        self._registry = self._shown = CollectorRegistry()
        ProcessCollector(registry=self._shown)
        GCCollector(registry=self._shown)
        self._create(version)

    @classmethod
    def shared(cls, version: str, folder: Path, worker: int) -> "Metrics":
        """Creates the metrics of one of several workers; `render` returns the metrics of all of them.

        A restarted worker continues the counters of the earlier one with the same number: they are in files in the
        folder. Call this once per process, before any other metrics are created.
        """
        remove_worker_gauges(folder, worker)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        untyped: Any = values
        untyped.ValueClass = untyped.MultiProcessValue(lambda: worker)
        metrics = cls.__new__(cls)
        metrics._registry, metrics._shown = CollectorRegistry(), CollectorRegistry()
        multiprocess.MultiProcessCollector(metrics._shown, str(folder))
        metrics._create(version)
        return metrics

    def _create(self, version: str) -> None:
        registry = self._registry
        disable_created_metrics()  # they would add a series to each counter
        Info("xzepr_build", "The running version.", registry=self._shown).info({"version": version})
        starts = Counter("xzepr_worker_starts", "Starts of the processes that serve this address.", registry=registry)
        starts.inc()
        self._counters: list[PlainCounter | PlainHistogram] = []
        self._requests = self._counter(
            "xzepr_http_requests", "HTTP requests that got a response.", "method", "route", "status"
        )
        self._request_seconds = self._histogram(
            "xzepr_http_request_duration_seconds",
            "Seconds from an HTTP request to the end of its response; to its beginning for an event stream.",
            _SECONDS,
            "route",
        )
        self._operations = self._counter(
            "xzepr_graphql_operations",
            "GraphQL operations; the outcome is ok or the code of the first error.",
            "type",
            "outcome",
        )
        self._operation_seconds = self._histogram(
            "xzepr_graphql_operation_duration_seconds", "Execution time of a GraphQL operation.", _SECONDS, "type"
        )
        self._fallbacks = self._counter(
            "xzepr_graphql_fallbacks", "Operations that graphql-core executed instead of a compiled plan.", "reason"
        )
        self._events = self._counter("xzepr_events", "Recorded events, by whether they report a success.", "success")
        self._batch = self._histogram("xzepr_recorder_batch_events", "Events that one transaction recorded.", _BATCHES)
        self._commit_seconds = self._histogram(
            "xzepr_recorder_commit_duration_seconds", "Time from requesting the lock to the commit.", _SECONDS
        )
        self._queue = Gauge(
            "xzepr_recorder_queue_events", "Events that wait.", multiprocess_mode="livesum", registry=registry
        )
        self._gate_messages = self._counter(
            "xzepr_gate_messages", "Messages of the stream about completed and regressed gates.", "kind"
        )
        self._head = Gauge(
            "xzepr_stream_head_position",
            "Newest position that this process has seen.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._relay_published = self._counter(
            "xzepr_relay_published_messages", "Messages that this process has published to Kafka.", "route"
        )
        self._relay_lag = Gauge(
            "xzepr_relay_lag_messages",
            "Messages of the stream that are not yet in Kafka.",
            ["route"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._relay_lag_seconds = Gauge(
            "xzepr_relay_lag_seconds",
            "Age of the oldest message that is not yet in Kafka.",
            ["route"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._dead_letters = Gauge(
            "xzepr_relay_dead_letters",
            "Messages that Kafka rejected and no administrator has dropped.",
            ["route"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._relay_state = Gauge(
            "xzepr_relay_state",
            "Processes whose relay is in this state.",
            ["route", "state"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._relay_states: dict[str, str] = {}  # by route
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
            "xzepr_connections",
            "Open WebSockets and event streams.",
            ["transport"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._subscribers = Gauge(
            "xzepr_subscribers",
            "Open subscriptions by transport.",
            ["transport"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._logins = self._counter("xzepr_logins", "Logins by outcome.", "outcome")

    def _counter(self, name: str, description: str, *labels: str) -> PlainCounter:
        counter = PlainCounter(Counter(name, description, labels, registry=self._registry))
        self._counters.append(counter)
        return counter

    def _histogram(self, name: str, description: str, bounds: tuple[float, ...], *labels: str) -> PlainHistogram:
        histogram = BucketHistogram(name, description, labels, buckets=bounds, registry=self._registry)
        plain = PlainHistogram(histogram, bounds)
        self._counters.append(plain)
        return plain

    def request_answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request. `route` is the declared path of the route, not the path that the client sent."""
        self._requests.sums[method if method in _METHODS else "other", route, status] += 1
        self._request_seconds.observe((route,), seconds)

    def operation_executed(self, operation_type: str, outcome: str, seconds: float) -> None:
        """Counts a query, mutation or subscription. `outcome` is `ok` or the code of the first error."""
        self._operations.sums[operation_type, outcome] += 1
        self._operation_seconds.observe((operation_type,), seconds)

    def operation_fell_back(self, reason: str) -> None:
        """Counts an operation that graphql-core executed. `reason` is one of a few constants."""
        self._fallbacks.sums[reason,] += 1

    def batch_committed(self, size: int, seconds: float) -> None:
        """Counts a transaction with `size` events, which took `seconds` from requesting the lock to the commit."""
        self._batch.observe((), size)
        self._commit_seconds.observe((), seconds)

    def events_recorded(self, passed: int, failed: int) -> None:
        """Counts recorded events by their `success`."""
        self._events.sums["true",] += passed
        self._events.sums["false",] += failed

    def gate_messages_published(self, kind: str, times: int = 1) -> None:
        """Counts messages of the kind `gate.completed` or `gate.regressed` that were published to the stream."""
        self._gate_messages.sums[kind,] += times

    def set_queue_size(self, events: int) -> None:
        """Sets the number of events that wait for a batch."""
        self._queue.set(events)

    def set_head(self, position: int) -> None:
        """Sets the newest position that this process has seen."""
        self._head.set(position)

    def messages_relayed(self, route: str, messages: int) -> None:
        """Counts messages that this process has published to Kafka."""
        self._relay_published.sums[route,] += messages

    def set_relay_lag(self, route: str, messages: int, seconds: float) -> None:
        """Sets the number of messages that are not yet in the route's topic, and the age of the oldest."""
        self._relay_lag.labels(route).set(messages)
        self._relay_lag_seconds.labels(route).set(seconds)

    def set_feed_lag(self, messages: int, seconds: float) -> None:
        """Sets the number of messages that this process has not seen yet, and the age of the oldest."""
        self._feed_lag.set(messages)
        self._feed_lag_seconds.set(seconds)

    def set_subscriber_lag(self, messages: int, seconds: float) -> None:
        """Sets the number of messages that the slowest subscriber has not read, and the age of the oldest.

        Both are 0 without subscribers.
        """
        self._subscriber_lag.set(messages)
        self._subscriber_lag_seconds.set(seconds)

    def set_connections(self, transport: str, connections: int) -> None:
        """Sets the number of open connections of a transport: `websocket` or `sse`."""
        self._connections.labels(transport).set(connections)

    def set_dead_letters(self, route: str, messages: int) -> None:
        """Sets the number of messages that Kafka rejected and no administrator has dropped."""
        self._dead_letters.labels(route).set(messages)

    def set_relay_state(self, route: str, state: str) -> None:
        """Sets the state of this process's relay for a route. There are few states."""
        if route in self._relay_states:
            self._relay_state.labels(route, self._relay_states[route]).set(0)
        self._relay_states[route] = state
        self._relay_state.labels(route, state).set(1)

    def subscription_started(self, transport: str) -> None:
        """Counts an open subscription over `websocket` or `sse`."""
        self._subscribers.labels(transport).inc()

    def subscription_ended(self, transport: str) -> None:
        """Stops counting a subscription that has ended."""
        self._subscribers.labels(transport).dec()

    def login_attempted(self, outcome: str) -> None:
        """Counts a login. `outcome` is success, invalid, limited, overloaded or error."""
        self._logins.sums[outcome,] += 1

    def render(self) -> bytes:
        """Returns all metrics in Prometheus's text format; the media type is CONTENT_TYPE.

        Those of other workers are about a second old.
        """
        self._flush()
        return generate_latest(self._shown)

    async def run(self) -> None:
        """Passes on to the other workers what this process counts, once a second and at the end."""
        try:
            while True:
                await asyncio.sleep(_FLUSH_SECONDS)
                self._flush()
        finally:
            self._flush()

    def _flush(self) -> None:
        for counter in self._counters:
            counter.flush()


def remove_worker_gauges(folder: Path, worker: int) -> None:
    """Removes the gauges of a worker that has ended. Its counters stay."""
    untyped: Any = multiprocess
    untyped.mark_process_dead(worker, str(folder))
