"""Reads of recorded events: by id, by position, and in lists."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from xzepr.core.actor import Actor, Permission
from xzepr.core.errors import NotFound
from xzepr.core.ids import is_id
from xzepr.core.paging import Page, PageRequest
from xzepr.features.events import list_store, rules, store
from xzepr.features.events.model import EventFilter
from xzepr.features.stream.model import Event
from xzepr.infra.db import Database
from xzepr.settings import EventSettings

_Id = TypeVar("_Id", str, bytes)


@dataclass(frozen=True, slots=True)
class Events:
    """Use cases of recorded events. `Recorder` records them."""

    db: Database
    limits: EventSettings

    async def get(self, actor: Actor, id: str) -> Event:
        """Returns one event. Raises NotFound if it does not exist."""
        events = await self.by_ids(actor, [id])
        if not events:
            raise NotFound("event", id)
        return events[id]

    async def by_ids(self, actor: Actor, ids: Sequence[str]) -> dict[str, Event]:
        """Returns the events with these ids, by id. Unknown ids are left out."""
        actor.must(Permission.EVENT_READ)
        if not (valid_ids := [id for id in ids if is_id(id)]):
            return {}
        async with self.db.read() as connection:
            return {event.id: event for event in await store.by_ids(connection, valid_ids)}

    async def by_positions(self, actor: Actor, positions: Sequence[int]) -> dict[int, Event]:
        """Returns the events at these positions in the stream, by position. Unknown positions are left out."""
        actor.must(Permission.EVENT_READ)
        async with self.db.read() as connection:
            return {event.position: event for event in await store.by_positions(connection, positions)}

    async def page(self, actor: Actor, filter: EventFilter, page_request: PageRequest) -> Page[Event]:
        """Returns a page of the events that match a filter, newest first."""
        actor.must(Permission.EVENT_READ)
        rules.check_filter(filter)
        first = page_request.first
        async with self.db.read() as connection:
            events = await list_store.page(connection, filter, page_request.after, first + 1)
        return Page(events[:first], len(events) > first)

    async def pages_of_receivers(
        self, actor: Actor, requests: Sequence[tuple[str, PageRequest]]
    ) -> dict[tuple[str, PageRequest], Page[Event]]:
        """Returns a page of each receiver's events, newest first, read with one statement."""
        actor.must(Permission.EVENT_READ)
        async with self.db.read() as connection:
            rows = await list_store.pages_of_receivers(
                connection,
                [id for id, _ in requests],
                [page_request.after for _, page_request in requests],
                [page_request.first + 1 for _, page_request in requests],
            )
        return _pages(requests, rows)

    async def pages_of_units(
        self, actor: Actor, requests: Sequence[tuple[bytes, PageRequest]]
    ) -> dict[tuple[bytes, PageRequest], Page[Event]]:
        """Returns a page of each unit's events, newest first, read with one statement."""
        actor.must(Permission.EVENT_READ)
        async with self.db.read() as connection:
            rows = await list_store.pages_of_units(
                connection,
                [id for id, _ in requests],
                [page_request.after for _, page_request in requests],
                [page_request.first + 1 for _, page_request in requests],
            )
        return _pages(requests, rows)

    async def delete_old_keys(self) -> None:
        """Deletes idempotency keys that are older than `events.idempotency_hours`, for the housekeeping loop."""
        async with self.db.read() as connection:
            await store.delete_old_keys(connection, self.limits.idempotency_hours)


def _pages(
    requests: Sequence[tuple[_Id, PageRequest]], rows: Iterable[tuple[int, Event]]
) -> dict[tuple[_Id, PageRequest], Page[Event]]:
    """Groups rows into pages. Each row has the number of its request, from 1."""
    events_by_request: list[list[Event]] = [[] for _ in requests]
    for number, event in rows:
        events_by_request[number - 1].append(event)
    return {
        (id, page_request): Page(events[: page_request.first], len(events) > page_request.first)
        for (id, page_request), events in zip(requests, events_by_request, strict=True)
    }
