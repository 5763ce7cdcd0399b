"""Silent PostgreSQL connections, as a firewall that drops its state leaves them, are replaced within a few seconds.

TCP alone would wait for a quarter of a minute or indefinitely.
"""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.support.accounts import Server, open_server
from tests.support.hub import MANAGER, execute, messages, new_event, new_receiver, running_hub, until
from tests.support.silent_proxy import silent_proxy
from xzepr.core.actor import SYSTEM, Actor, ActorKind, permissions_of
from xzepr.core.errors import InvalidToken, Unavailable
from xzepr.features.auth.model import CreatedApiKey, NewApiKey
from xzepr.features.stream.model import Cursor
from xzepr.features.subscriptions.history import HistoryReader
from xzepr.infra import db as infra_db
from xzepr.infra.db import Database
from xzepr.settings import DatabaseSettings

SOON = 12.0  # seconds; a replacement takes two or three, and without it half a minute or forever


async def query(db: Database, seconds: float = 0) -> None:
    """Runs a query that takes `seconds`."""
    async with db.read() as connection:
        await connection.execute("SELECT pg_sleep(%s)", (seconds,))


async def fill(db: Database, connections: int) -> None:
    """Opens this many connections in the pool, which grows while a caller waits."""
    async with AsyncExitStack() as held:
        for _ in range(connections):
            await held.enter_async_context(db.read())


@pytest.mark.parametrize("readers", [1, 20])
async def test_pool_of_silent_connections_is_replaced(database_url: str, readers: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(infra_db, "_TRUSTED_FOR_SECONDS", 0.0)
    async with silent_proxy(database_url) as (url, net):
        settings = DatabaseSettings(min_connections=2, max_connections=6, connection_timeout_seconds=60)
        db = Database(url, settings, name="test")
        await db.open()
        await fill(db, 6)
        assert net.silence("xzepr test pool") == 6
        async with asyncio.timeout(SOON):
            await asyncio.gather(*(query(db) for _ in range(readers)))
        await db.close()


async def test_reserved_connection_is_free_when_pool_is_exhausted(database_url: str):
    db = Database(database_url, DatabaseSettings(min_connections=1, max_connections=2), name="test")
    await db.open()
    queries = [asyncio.create_task(query(db, 30)) for _ in range(4)]
    await until(lambda: sleeping_queries_are(database_url, 2))
    async with db.read_reserved() as connection:  # `read` would fail: the pool has no connection left
        await connection.execute("SELECT 1")
    for task in queries:
        task.cancel()
    await asyncio.wait(queries)
    await db.close()


async def sleeping_queries_are(database_url: str, count: int) -> bool:
    rows = await execute(
        database_url,
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
    )
    return len(rows) == count


async def test_silent_reserved_connection_is_replaced(database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(infra_db, "_TRUSTED_FOR_SECONDS", 60.0)  # otherwise it is replaced before its next use
    async with silent_proxy(database_url) as (url, net):
        db = Database(url, DatabaseSettings(min_connections=1, max_connections=2), name="test")
        await db.open()
        async with db.read_reserved() as connection:
            await connection.execute("SELECT 1")
        assert net.silence("xzepr test reserved") == 1
        async with asyncio.timeout(SOON):
            with pytest.raises(Unavailable):
                async with db.read_reserved() as connection:
                    await connection.execute("SELECT 1")
            async with db.read_reserved() as connection:
                await connection.execute("SELECT 1")
        await db.close()


async def test_connecting_to_silent_server_times_out(database_url: str):
    async with silent_proxy(database_url) as (url, net):
        db = Database(url, DatabaseSettings(), name="test")
        net.silence_next("xzepr test loop")
        with pytest.raises(Unavailable):
            async with asyncio.timeout(SOON):
                await db.connect("loop", idle_seconds=60)
        assert net.has_silenced_next


# Credentials --------------------------------------------------------------------------------------


async def user_with_cached_key(server: Server) -> tuple[Actor, CreatedApiKey]:
    """Creates a user and an API key, and authenticates with the key, so that it is in the cache."""
    user = await server.user("ada")
    actor = Actor(ActorKind.USER, user.id, user.username, permissions_of(user.roles))
    key = await server.auth.create_api_key(actor, NewApiKey("one"))
    await server.auth.authenticate(key.secret)
    return actor, key


async def test_revoked_key_is_rejected_while_pool_is_exhausted(database_url: str):
    async with open_server(database_url) as first, open_server(database_url) as second:
        actor, key = await user_with_cached_key(first)
        queries = [asyncio.create_task(query(first.db, 30)) for _ in range(100)]
        await asyncio.sleep(0.5)
        await second.auth.revoke_api_key(actor, key.key.id)
        first.clock.time += 3  # expires the cached key
        with pytest.raises(InvalidToken):
            async with asyncio.timeout(SOON):
                await first.auth.authenticate(key.secret)
        for task in queries:
            task.cancel()
        await asyncio.wait(queries)


async def test_disabled_user_is_rejected_while_pool_is_exhausted(database_url: str):
    async with open_server(database_url) as first, open_server(database_url) as second:
        actor, key = await user_with_cached_key(first)
        queries = [asyncio.create_task(query(first.db, 30)) for _ in range(100)]
        await asyncio.sleep(0.5)
        await second.users.set_enabled(SYSTEM, actor.id, False)
        first.clock.time += 3  # expires the cached key
        with pytest.raises(InvalidToken):
            async with asyncio.timeout(SOON):
                await first.auth.authenticate(key.secret)
        for task in queries:
            task.cancel()
        await asyncio.wait(queries)


@pytest.mark.parametrize("purpose", ["reserved", "pool"])
async def test_authentication_survives_silent_connection(database_url: str, purpose: str):
    async with silent_proxy(database_url) as (url, net), open_server(url) as accounts:
        _, key = await user_with_cached_key(accounts)
        accounts.clock.time += 3
        assert net.silence(f"xzepr test {purpose}") > 0
        async with asyncio.timeout(SOON):  # for a silent attempt and one that replaces the other silent connections
            assert (await accounts.auth.authenticate(key.secret)).name == "ada"


# The stream ---------------------------------------------------------------------------------------


async def test_feed_survives_silent_connections(database_url: str):
    async with silent_proxy(database_url) as (url, net), running_hub(url) as hub, running_hub(database_url) as other:
        await new_receiver(other)
        await until(lambda: hub.feed.head.position == 1)
        await asyncio.gather(*(hub.stream.head() for _ in range(8)))  # marks all connections as trusted
        assert net.silence("xzepr hub feed") == 1
        assert net.silence("xzepr hub pool") > 0
        async with asyncio.timeout(SOON):
            verification = asyncio.create_task(hub.feed.revalidate())
            await new_receiver(other, "later")
            await until(lambda: hub.feed.head.position == 2)
            await verification


async def test_history_read_retries_on_another_connection(database_url: str):
    async with running_hub(database_url) as hub:
        build = await new_receiver(hub)
        await hub.recorder.record_all(MANAGER, [new_event(build, name=f"u{n}") for n in range(120)])
        stored = await messages(hub)
    async with silent_proxy(database_url) as (url, net):
        db = Database(url, DatabaseSettings(), name="test")
        await db.open()
        history = HistoryReader(db, read_timeout_seconds=0.5)
        first = Cursor.of(1, stored[0].id)
        assert await history.read(first) == (stored[1], True)
        assert net.silence("xzepr test bulk") == 1
        cursors = [stored[n].cursor for n in range(0, 120, 10)]
        async with asyncio.timeout(SOON):
            results = await asyncio.gather(*(history.read(cursor) for cursor in cursors))
        assert [message for message, _ in results] == [stored[n + 1] for n in range(0, 120, 10)]
        await db.close()
