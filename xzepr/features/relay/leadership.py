"""Leader election for a route: the leader is the process whose database connection holds the route's lock."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from xzepr.core.errors import Problem
from xzepr.features.relay import store
from xzepr.features.stream.reader import StreamReader
from xzepr.infra.db import Connection, Database, StatementError, hang_up_after, translate_errors

_STATEMENT_TIMEOUT_SECONDS = 10.0  # a database that does not answer for this long is down
# The database ends the session of a leader that sends nothing for this long: its process is frozen, or its host or
# network is gone. That process may still believe that it leads; Kafka fences it.
_IDLE_SECONDS = 10.0
_KEEP_ALIVE_SECONDS = 2.5
_CLOSE_TIMEOUT_SECONDS = 1.0  # how long closing the connection may take

P = ParamSpec("P")
T = TypeVar("T")


@asynccontextmanager
async def leadership(db: Database, route: str) -> AsyncGenerator["Leadership"]:
    """Opens a connection that can acquire the leadership of a route.

    The end of the block closes the connection and gives up the leadership. Inside the block, a lost connection raises
    Unavailable; the leadership is then lost, too.
    """
    async with translate_errors():
        connection = await db.connect("relay", idle_seconds=_IDLE_SECONDS)
        leader = Leadership(connection, route)
        keep_alive = asyncio.create_task(_keep_alive(leader))
        try:
            yield leader
        finally:
            keep_alive.cancel()
            try:
                with hang_up_after(connection, _CLOSE_TIMEOUT_SECONDS):
                    await asyncio.gather(keep_alive, return_exceptions=True)
            finally:
                await connection.close()


async def _keep_alive(leader: "Leadership") -> None:
    """Keeps the connection alive while the leader waits for brokers. The leader itself notices a lost connection."""
    while not leader.is_closed:
        await asyncio.sleep(_KEEP_ALIVE_SECONDS)
        with suppress(Problem, StatementError):
            async with translate_errors():
                await leader.check()


@dataclass(frozen=True, slots=True)
class Leadership:
    """The leadership of a route, held by one connection, which runs every statement that only the leader may run."""

    _connection: Connection
    route: str

    @property
    def is_closed(self) -> bool:
        """Whether the connection, and with it the leadership, is lost."""
        return self._connection.closed

    async def try_acquire(self) -> bool:
        """Tries to become the leader. Returns False while another process leads."""
        return await self.run(store.try_acquire_lead, self.route)

    async def check(self) -> None:
        """Raises Unavailable if the leadership is lost."""
        await self.run(store.check)

    async def run(
        self, statement: Callable[Concatenate[Connection, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs a store's statement over the leader's connection. Raises Unavailable if the database does not answer."""
        with hang_up_after(self._connection, _STATEMENT_TIMEOUT_SECONDS):
            return await statement(self._connection, *args, **kwargs)

    async def read(
        self, query: Callable[Concatenate[StreamReader, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Queries the stream over the leader's connection: `await leader.read(StreamReader.head)`."""
        with hang_up_after(self._connection, _STATEMENT_TIMEOUT_SECONDS):
            return await query(StreamReader(self._connection), *args, **kwargs)
