"""The stream: one writer at a time, positions without gaps, pages, cursors, partitions."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.hub import (
    MANAGER,
    VIEWER,
    actor,
    execute,
    kinds,
    messages,
    messages_after,
    new_event,
    new_group,
    new_receiver,
    running_hub,
    terminate,
    until,
    waiting_for_locks,
    writer_lock_held,
)
from xzepr.core.actor import ANONYMOUS, SYSTEM, Permission
from xzepr.core.errors import InvalidInput, Overloaded, StreamDiverged, Unauthenticated, Unavailable
from xzepr.core.ids import unit_id
from xzepr.features.groups.model import GroupChange
from xzepr.features.receivers.model import ReceiverChange
from xzepr.features.stream import rules, store
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Cursor, Message, StreamFilter
from xzepr.features.stream.service import Stream
from xzepr.hub import Hub
from xzepr.infra.db import Database
from xzepr.settings import DatabaseSettings


@pytest.fixture
async def stream(database_url: str) -> AsyncIterator[Stream]:
    """A stream of which nothing is read or kept by loops."""
    db = Database(database_url, DatabaseSettings(min_connections=1, max_connections=8), name="test")
    await db.open()
    try:
        yield await Stream.open(db)
    finally:
        await db.close()


async def announce(stream: Stream, count: int = 1) -> list[Message]:
    async with stream.write(SYSTEM) as tx:
        return [tx.append(Kind.RECEIVER_UPDATED, receiver_id=f"r{n}") for n in range(count)]


# Writing -------------------------------------------------------------------------------------------


async def test_concurrent_writers_get_gapless_positions(stream: Stream):
    await asyncio.gather(*(announce(stream, count) for count in (1, 3, 2, 5, 1, 8)))
    found = await messages_after(stream, 0, 100)
    assert [message.position for message in found] == list(range(1, 21))
    assert len({message.id for message in found}) == 20
    assert [message.time for message in found] == sorted(message.time for message in found)


async def test_failed_transaction_publishes_nothing(stream: Stream, database_url: str):
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listener:
        await listener.execute(f"LISTEN {store.CHANNEL}")
        with pytest.raises(RuntimeError):
            await _fail(stream)
        [after] = await announce(stream)
        notices = [notice async for notice in listener.notifies(timeout=5, stop_after=1)]
        notices += [notice async for notice in listener.notifies(timeout=0.05)]
    assert after.position == 1, "the position of what failed was never used"
    assert len(notices) == 1
    assert await execute(database_url, "SELECT count(*) FROM receivers") == [(0,)]


async def _fail(stream: Stream) -> None:
    async with stream.write(SYSTEM) as tx:
        tx.append(Kind.RECEIVER_UPDATED)
        await tx.connection.execute(
            """
            INSERT INTO receivers (id, position, name, type, version, description, schema, schema_digest, revision,
                                   fingerprint, enabled, owner_id, resource_version, created_at, updated_at)
            VALUES ('x', 1, '', '', '', '', 'true', '', 1, '', true, '', 1, now(), now())
            """
        )
        raise RuntimeError("something went wrong after all was written")


async def test_empty_write_transaction_changes_nothing(stream: Stream):
    async with stream.write(SYSTEM):
        pass
    assert (await stream.head()).position == 0


async def test_second_writer_sees_the_first_commit(stream: Stream, database_url: str):
    async with stream.write(SYSTEM) as tx:
        second = asyncio.create_task(announce(stream))
        await until(lambda: _waits(database_url, "xzepr test pool"))
        tx.append(Kind.RECEIVER_CREATED)
    assert [message.position for message in await second] == [2]


async def _waits(database_url: str, application: str) -> bool:
    rows = await execute(
        database_url,
        """
        SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND NOT granted AND datname = current_database() AND application_name = %s
        """,
        (application,),
    )
    return bool(rows[0][0])


async def test_writer_lock_timeout_changes_nothing(database_url: str):
    async with running_hub(database_url, database={"lock_timeout_seconds": 0.1}) as hub:
        async with writer_lock_held(database_url):
            with pytest.raises(Overloaded):
                await new_receiver(hub)
        assert await messages(hub) == []
        assert (await new_receiver(hub)).position == 1


async def test_lost_writer_connection_changes_nothing(stream: Stream, database_url: str):
    async with writer_lock_held(database_url):
        call = asyncio.create_task(announce(stream))
        await until(lambda: _waits(database_url, "xzepr test pool"))
        await terminate(database_url, "xzepr test pool")
        with pytest.raises(Unavailable):
            await call
    assert await waiting_for_locks(database_url) == 0
    assert await messages_after(stream, 0, 10) == []
    assert (await announce(stream))[0].position == 1


# Cursors and pages ---------------------------------------------------------------------------------


async def test_cursors_of_the_stream_are_valid(stream: Stream):
    at_nothing = (await stream.head()).cursor
    assert at_nothing == Cursor.of(0, stream.hub_id)
    said = await announce(stream, 3)
    for cursor in (at_nothing, *(message.cursor for message in said), (await stream.head()).cursor):
        assert Cursor.parse(str(cursor)) == cursor
        await stream.verify(cursor)
    assert (await stream.head()).cursor == said[-1].cursor


async def test_foreign_or_future_cursor_diverges(stream: Stream):
    said = await announce(stream, 2)
    for cursor in (
        Cursor(2, said[0].cursor.tail),
        Cursor(3, said[1].cursor.tail),
        Cursor(0, "ABCDEFGH"),
        Cursor(10**17, "ABCDEFGH"),
    ):
        with pytest.raises(StreamDiverged):
            await stream.verify(cursor)
        with pytest.raises(StreamDiverged):
            await stream.page(VIEWER, cursor, StreamFilter(), 10)


@pytest.mark.parametrize(
    "text", ["", "1", "1-", "-1-ABCDEFGH", "01-ABCDEFGH", "1-abcdefgh", "1-ABCDEFGH ", "1-ABCDEFGHI", "٣-ABCDEFGH"]
)
def test_malformed_cursor_is_rejected(text: str):
    with pytest.raises(InvalidInput):
        Cursor.parse(text)


async def test_pages_hold_all_readable_messages_up_to_the_head(hub: Hub):
    build = await new_receiver(hub)
    await new_group(hub, build)
    await hub.recorder.record_all(MANAGER, [new_event(build, name=f"u{n}") for n in range(10)])
    everything = await messages(hub)
    receivers = actor("r", Permission.RECEIVER_READ)
    cases: list[tuple[Any, StreamFilter, Callable[[Message], bool]]] = [
        (VIEWER, StreamFilter(), lambda _: True),
        (VIEWER, StreamFilter(kinds=frozenset({Kind.GATE_COMPLETED})), lambda m: m.kind is Kind.GATE_COMPLETED),
        (VIEWER, StreamFilter(name="u3"), lambda m: m.event is not None and m.event.name == "u3"),
        (receivers, StreamFilter(), lambda m: m.kind is Kind.RECEIVER_CREATED),
        (actor("nobody"), StreamFilter(), lambda _: False),
    ]
    for who, wanted, expected in cases:
        assert await _paged(hub, who, wanted, 3) == [message for message in everything if expected(message)]
    with pytest.raises(Unauthenticated):
        await hub.stream.page(ANONYMOUS, None, StreamFilter(), 3)


async def _paged(hub: Hub, who: Any, wanted: StreamFilter, first: int) -> list[Message]:
    found: list[Message] = []
    cursor: Cursor | None = None
    while True:
        page, cursor = await hub.stream.page(who, cursor, wanted, first)
        assert len(page.items) <= first
        found += page.items
        if not page.has_next:
            assert cursor == (await hub.stream.head()).cursor, "nothing is read twice by who comes back"
            return found


# One filter, two interpreters ----------------------------------------------------------------------

NAMES = ("app", "APP", "app ", "é", "e\u0301", "ß", "a%", "_")
NAME = st.sampled_from(NAMES)
IDS = st.sampled_from(("r0", "r1", "g0", "nobody"))


async def _varied(hub: Hub) -> tuple[list[Message], dict[str, str]]:
    """A stream with every kind of message, and the ids behind the short names."""
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    group = await new_group(hub, build)
    await new_group(hub, scan, build)
    news = [
        new_event((build, scan)[n % 2], name=NAMES[n % 8], package=NAMES[n // 8], success=n % 3 > 0) for n in range(64)
    ]
    await hub.recorder.record_all(MANAGER, [*news, *(replace(new, success=not new.success) for new in news)])
    await hub.receivers.update(MANAGER, build.id, ReceiverChange(name="x"))
    await hub.groups.update(MANAGER, group.id, GroupChange(name="x"))
    await hub.groups.delete(MANAGER, group.id)
    await hub.receivers.delete(MANAGER, (await new_receiver(hub)).id)
    return await messages(hub), {"r0": build.id, "r1": scan.id, "g0": group.id, "nobody": "nobody"}


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.none() | strategy  # or hardly any filter lets something through


FILTERS = st.builds(
    StreamFilter,
    kinds=st.just(frozenset(Kind)) | st.frozensets(st.sampled_from(Kind)),
    receiver_ids=_maybe(st.frozensets(IDS)),
    group_ids=_maybe(st.frozensets(IDS)),
    unit_id=_maybe(st.builds(unit_id, NAME, st.just("1.0"), st.just("1"), st.just("linux"), NAME)),
    name=_maybe(NAME),
    version=_maybe(st.sampled_from(("1.0", "2.0"))),
    release=_maybe(st.just("1")),
    platform_id=_maybe(st.just("linux")),
    package=_maybe(NAME),
    success=_maybe(st.booleans()),
)


async def test_sql_filter_agrees_with_memory_filter(hub: Hub):
    everything, ids = await _varied(hub)
    assert {message.kind for message in everything} == set(Kind)
    hits: list[int] = []

    async def check(drawn: StreamFilter, after: int) -> None:
        wanted = replace(drawn, receiver_ids=_named(drawn.receiver_ids, ids), group_ids=_named(drawn.group_ids, ids))
        async with hub.db.read() as connection:
            found = await store.page(connection, after, wanted, 1000)
        assert found == [m for m in everything if m.position > after and rules.matches(wanted, m)]
        hits.append(len(found))

    await _for_examples(check, len(everything))
    assert sum(count > 0 for count in hits) > 20, "many filters let something through"


def _named(short: frozenset[str] | None, ids: dict[str, str]) -> frozenset[str] | None:
    return None if short is None else frozenset(ids[name] for name in short)


async def _for_examples(check: Callable[[StreamFilter, int], Awaitable[None]], last: int) -> None:
    """Runs a check in this loop for examples that hypothesis draws in a thread."""
    loop = asyncio.get_running_loop()

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(wanted=FILTERS, after=st.just(0) | st.integers(0, last))
    def draw(wanted: StreamFilter, after: int) -> None:
        asyncio.run_coroutine_threadsafe(_awaited(check(wanted, after)), loop).result(30)

    await asyncio.to_thread(draw)


async def _awaited(what: Awaitable[None]) -> None:
    await what


# Partitions ----------------------------------------------------------------------------------------

_SMALL = """
    DROP TABLE messages_p0, messages_p1;
    CREATE TABLE messages_small PARTITION OF messages FOR VALUES FROM (1) TO (11)
"""


async def _partitions(database_url: str) -> Sequence[tuple[Any, ...]]:
    """Each partition and how many messages it holds."""
    return await execute(
        database_url,
        "SELECT tableoid::regclass::text, count(*) FROM messages GROUP BY tableoid ORDER BY min(position)",
    )


async def test_partitions_are_created_ahead(stream: Stream, database_url: str):
    await execute(database_url, _SMALL)
    await stream.make_partitions(10)
    async with stream.db.read() as connection:
        assert await store.partition_ends(connection) == [11], "nothing is in it yet"
        await announce(stream)
        await stream.make_partitions(10)
        await stream.make_partitions(10)
        assert await store.partition_ends(connection) == [11, 21], "once is enough"
        await announce(stream, 10)
        await stream.make_partitions(10)
        assert await store.partition_ends(connection) == [11, 21, 31]
        await announce(stream, 19)
        await stream.make_partitions(100)
        assert await store.partition_ends(connection) == [11, 21, 31, 131]


async def test_transaction_may_span_two_partitions(database_url: str):
    await execute(database_url, _SMALL)
    async with running_hub(database_url) as hub:  # its housekeeping makes the next partition
        build = await new_receiver(hub)
        await new_group(hub, build)
        await until(lambda: _has_room(hub))
        answers = await hub.recorder.record_all(MANAGER, [new_event(build, name=f"u{n}") for n in range(20)])
        assert not any(isinstance(answer, Exception) for answer in answers)
        found = await messages(hub)
    assert [message.position for message in found] == list(range(1, 43))
    assert [count for _, count in await _partitions(database_url)] == [10, 32]
    assert found[9].event == found[8].event or found[9].event == found[10].event


async def _has_room(hub: Hub) -> bool:
    async with hub.db.read() as connection:
        return len(await store.partition_ends(connection)) > 1


async def _has_place_for_all(stream: Stream) -> bool:
    """Whether three writers may write before the next partition is made."""
    async with stream.db.read() as connection:
        end = (await store.partition_ends(connection))[-1]
        return end - (await store.head(connection)).position > 3


async def test_partitions_are_created_beside_writers(stream: Stream, database_url: str):
    await execute(database_url, _SMALL)
    await stream.make_partitions(20)

    async def write() -> None:
        for _ in range(20):
            await until(lambda: _has_place_for_all(stream))
            await announce(stream)

    async def make() -> None:
        while (await stream.head()).position < 60:
            await stream.make_partitions(20)

    await asyncio.gather(write(), write(), write(), make())
    assert [message.position for message in await messages_after(stream, 0, 100)] == list(range(1, 61))
    assert [count for _, count in await _partitions(database_url)] == [10, 20, 20, 10]


# The feed ------------------------------------------------------------------------------------------


async def test_feed_survives_loss_of_its_connection(hub: Hub, database_url: str):
    await new_receiver(hub)
    await until(lambda: hub.feed.head.position == 1)
    assert await terminate(database_url, "xzepr hub feed") == 1
    await new_receiver(hub, "while it was away")
    await asyncio.wait_for(hub.feed.wait_beyond(1), 10)
    assert hub.feed.head.cursor == (await hub.stream.head()).cursor
    start = Cursor.of(0, hub.stream.hub_id)
    with hub.feed.subscribers.subscribed(0) as reader:
        first = await hub.feed.next(start, reader)
        assert first is not None
        assert [first, await hub.feed.next(first.cursor, reader)] == await messages(hub)


async def test_feed_is_notified_without_polling(database_url: str):
    async with running_hub(database_url, stream={"poll_seconds": 1e9}) as hub:
        for position in range(1, 6):
            await new_receiver(hub)
            await asyncio.wait_for(hub.feed.wait_beyond(position - 1), 5)
        assert await kinds(hub) == [Kind.RECEIVER_CREATED] * 5


async def test_feed_polls_for_messages_without_notification(database_url: str):
    async with running_hub(database_url, stream={"poll_seconds": 0.05}) as hub:
        await execute(
            database_url,
            """
            INSERT INTO messages (position, id, kind, time, actor_kind, actor_id, actor_name)
            VALUES (1, '01M7XD0WJCG1Y78QPF4180KVTM', 'receiver.deleted', now(), 'user', 'u', 'u')
            """,
        )
        await asyncio.wait_for(hub.feed.wait_beyond(0), 5)


async def test_feeds_deliver_commits_of_two_processes_in_order(database_url: str) -> None:
    async with running_hub(database_url) as one, running_hub(database_url) as other:
        seen: dict[str, list[int]] = {"one": [], "other": []}
        one.feed.on_messages.append(lambda messages: seen["one"].extend(message.position for message in messages))
        other.feed.on_messages.append(lambda messages: seen["other"].extend(message.position for message in messages))
        receiver = await new_receiver(one)
        await asyncio.gather(
            *(hub.recorder.record(MANAGER, new_event(receiver)) for _ in range(100) for hub in (one, other))
        )
        await until(lambda: one.feed.head.position == other.feed.head.position == 201)
    assert seen == {"one": list(range(1, 202)), "other": list(range(1, 202))}
