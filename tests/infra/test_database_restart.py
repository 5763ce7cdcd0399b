"""After a database restart, waiting readers resume at once and broken pool connections cause no delay."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.faults.runner.database import DatabaseServer, database_server
from tests.support.postgres import temporary_folder
from xzepr.infra import db as infra_db
from xzepr.infra.db import Database
from xzepr.settings import DatabaseSettings

SOON = 20.0  # seconds; without the behaviour under test, a read takes a minute or fails


@pytest.fixture
async def server() -> AsyncIterator[DatabaseServer]:
    with temporary_folder() as folder:
        async with database_server(folder / "database", migrated=False) as server:
            yield server


@pytest.fixture
async def db(server: DatabaseServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(infra_db, "_TRUSTED_FOR_SECONDS", 0.0)
    settings = DatabaseSettings(min_connections=2, max_connections=8, connection_timeout_seconds=60)
    db = Database(server.url, settings, name="test")
    await db.open()
    yield db
    await db.close()


async def query(db: Database, seconds: float = 0) -> float:
    """Runs a query that takes `seconds`. Returns the time of its result (`time.monotonic`)."""
    async with db.read() as connection:
        await connection.execute("SELECT pg_sleep(%s)", (seconds,))
    return time.monotonic()


async def fill(db: Database, connections: int) -> None:
    """Opens this many connections in the pool, which grows while a caller waits."""
    async with AsyncExitStack() as held:
        for _ in range(connections):
            await held.enter_async_context(db.read())


async def test_waiting_readers_resume_after_database_restart(server: DatabaseServer, db: Database):
    await server.stop()
    queries = [asyncio.create_task(query(db)) for _ in range(3)]
    await asyncio.sleep(1.5)
    assert not any(task.done() for task in queries)
    await server.start()
    restarted = time.monotonic()
    assert max(await asyncio.gather(*queries)) - restarted < SOON


async def test_broken_connections_do_not_delay_readers(server: DatabaseServer, db: Database):
    await fill(db, 8)
    await server.crash()
    await server.start()
    restarted = time.monotonic()
    for _ in range(3):
        await query(db)
    assert time.monotonic() - restarted < SOON
