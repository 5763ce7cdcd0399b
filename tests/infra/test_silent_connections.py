"""Connections to PostgreSQL over which nothing comes any more, as when a firewall forgot them: who waits goes on over
another one within a few seconds, although TCP itself would let them wait for a quarter of a minute or for ever."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.support.accounts import Server, server
from tests.support.hub import MANAGER, execute, messages, new_event, new_receiver, running_hub, until
from tests.support.silent_proxy import network
from xzepr.core.actor import SYSTEM, Actor, ActorKind, permissions_of
from xzepr.core.errors import InvalidToken, Unavailable
from xzepr.features.auth.model import CreatedApiKey, NewApiKey
from xzepr.features.stream.model import Cursor
from xzepr.features.subscriptions.history import Backlog
from xzepr.infra import db as infra_db
from xzepr.infra.db import Database
from xzepr.settings import DatabaseSettings

SOON = 12.0
"""Seconds. What is tried here takes two or three; without it, half a minute or for ever."""


async def ask(db: Database, seconds: float = 0) -> None:
    async with db.read() as connection:
        await connection.execute("SELECT pg_sleep(%s)", (seconds,))


async def fill(db: Database, connections: int) -> None:
    """Has the pool hold so many: it grows while somebody waits."""
    async with AsyncExitStack() as held:
        for _ in range(connections):
            await held.enter_async_context(db.read())


@pytest.mark.parametrize("readers", [1, 20])
async def test_pool_of_silent_connections_is_replaced(database_url: str, readers: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(infra_db, "_TRUSTED_FOR_SECONDS", 0.0)
    async with network(database_url) as (url, net):
        patient = DatabaseSettings(min_connections=2, max_connections=6, connection_timeout_seconds=60)
        db = Database(url, patient, name="test")
        await db.open()
        await fill(db, 6)
        assert net.hush("xzepr test pool") == 6
        async with asyncio.timeout(SOON):
            await asyncio.gather(*(ask(db) for _ in range(readers)))
        await db.close()


async def test_reserved_connection_is_free_when_pool_is_exhausted(database_url: str):
    db = Database(database_url, DatabaseSettings(min_connections=1, max_connections=2), name="test")
    await db.open()
    busy = [asyncio.create_task(ask(db, 30)) for _ in range(4)]
    await until(lambda: asleep(database_url, 2))
    async with db.read_reserved() as connection:  # who waited for one of the others would be told that there is none
        await connection.execute("SELECT 1")
    for task in busy:
        task.cancel()
    await asyncio.wait(busy)
    await db.close()


async def asleep(database_url: str, count: int) -> bool:
    rows = await execute(
        database_url,
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
    )
    return len(rows) == count


async def test_silent_reserved_connection_is_replaced(database_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(infra_db, "_TRUSTED_FOR_SECONDS", 60.0)  # else it is replaced before anybody has it
    async with network(database_url) as (url, net):
        db = Database(url, DatabaseSettings(min_connections=1, max_connections=2), name="test")
        await db.open()
        async with db.read_reserved() as connection:
            await connection.execute("SELECT 1")
        assert net.hush("xzepr test reserved") == 1
        async with asyncio.timeout(SOON):
            with pytest.raises(Unavailable):
                async with db.read_reserved() as connection:
                    await connection.execute("SELECT 1")
            async with db.read_reserved() as connection:
                await connection.execute("SELECT 1")
        await db.close()


async def test_connecting_to_silent_server_times_out(database_url: str):
    async with network(database_url) as (url, net):
        db = Database(url, DatabaseSettings(), name="test")
        net.hush_next("xzepr test loop")
        with pytest.raises(Unavailable):
            async with asyncio.timeout(SOON):
                await db.connect("loop", idle_seconds=60)
        assert net.was_hushed


# Credentials --------------------------------------------------------------------------------------


async def key_of(one: Server) -> tuple[Actor, CreatedApiKey]:
    """A user with a key that was looked up just now."""
    user = await one.user("ada")
    actor = Actor(ActorKind.USER, user.id, user.username, permissions_of(user.roles))
    key = await one.auth.create_api_key(actor, NewApiKey("one"))
    await one.auth.authenticate(key.secret)
    return actor, key


async def test_revoked_key_is_rejected_while_pool_is_exhausted(database_url: str):
    async with server(database_url) as here, server(database_url) as there:
        actor, key = await key_of(here)
        busy = [asyncio.create_task(ask(here.db, 30)) for _ in range(100)]
        await asyncio.sleep(0.5)
        await there.auth.revoke_api_key(actor, key.key.id)
        here.clock.time += 3  # what is remembered is too old
        with pytest.raises(InvalidToken):
            async with asyncio.timeout(SOON):
                await here.auth.authenticate(key.secret)
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)


async def test_disabled_user_is_rejected_while_pool_is_exhausted(database_url: str):
    async with server(database_url) as here, server(database_url) as there:
        actor, key = await key_of(here)
        busy = [asyncio.create_task(ask(here.db, 30)) for _ in range(100)]
        await asyncio.sleep(0.5)
        await there.users.set_enabled(SYSTEM, actor.id, False)
        here.clock.time += 3  # what is remembered is too old
        with pytest.raises(InvalidToken):
            async with asyncio.timeout(SOON):
                await here.auth.authenticate(key.secret)
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)


@pytest.mark.parametrize("which", ["reserved", "pool"])
async def test_authentication_survives_silent_connection(database_url: str, which: str):
    async with network(database_url) as (url, net), server(url) as one:
        _, key = await key_of(one)
        one.clock.time += 3
        assert net.hush(f"xzepr test {which}") > 0
        async with asyncio.timeout(SOON):  # a try that is silent, and one that finds the other connections silent
            assert (await one.auth.authenticate(key.secret)).name == "ada"


# The stream ---------------------------------------------------------------------------------------


async def test_feed_survives_silent_connections(database_url: str):
    async with network(database_url) as (url, net), running_hub(url) as hub, running_hub(database_url) as other:
        await new_receiver(other)
        await until(lambda: hub.feed.head.position == 1)
        await asyncio.gather(*(hub.stream.head() for _ in range(8)))  # all connections are trusted
        assert net.hush("xzepr hub feed") == 1
        assert net.hush("xzepr hub pool") > 0
        async with asyncio.timeout(SOON):
            sure = asyncio.create_task(hub.feed.make_sure())
            await new_receiver(other, "later")
            await until(lambda: hub.feed.head.position == 2)
            await sure


async def test_history_read_retries_on_another_connection(database_url: str):
    async with running_hub(database_url) as hub:
        build = await new_receiver(hub)
        await hub.recorder.record_all(MANAGER, [new_event(build, name=f"u{n}") for n in range(120)])
        said = await messages(hub)
    async with network(database_url) as (url, net):
        db = Database(url, DatabaseSettings(), name="test")
        await db.open()
        backlog = Backlog(db, silent_seconds=0.5)
        first = Cursor.of(1, said[0].id)
        assert await backlog.read(first) == (said[1], True)
        assert net.hush("xzepr test apart") == 1
        places = [said[n].cursor for n in range(0, 120, 10)]
        async with asyncio.timeout(SOON):
            found = await asyncio.gather(*(backlog.read(place) for place in places))
        assert [message for message, _ in found] == [said[n + 1] for n in range(0, 120, 10)]
        await db.close()
