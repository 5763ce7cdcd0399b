"""What a process holds open towards PostgreSQL."""

import asyncio

import pytest

from xzepr.infra.db import Database
from xzepr.settings import DatabaseSettings


async def test_who_is_cancelled_while_a_connection_comes_free_is_cancelled(database_url: str):
    db = Database(database_url, DatabaseSettings(min_connections=1, max_connections=1), name="test")
    await db.open()
    went_on: list[int] = []

    async def wait() -> None:
        async with db.read():
            went_on.append(1)
            await asyncio.sleep(10)

    try:
        for ticks in range(12):
            async with db.read():
                waiting = asyncio.create_task(wait())
                await asyncio.sleep(0.02)
            for _ in range(ticks):
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(5):
                    await waiting
        async with db.read() as connection:
            await connection.execute("SELECT 1")
    finally:
        await db.close()
