"""How many connections and subscriptions one process takes, for all and for each actor, counted by transport."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from xzepr.api.errors import ConnectionsFull, SubscriptionsFull, TooManyConnections, TooManySubscriptions
from xzepr.api.graphql_server.operations import GraphQLRequest
from xzepr.core import exact_json
from xzepr.core.actor import Actor
from xzepr.core.errors import TooLarge


class ObserveSubscriptions(Protocol):
    """Hears of subscriptions by their transport: `websocket` or `sse`."""

    def subscription_started(self, transport: str) -> None:
        """One was opened."""
        ...

    def subscription_ended(self, transport: str) -> None:
        """One has ended."""
        ...


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one process takes at the same time."""

    max_connections: int = 10_000
    """WebSockets and event streams."""
    max_subscriptions: int = 20_000
    max_subscriptions_per_actor: int = 1_000
    """Subscriptions of one user, whichever tokens and keys they come with."""
    max_connections_per_actor: int = 1_000
    """WebSockets and event streams of one user; all who came without credentials are one."""
    max_subscription_bytes: int = 64 * 1024
    """Variables and extensions of one subscription, which are kept for as long as it lasts, as JSON."""


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Limits of one WebSocket."""

    init_timeout_seconds: float = 3
    ping_seconds: float = 12
    """A socket that receives nothing between two pings is closed, unless its client is behind with reading."""
    stalled_seconds: float = 300
    """How long a client may stay behind with reading."""
    max_frame_bytes: int = 1024 * 1024
    max_operations: int = 100
    """Operations that run at the same time."""
    anonymous_seconds: float = 60
    """How long a client without credentials may stay. It may only log in."""


class ConnectionCounts(NamedTuple):
    """The open connections and subscriptions of one process."""

    websockets: int
    event_streams: int
    subscriptions: int


class ConnectionLimiter:
    """The places of one process. Each is a block: who is in it has a place, and leaves it at its end."""

    def __init__(self, limits: ConnectionLimits | None = None, observe: ObserveSubscriptions | None = None) -> None:
        self._limits = limits or ConnectionLimits()
        self._observe = observe
        self._connections = Counter[str]()
        self._connections_by_actor = Counter[str]()
        self._subscriptions = Counter[str]()
        self._subscriptions_by_actor = Counter[str]()

    @contextmanager
    def connection(self, transport: str) -> Generator[None]:
        """One connection over `websocket` or `sse`. Raises ConnectionsFull."""
        if self._connections.total() >= self._limits.max_connections:
            raise ConnectionsFull(self._limits.max_connections)
        with _count(self._connections, transport):
            yield

    @contextmanager
    def actor_connection(self, actor: Actor) -> Generator[None]:
        """That one of those connections is this actor's. Raises TooManyConnections."""
        if self._connections_by_actor[actor.id] >= self._limits.max_connections_per_actor:
            raise TooManyConnections(self._limits.max_connections_per_actor)
        with _count(self._connections_by_actor, actor.id):
            yield

    @contextmanager
    def subscription(self, actor: Actor, transport: str, request: GraphQLRequest) -> Generator[None]:
        """One subscription of the actor. Raises TooLarge for what they ask, TooManySubscriptions for their own,
        SubscriptionsFull for all."""
        self._check_size(request)
        if self._subscriptions_by_actor[actor.id] >= self._limits.max_subscriptions_per_actor:
            raise TooManySubscriptions(self._limits.max_subscriptions_per_actor)
        if self._subscriptions.total() >= self._limits.max_subscriptions:
            raise SubscriptionsFull(self._limits.max_subscriptions)
        with _count(self._subscriptions_by_actor, actor.id), _count(self._subscriptions, transport):
            if self._observe is not None:
                self._observe.subscription_started(transport)
            try:
                yield
            finally:
                if self._observe is not None:
                    self._observe.subscription_ended(transport)

    def counts(self) -> ConnectionCounts:
        """Returns how many clients are connected now."""
        return ConnectionCounts(self._connections["websocket"], self._connections["sse"], self._subscriptions.total())

    def _check_size(self, request: GraphQLRequest) -> None:
        kept = (("variables", request.variables or {}), ("extensions", request.extensions))
        if sum(len(exact_json.dumps(value, field=name)) for name, value in kept) > self._limits.max_subscription_bytes:
            raise TooLarge(
                "variables and extensions of a subscription are kept while it lasts, "
                f"and have at most {self._limits.max_subscription_bytes} bytes"
            )


@contextmanager
def _count(counter: Counter[str], key: str) -> Generator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]
