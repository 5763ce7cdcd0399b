"""Limits on the connections and subscriptions of one process, in total and per actor."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from xzepr.api.errors import ConnectionsFull, SubscriptionsFull, TooManyConnections, TooManySubscriptions
from xzepr.api.graphql_server.operations import GraphQLRequest
from xzepr.core import exact_json
from xzepr.core.actor import Actor
from xzepr.core.errors import TooLarge


class ObserveSubscriptions(Protocol):
    """Receives the start and end of each subscription, with its transport: `websocket` or `sse`."""

    def subscription_started(self, transport: str) -> None:
        """Notes that a subscription has started."""
        ...

    def subscription_ended(self, transport: str) -> None:
        """Notes that a subscription has ended."""
        ...


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The maximum numbers of concurrent connections and subscriptions in one process."""

    max_connections: int = 10_000
    """WebSockets and event streams."""
    max_subscriptions: int = 20_000
    max_subscriptions_per_actor: int = 1_000
    """Subscriptions of one user, with all tokens and keys together."""
    max_connections_per_actor: int = 1_000
    """WebSockets and event streams of one user. All clients without credentials count as one user."""
    max_subscription_bytes: int = 64 * 1024
    """Variables and extensions of one subscription as JSON, because they are kept while it lasts."""


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """The limits of one WebSocket."""

    init_timeout_seconds: float = 3
    """How long the client may take to send `connection_init`."""
    ping_seconds: float = 12
    """Interval of pings. A client that sends nothing before the next ping is gone, unless it is behind with reading."""
    stalled_seconds: float = 300
    """How long a client may be behind with reading."""
    max_frame_bytes: int = 1024 * 1024
    max_operations: int = 100
    """Concurrent operations."""
    anonymous_seconds: float = 60
    """How long a client without credentials may stay connected."""


class ConnectionCounts(NamedTuple):
    """The open connections and subscriptions of one process."""

    websockets: int
    event_streams: int
    subscriptions: int


class ConnectionLimiter:
    """Enforces the limits of one process. Each method that takes a slot is a context manager that holds it."""

    def __init__(self, limits: ConnectionLimits | None = None, observe: ObserveSubscriptions | None = None) -> None:
        self._limits = limits or ConnectionLimits()
        self._observe = observe
        self._connections = Counter[str]()
        self._connections_by_actor = Counter[str]()
        self._subscriptions = Counter[str]()
        self._subscriptions_by_actor = Counter[str]()

    def connection(self, transport: str) -> AbstractContextManager[None]:
        """Holds a slot for one connection over `websocket` or `sse`. Raises ConnectionsFull."""
        if self._connections.total() >= self._limits.max_connections:
            raise ConnectionsFull(self._limits.max_connections)
        return _Slot(((self._connections, transport),))

    def actor_connection(self, actor: Actor) -> AbstractContextManager[None]:
        """Counts an open connection for its actor. Raises TooManyConnections."""
        if self._connections_by_actor[actor.id] >= self._limits.max_connections_per_actor:
            raise TooManyConnections(self._limits.max_connections_per_actor)
        return _Slot(((self._connections_by_actor, actor.id),))

    def subscription(self, actor: Actor, transport: str, request: GraphQLRequest) -> AbstractContextManager[None]:
        """Holds a slot for one subscription of the actor.

        Raises TooLarge if its variables and extensions are too large, TooManySubscriptions if the actor has reached its
        limit, and SubscriptionsFull if the process has.
        """
        self._check_size(request)
        if self._subscriptions_by_actor[actor.id] >= self._limits.max_subscriptions_per_actor:
            raise TooManySubscriptions(self._limits.max_subscriptions_per_actor)
        if self._subscriptions.total() >= self._limits.max_subscriptions:
            raise SubscriptionsFull(self._limits.max_subscriptions)
        counters = (self._subscriptions_by_actor, actor.id), (self._subscriptions, transport)
        return _Slot(counters, self._observe, transport)

    def counts(self) -> ConnectionCounts:
        """Returns the current numbers of connections and subscriptions."""
        return ConnectionCounts(self._connections["websocket"], self._connections["sse"], self._subscriptions.total())

    def _check_size(self, request: GraphQLRequest) -> None:
        parts = (("variables", request.variables or {}), ("extensions", request.extensions))
        max_bytes = self._limits.max_subscription_bytes
        if sum(len(exact_json.dumps(value, field=name)) for name, value in parts) > max_bytes:
            raise TooLarge(
                f"the variables and extensions of a subscription may have at most {max_bytes} bytes, "
                "because they are kept while it lasts"
            )


class _Slot:
    """Counts one connection or subscription while a block runs. A generator would take ten times the memory."""

    __slots__ = ("_counters", "_observe", "_transport")

    def __init__(
        self,
        counters: Sequence[tuple[Counter[str], str]],
        observe: ObserveSubscriptions | None = None,
        transport: str = "",
    ) -> None:
        self._counters = counters
        self._observe = observe
        self._transport = transport

    def __enter__(self) -> None:
        for counter, key in self._counters:
            counter[key] += 1
        if self._observe is not None:
            self._observe.subscription_started(self._transport)

    def __exit__(self, *_: object) -> None:
        if self._observe is not None:
            self._observe.subscription_ended(self._transport)
        for counter, key in self._counters:
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
