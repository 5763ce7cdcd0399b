"""One subscription to the stream: replays messages after a cursor, then follows live, with checkpoints when idle."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

from xzepr.core.actor import Actor
from xzepr.core.clock import now
from xzepr.core.errors import Problem
from xzepr.features.stream import rules
from xzepr.features.stream.model import Checkpoint, Cursor, Message, StreamFilter
from xzepr.features.stream.service import Stream
from xzepr.features.subscriptions.feed import Feed
from xzepr.features.subscriptions.subscribers import Pushed

_RETRY_SECONDS = 0.1  # before a missing message is read again: the feed may not have noticed a restore yet
_UNAVAILABLE_SECONDS = 1.0  # between attempts while the database is down


def follow(
    stream: Stream, feed: Feed, actor: Actor, after: Cursor | None, filter: StreamFilter, *, checkpoint_seconds: float
) -> "Subscription":
    """Returns a subscription, which yields a checkpoint, then every message after it that may be read and matches.

    The first checkpoint is `after`, or the current head if that is None. Messages arrive in order, without gaps or
    repeats. A further checkpoint follows whenever nothing was sent for `checkpoint_seconds`.

    The iteration raises StreamDiverged if `after` is not a cursor of this stream, and CursorExpired if retention
    removed messages that the subscriber had not read. While the database is down a new subscriber gets Unavailable; a
    running one waits.
    """
    return Subscription(stream, feed, actor, filter, after, checkpoint_seconds)


class Subscription:
    """A subscription, which survives outages and restores of the database.

    Close it with `aclose`. While the iteration waits at the head of the stream, messages go to `deliver`, if it is set
    and accepts them: that saves waking the task that iterates.
    """

    __slots__ = (
        "_actor",
        "_after",
        "_checkpoint_seconds",
        "_feed",
        "_filter",
        "_frames",
        "_generation",
        "_id",
        "_last_sent",
        "_stream",
        "_subscriber",
        "deliver",
    )

    def __init__(
        self,
        stream: Stream,
        feed: Feed,
        actor: Actor,
        filter: StreamFilter,
        after: Cursor | None,
        checkpoint_seconds: float,
    ) -> None:
        self._stream = stream
        self._feed = feed
        self._actor = actor
        self._filter = filter
        self._after = after
        self._checkpoint_seconds = checkpoint_seconds
        self._last_sent = 0.0
        self._generation = 0
        self.deliver: Callable[[object], bool] | None = None
        """Sends a message at once, or returns False; the iteration then yields the message."""
        self._frames = self._run()

    def __aiter__(self) -> "Subscription":
        return self

    def __anext__(self) -> Awaitable[Message | Checkpoint]:
        """Returns the next message or checkpoint."""
        return self._frames.__anext__()

    async def aclose(self) -> None:
        """Ends the subscription."""
        await self._frames.aclose()

    async def _run(self) -> AsyncGenerator[Message | Checkpoint, None]:
        cursor = await self._open()
        self._id = cursor.id_suffix
        with self._feed.subscribers.subscribed(cursor.position) as self._subscriber:
            if self._after is not None:  # a thousand clients that reconnect are verified at the same moment
                await self._subscriber.time_slice.next(catching_up=False)
            yield self._checkpoint()
            self._subscriber.push = self._push
            while True:
                message, pause = await self._next()
                if message is not None:
                    if rules.matches(self._filter, message):
                        yield message
                        self._last_sent = time.monotonic()
                    self._handled(message)
                if time.monotonic() - self._last_sent >= self._checkpoint_seconds:
                    yield self._checkpoint()
                if message is None:
                    await self._wait(pause)

    async def _open(self) -> Cursor:
        """Returns the cursor of the first checkpoint, which this process can continue after."""
        self._actor.require_authenticated()
        rules.check_filter(self._filter)
        self._filter = replace(self._filter, kinds=rules.readable(self._actor, self._filter.kinds))
        feed, after = self._feed, self._after
        await feed.started()
        self._generation = feed.generation  # before the cursor is verified
        if after is not None:
            await feed.revalidate()  # a new subscriber must see nothing of a history that a restore has replaced
            await feed.verify(after)
        return after or feed.head.cursor

    @property
    def _cursor(self) -> Cursor:
        """The cursor of the newest message that was handled."""
        return Cursor.of(self._subscriber.position, self._id)

    def _checkpoint(self) -> Checkpoint:
        self._last_sent = time.monotonic()
        return Checkpoint(self._cursor, now())

    def _handled(self, message: Message) -> None:
        self._id = message.id
        self._subscriber.position = message.position

    def _push(self) -> Pushed:
        """Sends new messages while the iteration waits; see `subscribers.Push`."""
        feed, subscriber, deliver = self._feed, self._subscriber, self.deliver
        if deliver is None or feed.generation != self._generation:
            return Pushed.BLOCKED
        head = feed.head.position
        while (position := subscriber.position) < head:
            message = feed.in_memory(position + 1)
            if message is None:
                return Pushed.BLOCKED
            if subscriber.time_slice.is_used_up():
                return Pushed.SOME
            if rules.matches(self._filter, message):
                if not deliver(message):
                    return Pushed.BLOCKED
                self._last_sent = time.monotonic()
            self._id = message.id
            subscriber.position = message.position
        return Pushed.ALL

    async def _next(self) -> tuple[Message | None, float]:
        """Returns the next message, or None and the seconds to wait before the next attempt.

        With 0 seconds, the caller waits for a new message instead. Raises StreamDiverged or CursorExpired.
        """
        feed, cursor = self._feed, self._cursor
        try:
            message = await feed.next(cursor, self._subscriber)
            generation, is_missing = feed.generation, message is None and feed.head.position > cursor.position
            if generation == self._generation and not is_missing:
                return message, 0.0
            await (self._stream.verify(cursor) if is_missing else feed.verify(cursor))
        except Problem as problem:
            if problem.retry_after is None:
                raise
            return None, _UNAVAILABLE_SECONDS
        pause = _RETRY_SECONDS if generation == self._generation else 0.0
        self._generation = generation
        return None, pause

    def _wait(self, pause: float) -> Awaitable[None]:
        """Waits for `pause` seconds, or if that is 0, for a message; at most until a checkpoint is due.

        Returns early without a reason, too.
        """
        feed, subscriber = self._feed, self._subscriber
        timeout_seconds = max(self._last_sent + self._checkpoint_seconds - time.monotonic(), 0.0)
        if pause:
            return asyncio.sleep(min(pause, timeout_seconds))
        if feed.head.position > subscriber.position or feed.generation != self._generation:
            return asyncio.sleep(0)
        return feed.subscribers.wait(subscriber, timeout_seconds)
