"""PostgreSQL: one pool of connections for short statements, and connections of one's own for loops that keep one."""

import asyncio
import os
import re
import socket
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncCursor, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from xzepr.core.errors import Overloaded, StorageFull, TimedOut, Unavailable
from xzepr.settings import DatabaseSettings

Connection = AsyncConnection[TupleRow]
Cursor = AsyncCursor
"""Of a statement that was sent and not yet fetched; in pipeline mode several travel together."""

BULK_CONNECTIONS = 4
"""Most connections of `Database.read_bulk`."""
_APART_IDLE_SECONDS = 30.0
_RETRY_SECONDS = 0.2
"""Between attempts to connect, for as long as somebody waits for a connection."""
_CHECK_SECONDS = 2.0
"""A connection that does not answer an empty statement for so long is given up."""
_RESERVED_SECONDS = 2.0
"""What is read on the reserved connection takes milliseconds."""
_SILENCE = {"keepalives_idle": "5", "keepalives_interval": "3", "keepalives_count": "3", "tcp_user_timeout": "15000"}
"""After a quarter of a minute a server that takes and says nothing is taken for gone, unless the database's URL says
something else; by itself TCP takes a quarter of an hour, or two hours where nothing is being sent."""
_TRUSTED_FOR_SECONDS = 1.0
"""A pooled connection that was used this recently is handed out unchecked; an older one is tried first."""


class ConnectionLost(Unavailable):
    """The server went away during a statement: what was being committed may or may not have been."""


class StatementError(Exception):
    """PostgreSQL refused a statement for what it says or holds, and nothing of its transaction was kept."""


_WENT_AWAY = ("08", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04")
"""SQLSTATEs, or their classes, with which a connection ends."""


def problem_of(error: psycopg.Error) -> Exception:
    """What an error of the database means for the caller."""
    if isinstance(error, errors.PipelineAborted):  # an OperationalError, though only an earlier statement failed
        cause = error.__context__
        return problem_of(cause) if isinstance(cause, psycopg.Error) else StatementError(str(error))
    if isinstance(error, PoolTimeout):
        return Unavailable("the database is not reachable or all its connections are in use", retry_after=1)
    if isinstance(error, errors.LockNotAvailable):
        return Overloaded("another writer holds the stream; nothing was changed", retry_after=1)
    if isinstance(error, errors.DiskFull):
        return StorageFull()
    if isinstance(error, errors.QueryCanceled):
        return TimedOut("the database took too long; nothing was changed", retry_after=1)
    away = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    if (error.sqlstate or ("08" if away else "")).startswith(_WENT_AWAY):
        return ConnectionLost("the connection to the database was lost", retry_after=1)
    if away:
        return Unavailable(f"the database cannot do this now: {error.diag.message_primary}", retry_after=1)
    return StatementError(str(error))


@asynccontextmanager
async def translate_errors() -> AsyncGenerator[None]:
    """Turns what the database says into Problems when it is away, busy or slow, and into StatementError when the
    statement is at fault."""
    try:
        yield
    except psycopg.Error as error:
        raise problem_of(error) from error


def conninfo_of(url: str) -> str:
    """A database URL as libpq reads it: `postgres://`, `postgresql://`, and what SQLAlchemy writes for a driver."""
    return re.sub(r"^(postgres|postgresql)(\+\w+)?://", "postgresql://", url)


class Database:
    """What a process holds open towards PostgreSQL."""

    def __init__(self, url: str, settings: DatabaseSettings, *, name: str) -> None:
        """`name` is the process's part of `application_name`."""
        self._url = conninfo_of(url)
        self._settings = settings
        self._name = name
        self._used: dict[int, float] = {}
        self._mended_at = 0.0
        self._mending = set[asyncio.Task[None]]()
        self._pool = self._new_pool("pool", settings.min_connections, settings.max_connections)
        self._bulk = self._new_pool("bulk", 0, BULK_CONNECTIONS)
        self._reserved = self._new_pool("reserved", 0, 1)

    def _new_pool(self, purpose: str, least: int, most: int) -> "_Pool":
        return _Pool(
            self._conninfo(purpose),
            connection_class=AsyncConnection[TupleRow],
            kwargs={"autocommit": True},
            min_size=least,
            max_size=most,
            max_idle=_APART_IDLE_SECONDS if least == 0 else 600,
            timeout=self._settings.connection_timeout_seconds,
            reconnect_timeout=0,
            reconnect_failed=_reconnect_for_waiters,
            configure=self._limit,
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
            **{key: value for key, value in _SILENCE.items() if key not in conninfo_to_dict(self._url)},
            application_name=f"xzepr {self._name} {purpose}",
            connect_timeout=max(2, round(self._settings.connection_timeout_seconds)),
            options=f"{options} -c timezone=UTC",
        )

    @property
    def lock_timeout_seconds(self) -> float:
        """How long a transaction waits for a lock, the writer's among them."""
        return self._settings.lock_timeout_seconds

    @property
    def max_transaction_seconds(self) -> float:
        """What no transaction that writes takes: its wait for a lock and a statement."""
        return self._settings.lock_timeout_seconds + self._settings.statement_timeout_seconds

    async def _limit(self, connection: Connection) -> None:
        """From PostgreSQL 17 on, limits whole transactions too: in a pipeline silence is noticed only at a sync."""
        if connection.info.server_version >= 17_00_00:
            milliseconds = str(int(self.max_transaction_seconds * 1000))
            with hang_up_after(connection, _CHECK_SECONDS):
                await connection.execute("SELECT set_config('transaction_timeout', %s, false)", (milliseconds,))

    async def open(self) -> None:
        """Opens the pool and waits for its first connections; raises Unavailable when there are none in time."""
        async with translate_errors():
            await self._pool.open(wait=True, timeout=self._settings.connection_timeout_seconds)
            for pool in (self._bulk, self._reserved):
                await pool.open()  # of which connections are opened when they are needed

    async def close(self) -> None:
        """Closes the pools; connections of one's own are their owners' to close."""
        for pool in (self._reserved, self._bulk, self._pool):
            await pool.close()

    async def _check(self, connection: Connection) -> None:
        used, began = self._used.get(connection.info.backend_pid, 0.0), time.monotonic()
        if began - used > _TRUSTED_FOR_SECONDS:
            try:
                await _Pool.check_connection(connection)
            except psycopg.Error:
                self._mend(began)
                raise

    def _mend(self, began: float) -> None:
        """Where one connection is broken the server has perhaps been restarted, or the network lost them all. Found one
        by one, each would cost who finds it a pause, so all are replaced; once, by the first check that failed."""
        if began < self._mended_at:
            return
        self._mended_at = time.monotonic()
        for pool in (self._pool, self._bulk, self._reserved):
            task = asyncio.create_task(pool.drain())
            self._mending.add(task)
            task.add_done_callback(self._mending.discard)

    async def _remember(self, connection: Connection) -> None:
        if len(self._used) > 10 * self._settings.max_connections:
            self._used.clear()
        self._used[connection.info.backend_pid] = time.monotonic()

    @asynccontextmanager
    async def _pooled(self, pool: AsyncConnectionPool[Connection]) -> AsyncGenerator[Connection]:
        """A connection of a pool. Its wait is an `asyncio.wait_for`, which on Python 3.11 forgets that it was cancelled
        when a connection comes free at that moment: whoever was told to end, or was out of time, would go on."""
        task = asyncio.current_task()
        assert task is not None, "this runs in a coroutine"
        cancelled = task.cancelling()
        async with pool.connection() as connection:
            if task.cancelling() > cancelled:
                raise asyncio.CancelledError
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[Connection]:
        """A connection for reads: each statement stands alone, nothing is locked, nothing announced."""
        async with translate_errors(), self._pooled(self._pool) as connection:
            yield connection

    @asynccontextmanager
    async def read_bulk(self) -> AsyncGenerator[Connection]:
        """The same for those who have much to read: at most four connections that are none of the others', opened when
        they are needed and closed when they are not."""
        async with translate_errors(), self._pooled(self._bulk) as connection:
            yield connection

    @asynccontextmanager
    async def read_reserved(self) -> AsyncGenerator[Connection]:
        """A connection for what must be known whatever requests do, such as that they are nobody's any more: they
        cannot take it. There is one, for what takes milliseconds; after two seconds it is given up."""
        async with translate_errors(), self._pooled(self._reserved) as connection:
            with hang_up_after(connection, _RESERVED_SECONDS):
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[Connection]:
        """A connection inside one transaction, for changes that the stream does not announce."""
        async with translate_errors(), self._pooled(self._pool) as connection, connection.transaction():
            yield connection

    async def connect(self, purpose: str, *, idle_seconds: float = 0) -> Connection:
        """A connection of one's own in autocommit mode, named by its purpose; Unavailable or ConnectionLost when
        there is none to be had. The caller closes it, and the server does when nothing was asked for `idle_seconds`
        (0: it never does)."""
        async with translate_errors():
            connection = await AsyncConnection.connect(self._conninfo(purpose), autocommit=True)
            try:
                await self._limit(connection)
                if idle_seconds:
                    await _end_when_idle(connection, idle_seconds)
            except BaseException:
                await connection.close()
                raise
            return connection


async def _end_when_idle(connection: Connection, seconds: float) -> None:
    with hang_up_after(connection, _CHECK_SECONDS):
        await connection.execute("SELECT set_config('idle_session_timeout', %s, false)", (str(int(seconds * 1000)),))


class _Pool(AsyncConnectionPool[Connection]):
    """A pool that waits only so long for a sign of life of its connections."""

    @staticmethod
    async def check_connection(conn: AsyncConnection[Any]) -> None:
        with hang_up_after(conn, _CHECK_SECONDS):
            await AsyncConnectionPool.check_connection(conn)


@contextmanager
def hang_up_after(connection: Connection, seconds: float) -> Generator[None]:
    """Meanwhile whoever waits on the connection for longer than that finds it lost. A network that swallows everything
    would let them wait for hours, and a cancelled statement waits for its answer too."""
    handle = asyncio.get_running_loop().call_later(seconds, _hang_up, connection)
    try:
        yield
    finally:
        handle.cancel()


def _hang_up(connection: Connection) -> None:
    with suppress(psycopg.OperationalError, OSError), socket.socket(fileno=os.dup(connection.fileno())) as ours:
        ours.shutdown(socket.SHUT_RDWR)


async def _reconnect_for_waiters(pool: AsyncConnectionPool[Connection]) -> None:
    """After an attempt to connect that failed: the pool makes another only when one more asks for a connection, so that
    who waits already would wait for nothing."""
    await asyncio.sleep(_RETRY_SECONDS)
    if pool.get_stats().get("requests_waiting"):
        await pool.check()
