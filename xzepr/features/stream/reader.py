"""The queries of the stream."""

from dataclasses import dataclass
from datetime import datetime

from xzepr.core.errors import CursorExpired, StreamDiverged
from xzepr.features.stream import store
from xzepr.features.stream.model import Cursor, Head, Message, Origin
from xzepr.infra.db import Connection


@dataclass(frozen=True, slots=True)
class StreamReader:
    """Queries over one open connection. The caller opens and closes the connection, and sets time limits."""

    connection: Connection

    async def listen(self) -> None:
        """Makes the connection receive a notification whenever a process has committed messages."""
        await self.connection.execute(f"LISTEN {store.CHANNEL}")

    async def head(self) -> Head:
        """Returns the newest entry; position 0 and the hub's id if there is none."""
        return await store.head(self.connection)

    async def origin(self) -> Origin:
        """Returns the entry before the oldest message: the start, or the last message that retention removed."""
        return await store.origin(self.connection)

    async def id_at(self, position: int) -> str | None:
        """Returns the id of the message at a position (0: of the hub); None if there is none."""
        return await store.id_at(self.connection, position)

    async def time_at(self, position: int) -> datetime | None:
        """Returns the time of the message at a position; None if there is none."""
        return await store.time_at(self.connection, position)

    async def message(self, position: int) -> Message | None:
        """Returns the message at a position; None if there is none."""
        messages = await store.after(self.connection, position - 1, 1)
        return messages[0] if messages and messages[0].position == position else None

    async def after(self, position: int, limit: int) -> list[Message]:
        """Returns up to `limit` messages after a position, in order and without gaps."""
        return await store.after(self.connection, position, limit)

    async def after_cursor(self, cursor: Cursor, limit: int) -> list[Message]:
        """Returns up to `limit` messages after `cursor`; empty if the cursor is unknown.

        Call `verify` to tell an unknown cursor from the end of the stream.
        """
        return await store.after_cursor(self.connection, cursor.position, cursor.id_suffix, limit)

    async def verify(self, cursor: Cursor) -> None:
        """Checks that the stream continues after a cursor.

        Raises StreamDiverged if the stream has another message or none at the cursor's position, and CursorExpired if
        retention has removed messages after it.
        """
        id = await store.id_at(self.connection, cursor.position)
        if id is not None and Cursor.of(cursor.position, id) == cursor:
            return
        origin = await store.origin(self.connection)
        if cursor.position < origin.position:
            raise CursorExpired(str(cursor), str(origin.cursor))
        raise StreamDiverged(
            f"this stream holds nothing that matches the cursor {cursor}: its database was restored or replaced; "
            "read the current state and start without a cursor"
        )
