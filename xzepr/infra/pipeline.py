"""A connection for a thread: statements are sent together, and their results are received together.

It uses psycopg's wrapper of libpq. A transaction costs few system calls, and every wait is in C, without the
interpreter's lock.
"""

import selectors
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, LiteralString, TypeVar

import psycopg
from psycopg import abc, errors, pq
from psycopg.adapt import Transformer
from psycopg.rows import TupleRow

from xzepr.infra.db import Database, hang_up, problem_of

R = TypeVar("R")

_BINARY = pq.Format.BINARY
_FAILED = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED)
_SETUP_TIMEOUT_SECONDS = 5.0  # for preparing the statements of a new connection
_LIMIT_TRANSACTIONS = b"SELECT set_config('transaction_timeout', $1, false)"


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
    """A connection in libpq's pipeline mode, which one thread uses at a time.

    Its methods raise `psycopg.Error`. After an error, the connection can only be closed.
    """

    def __init__(self, connection: psycopg.Connection[TupleRow]) -> None:
        self._connection = connection
        self._libpq = connection.pgconn
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        self._transformer: abc.Transformer = Transformer(connection)
        self._sent: list[Reply[Any]] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._libpq.socket, selectors.EVENT_READ)
        self.deadline = time.monotonic() + _SETUP_TIMEOUT_SECONDS
        """On the monotonic clock. A server that has not responded by then counts as lost."""

    @classmethod
    def open(cls, db: Database, purpose: str, statements: Iterable[Statement[Any]]) -> "Pipeline":
        """Opens a connection and prepares the statements. `purpose` is part of its `application_name`."""
        pipeline = cls(psycopg.Connection[TupleRow].connect(db.conninfo(purpose), autocommit=True))
        try:
            pipeline._set_up(db, statements)
        except BaseException:
            pipeline.close()
            raise
        return pipeline

    def _set_up(self, db: Database, statements: Iterable[Statement[Any]]) -> None:
        if self._libpq.server_version >= 17_00_00:
            milliseconds = str(int(db.max_transaction_seconds * 1000))
            self._libpq.send_query_params(_LIMIT_TRANSACTIONS, [milliseconds.encode()])
            self._expect(tuple)
        for statement in statements:
            self._libpq.send_prepare(statement.name, statement.sql.encode())
            self._expect(tuple)
        self.flush(end=True)
        self.receive_end()

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, or known to be lost."""
        return self._connection.closed or self._connection.broken

    def send(self, statement: Statement[R], parameters: Sequence[bytes | None] = ()) -> Reply[R]:
        """Sends a prepared statement, at the latest with the next `flush`."""
        self._libpq.send_query_prepared(statement.name, parameters, [_BINARY] * len(parameters), _BINARY)
        return self._expect(statement.row)

    def command(self, sql: LiteralString) -> None:
        """Sends a statement without parameters and rows, such as COMMIT, at the latest with the next `flush`."""
        self._libpq.send_query_params(sql.encode(), None)
        self._expect(tuple)

    def flush(self, *, end: bool = False) -> None:
        """Sends everything, so that the server responds. `end` ends the pipeline, after COMMIT."""
        if end:
            self._libpq.pipeline_sync()
        else:
            self._libpq.send_flush_request()
        while self._libpq.flush():
            self._selector.modify(self._libpq.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            self._wait()
            self._selector.modify(self._libpq.socket, selectors.EVENT_READ)
            self._libpq.consume_input()  # the server may wait until its responses are read

    def receive(self) -> None:
        """Waits for the results of all statements that were sent. Raises the first error among them."""
        for reply in self._sent:
            reply.result = self._next_result()
        self._sent.clear()

    def receive_end(self) -> None:
        """Waits like `receive`, and for the end that `flush` has sent."""
        self.receive()
        self._next_result()

    def close(self) -> None:
        """Closes the connection. No thread may be using it."""
        self._selector.close()
        with suppress(psycopg.Error):
            self._connection.close()

    def hang_up(self) -> None:
        """Shuts the connection's socket, so that the thread that waits on it fails."""
        hang_up(self._connection)

    def _expect(self, make_row: Callable[..., R]) -> Reply[R]:
        reply = Reply(make_row, self._transformer)
        self._sent.append(reply)
        return reply

    def _next_result(self) -> pq.abc.PGresult:
        while True:
            while self._libpq.is_busy():
                self._wait()
                self._libpq.consume_input()
            if (result := self._libpq.get_result()) is not None:  # None separates the results of two statements
                break
            if self._libpq.status != pq.ConnStatus.OK:
                raise psycopg.OperationalError("the connection was lost")
        if result.status in _FAILED:
            if not result.error_field(pq.DiagnosticField.SQLSTATE):
                raise psycopg.OperationalError(result.get_error_message())  # of libpq: the connection was lost
            raise errors.error_from_result(result)
        return result

    def _wait(self) -> None:
        remaining = self.deadline - time.monotonic()
        if remaining <= 0 or not self._selector.select(remaining):
            raise psycopg.OperationalError("no response in time")


def failure_of(error: BaseException) -> Exception | None:
    """Returns the error that a caller gets for an error of a pipeline. None if it is not one of the database."""
    if not isinstance(error, psycopg.Error):
        return None
    failure = problem_of(error)
    failure.__cause__ = error
    return failure
