"""The backlog: what is behind the ring, read from the database through few connections, once for all who are there."""

import asyncio
from collections import deque
from collections.abc import Sequence

from xzepr.features.stream.model import Cursor, Message
from xzepr.features.stream.reader import StreamReader
from xzepr.infra.db import BULK_CONNECTIONS, ConnectionLost, Database, hang_up_after

_PORTION = 50
"""Messages of one read. It is about what one turn sends, so that a subscriber who is where nobody else is reads little
that another turn would have to read again; at 512 KiB a payload it is 25 MiB."""
_BYTES = 16 * 1024 * 1024
"""About how much is remembered of what was read."""
_KEY_BYTES = 512
"""That remembering one message takes beside the message, about."""
_SILENT_SECONDS = 5.0
"""How long one read may take. A connection that has fallen silent must not keep its place for longer."""


class HistoryReader:
    """The messages that were read last, by the cursors that they follow on.

    A thousand subscribers who come back from the same place cost one read of each portion, and a read of one portion is
    under way once. Nobody keeps a portion: who stalls holds the message in hand.
    """

    def __init__(self, db: Database, *, most_bytes: int = _BYTES, silent_seconds: float = _SILENT_SECONDS) -> None:
        self._db = db
        self._most_bytes = most_bytes
        self._silent_seconds = silent_seconds
        self._slots = asyncio.Semaphore(BULK_CONNECTIONS)
        self._next: dict[Cursor, Message] = {}
        self._batches = deque[Sequence[tuple[Cursor, Message]]]()
        self._bytes = 0
        self._generation = 0
        self._reading: dict[Cursor, asyncio.Task[Sequence[Message]]] = {}

    def cached(self, cursor: Cursor) -> Message | None:
        """The message that follows on the cursor, if it is remembered."""
        return self._next.get(cursor)

    async def read(self, cursor: Cursor) -> tuple[Message | None, bool]:
        """The message that follows on the cursor, None where the stream holds no such cursor or nothing after it; and
        whether this caller was the one who had it read. Raises Unavailable."""
        task = self._reading.get(cursor)
        first = task is None
        if task is None:
            task = self._reading[cursor] = asyncio.create_task(self._read(cursor))
            task.add_done_callback(lambda done: self._done(cursor, done))
        messages = await asyncio.shield(task)  # who asked first may go; the others still wait for it
        return (messages[0] if messages else None), first

    def clear(self) -> None:
        """Forgets everything: the stream is another."""
        self._next.clear()
        self._batches.clear()
        self._bytes = 0
        self._generation += 1

    async def _read(self, cursor: Cursor) -> Sequence[Message]:
        limit = _PORTION - cursor.position % _PORTION  # so that who is near at hand comes to read the same portions
        async with self._slots:
            history = self._generation
            try:
                messages = await self._after(cursor, limit)
            except ConnectionLost:
                messages = await self._after(cursor, 1)  # perhaps it was too much for a slow connection
        if history == self._generation:
            self._keep(cursor, messages)
        return messages

    async def _after(self, cursor: Cursor, limit: int) -> Sequence[Message]:
        async with self._db.read_bulk() as connection:
            with hang_up_after(connection, self._silent_seconds):
                return await StreamReader(connection).after_cursor(cursor, limit)

    def _done(self, cursor: Cursor, task: "asyncio.Task[Sequence[Message]]") -> None:
        del self._reading[cursor]
        if not task.cancelled():
            task.exception()  # told to those who wait, of whom there may be none left

    def _keep(self, cursor: Cursor, messages: Sequence[Message]) -> None:
        befores = [cursor, *(message.cursor for message in messages)]
        portion = list(zip(befores, messages, strict=False))
        self._next.update(portion)
        self._batches.append(portion)
        self._bytes += _size(portion)
        while self._bytes > self._most_bytes:
            gone = self._batches.popleft()
            self._bytes -= _size(gone)
            for before, message in gone:
                if self._next.get(before) is message:
                    del self._next[before]


def _size(portion: Sequence[tuple[Cursor, Message]]) -> int:
    return sum(message.size + _KEY_BYTES for _, message in portion)
