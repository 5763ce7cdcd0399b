"""One subscriber's way through the stream: replay, then live, with checkpoints in silence."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

from xzepr.core.actor import Actor
from xzepr.core.clock import now
from xzepr.features.stream import rules
from xzepr.features.stream.feed import Feed
from xzepr.features.stream.model import Checkpoint, Cursor, Message, StreamFilter
from xzepr.features.stream.service import Stream

_AGAIN_SECONDS = 0.1


async def follow(
    stream: Stream, feed: Feed, actor: Actor, after: Cursor | None, wanted: StreamFilter, *, checkpoint_seconds: float
) -> AsyncGenerator[Message | Checkpoint, None]:
    """First a checkpoint (the cursor given, or the present head), then every message after it that the actor may read
    and the filter lets through, in order, without a gap or a repeat; a checkpoint when nothing was sent for
    `checkpoint_seconds`. Raises StreamDiverged for a cursor that is not of this stream, and CursorExpired when
    retention took messages before this subscriber read them."""
    actor.must_be_known()
    rules.check_filter(wanted)
    wanted = replace(wanted, kinds=rules.readable(actor, wanted.kinds))
    await feed.started()
    if after is not None:
        await feed.make_sure()  # of a history that is lost nobody who comes after is told anything
        await stream.verify(after)
    breaks = feed.breaks
    seen = after or feed.head.cursor
    with feed.reading(seen.position) as reader:
        yield Checkpoint(seen, now())
        spoke = time.monotonic()
        while True:
            message = await feed.next(seen, reader)
            if feed.breaks != breaks or (message is None and feed.head.position > seen.position):
                await stream.verify(seen)
                if feed.breaks == breaks:
                    await asyncio.sleep(_AGAIN_SECONDS)  # the feed does not know yet
                breaks = feed.breaks
                continue
            if message is not None:
                seen = message.cursor
                if rules.matches(wanted, message):
                    yield message
                    spoke = time.monotonic()
                reader.position = seen.position
            if time.monotonic() - spoke >= checkpoint_seconds:
                yield Checkpoint(seen, now())
                spoke = time.monotonic()
            if message is None and feed.breaks == breaks:
                await _wait(feed, seen.position, spoke + checkpoint_seconds - time.monotonic())
                reader.turn.begin()


async def _wait(feed: Feed, position: int, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await feed.wait_beyond(position)
    except TimeoutError:
        return
