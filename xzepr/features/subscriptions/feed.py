"""The feed: a background loop that follows the stream for one process and wakes its subscribers.

Subscribers pull. Each holds a position and requests the message after it: from the ring, which holds the newest
messages and is indexed by position, or else from the history reader, which reads the database for all subscribers. A
slow subscriber takes no memory, loses no messages and delays no other (see `docs/adr/0005-subscribers-pull.md` and
`0027-fair-scheduling-of-catch-up-subscribers.md`).
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence

import structlog

from xzepr.core.backoff import Backoff
from xzepr.core.errors import CursorExpired, Problem, StreamDiverged, Unavailable
from xzepr.features.stream.model import Cursor, Head, Message, Origin
from xzepr.features.stream.reader import StreamReader
from xzepr.features.stream.service import Committed, Stream
from xzepr.features.subscriptions.history import HistoryReader
from xzepr.features.subscriptions.ring import Ring
from xzepr.features.subscriptions.scheduler import FairScheduler
from xzepr.features.subscriptions.subscribers import Subscriber, Subscribers
from xzepr.infra.db import Database, hang_up_after, translate_errors
from xzepr.infra.notifications import Notifications

_MAX_BATCH_SIZE = 200  # messages of one read
_INITIAL_BATCH_SIZE = 100  # messages
_TARGET_BYTES = 8 * 1024 * 1024  # target size of one read; the first read of large messages may get 200 of 512 KiB
_STATEMENT_TIMEOUT_SECONDS = 3.0  # for one statement of the feed, before it opens another connection
_WAIT_TIMEOUT_SECONDS = (
    8.0  # for a subscriber that waits for a read: enough for a silent connection and its replacement
)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0  # before a lost connection is opened again
_log = structlog.stdlib.get_logger(__name__)


class Feed:
    """The newest end of the stream, as this process has read it."""

    def __init__(
        self, db: Database, stream: Stream, scheduler: FairScheduler, *, ring_size: int, poll_seconds: float
    ) -> None:
        self._db = db
        self._stream = stream
        self._poll_seconds = poll_seconds
        self._ring = Ring(ring_size)
        self._origin_position = 0  # messages up to here were removed by retention
        self._batch_size = _INITIAL_BATCH_SIZE
        self._head: Head | None = None
        self._new_head: asyncio.Future[None] | None = None
        self._history = HistoryReader(db)
        self.subscribers = Subscribers(scheduler)
        self._started = asyncio.Event()
        self._checked_at = -math.inf
        self._checks_started = 0
        self._checks_done = 0  # number of the last check that has ended
        self._checks_requested = 0  # number of the last check for which a caller waits
        self._check_done: asyncio.Future[None] | None = None
        self._listen_timeout: asyncio.Timeout | None = None
        self._lacks_own_messages = False  # this process has committed messages after some that the feed lacks
        self.generation = 0
        """Counts how often the stream turned out to be another one, because its database was restored. Cursors of an
        earlier generation have to be verified."""
        self.on_messages: list[Callable[[Sequence[Message]], None]] = []
        """Called with each batch of new messages, from any process."""
        self.on_reset: list[Callable[[], None]] = []
        """Called when the generation changes; caches of values from messages must be emptied."""

    @property
    def head(self) -> Head:
        """The newest entry that this process has read. Await `started` first."""
        assert self._head is not None, "the feed has not started"
        return self._head

    @property
    def position(self) -> int:
        """The position of the head; 0 before the feed has started."""
        return 0 if self._head is None else self._head.position

    async def started(self) -> None:
        """Returns once the feed knows the head of the stream."""
        await self._started.wait()

    async def wait_beyond(self, position: int) -> None:
        """Waits until there is a message after the position, or the generation changes."""
        await self._started.wait()
        generation = self.generation
        while self.head.position <= position and self.generation == generation:
            if self._new_head is None or self._new_head.done():
                self._new_head = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._new_head)

    def in_memory(self, position: int) -> Message | None:
        """Returns the message at a position; None if it must be read, or does not exist yet."""
        return self._ring.at(position)

    async def next(self, cursor: Cursor, subscriber: Subscriber) -> Message | None:
        """Returns the message after a cursor, within the subscriber's time slices.

        None at the head, and if the stream no longer holds the cursor. Raises Unavailable.
        """
        time_slice = subscriber.time_slice
        while True:
            if time_slice.is_used_up():
                await time_slice.next(catching_up=self._is_catching_up(cursor.position))
            if not self._is_catching_up(cursor.position):
                return self._ring.at(cursor.position + 1)
            if (message := self._history.cached(cursor)) is not None:
                return message
            message, started_read = await self._read_history(cursor)
            if started_read or message is None:
                time_slice.restart()  # the time passed in the database
                return message
            # Otherwise all subscribers that waited for this read would run in the same round of the loop.
            await time_slice.next(catching_up=True)

    async def _read_history(self, cursor: Cursor) -> tuple[Message | None, bool]:
        try:
            async with asyncio.timeout(_WAIT_TIMEOUT_SECONDS):
                return await self._history.read(cursor)
        except TimeoutError:  # the read continues, and its messages are cached
            raise Unavailable("the database does not answer", retry_after=1) from None

    def _is_catching_up(self, position: int) -> bool:
        first = self._ring.first
        return position + 1 < (self.head.position + 1 if first is None else first)

    async def revalidate(self) -> None:
        """Waits for a check of the head against the database that starts after this call.

        The check notices a restored database, a replica that lacks the newest messages, and messages that retention
        removed before this process read them. Concurrent callers share one check. Raises Unavailable.
        """
        check = self._checks_started + 1
        self._checks_requested = max(self._checks_requested, check)
        self._stop_listening()
        try:
            async with asyncio.timeout(_WAIT_TIMEOUT_SECONDS):
                while self._checks_done < check:
                    if self._check_done is None or self._check_done.done():
                        self._check_done = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._check_done)
        except TimeoutError:
            raise Unavailable("the database does not answer", retry_after=1) from None

    async def verify(self, cursor: Cursor) -> None:
        """Checks that a subscriber can continue after a cursor; raises as `Stream.verify` does.

        A cursor in the ring costs nothing, an older one a read of the messages that follow. Call `revalidate` before
        if the database may have been restored.
        """
        id_suffix = self._id_suffix_at(cursor.position)
        if id_suffix is None and self._origin_position <= cursor.position < self.head.position:
            message = self._history.cached(cursor) or (await self._read_history(cursor))[0]
            id_suffix = None if message is None else cursor.id_suffix
        if id_suffix != cursor.id_suffix:
            await self._stream.verify(cursor)

    def _id_suffix_at(self, position: int) -> str | None:
        if position == self.head.position:
            return self.head.cursor.id_suffix
        message = self._ring.at(position)
        return None if message is None else message.cursor.id_suffix

    async def run(self) -> None:
        """Follows the stream until cancelled. Opens a lost connection again, with a growing pause."""
        backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        while True:
            try:
                connection = await self._db.connect("feed")
                async with connection, translate_errors():
                    with hang_up_after(connection, _STATEMENT_TIMEOUT_SECONDS):
                        reader = StreamReader(connection)
                        await reader.listen()
                        await self._open(reader)
                    backoff.reset()
                    await self._follow(reader)
            except (Problem, OSError) as error:
                pause = backoff.next()
                _log.warning("feed.interrupted", error=str(error), retry_seconds=pause)
                self._batch_size = max(1, self._batch_size // 2)  # perhaps too much for a slow connection
                await asyncio.sleep(pause)

    async def _open(self, reader: StreamReader) -> None:
        if self._head is None:
            self._head = await reader.head()
            self._started.set()
        self._checked_at = -math.inf

    async def _follow(self, reader: StreamReader) -> None:
        # Reads use the connection that listens: the next check notices if it is silent, and requests cannot take it.
        # `accept_committed` gets the messages of this process.
        notifications = Notifications(reader.connection, ignored=self._stream.process_id)
        while True:
            if self._checks_requested > self._checks_done or time.monotonic() - self._checked_at >= self._poll_seconds:
                await self._check_head(reader)
            else:
                await self._read(reader)
            if self._checks_requested <= self._checks_done and not self._lacks_own_messages:
                await self._listen(notifications)

    async def _listen(self, notifications: Notifications) -> None:
        """Waits for a notification of another process or for `_stop_listening`, at most `poll_seconds`."""
        try:
            async with asyncio.timeout(self._poll_seconds) as self._listen_timeout:
                await notifications.wait()
        except TimeoutError:
            return
        finally:
            self._listen_timeout = None

    def _stop_listening(self) -> None:
        if self._listen_timeout is not None and not self._listen_timeout.expired():
            self._listen_timeout.reschedule(0)

    async def _check_head(self, reader: StreamReader) -> None:
        self._checks_started += 1
        check, head = self._checks_started, self.head
        with hang_up_after(reader.connection, _STATEMENT_TIMEOUT_SECONDS):
            try:
                await reader.verify(head.cursor)
            except CursorExpired:
                self._reset_to(await reader.origin(), instead_of=head)
            except StreamDiverged:
                self._reset_to(await reader.head(), instead_of=head)
                _log.error("feed.diverged", read_up_to=str(head.cursor), stream_ends_at=str(self.head.cursor))
            self._origin_position = (await reader.origin()).position
        self._ring.drop_before(self._origin_position)
        self._checked_at = time.monotonic()
        await self._read(reader)
        self._checks_done = check
        if self._check_done is not None and not self._check_done.done():
            self._check_done.set_result(None)

    def _reset_to(self, entry: Head | Origin, *, instead_of: Head) -> None:
        """Starts a new generation after `entry`, unless the head has changed since."""
        if self._head is not instead_of:
            return
        self._ring.clear()
        self._history.clear()
        self._head = Head(entry.position, entry.id)
        self.generation += 1
        for reset in self.on_reset:
            reset()
        self._wake()

    async def _read(self, reader: StreamReader) -> None:
        self._lacks_own_messages = False
        while messages := await self._read_batch(reader):
            is_full = len(messages) == self._batch_size
            # Messages that this process has committed since are in the ring already.
            new = [message for message in messages if message.position > self.head.position]
            if new:
                self._advance(new)
            if not is_full:
                break
            size = sum(message.size for message in messages)
            self._batch_size = max(1, min(_MAX_BATCH_SIZE, self._batch_size * _TARGET_BYTES // size))

    async def _read_batch(self, reader: StreamReader) -> Sequence[Message]:
        with hang_up_after(reader.connection, _STATEMENT_TIMEOUT_SECONDS):
            return await reader.after_cursor(self.head.cursor, self._batch_size)

    def accept_committed(self, committed: Committed) -> None:
        """Takes messages that this process has just committed, or reads them with those before them that it lacks."""
        head, first = self._head, committed.messages[0].position
        if head is not None and first == head.position + 1 and committed.previous_id in (head.id, None):
            self._advance(committed.messages)
        else:
            self._lacks_own_messages = True
            self._stop_listening()

    def _advance(self, messages: Sequence[Message]) -> None:
        self._ring.append(messages)
        self._head = Head(messages[-1].position, messages[-1].id)
        for notify in self.on_messages:
            notify(messages)
        self._wake()

    def _wake(self) -> None:
        if self._new_head is not None and not self._new_head.done():
            self._new_head.set_result(None)
        self.subscribers.wake_all()
