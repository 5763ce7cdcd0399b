"""Reads of events: kept events need no statement, and no read misses what was committed before it, in any process."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.api.graphql.statement_counter import CountedDatabase
from tests.support.hub import MANAGER, VIEWER, actor, execute, new_event, new_receiver, running_hub, until
from xzepr.core.actor import Permission
from xzepr.core.errors import Forbidden, InvalidInput, NotFound
from xzepr.core.ids import new_id
from xzepr.core.paging import Page, PageRequest
from xzepr.features.events.cache import EventCache
from xzepr.features.events.model import EventFilter
from xzepr.features.events.service import Events
from xzepr.features.receivers.model import Receiver
from xzepr.features.stream.model import Event
from xzepr.features.subscriptions.feed import Feed
from xzepr.hub import Hub

READS_NOTHING = actor("x", Permission.RECEIVER_READ)
ALL = EventFilter()


@dataclass(slots=True)
class Reader:
    """Another process, which reads events and counts its statements."""

    db: CountedDatabase
    hub: Hub
    events: Events

    def statements(self) -> int:
        """Returns the number of statements since the last call."""
        count = len(self.db.statements)
        self.db.statements.clear()
        return count

    async def has_read(self, writer: Hub) -> None:
        """Waits until this process has read the whole stream."""
        head = await writer.stream.head()
        await until(lambda: self.hub.feed.position == head.position)


@asynccontextmanager
async def reading(database_url: str) -> AsyncGenerator[Reader]:
    db = CountedDatabase(database_url)
    await db.open()
    try:
        async with running_hub(database_url, stream={"poll_seconds": 0.2}) as hub:
            await hub.feed.started()
            yield Reader(db, hub, Events(db, hub.settings.events, hub.events.cache))
    finally:
        await db.close()


@pytest.fixture
async def reader(database_url: str, hub: Hub) -> AsyncIterator[Reader]:
    async with reading(database_url) as reader:
        yield reader


@pytest.fixture
async def receiver(hub: Hub) -> Receiver:
    return await new_receiver(hub)


async def record(hub: Hub, receiver: Receiver, count: int = 1, **fields: Any) -> list[Event]:
    """Records events, and returns them newest first."""
    results = await hub.recorder.record_all(MANAGER, [new_event(receiver, **fields) for _ in range(count)])
    return [result.event for result in reversed(results) if not isinstance(result, Exception)]


async def test_reads_see_each_write_of_another_process(hub: Hub, reader: Reader, receiver: Receiver):
    request = PageRequest(1)
    for _ in range(200):
        (event,) = await record(hub, receiver)
        assert await reader.events.get(VIEWER, event.id) == event
        assert (await reader.events.page(VIEWER, ALL, request)).items == [event]
        pages = await reader.events.pages_of_receivers(VIEWER, [(receiver.id, request)])
        assert pages[receiver.id, request].items == [event]
        assert await reader.events.by_positions(VIEWER, [event.position]) == {event.position: event}


async def test_concurrent_lists_have_all_earlier_events(hub: Hub, reader: Reader, receiver: Receiver):
    recorded: list[int] = []

    async def write() -> None:
        for _ in range(30):
            recorded.extend(event.position for event in await record(hub, receiver))

    async def read() -> None:
        while not writer.done():
            before = recorded[-1:]
            positions = [event.position for event in (await reader.events.page(VIEWER, ALL, PageRequest())).items]
            assert set(before) <= set(positions)

    writer = asyncio.create_task(write())
    await asyncio.gather(writer, *(read() for _ in range(16)))


async def test_kept_events_are_read_without_statement(hub: Hub, reader: Reader, receiver: Receiver):
    events = await record(hub, receiver, 3)
    await reader.has_read(hub)
    newest = events[0]
    assert await reader.events.get(VIEWER, newest.id) == newest
    assert await reader.events.by_ids(VIEWER, [event.id for event in events]) == {event.id: event for event in events}
    positions = [event.position for event in events]
    assert list((await reader.events.by_positions(VIEWER, positions)).values()) == events
    assert reader.statements() == 0
    page = await reader.events.page(VIEWER, ALL, PageRequest())
    assert page == Page(events, has_next=False)
    assert reader.statements() == 1, "the positions"
    assert page.items[0] is await reader.events.get(VIEWER, newest.id)


async def test_events_of_earlier_reads_are_kept(database_url: str, hub: Hub, receiver: Receiver):
    events = await record(hub, receiver, 5)
    async with reading(database_url) as reader:  # its feed has not seen the events
        first = await reader.events.get(VIEWER, events[0].id)
        assert reader.statements() == 1
        assert await reader.events.page(VIEWER, ALL, PageRequest(3)) == Page(events[:3], has_next=True)
        assert reader.statements() == 2, "the positions, and the two events that were missing"
        page = await reader.events.page(VIEWER, ALL, PageRequest(3))
        assert reader.statements() == 1
        assert page.items[0] is first
        assert (await reader.events.by_ids(VIEWER, [event.id for event in events[:4]])).keys() == {
            event.id for event in events[:4]
        }
        assert reader.statements() == 1, "the event that was missing"


async def test_pages_of_receivers_and_units_take_kept_events(hub: Hub, reader: Reader):
    one, two = await new_receiver(hub, "one"), await new_receiver(hub, "two")
    ones, twos = await record(hub, one, 3), await record(hub, two, 2, version="2.0")
    await reader.has_read(hub)
    few, all_after = PageRequest(2), PageRequest(5, after=ones[0].position)
    pages = await reader.events.pages_of_receivers(VIEWER, [(one.id, few), (two.id, few), (one.id, all_after)])
    assert pages == {
        (one.id, few): Page(ones[:2], has_next=True),
        (two.id, few): Page(twos, has_next=False),
        (one.id, all_after): Page(ones[1:], has_next=False),
    }
    unit = twos[0].unit_id
    assert await reader.events.pages_of_units(VIEWER, [(unit, few), (bytes(32), few)]) == {
        (unit, few): Page(twos, has_next=False),
        (bytes(32), few): Page([], has_next=False),
    }
    assert reader.statements() == 2


async def test_equal_lists_share_a_statement(hub: Hub, reader: Reader, receiver: Receiver):
    events = await record(hub, receiver, 3)
    await reader.has_read(hub)
    pages = await asyncio.gather(*(reader.events.page(VIEWER, ALL, PageRequest(2)) for _ in range(20)))
    assert reader.statements() == 1
    assert pages == [Page(events[:2], has_next=True)] * 20
    other = [PageRequest(1), PageRequest(2), PageRequest(2, after=events[0].position)]
    pages = await asyncio.gather(*(reader.events.page(VIEWER, ALL, request) for request in other))
    assert reader.statements() == 3
    assert [[event.position for event in page.items] for page in pages] == [
        [events[0].position],
        [events[0].position, events[1].position],
        [events[1].position, events[2].position],
    ]


async def test_permission_is_checked_before_kept_events(hub: Hub, reader: Reader, receiver: Receiver):
    (event,) = await record(hub, receiver)
    await reader.has_read(hub)
    allowed = asyncio.create_task(reader.events.page(VIEWER, ALL, PageRequest()))
    forbidden: Sequence[Awaitable[object]] = [
        reader.events.page(READS_NOTHING, ALL, PageRequest()),
        reader.events.get(READS_NOTHING, event.id),
        reader.events.by_ids(READS_NOTHING, [event.id]),
        reader.events.by_positions(READS_NOTHING, [event.position]),
        reader.events.pages_of_receivers(READS_NOTHING, [(receiver.id, PageRequest())]),
        reader.events.pages_of_units(READS_NOTHING, [(event.unit_id, PageRequest())]),
    ]
    for read in forbidden:
        with pytest.raises(Forbidden):
            await read
    assert (await allowed).items == [event]


async def test_unknown_events_are_not_found(reader: Reader):
    for id in (new_id(), "no id", "\0"):
        with pytest.raises(NotFound):
            await reader.events.get(VIEWER, id)
    assert await reader.events.by_ids(VIEWER, [new_id(), "no id"]) == {}
    assert await reader.events.by_positions(VIEWER, [1000]) == {}
    with pytest.raises(InvalidInput):
        await reader.events.page(VIEWER, EventFilter(name="\0"), PageRequest())


async def test_cached_events_are_lost_with_the_restore(database_url: str, hub: Hub, reader: Reader, receiver: Receiver):
    kept, lost = (await record(hub, receiver))[0], (await record(hub, receiver))[0]
    await reader.has_read(hub)
    assert await reader.events.get(VIEWER, lost.id) == lost
    delete_events(database_url, lost.position)
    await execute(database_url, "DELETE FROM messages WHERE position > %s", (kept.position,))
    await until(lambda: reader.hub.feed.generation == hub.feed.generation == 1)
    (other,) = await record(hub, receiver, name="other")
    assert other.position == lost.position
    with pytest.raises(NotFound):
        await reader.events.get(VIEWER, lost.id)
    assert await reader.events.get(VIEWER, kept.id) == kept
    assert (await reader.events.page(VIEWER, ALL, PageRequest())).items == [other, kept]


class InterruptedCache(EventCache):
    """A cache with nothing in it, where something happens once between a list and the read of its events."""

    def __init__(self, feed: Feed, interrupt: Callable[[], None]) -> None:
        super().__init__(feed, max_bytes=0)
        self._interrupts = [interrupt]

    def at(self, positions: Iterable[int]) -> dict[int, Event]:
        if self._interrupts:
            self._interrupts.pop()()
        return super().at(positions)


async def test_list_is_read_again_if_restored_during_read(
    database_url: str, hub: Hub, reader: Reader, receiver: Receiver
):
    kept, lost = reversed(await record(hub, receiver, 2))

    def restore() -> None:
        delete_events(database_url, lost.position)
        reader.hub.feed.generation += 1

    events = Events(reader.db, hub.settings.events, InterruptedCache(reader.hub.feed, restore))
    assert await events.page(VIEWER, ALL, PageRequest()) == Page([kept], has_next=False)
    assert reader.statements() == 4


async def test_event_lost_after_list_is_left_out(database_url: str, hub: Hub, reader: Reader, receiver: Receiver):
    oldest, kept, lost = reversed(await record(hub, receiver, 3))
    cache = InterruptedCache(reader.hub.feed, lambda: delete_events(database_url, lost.position))
    events = Events(reader.db, hub.settings.events, cache)
    page = await events.page(VIEWER, ALL, PageRequest(2))
    assert page == Page([kept], has_next=True, reached=kept.position)
    assert (await events.page(VIEWER, ALL, PageRequest(2, after=page.reached))).items == [oldest]


def delete_events(database_url: str, position: int) -> None:
    """Deletes the events from a position on."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM events WHERE position >= %s", (position,))
