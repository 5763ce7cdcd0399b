"""The feed of a process that kept running while its database was restored: no lost message appears, no new one is
missed."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import pytest

from tests.support.hub import MANAGER as WRITER
from tests.support.hub import (
    VIEWER,
    execute,
    messages,
    new_event,
    new_receiver,
    running_hub,
    terminate,
    until,
)
from xzepr.core.errors import NotFound, StreamDiverged
from xzepr.features.receivers.model import ReceiverChange
from xzepr.features.stream.model import Cursor, Message, StreamFilter
from xzepr.features.subscriptions.service import Subscription, follow
from xzepr.hub import Hub


@asynccontextmanager
async def following(hub: Hub, after: Cursor | None = None) -> AsyncGenerator[Subscription]:
    async with aclosing(follow(hub.stream, hub.feed, VIEWER, after, StreamFilter(), checkpoint_seconds=60)) as frames:
        await anext(frames)
        yield frames


async def next_message(frames: Subscription) -> Message:
    async with asyncio.timeout(20):
        while True:
            if isinstance(frame := await anext(frames), Message):
                return frame


async def read_positions(frames: Subscription, seen: list[int]) -> None:
    """Appends the positions of messages to `seen` until the subscription fails."""
    while True:
        seen.append((await next_message(frames)).position)


async def restore(database_url: str, position: int) -> None:
    """Resets the database to a position, as restoring an old backup does."""
    for statement in (
        "DELETE FROM receivers WHERE id IN (SELECT receiver_id FROM messages"
        " WHERE position > %s AND kind = 'receiver.created')",
        "DELETE FROM events WHERE position > %s",
        "DELETE FROM messages WHERE position > %s",
    ):
        await execute(database_url, statement, (position,))


async def write_receivers(hub: Hub, count: int) -> None:
    for n in range(count):
        await new_receiver(hub, f"receiver-{n}")
    head = await hub.stream.head()
    await until(lambda: hub.feed.head == head)


@pytest.mark.parametrize("connected", [True, False], ids=["feed connection stays", "feed connection ends"])
async def test_only_subscribers_past_the_restore_diverge(database_url: str, connected: bool):
    async with running_hub(database_url, stream={"poll_seconds": 0.2}) as hub:
        await write_receivers(hub, 10)
        fifth = (await messages(hub))[4].cursor
        async with following(hub) as past_restore, following(hub, fifth) as before_restore:
            sixth = await next_message(before_restore)
            await restore(database_url, 6)
            if not connected:
                await terminate(database_url, "xzepr hub feed")
            with pytest.raises(StreamDiverged):
                await next_message(past_restore)
            assert hub.feed.head.cursor == sixth.cursor
            created = await new_receiver(hub, "afterwards")
            assert (await next_message(before_restore)).receiver_id == created.id, (
                "the subscriber received no lost message"
            )


async def test_foreign_writes_after_a_restore_are_not_continued(database_url: str):
    async with running_hub(database_url, stream={"poll_seconds": 1e6}) as hub, running_hub(database_url) as other:
        await write_receivers(hub, 10)
        async with following(hub) as frames:
            await restore(database_url, 6)
            await until(lambda: other.feed.head.position == 6)
            await write_receivers(other, 8)  # past the old head: 14
            with pytest.raises(StreamDiverged):
                await asyncio.gather(next_message(frames), terminate(database_url, "xzepr hub feed"))
            await until(lambda: hub.feed.head.position == 14)


async def test_local_commit_does_not_hide_a_restore(database_url: str):
    async with running_hub(database_url, stream={"poll_seconds": 1e6}) as hub, running_hub(database_url) as other:
        await write_receivers(hub, 10)
        async with following(hub) as frames:
            await restore(database_url, 6)
            await until(lambda: other.feed.head.position == 6)
            await write_receivers(other, 4)
            await new_receiver(hub, "eleventh")  # follows the head's position, but another message
            assert hub.feed.head.position == 10
            await terminate(database_url, "xzepr hub feed")
            with pytest.raises(StreamDiverged):
                await next_message(frames)
        await until(lambda: hub.feed.head.position == 11)


async def test_catch_up_subscriber_diverges_after_a_restore(database_url: str):
    async with running_hub(database_url, stream={"ring_size": 2, "poll_seconds": 1e6}) as hub:
        await write_receivers(hub, 70)
        seventh = (await messages(hub))[6].cursor
        async with following(hub, seventh) as frames:
            await restore(database_url, 6)
            seen = [7]
            with pytest.raises(StreamDiverged):
                await read_positions(frames, seen)
            assert seen[-1] <= 50, "only messages of the first batch"


async def test_new_subscriber_sees_nothing_lost_in_a_restore(database_url: str):
    async with running_hub(database_url, stream={"poll_seconds": 1e6}) as hub:
        await write_receivers(hub, 10)
        sixth = (await messages(hub))[5].cursor
        await restore(database_url, 6)
        async with following(hub, sixth) as frames:
            created = await new_receiver(hub, "seventh")
            assert (await next_message(frames)).receiver_id == created.id


async def test_lost_receiver_accepts_no_events(database_url: str):
    async with running_hub(database_url, stream={"poll_seconds": 0.2}) as hub:
        await write_receivers(hub, 3)
        build = await new_receiver(hub, "later lost", {"type": "object"})
        await hub.recorder.record(WRITER, new_event(build))
        changed = await hub.receivers.update(WRITER, build.id, ReceiverChange(schema={"type": "string"}))
        assert changed.revision == 2
        await hub.recorder.record(WRITER, new_event(build, payload="text"))
        await restore(database_url, 3)
        await until(lambda: hub.feed.head.position == 3)
        with pytest.raises(NotFound):
            await hub.recorder.record(WRITER, new_event(build))
        assert [message.position for message in await messages(hub)] == [1, 2, 3]
