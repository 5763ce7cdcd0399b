"""Reads of recorded events: by id, by position, and in lists. Kept events are not read again."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

from xzepr.core.actor import Actor, Permission
from xzepr.core.errors import NotFound
from xzepr.core.ids import is_id
from xzepr.core.paging import Page, PageRequest, page_of
from xzepr.features.events import list_store, rules, store
from xzepr.features.events.cache import EventCache
from xzepr.features.events.model import EventFilter
from xzepr.features.stream.model import Event
from xzepr.infra.concurrency import SharedRead
from xzepr.infra.db import Connection, Database, hang_up_after
from xzepr.settings import EventSettings

_Id = TypeVar("_Id", str, bytes)


class Events:
    """Use cases of recorded events. `Recorder` records them."""

    def __init__(self, db: Database, limits: EventSettings, cache: EventCache) -> None:
        self._db = db
        self._limits = limits
        self.cache = cache
        self._listings = SharedRead[tuple[EventFilter, PageRequest], Page[Event]](self._read_page)

    async def get(self, actor: Actor, id: str) -> Event:
        """Returns one event. Raises NotFound if it does not exist."""
        actor.must(Permission.EVENT_READ)
        event = self.cache.by_id(id) or (await self._read_by_ids([id])).get(id)
        if event is None:
            raise NotFound("event", id)
        return event

    async def by_ids(self, actor: Actor, ids: Sequence[str]) -> dict[str, Event]:
        """Returns the events with these ids, by id. Unknown ids are left out."""
        actor.must(Permission.EVENT_READ)
        events = {id: event for id in ids if (event := self.cache.by_id(id)) is not None}
        if len(events) < len(ids):
            events |= await self._read_by_ids([id for id in ids if id not in events])
        return events

    async def by_positions(self, actor: Actor, positions: Sequence[int]) -> dict[int, Event]:
        """Returns the events at these positions in the stream, by position. Unknown positions are left out."""
        actor.must(Permission.EVENT_READ)
        events = self.cache.at(positions)
        if len(events) < len(positions):
            async with self._db.read() as connection:
                events = await self._at(connection, positions)
        return events

    async def page(self, actor: Actor, filter: EventFilter, page_request: PageRequest) -> Page[Event]:
        """Returns a page of the events that match a filter, newest first.

        The page may have fewer events, or none, although more follow: a page examines a limited number of events.
        """
        actor.must(Permission.EVENT_READ)
        rules.check_filter(filter)
        return await self._listings.read((filter, page_request))

    async def pages_of_receivers(
        self, actor: Actor, requests: Sequence[tuple[str, PageRequest]]
    ) -> dict[tuple[str, PageRequest], Page[Event]]:
        """Returns a page of each receiver's events, newest first, read with one statement."""
        actor.must(Permission.EVENT_READ)
        return await self._read_pages(requests, list_store.page_positions_of_receivers)

    async def pages_of_units(
        self, actor: Actor, requests: Sequence[tuple[bytes, PageRequest]]
    ) -> dict[tuple[bytes, PageRequest], Page[Event]]:
        """Returns a page of each unit's events, newest first, read with one statement."""
        actor.must(Permission.EVENT_READ)
        return await self._read_pages(requests, list_store.page_positions_of_units)

    async def delete_old_keys(self) -> None:
        """Deletes idempotency keys that are older than `events.idempotency_hours`, for the housekeeping loop."""
        async with self._db.read() as connection:
            await store.delete_old_keys(connection, self._limits.idempotency_hours)

    async def _read_by_ids(self, ids: Sequence[str]) -> dict[str, Event]:
        valid_ids = [id for id in ids if is_id(id)]
        if not valid_ids:
            return {}
        generation = self.cache.generation
        async with self._db.read() as connection:
            events = await store.by_ids(connection, valid_ids)
        self.cache.put(events, generation)
        return {event.id: event for event in events}

    async def _at(self, connection: Connection, positions: Collection[int]) -> dict[int, Event]:
        """Returns the events at these positions, by position, and reads those that are not kept."""
        generation, events = self.cache.generation, self.cache.at(positions)
        missing = [position for position in positions if position not in events]
        if missing:
            read = await store.by_positions(connection, missing)
            self.cache.put(read, generation)
            events |= {event.position: event for event in read}
        return events

    async def _read_page(self, key: tuple[EventFilter, PageRequest]) -> Page[Event]:
        filter, page_request = key
        first = page_request.first

        async def list_positions(connection: Connection) -> list[Page[int]]:
            positions, reached = await list_store.page_positions(connection, filter, page_request.after, first + 1)
            return [page_of(positions, first, reached)]

        return (await self._events_of(list_positions))[0]

    async def _read_pages(
        self,
        requests: Sequence[tuple[_Id, PageRequest]],
        read: Callable[
            [Connection, Sequence[_Id], Sequence[int | None], Sequence[int]], Awaitable[Sequence[tuple[int, int]]]
        ],
    ) -> dict[tuple[_Id, PageRequest], Page[Event]]:
        async def list_positions(connection: Connection) -> list[Page[int]]:
            rows = await read(
                connection,
                [id for id, _ in requests],
                [page_request.after for _, page_request in requests],
                [page_request.first + 1 for _, page_request in requests],
            )
            positions: list[list[int]] = [[] for _ in requests]
            for number, position in rows:
                positions[number - 1].append(position)
            return [
                page_of(found, request.first, None) for found, (_, request) in zip(positions, requests, strict=True)
            ]

        return dict(zip(requests, await self._events_of(list_positions), strict=True))

    async def _events_of(
        self, list_positions: Callable[[Connection], Awaitable[Sequence[Page[int]]]]
    ) -> list[Page[Event]]:
        """Returns the events of pages of positions. Reads again if the database was restored during the read."""
        while True:
            generation = self.cache.generation
            async with self._db.read() as connection:
                # Other callers may wait for this read, so it must end even if the connection is silent.
                with hang_up_after(connection, self._db.max_transaction_seconds):
                    pages = await list_positions(connection)
                    events = await self._at(connection, {position for page in pages for position in page.items})
            if generation == self.cache.generation:
                return [_with_events(page, events) for page in pages]


def _with_events(page: Page[int], events: Mapping[int, Event]) -> Page[Event]:
    """Returns the page of the events at the positions of a page. An event that was lost after the list is left out."""
    found = [events[position] for position in page.items if position in events]
    return Page(found, page.has_next, page.reached if len(found) == len(page.items) else page.items[-1])
