"""Batch loaders of one operation: rows that resolvers request one by one are read with one statement.

When a field fails, graphql-core cancels its siblings. That does not cancel a batch that other fields wait for.
"""

from functools import cached_property

from xzepr.core.actor import Actor
from xzepr.core.paging import Page, PageRequest
from xzepr.features.groups.model import Gate, Group, Unit
from xzepr.features.receivers.model import Receiver
from xzepr.features.stream.model import Event
from xzepr.hub import Hub
from xzepr.infra.concurrency import BatchLoader


class Loaders:
    """The loaders of one operation, or of one message of a subscription. Each is created on first use."""

    def __init__(self, hub: Hub, actor: Actor) -> None:
        self._hub = hub
        self._actor = actor

    @cached_property
    def receivers(self) -> BatchLoader[str, Receiver]:
        """Loads receivers by id."""
        return BatchLoader(lambda ids: self._hub.receivers.by_ids(self._actor, ids), keep=True)

    @cached_property
    def groups_of_receiver(self) -> BatchLoader[str, list[Group]]:
        """Loads the groups of a receiver by its id."""
        return BatchLoader(lambda ids: self._hub.groups.of_receivers(self._actor, ids), keep=True)

    @cached_property
    def events_at(self) -> BatchLoader[int, Event]:
        """Loads events by position."""
        return BatchLoader(lambda positions: self._hub.events.by_positions(self._actor, positions), keep=True)

    @cached_property
    def events_of_receiver(self) -> BatchLoader[tuple[str, PageRequest], Page[Event]]:
        """Loads pages of a receiver's events by its id and the page request."""
        return BatchLoader(lambda keys: self._hub.events.pages_of_receivers(self._actor, keys), keep=True)

    @cached_property
    def events_of_unit(self) -> BatchLoader[tuple[bytes, PageRequest], Page[Event]]:
        """Loads pages of a unit's events by its id and the page request."""
        return BatchLoader(lambda keys: self._hub.events.pages_of_units(self._actor, keys), keep=True)

    @cached_property
    def gates_of_unit(self) -> BatchLoader[Unit, list[Gate]]:
        """Loads the gates of a unit."""
        return BatchLoader(lambda units: self._hub.groups.gates_of_units(self._actor, units), keep=True)
