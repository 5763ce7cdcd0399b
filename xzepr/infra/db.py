"""PostgreSQL: pools of connections for short statements, and separate connections for background loops."""

import asyncio
import os
import re
import socket
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg import AsyncConnection, AsyncCursor, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg.types.string import ByteaBinaryLoader
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from xzepr.core.errors import Overloaded, StorageFull, TimedOut, Unavailable
from xzepr.infra.session import max_transaction_seconds, session_sql, with_encoding
from xzepr.settings import DatabaseSettings

Connection = AsyncConnection[TupleRow]
# A sent statement whose result has not been fetched. A pipeline has several of them.
Cursor = AsyncCursor

BULK_CONNECTIONS = 4  # maximum of `Database.read_bulk`
_ON_DEMAND_IDLE_SECONDS = 30.0  # until a connection that was opened on demand is closed
_POOL_IDLE_SECONDS = 600.0
_RETRY_SECONDS = 0.2  # between attempts to connect while callers wait for a connection
_CHECK_TIMEOUT_SECONDS = 2.0  # of an empty statement on a connection; then the connection is closed
_RESERVED_TIMEOUT_SECONDS = 2.0  # of a read on the reserved connection, which normally takes milliseconds

# The server counts as unreachable after about 15 seconds of silence. TCP's own time-outs are 15 minutes, or two hours
# if nothing is sent. Parameters in the database's URL take precedence.
_KEEPALIVE = {"keepalives_idle": "5", "keepalives_interval": "3", "keepalives_count": "3", "tcp_user_timeout": "15000"}

# A pooled connection that was used this recently is not checked before its next use.
_TRUSTED_FOR_SECONDS = 1.0

# SQLSTATEs, or their classes, that end a connection.
_DISCONNECT_STATES = ("08", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04")


class ConnectionLost(Unavailable):
    """The connection was lost during a statement. A commit may or may not have happened."""


class StatementError(Exception):
    """PostgreSQL rejected a statement or its values. Its transaction was rolled back."""


def problem_of(error: psycopg.Error) -> Exception:
    """Returns the error that a caller gets for an error of the database."""
    if isinstance(error, errors.PipelineAborted):  # an OperationalError, though only an earlier statement failed
        cause = error.__context__
        return problem_of(cause) if isinstance(cause, psycopg.Error) else StatementError(str(error))
    if isinstance(error, PoolTimeout):
        return Unavailable("the database is not reachable or all its connections are in use", retry_after=1)
    if isinstance(error, errors.LockNotAvailable):
        return Overloaded("another writer has locked the stream; nothing was changed", retry_after=1)
    if isinstance(error, errors.DiskFull):
        return StorageFull()
    if isinstance(error, errors.QueryCanceled):
        return TimedOut("the database took too long; nothing was changed", retry_after=1)
    is_operational = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    if (error.sqlstate or ("08" if is_operational else "")).startswith(_DISCONNECT_STATES):
        return ConnectionLost("the connection to the database was lost", retry_after=1)
    if is_operational:
        return Unavailable(f"the database cannot do this now: {error.diag.message_primary}", retry_after=1)
    return StatementError(str(error))


@asynccontextmanager
async def translate_errors() -> AsyncGenerator[None]:
    """Translates errors of the database.

    They become Problems if it is unreachable, busy or slow, and StatementError if the statement is wrong.
    """
    try:
        yield
    except psycopg.Error as error:
        raise problem_of(error) from error


def conninfo_of(url: str) -> str:
    """Returns a database URL in the form of libpq, also for `postgres://` and SQLAlchemy's `postgresql+driver://`."""
    return re.sub(r"^(postgres|postgresql)(\+\w+)?://", "postgresql://", url)


class Database:
    """The connections of one process to PostgreSQL."""

    def __init__(self, url: str, settings: DatabaseSettings, *, name: str) -> None:
        """`name` is this process's part of the `application_name`."""
        self._url = conninfo_of(url)
        self._settings = settings
        self._name = name
        self._last_used = WeakKeyDictionary[Connection, float]()  # monotonic times
        self._replaced_at = 0.0
        self._replacements = set[asyncio.Task[None]]()
        self._pool = self._new_pool("pool", settings.min_connections, settings.max_connections)
        self._bulk = self._new_pool("bulk", 0, BULK_CONNECTIONS)
        self._reserved = self._new_pool("reserved", 0, 1)

    def _new_pool(self, purpose: str, min_size: int, max_size: int) -> "_Pool":
        return _Pool(
            self.conninfo(purpose),
            connection_class=AsyncConnection[TupleRow],
            kwargs={"autocommit": True},
            min_size=min_size,
            max_size=max_size,
            max_idle=_ON_DEMAND_IDLE_SECONDS if min_size == 0 else _POOL_IDLE_SECONDS,
            timeout=self._settings.connection_timeout_seconds,
            reconnect_timeout=0,
            reconnect_failed=_reconnect_for_waiters,
            configure=self._configure,
            check=self._check,
            open=False,
        )

    def conninfo(self, purpose: str) -> str:
        """Returns the parameters of a connection. `purpose` is part of its `application_name`.

        After connecting, `session_sql` sets the parameters of the session.
        """
        return make_conninfo(
            with_encoding(self._url),
            **{key: value for key, value in _KEEPALIVE.items() if key not in conninfo_to_dict(self._url)},
            application_name=f"xzepr {self._name} {purpose}",
            connect_timeout=max(2, round(self._settings.connection_timeout_seconds)),
        )

    @property
    def lock_timeout_seconds(self) -> float:
        """Maximum time that a transaction waits for a lock, such as the writer lock."""
        return self._settings.lock_timeout_seconds

    @property
    def max_transaction_seconds(self) -> float:
        """Maximum duration of a writing transaction: its wait for a lock, and one statement."""
        return max_transaction_seconds(self._settings)

    def session_sql(self, server_version: int) -> str:
        """Returns the statement that every new connection runs first. `server_version` is libpq's number."""
        return session_sql(self._settings, server_version)

    async def _configure(self, connection: Connection) -> None:
        """Makes JSON bytes in binary results, and sets the parameters of the session."""
        connection.adapters.register_loader("json", ByteaBinaryLoader)
        with hang_up_after(connection, _CHECK_TIMEOUT_SECONDS):
            await connection.execute(self.session_sql(connection.info.server_version).encode())

    async def open(self) -> None:
        """Opens the pools and waits for the first connections. Raises Unavailable if there are none in time."""
        try:
            async with translate_errors():
                await self._pool.open(wait=True, timeout=self._settings.connection_timeout_seconds)
                for pool in (self._bulk, self._reserved):
                    await pool.open()  # their connections are opened on demand
        except BaseException:  # a pool's workers cannot be cancelled, and a loop that ends would wait for them
            await self.close()
            raise

    async def close(self) -> None:
        """Closes the pools. Connections from `connect` are closed by their callers."""
        for pool in (self._reserved, self._bulk, self._pool):
            await pool.close()

    async def _check(self, connection: Connection) -> None:
        last_used, began = self._last_used.get(connection, 0.0), time.monotonic()
        if began - last_used > _TRUSTED_FOR_SECONDS:
            try:
                await _Pool.check_connection(connection)
            except psycopg.Error:
                self._replace_connections(began)
                raise

    def _replace_connections(self, began: float) -> None:
        """Replaces all pooled connections after a failed check that began at `began`.

        A restart of the server or a network failure usually breaks all of them. If each were found by its own check,
        each would delay another request. Checks that began before the last replacement do not start another one.
        """
        if began < self._replaced_at:
            return
        self._replaced_at = time.monotonic()
        for pool in (self._pool, self._bulk, self._reserved):
            task = asyncio.create_task(pool.drain())
            self._replacements.add(task)
            task.add_done_callback(self._replacements.discard)

    @asynccontextmanager
    async def _pooled(self, pool: AsyncConnectionPool[Connection]) -> AsyncGenerator[Connection]:
        """Takes a connection from a pool.

        The pool waits with `asyncio.wait_for`. On Python 3.11, that loses a cancellation if a connection becomes free
        at the same moment, and a cancelled task would continue.
        """
        task = asyncio.current_task()
        assert task is not None, "this runs in a coroutine"
        cancelled = task.cancelling()
        async with pool.connection() as connection:
            if task.cancelling() > cancelled:
                raise asyncio.CancelledError
            yield connection
            # With a function for this, `reset`, the pool would return each connection in a separate task.
            self._last_used[connection] = time.monotonic()

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[Connection]:
        """Takes a connection for reads. Each statement is its own transaction."""
        async with translate_errors(), self._pooled(self._pool) as connection:
            yield connection

    @asynccontextmanager
    async def read_bulk(self) -> AsyncGenerator[Connection]:
        """Takes a connection for large reads, from a separate pool of at most four that are opened on demand."""
        async with translate_errors(), self._pooled(self._bulk) as connection:
            yield connection

    @asynccontextmanager
    async def read_reserved(self) -> AsyncGenerator[Connection]:
        """Takes the one connection that requests cannot use up, to check whether users and keys are still valid.

        It is closed if a read takes longer than two seconds.
        """
        async with translate_errors(), self._pooled(self._reserved) as connection:
            with hang_up_after(connection, _RESERVED_TIMEOUT_SECONDS):
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[Connection]:
        """Takes a connection in a transaction, for changes that the stream does not publish."""
        async with translate_errors(), self._pooled(self._pool) as connection, connection.transaction():
            yield connection

    async def connect(self, purpose: str, *, idle_seconds: float = 0) -> Connection:
        """Opens a separate connection in autocommit mode, which the caller must close.

        `purpose` is part of its `application_name`. The server closes it after `idle_seconds` without a statement, or
        never if that is 0. Raises Unavailable or ConnectionLost if the server cannot be reached.
        """
        async with translate_errors():
            connection = await AsyncConnection.connect(self.conninfo(purpose), autocommit=True)
            try:
                await self._configure(connection)
                if idle_seconds:
                    await _limit_idle_time(connection, idle_seconds)
            except BaseException:
                await connection.close()
                raise
            return connection


async def _limit_idle_time(connection: Connection, seconds: float) -> None:
    with hang_up_after(connection, _CHECK_TIMEOUT_SECONDS):
        await connection.execute("SELECT set_config('idle_session_timeout', %s, false)", (str(int(seconds * 1000)),))


class _Pool(AsyncConnectionPool[Connection]):
    """A pool with a time limit on the checks of its connections."""

    @staticmethod
    async def check_connection(conn: AsyncConnection[Any]) -> None:
        with hang_up_after(conn, _CHECK_TIMEOUT_SECONDS):
            await AsyncConnectionPool.check_connection(conn)


@contextmanager
def hang_up_after(connection: Connection, seconds: float) -> Generator[None]:
    """Calls `hang_up` if the block takes longer than `seconds`: a wait on a silent connection may last for hours."""
    handle = asyncio.get_running_loop().call_later(seconds, hang_up, connection)
    try:
        yield
    finally:
        handle.cancel()


def hang_up(connection: Connection) -> None:
    """Shuts the socket of a connection, so that any wait on it fails. Cancelling a statement waits for a response."""
    with suppress(psycopg.OperationalError, OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


async def _reconnect_for_waiters(pool: AsyncConnectionPool[Connection]) -> None:
    """Makes the pool try again after a failed attempt to connect, while callers wait for a connection.

    The pool itself tries again only when another caller requests a connection, so waiting callers would wait in vain.
    """
    await asyncio.sleep(_RETRY_SECONDS)
    if pool.get_stats().get("requests_waiting"):
        await pool.check()
