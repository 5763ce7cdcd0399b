"""Database connections: cancellation, keepalive settings and idle timeouts."""

import asyncio

import pytest

from xzepr.infra.db import ConnectionLost, Database, translate_errors
from xzepr.settings import DatabaseSettings


async def test_cancelled_waiter_for_connection_is_cancelled(database_url: str):
    db = Database(database_url, DatabaseSettings(min_connections=1, max_connections=1), name="test")
    await db.open()

    async def wait() -> None:
        async with db.read():
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


async def test_silent_server_is_detected_within_15_seconds(database_url: str):
    db = Database(database_url, DatabaseSettings(), name="test")
    connection = await db.connect("test")
    async with connection:
        parameters = connection.info.get_parameters()
    assert parameters["tcp_user_timeout"] == "15000"
    assert [parameters[f"keepalives_{name}"] for name in ("idle", "interval", "count")] == ["5", "3", "3"]


async def test_url_overrides_keepalive_settings(database_url: str):
    db = Database(f"{database_url}&keepalives_idle=60", DatabaseSettings(), name="test")
    connection = await db.connect("test")
    async with connection:
        parameters = connection.info.get_parameters()
    assert (parameters["keepalives_idle"], parameters["tcp_user_timeout"]) == ("60", "15000")


async def test_server_closes_idle_connection(database_url: str):
    db = Database(database_url, DatabaseSettings(), name="test")
    connection = await db.connect("test", idle_seconds=0.2)
    try:
        await asyncio.sleep(0.6)
        with pytest.raises(ConnectionLost):
            async with translate_errors():
                await connection.execute("SELECT 1")
    finally:
        await connection.close()
