"""The seat of a route's leader: a database connection that holds the route's lock for as long as it lives."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass

from xzepr.core.errors import Problem
from xzepr.features.stream import dead_letter_store, relay_store, store
from xzepr.features.stream.dead_letter_store import Due
from xzepr.features.stream.model import Cursor, Head, Message, Origin
from xzepr.features.stream.published import Published, RelayState
from xzepr.features.stream.relay_store import RouteRow
from xzepr.infra.db import Connection, Database, StatementRefused, given_up_after, refusals

_SECONDS = 10.0
"""A database that does not answer for this long is treated as away."""
_SILENT_SECONDS = 10.0
"""The database takes the seat from who says nothing for this long: its process is frozen, its host or its network has
gone. It may still believe that it leads; Kafka fences it."""
_BEAT_SECONDS = 2.5
_PARTING_SECONDS = 1.0


@asynccontextmanager
async def seat(db: Database, route: str) -> AsyncGenerator["Seat"]:
    """A seat, not yet taken. Inside, a lost connection raises Unavailable; whoever held the seat has lost it then."""
    async with refusals():
        connection = await db.connect("relay", idle_seconds=_SILENT_SECONDS)
        alive = asyncio.create_task(_show_life(connection))
        try:
            yield Seat(connection, route)
        finally:
            alive.cancel()
            try:
                with given_up_after(connection, _PARTING_SECONDS):
                    await asyncio.gather(alive, return_exceptions=True)
            finally:
                await connection.close()


async def _show_life(connection: Connection) -> None:
    """Says something now and then, also while its owner waits for brokers; until the connection is lost, which its
    owner finds out."""
    while not connection.closed:
        await asyncio.sleep(_BEAT_SECONDS)
        with suppress(Problem, StatementRefused):
            async with refusals():
                with _promptly(connection):
                    await relay_store.check(connection)


def _promptly(connection: Connection) -> AbstractContextManager[None]:
    """Meanwhile a database that does not answer is away: the connection is found lost."""
    return given_up_after(connection, _SECONDS)


@dataclass(frozen=True, slots=True)
class Seat:
    """What the leader of a route, and nobody else, reads and writes through the connection that makes it the leader."""

    _connection: Connection
    _route: str

    async def take(self) -> bool:
        """Whether the seat is ours now; False while another process has it."""
        with _promptly(self._connection):
            return await relay_store.try_lead(self._connection, self._route)

    async def check(self) -> None:
        """Raises Unavailable when the seat is lost."""
        with _promptly(self._connection):
            await relay_store.check(self._connection)

    async def row(self) -> RouteRow:
        """What is remembered of the route, which `describe` must have made."""
        with _promptly(self._connection):
            row = await relay_store.row(self._connection, self._route)
        assert row is not None, "describe comes first"
        return row

    async def following(self, cursor: Cursor, limit: int) -> list[Message]:
        """Up to `limit` messages after a cursor; none where the stream does not hold it."""
        with _promptly(self._connection):
            return await store.following(self._connection, cursor.position, cursor.tail, limit)

    async def message(self, position: int) -> Message | None:
        """The message at a position."""
        with _promptly(self._connection):
            found = await store.after(self._connection, position - 1, 1)
        return found[0] if found and found[0].position == position else None

    async def id_at(self, position: int) -> str | None:
        """The id of the message there (0: of the hub); None where there is none."""
        with _promptly(self._connection):
            return await store.id_at(self._connection, position)

    async def head(self) -> Head:
        """The newest entry of the stream."""
        with _promptly(self._connection):
            return await store.head(self._connection)

    async def origin(self) -> Origin:
        """What the stream follows on."""
        with _promptly(self._connection):
            return await store.origin(self._connection)

    async def describe(self, state: RelayState, detail: str) -> None:
        """Tells every process and the command line what the relay is doing."""
        with _promptly(self._connection):
            await relay_store.describe(self._connection, self._route, state.value, detail)

    async def remember(self, published: Published) -> None:
        """Notes what was published."""
        with _promptly(self._connection):
            await relay_store.remember(self._connection, self._route, published.position, published.id)

    async def obeyed(self, resume_id: str) -> None:
        """Removes an instruction."""
        with _promptly(self._connection):
            await relay_store.obeyed(self._connection, self._route, resume_id)

    async def bury(self, position: int, message_id: str, reason: str) -> None:
        """Notes that a message was refused, and is left out until an administrator says something else."""
        with _promptly(self._connection):
            await dead_letter_store.bury(self._connection, self._route, position, message_id, reason)

    async def left_out(self, after: int) -> set[int]:
        """The positions after this one that were refused before."""
        with _promptly(self._connection):
            return await dead_letter_store.positions_after(self._connection, self._route, after)

    async def due(self, published: int) -> Due | None:
        """The dead letter that is to be sent again next, if there is one."""
        with _promptly(self._connection):
            return await dead_letter_store.due(self._connection, self._route, published)

    async def arrived(self, retry_id: str) -> None:
        """Forgets a dead letter that is in Kafka now."""
        with _promptly(self._connection):
            await dead_letter_store.arrived(self._connection, retry_id)
