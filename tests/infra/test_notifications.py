"""Notifications: which ones end a wait, and what happens if the connection is lost."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from tests.support.hub import execute, terminate
from xzepr.infra.db import Connection
from xzepr.infra.notifications import Notifications

NAME = "listener of a test"


@pytest.fixture
async def listener(database_url: str) -> AsyncIterator[Connection]:
    """A connection that listens to `news`."""
    connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True, application_name=NAME)
    async with connection:
        await connection.execute("LISTEN news")
        yield connection


async def notify(database_url: str, payload: str) -> None:
    await execute(database_url, "SELECT pg_notify('news', %s)", (payload,))


async def test_wait_ends_with_notification(listener: Connection, database_url: str):
    notifications = Notifications(listener, ignored="own")
    for _ in range(3):
        waiting = asyncio.create_task(notifications.wait())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await notify(database_url, "other")
        await waiting


async def test_ignored_payload_ends_no_wait(listener: Connection, database_url: str):
    notifications = Notifications(listener, ignored="own")
    waiting = asyncio.create_task(notifications.wait())
    for _ in range(3):
        await notify(database_url, "own")
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await notify(database_url, "other")
    await waiting


async def test_notification_during_a_statement_is_kept(listener: Connection, database_url: str):
    notifications = Notifications(listener, ignored="own")
    await notify(database_url, "other")
    await listener.execute("SELECT 1")
    await notifications.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(notifications.wait(), 0.05)


async def test_own_statement_works_after_a_wait(listener: Connection, database_url: str):
    notifications = Notifications(listener, ignored="own")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(notifications.wait(), 0.01)
    await listener.execute("SELECT pg_notify('news', 'other')")
    await notifications.wait()


async def test_lost_connection_ends_the_wait(listener: Connection, database_url: str):
    waiting = asyncio.create_task(Notifications(listener, ignored="own").wait())
    await asyncio.sleep(0)
    await terminate(database_url, NAME)
    with pytest.raises(psycopg.OperationalError):
        await waiting
