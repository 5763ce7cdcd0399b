"""Events as they are read: by id, by position, in lists."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from xzepr.core.actor import Actor, Permission
from xzepr.core.errors import NotFound
from xzepr.core.ids import is_id
from xzepr.core.paging import Page, PageRequest
from xzepr.features.events import rules, store
from xzepr.features.events.model import EventFilter
from xzepr.features.stream.model import Event
from xzepr.infra.db import Database
from xzepr.settings import EventSettings

_Id = TypeVar("_Id", str, bytes)


@dataclass(frozen=True, slots=True)
class Events:
    """Use cases of recorded events; `Recorder` records them."""

    db: Database
    limits: EventSettings

    async def get(self, actor: Actor, id: str) -> Event:
        """One event; NotFound when there is none."""
        found = await self.by_ids(actor, [id])
        if not found:
            raise NotFound("event", id)
        return found[id]

    async def by_ids(self, actor: Actor, ids: Sequence[str]) -> dict[str, Event]:
        """Those that exist, by their ids."""
        actor.must(Permission.EVENT_READ)
        if not (possible := [id for id in ids if is_id(id)]):
            return {}
        async with self.db.read() as connection:
            return {event.id: event for event in await store.by_ids(connection, possible)}

    async def by_positions(self, actor: Actor, positions: Sequence[int]) -> dict[int, Event]:
        """Those that exist, by their positions in the stream."""
        actor.must(Permission.EVENT_READ)
        async with self.db.read() as connection:
            return {event.position: event for event in await store.by_positions(connection, positions)}

    async def page(self, actor: Actor, wanted: EventFilter, asked: PageRequest) -> Page[Event]:
        """A list of events, newest first."""
        actor.must(Permission.EVENT_READ)
        rules.check_filter(wanted)
        async with self.db.read() as connection:
            found = await store.page(connection, wanted, asked.after, asked.first + 1)
        return Page(found[: asked.first], len(found) > asked.first)

    async def pages_of_receivers(
        self, actor: Actor, wanted: Sequence[tuple[str, PageRequest]]
    ) -> dict[tuple[str, PageRequest], Page[Event]]:
        """A list of each receiver's events, newest first, read together."""
        actor.must(Permission.EVENT_READ)
        asked = [request for _, request in wanted]
        async with self.db.read() as connection:
            found = await store.pages_of_receivers(
                connection, [id for id, _ in wanted], [one.after for one in asked], [one.first + 1 for one in asked]
            )
        return _pages(wanted, found)

    async def pages_of_units(
        self, actor: Actor, wanted: Sequence[tuple[bytes, PageRequest]]
    ) -> dict[tuple[bytes, PageRequest], Page[Event]]:
        """A list of each unit's events, newest first, read together."""
        actor.must(Permission.EVENT_READ)
        asked = [request for _, request in wanted]
        async with self.db.read() as connection:
            found = await store.pages_of_units(
                connection, [id for id, _ in wanted], [one.after for one in asked], [one.first + 1 for one in asked]
            )
        return _pages(wanted, found)

    async def delete_old_keys(self) -> None:
        """Forgets idempotency keys that are older than they must be kept; for the housekeeping loop."""
        async with self.db.read() as connection:
            await store.delete_old_keys(connection, self.limits.idempotency_hours)


def _pages(
    wanted: Sequence[tuple[_Id, PageRequest]], found: Iterable[tuple[int, Event]]
) -> dict[tuple[_Id, PageRequest], Page[Event]]:
    """The pages of those that were asked for, from events with the places, from 1, of what they answer."""
    items: list[list[Event]] = [[] for _ in wanted]
    for number, event in found:
        items[number - 1].append(event)
    return {
        (id, request): Page(events[: request.first], len(events) > request.first)
        for (id, request), events in zip(wanted, items, strict=True)
    }
