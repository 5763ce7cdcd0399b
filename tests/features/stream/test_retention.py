"""Retention removes messages from the old end of the stream; late readers get an error instead of a gap."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from tests.support.hub import (
    MANAGER,
    VIEWER,
    execute,
    messages_after,
    new_event,
    new_receiver,
    origin_of,
    running_hub,
    terminate,
    until,
    waiting_for_locks,
    writer_lock_held,
)
from xzepr.core.actor import SYSTEM
from xzepr.core.errors import CursorExpired, InvalidInput, StreamDiverged
from xzepr.features.relay import service as routes
from xzepr.features.stream import retention
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Checkpoint, Cursor, Message, StreamFilter
from xzepr.features.stream.retention import Retention
from xzepr.features.stream.service import Stream
from xzepr.features.subscriptions.service import Subscription, follow
from xzepr.infra.db import Database
from xzepr.settings import DatabaseSettings

KEEP = timedelta(hours=1)
ROUTE = "xzepr.events"
# Default wait for a lock, unless a test sets a shorter one.
_LOCK_SECONDS = 60.0


@asynccontextmanager
async def _open_stream(database_url: str) -> AsyncGenerator[Stream]:
    settings = DatabaseSettings(
        min_connections=1,
        max_connections=8,
        lock_timeout_seconds=_LOCK_SECONDS,
        statement_timeout_seconds=2 * _LOCK_SECONDS,
    )
    db = Database(database_url, settings, name="test")
    await db.open()
    try:
        yield await Stream.open(db)
    finally:
        await db.close()


@pytest.fixture
async def stream(database_url: str) -> AsyncIterator[Stream]:
    """Opens a stream without background loops."""
    async with _open_stream(database_url) as opened_stream:
        yield opened_stream


async def _append(stream: Stream, count: int) -> list[Message]:
    async with stream.write(SYSTEM) as tx:
        return [tx.append(Kind.RECEIVER_UPDATED, receiver_id=f"r{n}", data=b"{}") for n in range(count)]


async def _age(stream: Stream, last: int, hours: float = 2) -> None:
    """Makes the messages up to a position this many hours older."""
    async with stream.db.write() as connection:
        await connection.execute(
            "UPDATE messages SET time = time - %s::interval WHERE position <= %s", (timedelta(hours=hours), last)
        )


async def _enforce(stream: Stream, route: str | None = None) -> None:
    await Retention(stream.db, KEEP, route).enforce()


async def _stored(stream: Stream) -> list[int]:
    async with stream.db.read() as connection:
        rows = await (await connection.execute("SELECT position FROM messages ORDER BY position")).fetchall()
    return [row[0] for row in rows]


async def _page(stream: Stream, after: Cursor | None) -> list[int]:
    page, _ = await stream.page(VIEWER, after, StreamFilter(), 50)
    return [message.position for message in page.items]


async def _save_route(stream: Stream, route: str, position: int, updated: str = "0 s", resume_after: int | None = None):
    async with stream.db.write() as connection:
        await connection.execute(
            """
            INSERT INTO relay_routes (route, state, published_position, updated_at, resume_id, resume_after)
            VALUES (%s, 'stopped', %s, clock_timestamp() - %s::interval, %s, %s)
            ON CONFLICT (route) DO UPDATE SET published_position = excluded.published_position,
                resume_id = excluded.resume_id, resume_after = excluded.resume_after
            """,
            (route, position, updated, None if resume_after is None else "r", resume_after),
        )


async def _before_lock_timeout(call: Awaitable[object]) -> None:
    async with asyncio.timeout(_LOCK_SECONDS / 3):
        await call


# Removed and kept messages --------------------------------------------------------------------------


async def test_old_messages_are_removed_without_a_gap(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCH_MESSAGES", 3)
    history = await _append(stream, 30)
    await _enforce(stream)
    assert await _stored(stream) == list(range(1, 31)), "nothing is old yet"
    await _age(stream, 20)
    await _enforce(stream)
    assert await _stored(stream) == list(range(20, 31)), "position 20 stays as the origin of the stream"
    assert (await origin_of(stream)).cursor == history[19].cursor
    assert await _page(stream, None) == list(range(21, 31))
    await _enforce(stream)
    assert await _stored(stream) == list(range(20, 31))


async def test_no_limit_keeps_everything(stream: Stream) -> None:
    await _append(stream, 5)
    await _age(stream, 5, hours=24 * 3650)
    await Retention(stream.db, None, None).enforce()
    assert await _page(stream, None) == [1, 2, 3, 4, 5]


async def test_newest_message_stays_when_all_are_old(stream: Stream) -> None:
    await _enforce(stream)  # an empty stream causes no error
    assert (await _append(stream, 10))[0].position == 1
    await _age(stream, 10)
    await _enforce(stream)
    head, origin = await stream.head(), await origin_of(stream)
    assert await _stored(stream) == [10]
    assert head.cursor == origin.cursor
    assert await _page(stream, None) == []
    await stream.verify(head.cursor)
    assert [message.position for message in await _append(stream, 2)] == [11, 12]
    assert await _page(stream, head.cursor) == await _page(stream, None) == [11, 12]


async def test_events_outlive_their_messages(database_url: str) -> None:
    async with running_hub(database_url) as hub:
        build = await new_receiver(hub)
        recorded = await hub.recorder.record(MANAGER, new_event(build))
        await _age(hub.stream, 2)
        await _enforce(hub.stream)
        assert await _stored(hub.stream) == [2]
        assert await execute(database_url, "SELECT id FROM events") == [(recorded.event.id,)]
        next_recorded = await hub.recorder.record(MANAGER, new_event(build, success=False))
        assert next_recorded.event.position == 3


async def test_fully_expired_partition_is_dropped(stream: Stream, database_url: str) -> None:
    await _append(stream, 3)
    await execute(
        database_url, "UPDATE messages SET position = 9999999 + position"
    )  # 10000000 ends the first partition
    await _age(stream, 10_000_001)
    await _enforce(stream)
    partitions = await execute(
        database_url, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'messages'::regclass"
    )
    assert ("messages_p0",) not in partitions
    assert await _stored(stream) == [10_000_001, 10_000_002]
    assert (await origin_of(stream)).position == 10_000_001
    await stream.make_partitions(10_000_000)
    assert (await _append(stream, 1))[0].position == 10_000_003


async def test_partition_in_use_is_not_dropped(stream: Stream, database_url: str) -> None:
    await _append(stream, 3)
    await execute(database_url, "UPDATE messages SET position = 9999999 + position")
    await _age(stream, 10_000_001)
    async with await psycopg.AsyncConnection.connect(database_url) as reader:
        await reader.execute("SELECT count(*) FROM messages")
        with capture_logs() as logs:
            await _before_lock_timeout(_enforce(stream))
        assert [log["event"] for log in logs] == ["retention.postponed"]
        await _before_lock_timeout(_append(stream, 1))
    assert await _stored(stream) == [10_000_000, 10_000_001, 10_000_002, 10_000_003]


# Messages that are still needed ---------------------------------------------------------------------


async def test_unpublished_messages_of_a_route_stay(stream: Stream) -> None:
    await _append(stream, 30)
    await _age(stream, 30)
    await _enforce(stream, ROUTE)
    assert await _stored(stream) == list(range(1, 31)), "brokers are configured and the relay has not started"
    await _save_route(stream, ROUTE, 12)
    with capture_logs() as logs:
        await _enforce(stream, ROUTE)
    assert await _stored(stream) == list(range(12, 31)), "the relay verifies the message that it published last"
    assert [(log["event"], log["by"], log["position"]) for log in logs] == [("retention.held", "the relay", 12)]
    await _save_route(stream, ROUTE, 20, resume_after=15)
    await _enforce(stream, ROUTE)
    assert await _stored(stream) == list(range(15, 31)), "the route has to resume after 15"


async def test_foreign_route_holds_messages_until_abandoned(
    stream: Stream,
) -> None:
    await _append(stream, 30)
    await _age(stream, 30)
    await _save_route(stream, "other route", 12)
    await _save_route(stream, "abandoned", 3, updated="61 min")
    await _save_route(stream, ROUTE, 20, updated="61 min")
    await _enforce(stream, ROUTE)
    assert await _stored(stream) == list(range(12, 31))


async def test_undecided_dead_letter_holds_messages(stream: Stream, database_url: str) -> None:
    history = await _append(stream, 30)
    await _age(stream, 30)
    await _save_route(stream, ROUTE, 30)
    await execute(
        database_url,
        "INSERT INTO dead_letters (route, position, message_id, reason) VALUES (%s, 7, %s, 'too large')",
        (ROUTE, history[6].id),
    )
    with capture_logs() as logs:
        await _enforce(stream, ROUTE)
    assert await _stored(stream) == list(range(7, 31))
    assert [(log["event"], log["by"]) for log in logs] == [("retention.held", "a dead letter")]
    await execute(database_url, "UPDATE dead_letters SET dropped_at = now(), dropped_by = 'admin'")
    await _enforce(stream, ROUTE)
    assert await _stored(stream) == [30]


async def test_resume_rejects_removed_positions(stream: Stream) -> None:
    await _append(stream, 30)
    await _age(stream, 20)
    await _save_route(stream, ROUTE, 30)
    await _enforce(stream, ROUTE)
    for arguments in ({"republish_from": 1}, {"republish_from": 20}, {"at": 19}):
        with pytest.raises(InvalidInput, match="positions 21 to 30"):
            await routes.resume(stream.db, SYSTEM, ROUTE, **arguments)
    assert (await routes.resume(stream.db, SYSTEM, ROUTE, republish_from=21)) == 20


# Concurrent processes and writers -------------------------------------------------------------------


async def test_concurrent_retention_does_not_block_writers(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCH_MESSAGES", 10)
    await _append(stream, 1000)
    await _age(stream, 900)
    results = await asyncio.gather(*(_enforce(stream) for _ in range(4)), *(_append(stream, 1) for _ in range(20)))
    assert len(results) == 24
    await _enforce(stream)
    assert await _stored(stream) == list(range(900, 1021))


async def test_retention_never_waits_for_writers_or_blocks_them(stream: Stream, database_url: str) -> None:
    await _append(stream, 100)
    await _age(stream, 50)
    async with writer_lock_held(database_url):
        await _before_lock_timeout(_enforce(stream))
        assert await _stored(stream) == list(range(50, 101))
    await _age(stream, 60)
    async with await psycopg.AsyncConnection.connect(database_url) as locking_connection:
        await locking_connection.execute("SELECT FROM messages WHERE position = 55 FOR UPDATE")
        blocked = asyncio.create_task(_enforce(stream))
        await until(lambda: _row_lock_awaited(database_url))
        assert await waiting_for_locks(database_url) == 0
        await _before_lock_timeout(_append(stream, 1))
        await _before_lock_timeout(_enforce(stream))  # another process is enforcing: nothing to do here
    await blocked
    assert await _stored(stream) == list(range(60, 102))


async def _row_lock_awaited(database_url: str) -> bool:
    rows = await execute(
        database_url,
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'",
    )
    return bool(rows)


async def test_interrupted_batch_is_rolled_back(stream: Stream, database_url: str) -> None:
    await _append(stream, 100)
    await _age(stream, 50)
    async with await psycopg.AsyncConnection.connect(database_url) as locking_connection:
        await locking_connection.execute("SELECT FROM messages WHERE position = 40 FOR UPDATE")
        blocked = asyncio.create_task(_enforce(stream))
        await until(lambda: _row_lock_awaited(database_url))
        await terminate(database_url, "xzepr test pool")
        with pytest.raises(Exception, match="connection to the database was lost"):
            await blocked
    async with _open_stream(database_url) as successor:
        assert await _stored(successor) == list(range(1, 101))
        await _enforce(successor)
        assert await _stored(successor) == list(range(50, 101))


async def test_hub_applies_its_retention_setting(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _open_stream(database_url) as stream:
        await _append(stream, 10)
        await _age(stream, 4, hours=3)
        await _age(stream, 7, hours=1.5)  # 1 to 4 are 4.5 hours old now
    async with running_hub(database_url, stream={"retention_hours": 2}) as hub:
        await until(lambda: _begins_with(hub.stream, 4))
        assert await _page(hub.stream, None) == [5, 6, 7, 8, 9, 10]


async def _begins_with(stream: Stream, position: int) -> bool:
    return (await origin_of(stream)).position == position


# Readers that are too late --------------------------------------------------------------------------


async def test_expired_cursor_error_names_the_oldest_cursor(stream: Stream) -> None:
    beginning = (await stream.head()).cursor
    history = await _append(stream, 30)
    await _age(stream, 20)
    await _enforce(stream)
    for cursor in (beginning, history[0].cursor, history[18].cursor):
        with pytest.raises(CursorExpired) as verified:
            await stream.verify(cursor)
        with pytest.raises(CursorExpired) as paged:
            await stream.page(VIEWER, cursor, StreamFilter(), 10)
        assert verified.value.oldest == paged.value.oldest == str(history[19].cursor)
    assert await _page(stream, Cursor.parse(verified.value.oldest)) == list(range(21, 31))
    await stream.verify(history[20].cursor)


async def test_first_cursor_is_valid_until_messages_are_removed(stream: Stream) -> None:
    beginning = (await stream.head()).cursor
    await _append(stream, 2)
    await _age(stream, 1)
    await _enforce(stream)
    assert await _stored(stream) == [1, 2], "message 1 is the origin and therefore stays"
    assert await _page(stream, beginning) == await _page(stream, None) == [1, 2]


async def test_foreign_cursor_diverges_after_retention(stream: Stream) -> None:
    history = await _append(stream, 30)
    await _age(stream, 20)
    await _enforce(stream)
    for cursor in (Cursor(20, history[0].cursor.id_suffix), Cursor(31, history[0].cursor.id_suffix)):
        with pytest.raises(StreamDiverged):
            await stream.verify(cursor)


@pytest.mark.parametrize("reads_from", [0, 1, 5])
async def test_reader_overtaken_by_retention_sees_no_gap(database_url: str, reads_from: int) -> None:
    async with running_hub(database_url, stream={"ring_size": 10}) as hub:
        await _append(hub.stream, 1000)
        await until(lambda: hub.feed.head.position == 1000)
        async with hub.db.read() as connection:
            [row] = await (await connection.execute("SELECT id FROM messages WHERE position = 5")).fetchall()
        start = {0: Cursor.of(0, hub.stream.hub_id), 5: Cursor.of(5, row[0])}.get(reads_from)
        start = start or (await messages_after(hub.stream, 0, 1))[0].cursor
        frames = follow(hub.stream, hub.feed, VIEWER, start, StreamFilter(), checkpoint_seconds=60)
        async with aclosing(frames):
            assert isinstance(await anext(frames), Checkpoint)
            seen = [(await anext(frames)).cursor.position]
            await _age(hub.stream, 900)
            await _enforce(hub.stream)
            with pytest.raises(CursorExpired) as caught:
                await _read_on(frames, seen)
        assert seen == list(range(reads_from + 1, reads_from + 1 + len(seen)))
        assert len(seen) < 900
        oldest = Cursor.parse(caught.value.oldest)
        resumed = follow(hub.stream, hub.feed, VIEWER, oldest, StreamFilter(), checkpoint_seconds=60)
        async with aclosing(resumed):
            rest = [(await anext(resumed)).cursor.position for _ in range(101)]
        assert rest == list(range(900, 1001)), "a checkpoint at the oldest cursor, then every message after it"


async def _read_on(frames: Subscription, seen: list[int]) -> None:
    async with asyncio.timeout(20):
        while True:
            seen.append((await anext(frames)).cursor.position)


async def test_reader_at_the_origin_misses_nothing(database_url: str) -> None:
    async with running_hub(database_url, stream={"ring_size": 5}) as hub:
        history = await _append(hub.stream, 100)
        await until(lambda: hub.feed.head.position == 100)
        await _age(hub.stream, 50)
        await _enforce(hub.stream)
        frames: Any = follow(hub.stream, hub.feed, VIEWER, history[49].cursor, StreamFilter(), checkpoint_seconds=60)
        async with aclosing(frames):
            positions = [(await anext(frames)).cursor.position for _ in range(51)]
        assert positions == list(range(50, 101))
