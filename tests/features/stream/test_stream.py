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
from xzepr.features.stream import page_store, rules, store
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Cursor, Message, StreamFilter
from xzepr.features.stream.service import Stream
from xzepr.hub import Hub
from xzepr.infra.db import Database
from xzepr.settings import DatabaseSettings


@pytest.fixture
async def stream(database_url: str) -> AsyncIterator[Stream]:
    """Opens a stream without background loops."""
    db = Database(database_url, DatabaseSettings(min_connections=1, max_connections=8), name="test")
    await db.open()
    try:
        yield await Stream.open(db)
    finally:
        await db.close()


async def append(stream: Stream, count: int = 1) -> list[Message]:
    async with stream.write(SYSTEM) as tx:
        return [tx.append(Kind.RECEIVER_UPDATED, receiver_id=f"r{n}") for n in range(count)]


# Writing --------------------------------------------------------------------------------------------


async def test_concurrent_writers_get_gapless_positions(stream: Stream):
    await asyncio.gather(*(append(stream, count) for count in (1, 3, 2, 5, 1, 8)))
    history = await messages_after(stream, 0, 100)
    assert [message.position for message in history] == list(range(1, 21))
    assert len({message.id for message in history}) == 20
    assert [message.time for message in history] == sorted(message.time for message in history)


async def test_failed_transaction_publishes_nothing(stream: Stream, database_url: str):
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listener:
        await listener.execute(f"LISTEN {store.CHANNEL}")
        with pytest.raises(RuntimeError):
            await _fail(stream)
        [after] = await append(stream)
        notices = [notice async for notice in listener.notifies(timeout=5, stop_after=1)]
        notices += [notice async for notice in listener.notifies(timeout=0.05)]
    assert after.position == 1, "the failed transaction used no position"
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
        raise RuntimeError("failure after the last write")


async def test_empty_write_transaction_changes_nothing(stream: Stream):
    async with stream.write(SYSTEM):
        pass
    assert (await stream.head()).position == 0


async def test_second_writer_sees_the_first_commit(stream: Stream, database_url: str):
    async with stream.write(SYSTEM) as tx:
        second = asyncio.create_task(append(stream))
        await until(lambda: _waits_for_lock(database_url, "xzepr test pool"))
        tx.append(Kind.RECEIVER_CREATED)
    assert [message.position for message in await second] == [2]


async def _waits_for_lock(database_url: str, application: str) -> bool:
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
        call = asyncio.create_task(append(stream))
        await until(lambda: _waits_for_lock(database_url, "xzepr test pool"))
        await terminate(database_url, "xzepr test pool")
        with pytest.raises(Unavailable):
            await call
    assert await waiting_for_locks(database_url) == 0
    assert await messages_after(stream, 0, 10) == []
    assert (await append(stream))[0].position == 1


# Cursors and pages ----------------------------------------------------------------------------------


async def test_cursors_of_the_stream_are_valid(stream: Stream):
    beginning = (await stream.head()).cursor
    assert beginning == Cursor.of(0, stream.hub_id)
    history = await append(stream, 3)
    for cursor in (beginning, *(message.cursor for message in history), (await stream.head()).cursor):
        assert Cursor.parse(str(cursor)) == cursor
        await stream.verify(cursor)
    assert (await stream.head()).cursor == history[-1].cursor


async def test_foreign_or_future_cursor_diverges(stream: Stream):
    history = await append(stream, 2)
    for cursor in (
        Cursor(2, history[0].cursor.id_suffix),
        Cursor(3, history[1].cursor.id_suffix),
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
        (
            VIEWER,
            StreamFilter(kinds=frozenset({Kind.GATE_COMPLETED})),
            lambda message: message.kind is Kind.GATE_COMPLETED,
        ),
        (VIEWER, StreamFilter(name="u3"), lambda message: message.event is not None and message.event.name == "u3"),
        (receivers, StreamFilter(), lambda message: message.kind is Kind.RECEIVER_CREATED),
        (actor("stranger"), StreamFilter(), lambda _: False),
    ]
    for reader, filter, expected in cases:
        assert await _paged(hub, reader, filter, 3) == [message for message in everything if expected(message)]
    with pytest.raises(Unauthenticated):
        await hub.stream.page(ANONYMOUS, None, StreamFilter(), 3)


async def _paged(hub: Hub, reader: Any, filter: StreamFilter, first: int) -> list[Message]:
    messages_read: list[Message] = []
    cursor: Cursor | None = None
    while True:
        page, cursor = await hub.stream.page(reader, cursor, filter, first)
        assert len(page.items) <= first
        messages_read += page.items
        if not page.has_next:
            assert cursor == (await hub.stream.head()).cursor, "a later page repeats no message"
            return messages_read


# One filter, two implementations --------------------------------------------------------------------

NAMES = ("app", "APP", "app ", "é", "e\u0301", "ß", "a%", "_")
NAME = st.sampled_from(NAMES)
IDS = st.sampled_from(("r0", "r1", "g0", "unknown"))


async def _varied(hub: Hub) -> tuple[list[Message], dict[str, str]]:
    """Returns a stream with every kind of message, and the ids of the short names."""
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    group = await new_group(hub, build)
    await new_group(hub, scan, build)
    new_events = [
        new_event((build, scan)[n % 2], name=NAMES[n % 8], package=NAMES[n // 8], success=n % 3 > 0) for n in range(64)
    ]
    await hub.recorder.record_all(
        MANAGER, [*new_events, *(replace(new, success=not new.success) for new in new_events)]
    )
    await hub.receivers.update(MANAGER, build.id, ReceiverChange(name="x"))
    await hub.groups.update(MANAGER, group.id, GroupChange(name="x"))
    await hub.groups.delete(MANAGER, group.id)
    await hub.receivers.delete(MANAGER, (await new_receiver(hub)).id)
    return await messages(hub), {"r0": build.id, "r1": scan.id, "g0": group.id, "unknown": "unknown"}


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.none() | strategy  # with fewer None, hardly any filter would match


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
        filter = replace(drawn, receiver_ids=_named(drawn.receiver_ids, ids), group_ids=_named(drawn.group_ids, ids))
        async with hub.db.read() as connection:
            rows, stopped = await page_store.page(connection, after, filter, 1000)
        assert stopped is None
        assert rows == [
            message for message in everything if message.position > after and rules.matches(filter, message)
        ]
        hits.append(len(rows))

    await _for_examples(check, len(everything))
    assert sum(count > 0 for count in hits) > 20, "many filters match messages"


def _named(short: frozenset[str] | None, ids: dict[str, str]) -> frozenset[str] | None:
    return None if short is None else frozenset(ids[name] for name in short)


async def _for_examples(check: Callable[[StreamFilter, int], Awaitable[None]], last: int) -> None:
    """Runs a check in this event loop for examples that Hypothesis draws in a thread."""
    loop = asyncio.get_running_loop()

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(filter=FILTERS, after=st.just(0) | st.integers(0, last))
    def draw(filter: StreamFilter, after: int) -> None:
        asyncio.run_coroutine_threadsafe(_awaited(check(filter, after)), loop).result(30)

    await asyncio.to_thread(draw)


async def _awaited(awaitable: Awaitable[None]) -> None:
    await awaitable


# Partitions -----------------------------------------------------------------------------------------

_SMALL = """
    DROP TABLE messages_p0, messages_p1;
    CREATE TABLE messages_small PARTITION OF messages FOR VALUES FROM (1) TO (11)
"""


async def _partitions(database_url: str) -> Sequence[tuple[Any, ...]]:
    """Returns each partition with its number of messages."""
    return await execute(
        database_url,
        "SELECT tableoid::regclass::text, count(*) FROM messages GROUP BY tableoid ORDER BY min(position)",
    )


async def test_partitions_are_created_ahead(stream: Stream, database_url: str):
    await execute(database_url, _SMALL)
    await stream.make_partitions(10)
    async with stream.db.read() as connection:
        assert await store.partition_ends(connection) == [11], "the newest partition is still empty"
        await append(stream)
        await stream.make_partitions(10)
        await stream.make_partitions(10)
        assert await store.partition_ends(connection) == [11, 21], "a second call creates nothing"
        await append(stream, 10)
        await stream.make_partitions(10)
        assert await store.partition_ends(connection) == [11, 21, 31]
        await append(stream, 19)
        await stream.make_partitions(100)
        assert await store.partition_ends(connection) == [11, 21, 31, 131]


async def test_transaction_may_span_two_partitions(database_url: str):
    await execute(database_url, _SMALL)
    async with running_hub(database_url) as hub:  # its housekeeping creates the next partition
        build = await new_receiver(hub)
        await new_group(hub, build)
        await until(lambda: _has_next_partition(hub))
        recordings = await hub.recorder.record_all(MANAGER, [new_event(build, name=f"u{n}") for n in range(20)])
        assert not any(isinstance(recording, Exception) for recording in recordings)
        history = await messages(hub)
    assert [message.position for message in history] == list(range(1, 43))
    assert [count for _, count in await _partitions(database_url)] == [10, 32]
    assert history[9].event == history[8].event or history[9].event == history[10].event


async def _has_next_partition(hub: Hub) -> bool:
    async with hub.db.read() as connection:
        return len(await store.partition_ends(connection)) > 1


async def _has_space_for_writers(stream: Stream) -> bool:
    """Returns whether three writers can write before the next partition is created."""
    async with stream.db.read() as connection:
        end = (await store.partition_ends(connection))[-1]
        return end - (await store.head(connection)).position > 3


async def test_partitions_are_created_beside_writers(stream: Stream, database_url: str):
    await execute(database_url, _SMALL)
    await stream.make_partitions(20)

    async def write() -> None:
        for _ in range(20):
            await until(lambda: _has_space_for_writers(stream))
            await append(stream)

    async def create_partitions() -> None:
        while (await stream.head()).position < 60:
            await stream.make_partitions(20)

    await asyncio.gather(write(), write(), write(), create_partitions())
    assert [message.position for message in await messages_after(stream, 0, 100)] == list(range(1, 61))
    assert [count for _, count in await _partitions(database_url)] == [10, 20, 20, 10]


# The feed -------------------------------------------------------------------------------------------


async def test_feed_survives_loss_of_its_connection(hub: Hub, database_url: str):
    await new_receiver(hub)
    await until(lambda: hub.feed.head.position == 1)
    assert await terminate(database_url, "xzepr hub feed") == 1
    await new_receiver(hub, "while disconnected")
    await asyncio.wait_for(hub.feed.wait_beyond(1), 10)
    assert hub.feed.head.cursor == (await hub.stream.head()).cursor
    start = Cursor.of(0, hub.stream.hub_id)
    with hub.feed.subscribers.subscribed(0) as subscriber:
        first = await hub.feed.next(start, subscriber)
        assert first is not None
        assert [first, await hub.feed.next(first.cursor, subscriber)] == await messages(hub)


async def test_feed_is_notified_without_polling(database_url: str):
    async with running_hub(database_url, stream={"poll_seconds": 1e6}) as hub:
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
    async with running_hub(database_url) as first, running_hub(database_url) as second:
        seen: dict[str, list[int]] = {"first": [], "second": []}
        first.feed.on_messages.append(lambda messages: seen["first"].extend(message.position for message in messages))
        second.feed.on_messages.append(lambda messages: seen["second"].extend(message.position for message in messages))
        receiver = await new_receiver(first)
        await asyncio.gather(
            *(hub.recorder.record(MANAGER, new_event(receiver)) for _ in range(100) for hub in (first, second))
        )
        await until(lambda: first.feed.head.position == second.feed.head.position == 201)
    assert seen == {"first": list(range(1, 202)), "second": list(range(1, 202))}
