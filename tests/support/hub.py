"""A complete hub in the test's process with running background loops, and shortcuts for tests."""

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
from xzepr.server.loops import serving_loops
from xzepr.settings import Settings

MANAGER = Actor(ActorKind.USER, "manager", "manager", permissions_of((Role.EVENT_MANAGER,)))
EMPTY: dict[str, object] = {}
VIEWER = Actor(ActorKind.USER, "viewer", "viewer", permissions_of((Role.EVENT_VIEWER,)))


def actor(id: str, *permissions: Permission) -> Actor:
    """Returns a user with exactly these permissions."""
    return Actor(ActorKind.USER, id, id, frozenset(permissions))


def hub_on(settings: Settings, database_url: str) -> AbstractAsyncContextManager[Hub]:
    """Opens a hub without background loops, with the keys of the test process.

    Password hashes have minimal cost: two regular ones take both processors for a third of a second.
    """
    return Hub.open(settings, database_url, key_pair(), passwords=quick_passwords())


@asynccontextmanager
async def running_hub(database_url: str, **sections: dict[str, Any]) -> AsyncGenerator[Hub]:
    """Opens a hub with these settings (`recorder={"queue_size": 1}`) and running background loops."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])  # rich tracebacks take seconds
    values: dict[str, Any] = {**sections}
    values["database"] = {"min_connections": 1, "max_connections": 8, **sections.get("database", {})}
    async with hub_on(Settings.model_validate(values), database_url) as hub, serving_loops(hub):
        yield hub


@pytest.fixture
async def hub(database_url: str) -> AsyncIterator[Hub]:
    """A hub with default settings and running background loops on the test's own database."""
    async with running_hub(database_url) as running:
        yield running


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
    """Returns an event to record. All fields but the receiver have defaults."""
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
    """Creates a receiver. Its default schema accepts every payload."""
    return await hub.receivers.create(MANAGER, NewReceiver(name, "com.example.test", "1.0", "A test's", schema))


async def new_group(hub: Hub, *members: Receiver | str, name: str = "gate", enabled: bool = True) -> Group:
    """Creates a group of these receivers, in this order."""
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
    """Returns the whole stream after a position, from the database."""
    stream: list[Message] = []
    while page := await messages_after(hub.stream, stream[-1].position if stream else after, 1000):
        stream += page
    return stream


async def kinds(hub: Hub, after: int = 0) -> list[Kind]:
    """Returns the kinds of all messages after a position."""
    return [message.kind for message in await messages(hub, after)]


async def execute(database_url: str, statement: LiteralString, values: Any = None) -> list[tuple[Any, ...]]:
    """Executes a statement on a new connection and returns its rows, if any."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        cursor = await connection.execute(statement, values)
        return await cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def writer_lock_held(database_url: str) -> AsyncGenerator[None]:
    """Holds the writer lock in another session while the block runs."""
    connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
    async with connection, connection.transaction():
        await store.lock(connection)
        yield


async def waiting_for_locks(database_url: str, application: str = "xzepr%") -> int:
    """Returns how many of the hub's sessions with that application name wait for an advisory lock."""
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
    """Terminates the sessions with that application name, as an administrator would. Returns their number."""
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
    """Waits until the condition holds. Checks it every 5 ms and raises TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.005)
