"""How many connections and subscriptions one process takes, for all and for each actor, counted by transport."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from xzepr.api.errors import ConnectionsFull, SubscriptionsFull, TooManySubscriptions
from xzepr.core.actor import Actor
from xzepr.features.stream.processes import Clients


class ObserveSubscribers(Protocol):
    """Hears of subscriptions by their transport: `websocket` or `sse`."""

    def subscriber_came(self, transport: str) -> None:
        """One was opened."""
        ...

    def subscriber_left(self, transport: str) -> None:
        """One has ended."""
        ...


@dataclass(frozen=True, slots=True)
class CapacityLimits:
    """What one process takes at the same time."""

    max_connections: int = 10_000
    """WebSockets and event streams."""
    max_subscriptions: int = 20_000
    max_subscriptions_per_actor: int = 1_000
    """Subscriptions of one user, whichever tokens and keys they come with."""


class Capacity:
    """The places of one process. Each is a block: who is in it has a place, and leaves it at its end."""

    def __init__(self, limits: CapacityLimits | None = None, observe: ObserveSubscribers | None = None) -> None:
        self._limits = limits or CapacityLimits()
        self._observe = observe
        self._connections = Counter[str]()
        self._subscriptions = 0
        self._of_actors = Counter[str]()

    @contextmanager
    def connection(self, transport: str) -> Generator[None]:
        """One connection over `websocket` or `sse`. Raises ConnectionsFull."""
        if self._connections.total() >= self._limits.max_connections:
            raise ConnectionsFull(self._limits.max_connections)
        self._connections[transport] += 1
        try:
            yield
        finally:
            self._connections[transport] -= 1

    @contextmanager
    def subscription(self, actor: Actor, transport: str) -> Generator[None]:
        """One subscription of the actor. Raises TooManySubscriptions for their own, SubscriptionsFull for all."""
        if self._of_actors[actor.id] >= self._limits.max_subscriptions_per_actor:
            raise TooManySubscriptions(self._limits.max_subscriptions_per_actor)
        if self._subscriptions >= self._limits.max_subscriptions:
            raise SubscriptionsFull(self._limits.max_subscriptions)
        self._count(actor, 1)
        if self._observe is not None:
            self._observe.subscriber_came(transport)
        try:
            yield
        finally:
            self._count(actor, -1)
            if self._observe is not None:
                self._observe.subscriber_left(transport)

    def clients(self) -> Clients:
        """Who is connected now."""
        return Clients(self._connections["websocket"], self._connections["sse"], self._subscriptions)

    def _count(self, actor: Actor, one: int) -> None:
        self._subscriptions += one
        self._of_actors[actor.id] += one
        if not self._of_actors[actor.id]:
            del self._of_actors[actor.id]
