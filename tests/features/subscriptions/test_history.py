"""The history reader: older messages are read once for all subscribers at one cursor and cached within a bound."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.support.hub import execute, terminate
from xzepr.core.actor import SYSTEM
from xzepr.core.errors import Unavailable
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Cursor, Message
from xzepr.features.stream.service import Stream
from xzepr.features.subscriptions.history import HistoryReader
from xzepr.infra.db import Connection, Database
from xzepr.settings import DatabaseSettings

BULK_APPLICATION = "xzepr test bulk"


class CountingDatabase(Database):
    """Counts bulk reads, and the most that ran at once."""

    reads = 0
    running = 0
    most = 0

    @asynccontextmanager
    async def read_bulk(self) -> AsyncGenerator[Connection]:
        self.reads += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            async with super().read_bulk() as connection:
                yield connection
        finally:
            self.running -= 1


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[CountingDatabase]:
    db = CountingDatabase(database_url, DatabaseSettings(min_connections=1, max_connections=2), name="test")
    await db.open()
    try:
        yield db
    finally:
        await db.close()


@pytest.fixture
async def history(db: CountingDatabase) -> list[Message]:
    """A stream of 250 messages."""
    async with (await Stream.open(db)).write(SYSTEM) as tx:
        return [tx.append(Kind.RECEIVER_UPDATED, receiver_id="r", data=b'"%s"' % (b"x" * 1000)) for _ in range(250)]


async def read_all(reader: HistoryReader, cursor: Cursor) -> list[Message]:
    """Reads all messages after the cursor."""
    messages: list[Message] = []
    while True:
        message = reader.cached(cursor)
        if message is None:
            message, _ = await reader.read(cursor)
        if message is None:
            return messages
        messages.append(message)
        cursor = message.cursor


async def beginning(db: Database) -> Cursor:
    return Cursor.of(0, (await Stream.open(db)).hub_id)


async def connections(database_url: str, application: str = BULK_APPLICATION) -> int:
    rows = await execute(
        database_url,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s",
        (application,),
    )
    return int(rows[0][0])


async def test_subscribers_at_one_cursor_share_each_read(
    db: CountingDatabase, history: list[Message], database_url: str
):
    reader, start = HistoryReader(db), await beginning(db)
    assert await connections(database_url) == 0, "no connection before the first read"
    results = await asyncio.gather(*(read_all(reader, start) for _ in range(1000)))
    assert all(messages == history for messages in results)
    assert db.reads == 5 + 1, "five batches and the end of the stream"
    assert await connections(database_url) <= 4


async def test_nearby_subscribers_converge_on_shared_batches(db: CountingDatabase, history: list[Message]):
    reader = HistoryReader(db)
    for index in (49, 17, 3):
        assert (await read_all(reader, history[index].cursor)) == history[index + 1 :]
    assert db.reads == 4 + 2 + 3, "four batches, two reads towards them, and the end of the stream three times"


async def test_at_most_four_reads_run_at_once(db: CountingDatabase, history: list[Message], database_url: str):
    reader = HistoryReader(db)
    results = await asyncio.gather(*(reader.read(history[index].cursor) for index in range(0, 249, 3)))
    assert [message for message, _ in results] == [history[index + 1] for index in range(0, 249, 3)]
    assert db.most == 4
    assert 1 <= await connections(database_url) <= 4


async def test_history_cache_stays_within_its_bound(db: CountingDatabase, history: list[Message]):
    reader, start = HistoryReader(db, max_bytes=60 * 2048), await beginning(db)
    assert await read_all(reader, start) == history
    cached = [message for message in history[:-1] if reader.cached(message.cursor) is not None]
    assert 0 < len(cached) <= 60
    assert await read_all(reader, start) == history, "evicted messages are read again"


async def test_cursor_of_another_stream_has_no_successor(db: CountingDatabase, history: list[Message]):
    reader = HistoryReader(db)
    await reader.read(history[0].cursor)
    foreign = Cursor(1, "ABCDEFGH")
    assert reader.cached(foreign) is None
    assert await reader.read(foreign) == (None, True)


async def test_cancelled_caller_does_not_cancel_shared_read(db: CountingDatabase, history: list[Message]):
    reader = HistoryReader(db)
    first, second = (asyncio.create_task(reader.read(history[0].cursor)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == (history[1], False)
    assert db.reads == 1


async def test_read_after_a_lost_connection_reconnects(db: CountingDatabase, history: list[Message], database_url: str):
    reader = HistoryReader(db)
    await reader.read(history[0].cursor)
    assert await terminate(database_url, BULK_APPLICATION) == 1
    with suppress(Unavailable):  # the first read after the loss may fail
        await reader.read(history[100].cursor)
    assert await reader.read(history[100].cursor) == (history[101], True)
