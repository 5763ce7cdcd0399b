"""The backlog: what is behind the ring is read once for all who are there, and remembered within bounds."""

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
from xzepr.features.subscriptions.history import Backlog
from xzepr.infra.db import Connection, Database
from xzepr.settings import DatabaseSettings

APART = "xzepr test apart"


class Counting(Database):
    """Counts how often something is read apart, and how many do so at once."""

    reads = 0
    now = 0
    most = 0

    @asynccontextmanager
    async def read_apart(self) -> AsyncGenerator[Connection]:
        self.reads += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            async with super().read_apart() as connection:
                yield connection
        finally:
            self.now -= 1


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Counting]:
    db = Counting(database_url, DatabaseSettings(min_connections=1, max_connections=2), name="test")
    await db.open()
    try:
        yield db
    finally:
        await db.close()


@pytest.fixture
async def said(db: Counting) -> list[Message]:
    """A stream of 250 messages."""
    async with (await Stream.open(db)).write(SYSTEM) as tx:
        return [tx.append(Kind.RECEIVER_UPDATED, receiver_id="r", data=b'"%s"' % (b"x" * 1000)) for _ in range(250)]


async def through(backlog: Backlog, cursor: Cursor) -> list[Message]:
    """All that follows."""
    found: list[Message] = []
    while True:
        message = backlog.at_hand(cursor)
        if message is None:
            message, _ = await backlog.read(cursor)
        if message is None:
            return found
        found.append(message)
        cursor = message.cursor


async def beginning(db: Database) -> Cursor:
    return Cursor.of(0, (await Stream.open(db)).hub_id)


async def connections(database_url: str, application: str = APART) -> int:
    rows = await execute(
        database_url,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s",
        (application,),
    )
    return int(rows[0][0])


async def test_subscribers_at_one_cursor_share_each_read(db: Counting, said: list[Message], database_url: str):
    backlog, start = Backlog(db), await beginning(db)
    assert await connections(database_url) == 0, "nobody needs one yet"
    found = await asyncio.gather(*(through(backlog, start) for _ in range(1000)))
    assert all(one == said for one in found)
    assert db.reads == 5 + 1, "the portions and the end of the stream"
    assert await connections(database_url) <= 4


async def test_nearby_subscribers_converge_on_shared_batches(db: Counting, said: list[Message]):
    backlog = Backlog(db)
    for place in (49, 17, 3):
        assert (await through(backlog, said[place].cursor)) == said[place + 1 :]
    assert db.reads == 4 + 2 + 3, "the portions, the way to them for two, and the end of the stream for three"


async def test_at_most_four_reads_run_at_once(db: Counting, said: list[Message], database_url: str):
    backlog = Backlog(db)
    found = await asyncio.gather(*(backlog.read(said[place].cursor) for place in range(0, 249, 3)))
    assert [message for message, _ in found] == [said[place + 1] for place in range(0, 249, 3)]
    assert db.most == 4
    assert 1 <= await connections(database_url) <= 4


async def test_history_cache_stays_within_its_bound(db: Counting, said: list[Message]):
    backlog, start = Backlog(db, most_bytes=60 * 2048), await beginning(db)
    assert await through(backlog, start) == said
    kept = [message for message in said[:-1] if backlog.at_hand(message.cursor) is not None]
    assert 0 < len(kept) <= 60
    assert await through(backlog, start) == said, "what was forgotten is read again"


async def test_cursor_of_another_stream_has_no_successor(db: Counting, said: list[Message]):
    backlog = Backlog(db)
    await backlog.read(said[0].cursor)
    strange = Cursor(1, "ABCDEFGH")
    assert backlog.at_hand(strange) is None
    assert await backlog.read(strange) == (None, True)


async def test_cancelled_caller_does_not_cancel_shared_read(db: Counting, said: list[Message]):
    backlog = Backlog(db)
    first, second = (asyncio.create_task(backlog.read(said[0].cursor)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == (said[1], False)
    assert db.reads == 1


async def test_read_after_a_lost_connection_reconnects(db: Counting, said: list[Message], database_url: str):
    backlog = Backlog(db)
    await backlog.read(said[0].cursor)
    assert await terminate(database_url, APART) == 1
    with suppress(Unavailable):  # noticed by the one who met it
        await backlog.read(said[100].cursor)
    assert await backlog.read(said[100].cursor) == (said[101], True)
