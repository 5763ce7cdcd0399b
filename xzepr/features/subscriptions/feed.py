"""The feed: one loop a process that follows the stream, keeps its newest messages in a ring, and wakes who waits.

Subscribers are not pushed to. Each holds a position and asks for what comes after it: from the ring when it is there
(positions have no gaps, so the ring is indexed by them), else from the backlog, which reads the database for them. So a
slow subscriber costs neither memory nor messages, and delays nobody (see `docs/adr/0005-subscribers-pull.md` and
`0027-fair-scheduling-of-catch-up-subscribers.md`).
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence

import structlog

from xzepr.core.errors import CursorExpired, Problem, StreamDiverged, Unavailable
from xzepr.features.stream.model import Cursor, Head, Message, Origin
from xzepr.features.stream.reader import StreamReader
from xzepr.features.stream.service import Stream, WriteTransaction
from xzepr.features.subscriptions.history import HistoryReader
from xzepr.features.subscriptions.ring import Ring
from xzepr.features.subscriptions.scheduler import FairScheduler, Subscriber, Subscribers
from xzepr.infra.db import Connection, Database, hang_up_after, translate_errors

_MOST_MESSAGES = 200
_FEW_MESSAGES = 100
_READ_BYTES = 8 * 1024 * 1024
"""About how much one read brings; the next one asks for fewer messages when they are large. The first large ones may be
200 of 512 KiB."""
_SILENT_SECONDS = 3.0
"""How long one statement of the feed may take before its connection is given up, and another opened."""
_PATIENCE_SECONDS = 8.0
"""How long somebody waits for what is asked for them: over a connection that has fallen silent, and over another."""
_log = structlog.stdlib.get_logger(__name__)


class Feed:
    """What this process knows of the stream's newest end."""

    def __init__(
        self, db: Database, stream: Stream, scheduler: FairScheduler, *, ring_size: int, poll_seconds: float
    ) -> None:
        self._db = db
        self._stream = stream
        self._poll_seconds = poll_seconds
        self._ring = Ring(ring_size)
        self._begins_after = 0
        """The position after which the stream begins: retention has taken what was before."""
        self._batch_size = _FEW_MESSAGES
        self._head: Head | None = None
        self._moved: asyncio.Future[None] | None = None
        self._history = HistoryReader(db)
        self.subscribers = Subscribers(scheduler)
        self._started = asyncio.Event()
        self._checked_at = -math.inf
        self._checks_started = 0
        self._checks_done = 0
        """The last look at the head that was answered, of so many that began."""
        self._checks_wanted = 0
        self._check_done: asyncio.Future[None] | None = None
        self._idle: asyncio.Timeout | None = None
        self.generation = 0
        """How often the stream was found to be another than what this process had read of it: its database was
        restored. Who holds a cursor asks `Stream.verify` then."""
        self.on_messages: list[Callable[[Sequence[Message]], None]] = []
        """Called in the loop with each batch of new messages; for what must notice changes made in other processes."""
        self.on_reset: list[Callable[[], None]] = []
        """Called in the loop at each such break; for what remembers anything that messages told."""

    @property
    def head(self) -> Head:
        """The newest entry that this process has seen. Await `started` first."""
        assert self._head is not None, "the feed has not started"
        return self._head

    async def started(self) -> None:
        """Returns once the feed knows the head of the stream."""
        await self._started.wait()

    async def wait_beyond(self, position: int) -> None:
        """Returns as soon as there is something after the position, or the stream is another."""
        await self._started.wait()
        breaks = self.generation
        while self.head.position <= position and self.generation == breaks:
            if self._moved is None or self._moved.done():
                self._moved = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._moved)

    async def wait_until_after(self, position: int, reader: Subscriber) -> None:
        """The same for a reader, with a turn."""
        breaks = self.generation
        while self.head.position <= position and self.generation == breaks:
            await self.subscribers.wait(reader)

    async def next(self, cursor: Cursor, reader: Subscriber) -> Message | None:
        """The message that follows on a cursor, when it is the reader's turn; None at the head, and where the stream no
        longer holds the cursor. Raises Unavailable."""
        turn = reader.time_slice
        while True:
            if turn.is_used_up():
                await turn.next(catching_up=self._is_behind(cursor.position))
            if not self._is_behind(cursor.position):
                return self._ring.at(cursor.position + 1)
            if (message := self._history.cached(cursor)) is not None:
                return message
            message, read_for_us = await self._read_behind(cursor)
            if read_for_us or message is None:
                turn.restart()  # the time went to the database
                return message
            # All who waited for the same read would go on in the same round of the loop.
            await turn.next(catching_up=True)

    async def _read_behind(self, cursor: Cursor) -> tuple[Message | None, bool]:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self._history.read(cursor)
        except TimeoutError:  # it is read all the same
            raise Unavailable("the database does not answer", retry_after=1) from None

    def _is_behind(self, position: int) -> bool:
        first = self._ring.first
        return position + 1 < (self.head.position + 1 if first is None else first)

    async def revalidate(self) -> None:
        """Returns once it was noticed whether the database no longer holds what was read from it: it was restored, or
        another has taken over that lacks the newest messages; or retention took what this process was too late to
        read. All who ask meanwhile share the next look, which begins after they came. Raises Unavailable."""
        wanted = self._checks_started + 1
        self._checks_wanted = max(self._checks_wanted, wanted)
        if self._idle is not None and not self._idle.expired():
            self._idle.reschedule(0)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while self._checks_done < wanted:
                    if self._check_done is None or self._check_done.done():
                        self._check_done = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._check_done)
        except TimeoutError:
            raise Unavailable("the database does not answer", retry_after=1) from None

    async def verify(self, cursor: Cursor) -> None:
        """As `Stream.verify`, for who is to go on from there: a cursor that the ring knows costs nothing, and one
        behind it no more than reading what follows. Await `make_sure` first, if the ring is to be trusted."""
        known = self._tail_at(cursor.position)
        if known is None and self._begins_after <= cursor.position < self.head.position:
            message = self._history.cached(cursor) or (await self._read_behind(cursor))[0]
            known = None if message is None else cursor.tail
        if known != cursor.tail:
            await self._stream.verify(cursor)

    def _tail_at(self, position: int) -> str | None:
        if position == self.head.position:
            return self.head.cursor.tail
        message = self._ring.at(position)
        return None if message is None else message.cursor.tail

    async def run(self) -> None:
        """Follows the stream until cancelled; a lost database connection is opened again with a growing pause."""
        pause = 0.1
        while True:
            try:
                connection = await self._db.connect("feed")
                async with connection, translate_errors():
                    with hang_up_after(connection, _SILENT_SECONDS):
                        reader = StreamReader(connection)
                        await reader.listen()
                        await self._open(reader)
                    pause = 0.1
                    await self._follow(reader)
            except (Problem, OSError) as error:
                _log.warning("feed.interrupted", error=str(error), retry_seconds=pause)
                self._batch_size = max(1, self._batch_size // 2)  # perhaps it was too much for a slow connection
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    async def _open(self, reader: StreamReader) -> None:
        if self._head is None:
            self._head = await reader.head()
            self._started.set()
        self._checked_at = -math.inf

    async def _follow(self, reader: StreamReader) -> None:
        """Reads over the connection on which it listens: one that has fallen silent is noticed by the next look, and
        requests cannot take it."""
        while True:
            if self._checks_wanted > self._checks_done or time.monotonic() - self._checked_at >= self._poll_seconds:
                await self._check_history(reader)
            else:
                await self._read(reader)
            if self._checks_wanted <= self._checks_done:
                await self._listen(reader.connection)

    async def _listen(self, connection: Connection) -> None:
        """Returns when somebody announced something or wants to be sure, or after a while."""
        try:
            async with asyncio.timeout(self._poll_seconds) as self._idle:
                async for _ in connection.notifies(stop_after=1):
                    pass
        except TimeoutError:
            return
        finally:
            self._idle = None

    async def _check_history(self, reader: StreamReader) -> None:
        self._checks_started += 1
        look, head = self._checks_started, self.head
        with hang_up_after(reader.connection, _SILENT_SECONDS):
            try:
                await reader.verify(head.cursor)
            except CursorExpired:
                self._reset_to(await reader.origin(), instead_of=head)
            except StreamDiverged:
                self._reset_to(await reader.head(), instead_of=head)
                _log.error("feed.diverged", read_up_to=str(head.cursor), stream_ends_at=str(self.head.cursor))
            self._begins_after = (await reader.origin()).position
        self._ring.forget_before(self._begins_after)
        self._checked_at = time.monotonic()
        await self._read(reader)
        self._checks_done = look
        if self._check_done is not None and not self._check_done.done():
            self._check_done.set_result(None)

    def _reset_to(self, place: Head | Origin, *, instead_of: Head) -> None:
        """Forgets what was read, and goes on after that place; nothing is left to do where somebody else has."""
        if self._head is not instead_of:
            return
        self._ring.clear()
        self._history.clear()
        self._head = Head(place.position, place.id)
        self.generation += 1
        for forget in self.on_reset:
            forget()
        self._wake()

    async def _read(self, reader: StreamReader) -> None:
        while messages := await self._read_batch(reader):
            whole = len(messages) == self._batch_size
            # What this process committed meanwhile is in the ring already.
            fresh = [message for message in messages if message.position > self.head.position]
            if fresh:
                self._advance(fresh)
            if not whole:
                break
            size = sum(message.size for message in messages)
            self._batch_size = max(1, min(_MOST_MESSAGES, self._batch_size * _READ_BYTES // size))

    async def _read_batch(self, reader: StreamReader) -> Sequence[Message]:
        with hang_up_after(reader.connection, _SILENT_SECONDS):
            return await reader.after_cursor(self.head.cursor, self._batch_size)

    def accept_committed(self, tx: WriteTransaction) -> None:
        """Takes messages that this process has just committed, if they follow on what the feed has seen; else they
        are read, like those of other processes."""
        head, first = self._head, tx.messages[0].position
        if head is not None and first == head.position + 1 and tx.follows in (head.id, None):
            self._advance(tx.messages)

    def _advance(self, messages: Sequence[Message]) -> None:
        self._ring.keep(messages)
        self._head = Head(messages[-1].position, messages[-1].id)
        for watcher in self.on_messages:
            watcher(messages)
        self._wake()

    def _wake(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)
        self.subscribers.wake_all()
