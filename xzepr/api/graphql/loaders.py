"""Batch loaders of one operation: rows that resolvers request one by one are read with one statement.

Each batch has one task, not one future per key as in Strawberry's DataLoader. The task is shielded: when a field fails,
graphql-core cancels its siblings, and that must not cancel a batch that other fields wait for.
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
    """Collects the keys that are requested in one iteration of the event loop, and reads them in one batch."""

    def __init__(self, read: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._read = read
        self._batches: dict[K, asyncio.Task[Mapping[K, V]]] = {}
        self._pending: dict[K, None] = {}
        self._task: asyncio.Task[Mapping[K, V]] | None = None

    async def load(self, key: K) -> V | None:
        """Returns the value of a key; None if it has none. Each key is read once per operation."""
        task = self._batches.get(key)
        if task is None:
            if self._task is None:
                self._task = asyncio.create_task(self._run())
            self._pending[key] = None
            task = self._batches[key] = self._task
        return (await asyncio.shield(task)).get(key)

    async def _run(self) -> Mapping[K, V]:
        await asyncio.sleep(0)
        keys, self._pending, self._task = list(self._pending), {}, None
        return await self._read(keys)


class Loaders:
    """The loaders of one operation, or of one message of a subscription. Each is created on first use."""

    def __init__(self, hub: Hub, actor: Actor) -> None:
        self._hub = hub
        self._actor = actor

    @cached_property
    def receivers(self) -> Loader[str, Receiver]:
        """Loads receivers by id."""
        return Loader(lambda ids: self._hub.receivers.by_ids(self._actor, ids))

    @cached_property
    def groups_of_receiver(self) -> Loader[str, list[Group]]:
        """Loads the groups of a receiver by its id."""
        return Loader(lambda ids: self._hub.groups.of_receivers(self._actor, ids))

    @cached_property
    def events_at(self) -> Loader[int, Event]:
        """Loads events by position."""
        return Loader(lambda positions: self._hub.events.by_positions(self._actor, positions))

    @cached_property
    def events_of_receiver(self) -> Loader[tuple[str, PageRequest], Page[Event]]:
        """Loads pages of a receiver's events by its id and the page request."""
        return Loader(lambda keys: self._hub.events.pages_of_receivers(self._actor, keys))

    @cached_property
    def events_of_unit(self) -> Loader[tuple[bytes, PageRequest], Page[Event]]:
        """Loads pages of a unit's events by its id and the page request."""
        return Loader(lambda keys: self._hub.events.pages_of_units(self._actor, keys))

    @cached_property
    def gates_of_unit(self) -> Loader[Unit, list[Gate]]:
        """Loads the gates of a unit."""
        return Loader(lambda units: self._hub.groups.gates_of_units(self._actor, units))
