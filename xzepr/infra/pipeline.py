"""A connection whose statements are sent together, and whose results are received together.

It uses psycopg's wrapper of libpq, whose socket stays registered with the event loop. A transaction costs few system
calls, and a result wakes its task once, when it is complete.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, LiteralString, TypeVar

import psycopg
from psycopg import abc, errors, pq
from psycopg.adapt import Transformer
from psycopg.rows import TupleRow

from xzepr.infra.db import Database, problem_of

R = TypeVar("R")

_BINARY = pq.Format.BINARY
_FAILED = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED)
_TICK_SECONDS = 1.0  # between looks at the socket of a connection with a limit
_SETUP_TIMEOUT_SECONDS = 5.0  # for preparing the statements of a new connection
# Every statement has an index to follow, so its plan is the same for any parameters. PostgreSQL would plan a statement
# with an array again for each execution.
_PLAN_ONCE = b"SET plan_cache_mode = force_generic_plan"


@dataclass(frozen=True, slots=True)
class Statement(Generic[R]):
    """A statement that is prepared on each connection. Its parameters are `$1`, `$2`, … in binary form."""

    name: bytes
    sql: LiteralString
    row: Callable[..., R]
    """Makes a row from its columns."""


class Reply(Generic[R]):
    """The result of a statement that was sent."""

    def __init__(self, make_row: Callable[..., R], transformer: abc.Transformer) -> None:
        self._make_row = make_row
        self._transformer = transformer
        self.result: pq.abc.PGresult | None = None

    @property
    def rows(self) -> list[R]:
        """The rows. They can be read after `Pipeline.receive`."""
        assert self.result is not None, "it was received"
        if not (count := self.result.ntuples):
            return []
        self._transformer.set_pgresult(self.result)
        return [self._make_row(*columns) for columns in self._transformer.load_rows(0, count, tuple)]


class Pipeline:
    """A connection in libpq's pipeline mode, which one task uses at a time.

    Its methods raise `psycopg.Error`. After an error, the connection can only be closed.
    """

    def __init__(self, connection: psycopg.AsyncConnection[TupleRow]) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        self._transformer: abc.Transformer = Transformer(connection)
        self._sent: list[Reply[Any]] = []
        self._loop = asyncio.get_running_loop()
        self._socket = self._libpq.socket
        self._loop.add_reader(self._socket, self._on_readable)
        self._waiter: asyncio.Future[None] | None = None
        self._lost: psycopg.Error | None = None
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, db: Database, purpose: str, statements: Iterable[Statement[Any]]) -> "Pipeline":
        """Opens a connection and prepares the statements. `purpose` is part of its `application_name`."""
        connection = await psycopg.AsyncConnection[TupleRow].connect(db.conninfo(purpose), autocommit=True)
        try:
            pipeline = cls(connection)
        except BaseException:
            await connection.close()
            raise
        try:
            pipeline.limit(_SETUP_TIMEOUT_SECONDS)
            await pipeline._set_up(db, statements)
            pipeline.unlimit()
        except BaseException:
            pipeline.close()
            raise
        return pipeline

    async def _set_up(self, db: Database, statements: Iterable[Statement[Any]]) -> None:
        self._libpq.send_query_params(_PLAN_ONCE, None)
        self._expect(tuple)
        self._libpq.send_query_params(db.session_sql(self._libpq.server_version).encode(), None)
        self._expect(tuple)
        for statement in statements:
            self._libpq.send_prepare(statement.name, statement.sql.encode())
            self._expect(tuple)
        await self.flush(end=True)
        await self.receive_end()

    @property
    def is_lost(self) -> bool:
        """Whether the connection is closed, or known to be lost."""
        return self._lost is not None

    def limit(self, seconds: float) -> None:
        """Counts the server as lost if it has not sent everything until `seconds` from now. Replaces the last limit."""
        self.unlimit()
        self._timer = self._loop.call_later(min(seconds, _TICK_SECONDS), self._tick, self._loop.time() + seconds)

    def unlimit(self) -> None:
        """Removes the limit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self, deadline: float) -> None:
        # uvloop stops watching a socket with an error, even if something is left to read.
        self._on_readable()
        remaining = deadline - self._loop.time()
        if remaining > 0 or self._waiter is None:  # what was just read may be complete
            self.limit(max(remaining, _TICK_SECONDS))
        else:
            self._lose(psycopg.OperationalError("no response in time"))

    def send(self, statement: Statement[R], parameters: Sequence[bytes | None] = ()) -> Reply[R]:
        """Sends a prepared statement, at the latest with the next `flush`."""
        self._libpq.send_query_prepared(statement.name, parameters, [_BINARY] * len(parameters), _BINARY)
        return self._expect(statement.row)

    def command(self, sql: LiteralString) -> None:
        """Sends a statement without parameters and rows, such as COMMIT, at the latest with the next `flush`."""
        self._libpq.send_query_params(sql.encode(), None)
        self._expect(tuple)

    async def flush(self, *, end: bool = False) -> None:
        """Sends everything, so that the server responds. `end` ends the pipeline, after COMMIT."""
        if end:
            self._libpq.pipeline_sync()
        else:
            self._libpq.send_flush_request()
        if not self._libpq.flush():
            return
        if self._lost is not None:
            raise self._lost
        self._loop.add_writer(self._socket, self._wake)
        try:
            while self._libpq.flush():  # the server may wait until its responses are read
                await self._wait()
        except psycopg.Error as error:
            self._lose(error)
            raise
        finally:
            if self._lost is None:  # else its number may belong to another socket by now
                self._loop.remove_writer(self._socket)

    async def receive(self) -> None:
        """Waits for the results of all statements that were sent. Raises the first error among them."""
        for reply in self._sent:
            reply.result = await self._next_result()
        self._sent.clear()

    async def receive_end(self) -> None:
        """Waits like `receive`, and for the end that `flush` has sent."""
        await self.receive()
        await self._next_result()

    def close(self) -> None:
        """Closes the connection. A task that waits for it fails."""
        self.unlimit()
        self._lose(psycopg.OperationalError("the connection was closed"))
        self._libpq.finish()

    def _expect(self, make_row: Callable[..., R]) -> Reply[R]:
        reply = Reply(make_row, self._transformer)
        self._sent.append(reply)
        return reply

    async def _next_result(self) -> pq.abc.PGresult:
        while True:
            while self._libpq.is_busy():
                await self._wait()
            if (result := self._libpq.get_result()) is not None:  # None separates the results of two statements
                break
            if self._libpq.status != pq.ConnStatus.OK:
                raise psycopg.OperationalError("the connection was lost")
        if result.status in _FAILED:
            if not result.error_field(pq.DiagnosticField.SQLSTATE):
                raise psycopg.OperationalError(result.get_error_message())  # of libpq: the connection was lost
            raise errors.error_from_result(result)
        return result

    async def _wait(self) -> None:
        if self._lost is not None:
            raise self._lost
        self._waiter = self._loop.create_future()
        await self._waiter
        if self._lost is not None:
            raise self._lost

    def _on_readable(self) -> None:
        if self._lost is not None:
            return
        try:
            self._libpq.consume_input()
        except psycopg.Error as error:
            self._lose(error)
        else:
            is_busy = self._libpq.is_busy()  # reads the messages, and can close the socket
            if self._libpq.status != pq.ConnStatus.OK:
                self._lose(psycopg.OperationalError("the connection was lost"))
            elif not is_busy:
                self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _lose(self, error: psycopg.Error) -> None:
        if self._lost is None:
            self._lost = error
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._wake()


def failure_of(error: Exception) -> Exception | None:
    """Returns the error that a caller gets for an error of a pipeline. None if it is not one of the database."""
    if not isinstance(error, psycopg.Error):
        return None
    failure = problem_of(error)
    failure.__cause__ = error
    return failure
