"""Loaders of one operation: what its rows ask for one by one is read with one statement.

One future a batch, not one a key (Strawberry's DataLoader makes one a key), and it is shielded: graphql-core cancels
the fields beside one that failed, which must not take the others' batch away.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Generic, TypeVar

from xzepr.core.actor import Actor
from xzepr.core.paging import Page, PageRequest
from xzepr.features.groups.model import Gate, Group, Unit
from xzepr.features.receivers.model import Receiver
from xzepr.features.stream.model import Event
from xzepr.hub import Hub

K = TypeVar("K")
V = TypeVar("V")


class Loader(Generic[K, V]):
    """Collects the keys that are asked for in one turn of the event loop, and reads them together, once."""

    def __init__(self, read: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._read = read
        self._batches: dict[K, asyncio.Task[Mapping[K, V]]] = {}
        self._next: dict[K, None] = {}
        self._task: asyncio.Task[Mapping[K, V]] | None = None

    async def load(self, key: K) -> V | None:
        """What there is under the key; None when there is nothing."""
        task = self._batches.get(key)
        if task is None:
            if self._task is None:
                self._task = asyncio.create_task(self._run())
            self._next[key] = None
            task = self._batches[key] = self._task
        return (await asyncio.shield(task)).get(key)

    async def _run(self) -> Mapping[K, V]:
        await asyncio.sleep(0)
        keys, self._next, self._task = list(self._next), {}, None
        return await self._read(keys)


class Loaders:
    """The loaders of one operation, or of one message of a subscription; most need none, so each is made when asked."""

    def __init__(self, hub: Hub, actor: Actor) -> None:
        self._hub = hub
        self._actor = actor

    @cached_property
    def receivers(self) -> Loader[str, Receiver]:
        """By their ids."""
        return Loader(lambda ids: self._hub.receivers.by_ids(self._actor, ids))

    @cached_property
    def groups_of_receiver(self) -> Loader[str, list[Group]]:
        """By the receiver's id."""
        return Loader(lambda ids: self._hub.groups.of_receivers(self._actor, ids))

    @cached_property
    def events_at(self) -> Loader[int, Event]:
        """By their positions."""
        return Loader(lambda at: self._hub.events.by_positions(self._actor, at))

    @cached_property
    def events_of_receiver(self) -> Loader[tuple[str, PageRequest], Page[Event]]:
        """By the receiver's id and the page."""
        return Loader(lambda wanted: self._hub.events.pages_of_receivers(self._actor, wanted))

    @cached_property
    def events_of_unit(self) -> Loader[tuple[bytes, PageRequest], Page[Event]]:
        """By the unit's id and the page."""
        return Loader(lambda wanted: self._hub.events.pages_of_units(self._actor, wanted))

    @cached_property
    def gates_of_unit(self) -> Loader[Unit, list[Gate]]:
        """By the unit."""
        return Loader(lambda units: self._hub.groups.gates_of_units(self._actor, units))
