"""PostgreSQL: one pool of connections for short statements, and connections of one's own for loops that keep one."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from xzepr.core.errors import Overloaded, TimedOut, Unavailable
from xzepr.settings import DatabaseSettings

Connection = AsyncConnection[TupleRow]

_TRUSTED_FOR_SECONDS = 1.0
"""A pooled connection that was used this recently is handed out unchecked; an older one is tried first."""


def is_connection_loss(error: BaseException) -> bool:
    """Whether the server, and not the statement, is what failed: then the outcome of what was sent is unknown."""
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not isinstance(
        error, errors.LockNotAvailable | errors.QueryCanceled
    )


@asynccontextmanager
async def refusals() -> AsyncIterator[None]:
    """Turns what the database says when it is away, busy or slow into Problems; other errors pass."""
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("the database is not reachable or all its connections are in use", retry_after=1) from error
    except errors.LockNotAvailable as error:
        raise Overloaded("another writer holds the stream; nothing was changed", retry_after=1) from error
    except errors.QueryCanceled as error:
        raise TimedOut("the database took too long", retry_after=1) from error
    except psycopg.Error as error:
        if not is_connection_loss(error):
            raise
        raise Unavailable("the connection to the database was lost", retry_after=1) from error


class Database:
    """What a process holds open towards PostgreSQL."""

    def __init__(self, url: str, settings: DatabaseSettings, *, name: str) -> None:
        """`name` is the process's part of `application_name`."""
        self._url = url
        self._settings = settings
        self._name = name
        self._used: dict[int, float] = {}
        self._pool = AsyncConnectionPool(
            self._conninfo("pool"),
            connection_class=AsyncConnection[TupleRow],
            kwargs={"autocommit": True},
            min_size=settings.min_connections,
            max_size=settings.max_connections,
            timeout=settings.connection_timeout_seconds,
            reconnect_timeout=0,
            check=self._check,
            reset=self._remember,
            open=False,
        )

    def _conninfo(self, purpose: str) -> str:
        limits = {
            "statement_timeout": self._settings.statement_timeout_seconds,
            "lock_timeout": self._settings.lock_timeout_seconds,
            "idle_in_transaction_session_timeout": self._settings.idle_in_transaction_timeout_seconds,
        }
        options = " ".join(f"-c {key}={int(seconds * 1000)}" for key, seconds in limits.items())
        return make_conninfo(
            self._url,
            application_name=f"xzepr {self._name} {purpose}",
            connect_timeout=max(2, round(self._settings.connection_timeout_seconds)),
            options=f"{options} -c timezone=UTC",
        )

    async def open(self) -> None:
        """Opens the pool and waits for its first connections; raises Unavailable when there are none in time."""
        async with refusals():
            await self._pool.open(wait=True, timeout=self._settings.connection_timeout_seconds)

    async def close(self) -> None:
        """Closes the pool; connections of one's own are their owners' to close."""
        await self._pool.close()

    async def _check(self, connection: Connection) -> None:
        used = self._used.get(connection.info.backend_pid, 0.0)
        if time.monotonic() - used > _TRUSTED_FOR_SECONDS:
            await AsyncConnectionPool.check_connection(connection)

    async def _remember(self, connection: Connection) -> None:
        if len(self._used) > 10 * self._settings.max_connections:
            self._used.clear()
        self._used[connection.info.backend_pid] = time.monotonic()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """A connection for reads: each statement stands alone, nothing is locked, nothing announced."""
        async with refusals(), self._pool.connection() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Connection]:
        """A connection inside one transaction, for changes that the stream does not announce."""
        async with refusals(), self._pool.connection() as connection, connection.transaction():
            yield connection

    async def connect(self, purpose: str) -> Connection:
        """A connection of one's own in autocommit mode, named by its purpose. The caller closes it."""
        return await AsyncConnection.connect(self._conninfo(purpose), autocommit=True)
