"""One subscription to the stream: replays messages after a cursor, then follows live, with checkpoints when idle."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace

from xzepr.core.actor import Actor
from xzepr.core.clock import now
from xzepr.core.errors import Problem
from xzepr.features.stream import rules
from xzepr.features.stream.model import Checkpoint, Cursor, Message, StreamFilter
from xzepr.features.stream.service import Stream
from xzepr.features.subscriptions.feed import Feed
from xzepr.features.subscriptions.scheduler import Subscriber

_RETRY_SECONDS = 0.1  # before a missing message is read again: the feed may not have noticed a restore yet
_UNAVAILABLE_SECONDS = 1.0  # between attempts while the database is down


async def follow(
    stream: Stream, feed: Feed, actor: Actor, after: Cursor | None, filter: StreamFilter, *, checkpoint_seconds: float
) -> AsyncGenerator[Message | Checkpoint, None]:
    """Yields a checkpoint, then every message after it that the actor may read and the filter accepts.

    The first checkpoint is `after`, or the current head if that is None. Messages arrive in order, without gaps or
    repeats. A further checkpoint follows whenever nothing was sent for `checkpoint_seconds`.

    Raises StreamDiverged if `after` is not a cursor of this stream, and CursorExpired if retention removed messages
    that the subscriber had not read. While the database is down a new subscriber gets Unavailable; a running one waits.
    """
    actor.require_authenticated()
    rules.check_filter(filter)
    filter = replace(filter, kinds=rules.readable(actor, filter.kinds))
    await feed.started()
    generation = feed.generation
    if after is not None:
        await feed.revalidate()  # a new subscriber must see nothing of a history that a restore has replaced
        await feed.verify(after)
    cursor = after or feed.head.cursor
    with feed.subscribers.subscribed(cursor.position) as subscriber:
        subscription = Subscription(stream, feed, subscriber, generation)
        if after is not None:  # a thousand clients that reconnect are verified at the same moment
            await subscriber.time_slice.next(catching_up=False)
        yield Checkpoint(cursor, now())
        last_sent = time.monotonic()
        while True:
            message, pause = await subscription.next(cursor)
            if message is not None:
                cursor = message.cursor
                if rules.matches(filter, message):
                    yield message
                    last_sent = time.monotonic()
                subscriber.position = cursor.position
            if time.monotonic() - last_sent >= checkpoint_seconds:
                yield Checkpoint(cursor, now())
                last_sent = time.monotonic()
            if message is None:
                await subscription.wait(cursor.position, pause, last_sent + checkpoint_seconds - time.monotonic())


class Subscription:
    """A running subscription, which survives outages and restores of the database."""

    __slots__ = ("_feed", "_generation", "_stream", "_subscriber")

    def __init__(self, stream: Stream, feed: Feed, subscriber: Subscriber, generation: int) -> None:
        """`generation`: the feed's generation before the subscriber's cursor was verified."""
        self._stream = stream
        self._feed = feed
        self._subscriber = subscriber
        self._generation = generation

    async def next(self, cursor: Cursor) -> tuple[Message | None, float]:
        """Returns the message after `cursor`, or None and the seconds to wait before the next attempt.

        With 0 seconds, the caller waits for a new message instead. Raises StreamDiverged or CursorExpired.
        """
        feed = self._feed
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

    async def wait(self, position: int, pause: float, timeout_seconds: float) -> None:
        """Sleeps for `pause` seconds, or if that is 0, waits for a message after `position`.

        Returns after `timeout_seconds` at the latest.
        """
        if pause:
            await asyncio.sleep(max(0.0, min(pause, timeout_seconds)))
        elif self._feed.generation == self._generation:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(timeout_seconds, 0.0)):
                    await self._feed.wait_until_after(position, self._subscriber)
