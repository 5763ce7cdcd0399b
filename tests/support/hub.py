"""A whole hub in the test's process, its loops running, and the short words with which tests use it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, LiteralString

import psycopg
import pytest
import structlog

from tests.support.accounts import key_pair, quick_passwords
from xzepr.core.actor import Actor, ActorKind, Permission, Role, permissions_of
from xzepr.features.events.model import NewEvent
from xzepr.features.groups.model import Group, NewGroup
from xzepr.features.receivers.model import NewReceiver, Receiver
from xzepr.features.stream import store
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Message, Origin
from xzepr.features.stream.service import Stream
from xzepr.hub import Hub
from xzepr.processes import running
from xzepr.settings import Settings

MANAGER = Actor(ActorKind.USER, "manager", "manager", permissions_of((Role.EVENT_MANAGER,)))
EMPTY: dict[str, object] = {}
VIEWER = Actor(ActorKind.USER, "viewer", "viewer", permissions_of((Role.EVENT_VIEWER,)))


def actor(id: str, *permissions: Permission) -> Actor:
    """A user with exactly these permissions."""
    return Actor(ActorKind.USER, id, id, frozenset(permissions))


def hub_on(settings: Settings, database_url: str) -> AbstractAsyncContextManager[Hub]:
    """A hub whose loops do not run, with the test process's keys, and passwords whose hashes cost next to nothing: two
    of the usual ones are a third of a second of both processors."""
    return Hub.open(settings, database_url, key_pair(), passwords=quick_passwords())


@asynccontextmanager
async def running_hub(database_url: str, **sections: dict[str, Any]) -> AsyncGenerator[Hub]:
    """A hub with these settings (`recorder={"queue_size": 1}`), its loops running."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])  # others draw tracebacks for seconds
    given: dict[str, Any] = {**sections}
    given["database"] = {"min_connections": 1, "max_connections": 8, **sections.get("database", {})}
    async with hub_on(Settings.model_validate(given), database_url) as hub, running(hub):
        yield hub


@pytest.fixture
async def hub(database_url: str) -> AsyncIterator[Hub]:
    """A hub with the default settings on the test's own database, its loops running."""
    async with running_hub(database_url) as one:
        yield one


def new_event(
    receiver: Receiver | str,
    *,
    name: str = "app",
    version: str = "1.0",
    release: str = "1",
    platform_id: str = "linux",
    package: str = "rpm",
    description: str = "it ended",
    payload: object = EMPTY,
    success: bool = True,
    created_at: datetime | None = None,
    key: str | None = None,
) -> NewEvent:
    """An event to record, complete where nothing is said."""
    return NewEvent(
        name=name,
        version=version,
        release=release,
        platform_id=platform_id,
        package=package,
        description=description,
        payload=payload,
        success=success,
        receiver_id=receiver if isinstance(receiver, str) else receiver.id,
        created_at=created_at,
        idempotency_key=key,
    )


async def new_receiver(hub: Hub, name: str = "build", schema: object = True) -> Receiver:
    """A receiver; it takes every payload unless a schema is given."""
    return await hub.receivers.create(MANAGER, NewReceiver(name, "com.example.test", "1.0", "A test's", schema))


async def new_group(hub: Hub, *members: Receiver | str, name: str = "gate", enabled: bool = True) -> Group:
    """A group of these receivers, in this order."""
    ids = tuple(member if isinstance(member, str) else member.id for member in members)
    return await hub.groups.create(MANAGER, NewGroup(name, "com.example.gate", "1.0", "A test's", ids, enabled))


async def messages_after(stream: Stream, position: int, limit: int) -> list[Message]:
    """Returns up to `limit` messages after a position."""
    async with stream.reader() as reader:
        return await reader.after(position, limit)


async def origin_of(stream: Stream) -> Origin:
    """Returns the entry before the oldest message."""
    async with stream.reader() as reader:
        return await reader.origin()


async def messages(hub: Hub, after: int = 0) -> list[Message]:
    """The whole stream after a position, as the database has it."""
    found: list[Message] = []
    while page := await messages_after(hub.stream, found[-1].position if found else after, 1000):
        found += page
    return found


async def kinds(hub: Hub, after: int = 0) -> list[Kind]:
    """The kinds of all messages after a position."""
    return [message.kind for message in await messages(hub, after)]


async def execute(database_url: str, statement: LiteralString, values: Any = None) -> list[tuple[Any, ...]]:
    """Rows (if any) of one statement on a connection of its own."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        cursor = await connection.execute(statement, values)
        return await cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def writer_lock_held(database_url: str) -> AsyncGenerator[None]:
    """Meanwhile another session has the writer's turn."""
    connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
    async with connection, connection.transaction():
        await store.lock(connection)
        yield


async def waiting_for_locks(database_url: str, application: str = "xzepr%") -> int:
    """How many of the hub's sessions (all, or those with that application name) wait for an advisory lock."""
    rows = await execute(
        database_url,
        """
        SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND NOT granted AND datname = current_database() AND application_name LIKE %s
        """,
        (application,),
    )
    return int(rows[0][0])


async def terminate(database_url: str, application: str) -> int:
    """Ends the sessions with that application name, as an administrator would; says how many."""
    rows = await execute(
        database_url,
        """
        SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = %s
        """,
        (application,),
    )
    return len(rows)


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], seconds: float = 20) -> None:
    """Returns when the condition holds; looks often, and gives up after so many seconds."""
    async with asyncio.timeout(seconds):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.005)
