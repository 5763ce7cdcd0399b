"""One subscriber's way through the stream: replay, then live, with checkpoints in silence."""

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

_AGAIN_SECONDS = 0.1
_AWAY_SECONDS = 1.0


async def follow(
    stream: Stream, feed: Feed, actor: Actor, after: Cursor | None, wanted: StreamFilter, *, checkpoint_seconds: float
) -> AsyncGenerator[Message | Checkpoint, None]:
    """First a checkpoint (the cursor given, or the present head), then every message after it that the actor may read
    and the filter lets through, in order, without a gap or a repeat; a checkpoint when nothing was sent for
    `checkpoint_seconds`. Raises StreamDiverged for a cursor that is not of this stream, and CursorExpired when
    retention took messages before this subscriber read them. Who comes with a cursor while the database is away is
    told Unavailable; who has begun waits for it, as those do who wait for news."""
    actor.must_be_known()
    rules.check_filter(wanted)
    wanted = replace(wanted, kinds=rules.readable(actor, wanted.kinds))
    await feed.started()
    breaks = feed.generation
    if after is not None:
        await feed.revalidate()  # of a history that is lost nobody who comes after is told anything
        await feed.verify(after)
    seen = after or feed.head.cursor
    with feed.subscribers.subscribed(seen.position) as reader:
        way = Subscription(stream, feed, reader, breaks)
        if after is not None:
            await reader.time_slice.next(catching_up=False)  # a thousand who come back are verified at the same moment
        yield Checkpoint(seen, now())
        spoke = time.monotonic()
        while True:
            message, pause = await way.next(seen)
            if message is not None:
                seen = message.cursor
                if rules.matches(wanted, message):
                    yield message
                    spoke = time.monotonic()
                reader.position = seen.position
            if time.monotonic() - spoke >= checkpoint_seconds:
                yield Checkpoint(seen, now())
                spoke = time.monotonic()
            if message is None:
                await way.wait(seen.position, pause, spoke + checkpoint_seconds - time.monotonic())


class Subscription:
    """How a subscriber who has begun goes on, whatever becomes of the database meanwhile."""

    __slots__ = ("_breaks", "_feed", "_reader", "_stream")

    def __init__(self, stream: Stream, feed: Feed, reader: Subscriber, breaks: int) -> None:
        """`breaks`: those of the feed when the subscriber's cursor was not yet verified."""
        self._stream = stream
        self._feed = feed
        self._reader = reader
        self._breaks = breaks

    async def next(self, seen: Cursor) -> tuple[Message | None, float]:
        """The message that follows, or None and how many seconds to wait before asking again: 0 for news."""
        feed = self._feed
        try:
            message = await feed.next(seen, self._reader)
            breaks, lost = feed.generation, message is None and feed.head.position > seen.position
            if breaks == self._breaks and not lost:
                return message, 0.0
            await (self._stream.verify(seen) if lost else feed.verify(seen))
        except Problem as problem:
            if problem.retry_after is None:
                raise
            return None, _AWAY_SECONDS
        pause = _AGAIN_SECONDS if breaks == self._breaks else 0.0  # the feed does not know of it yet
        self._breaks = breaks
        return None, pause

    async def wait(self, position: int, pause: float, seconds: float) -> None:
        """Waits for news, at most so many seconds, or out the pause."""
        if pause:
            await asyncio.sleep(max(0.0, min(pause, seconds)))
        elif self._feed.generation == self._breaks:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(seconds, 0.0)):
                    await self._feed.wait_until_after(position, self._reader)
