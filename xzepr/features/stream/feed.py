"""The feed: one loop a process that follows the stream, keeps its newest messages in a ring, and wakes who waits.

Subscribers are not pushed to. Each holds a position and asks for what comes after it: from the ring when it is there
(positions have no gaps, so the ring is indexed by them), else from the database through a few shared places. So a slow
subscriber costs neither memory nor messages, and delays nobody (see `docs/adr/0005-subscribers-pull.md`).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from xzepr.core.errors import Problem
from xzepr.features.stream import store
from xzepr.features.stream.model import Head, Message
from xzepr.features.stream.service import Stream
from xzepr.infra.db import Connection, Database, refusals

_MOST_MESSAGES = 1000
_FEW_MESSAGES = 100
_READ_BYTES = 8 * 1024 * 1024
"""About how much one read brings; the next one asks for fewer messages when they are large."""
_RING_BYTES = 64 * 1024 * 1024
_DATABASE_READERS = 4
_log = structlog.stdlib.get_logger(__name__)


class Feed:
    """What this process knows of the stream's newest end."""

    def __init__(self, db: Database, stream: Stream, *, ring_size: int, poll_seconds: float) -> None:
        self._db = db
        self._stream = stream
        self._poll_seconds = poll_seconds
        self._ring: deque[Message] = deque()
        self._ring_size = ring_size
        self._ring_bytes = 0
        self._portion = _FEW_MESSAGES
        self._head: Head | None = None
        self._moved: asyncio.Future[None] | None = None
        self._places = asyncio.Semaphore(_DATABASE_READERS)
        self._started = asyncio.Event()
        self.watchers: list[Callable[[Sequence[Message]], None]] = []
        """Called in the loop with each batch of new messages; for what must notice changes made in other processes."""

    @property
    def head(self) -> Head:
        """The newest entry that this process has seen. Await `started` first."""
        assert self._head is not None, "the feed has not started"
        return self._head

    async def started(self) -> None:
        """Returns once the feed knows the head of the stream."""
        await self._started.wait()

    async def wait_beyond(self, position: int) -> None:
        """Returns as soon as there is something after the position."""
        await self._started.wait()
        while self.head.position <= position:
            if self._moved is None or self._moved.done():
                self._moved = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._moved)

    async def after(self, position: int, limit: int) -> list[Message]:
        """Up to `limit` messages after a position, in order and without gaps; empty at the head."""
        if self._ring and position + 1 >= self._ring[0].position:
            start = position + 1 - self._ring[0].position
            return [self._ring[index] for index in range(start, min(start + limit, len(self._ring)))]
        if position >= self.head.position:
            return []
        async with self._places:
            return await self._stream.after(position, min(limit, _FEW_MESSAGES))

    async def run(self) -> None:
        """Follows the stream until cancelled; a lost database connection is opened again with a growing pause."""
        pause = 0.1
        while True:
            try:
                connection = await self._db.connect("feed")
                async with connection, refusals():
                    await connection.execute(f"LISTEN {store.CHANNEL}")
                    await self._open()
                    pause = 0.1
                    await self._follow(connection)
            except (Problem, OSError) as error:
                _log.warning("feed.interrupted", error=str(error), retry_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    async def _open(self) -> None:
        if self._head is None:
            self._head = await self._stream.head()
            self._started.set()

    async def _follow(self, connection: Connection) -> None:
        while True:
            await self._read()
            with suppress(TimeoutError):
                async for _ in connection.notifies(timeout=self._poll_seconds, stop_after=1):
                    pass

    async def _read(self) -> None:
        while messages := await self._stream.after(self.head.position, self._portion):
            whole = len(messages) == self._portion
            # What this process committed meanwhile is in the ring already.
            fresh = [message for message in messages if message.position > self.head.position]
            if fresh:
                self._go_on(fresh)
            if not whole:
                break
            size = sum(message.size for message in messages)
            self._portion = max(1, min(_MOST_MESSAGES, self._portion * _READ_BYTES // size))

    def offer(self, messages: Sequence[Message]) -> None:
        """Takes messages that this process has just committed, if they follow on what the feed has seen; else they
        are read, like those of other processes."""
        if self._head is not None and messages[0].position == self._head.position + 1:
            self._go_on(messages)

    def _go_on(self, messages: Sequence[Message]) -> None:
        self._keep(messages)
        self._head = Head(messages[-1].position, messages[-1].id)
        for watcher in self.watchers:
            watcher(messages)
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def _keep(self, messages: Sequence[Message]) -> None:
        """Puts messages into the ring, which the oldest leave."""
        self._ring.extend(messages)
        self._ring_bytes += sum(message.size for message in messages)
        while len(self._ring) > self._ring_size or self._ring_bytes > _RING_BYTES:
            self._ring_bytes -= self._ring.popleft().size
