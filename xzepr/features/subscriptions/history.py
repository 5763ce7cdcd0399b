"""The history reader: reads messages older than the ring for all subscribers, over a few connections."""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial

from xzepr.features.stream.model import Cursor, Message
from xzepr.features.stream.reader import StreamReader
from xzepr.infra.concurrency import SingleFlight
from xzepr.infra.db import BULK_CONNECTIONS, ConnectionLost, Database, hang_up_after

# Messages of one read: about what a subscriber sends in one time slice, so that a lone subscriber reads little twice.
# With payloads of 512 KiB it is 25 MiB.
_BATCH_MESSAGES = 50
_CACHE_BYTES = 16 * 1024 * 1024
_OVERHEAD_BYTES = 512  # of one cached message, about
_READ_TIMEOUT_SECONDS = 5.0  # a silent connection must not keep its slot for longer


class HistoryReader:
    """A cache of the messages that were read last, keyed by the cursor before each.

    A thousand subscribers that return to the same position cost one read of each batch. No subscriber keeps a batch: a
    stalled one holds only the message that it is sending.
    """

    def __init__(
        self, db: Database, *, max_bytes: int = _CACHE_BYTES, read_timeout_seconds: float = _READ_TIMEOUT_SECONDS
    ) -> None:
        self._db = db
        self._max_bytes = max_bytes
        self._read_timeout_seconds = read_timeout_seconds
        self._slots = asyncio.Semaphore(BULK_CONNECTIONS)
        self._next: dict[Cursor, Message] = {}
        self._batches = deque[Sequence[tuple[Cursor, Message]]]()
        self._bytes = 0
        self._generation = 0
        self._reads = SingleFlight[Cursor, Sequence[Message]]()

    def cached(self, cursor: Cursor) -> Message | None:
        """Returns the message after the cursor if it is cached."""
        return self._next.get(cursor)

    async def read(self, cursor: Cursor) -> tuple[Message | None, bool]:
        """Returns the message after the cursor, and whether this caller started the read.

        The message is None if the stream does not hold the cursor or ends there. Raises Unavailable.
        """
        started_read = cursor not in self._reads
        messages = await self._reads.run(cursor, partial(self._read, cursor))
        return (messages[0] if messages else None), started_read

    def clear(self) -> None:
        """Drops everything, because the stream has a new generation."""
        self._next.clear()
        self._batches.clear()
        self._bytes = 0
        self._generation += 1

    async def _read(self, cursor: Cursor) -> Sequence[Message]:
        limit = _BATCH_MESSAGES - cursor.position % _BATCH_MESSAGES  # nearby subscribers will share batches
        async with self._slots:
            generation = self._generation
            try:
                messages = await self._after(cursor, limit)
            except ConnectionLost:
                messages = await self._after(cursor, 1)  # perhaps too much for a slow connection
        if generation == self._generation:
            self._cache(cursor, messages)
        return messages

    async def _after(self, cursor: Cursor, limit: int) -> Sequence[Message]:
        async with self._db.read_bulk() as connection:
            with hang_up_after(connection, self._read_timeout_seconds):
                return await StreamReader(connection).after_cursor(cursor, limit)

    def _cache(self, cursor: Cursor, messages: Sequence[Message]) -> None:
        cursors = [cursor, *(message.cursor for message in messages)]
        batch = list(zip(cursors, messages, strict=False))
        self._next.update(batch)
        self._batches.append(batch)
        self._bytes += _size(batch)
        while self._bytes > self._max_bytes:
            oldest = self._batches.popleft()
            self._bytes -= _size(oldest)
            for before, message in oldest:
                if self._next.get(before) is message:
                    del self._next[before]


def _size(batch: Sequence[tuple[Cursor, Message]]) -> int:
    return sum(message.size + _OVERHEAD_BYTES for _, message in batch)
