"""The feed of a process that stayed up while its database was restored: it never shows what is no more, nor misses what
took its place."""

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
from xzepr.features.stream.model import Checkpoint, Cursor, Message, StreamFilter
from xzepr.features.subscriptions.service import follow
from xzepr.hub import Hub

Frames = AsyncGenerator[Message | Checkpoint, None]


@asynccontextmanager
async def following(hub: Hub, after: Cursor | None = None) -> AsyncGenerator[Frames]:
    async with aclosing(follow(hub.stream, hub.feed, VIEWER, after, StreamFilter(), checkpoint_seconds=60)) as frames:
        await anext(frames)
        yield frames


async def message(frames: Frames) -> Message:
    async with asyncio.timeout(20):
        while True:
            if isinstance(one := await anext(frames), Message):
                return one


async def listen(frames: Frames, seen: list[int]) -> None:
    """Notes the positions of messages until it is told why there are no more."""
    while True:
        seen.append((await message(frames)).position)


async def restore(database_url: str, position: int) -> None:
    """Takes the database back to a position, as a backup of then would."""
    for statement in (
        "DELETE FROM receivers WHERE id IN (SELECT receiver_id FROM messages"
        " WHERE position > %s AND kind = 'receiver.created')",
        "DELETE FROM events WHERE position > %s",
        "DELETE FROM messages WHERE position > %s",
    ):
        await execute(database_url, statement, (position,))


async def written(hub: Hub, count: int) -> None:
    for n in range(count):
        await new_receiver(hub, f"receiver-{n}")
    head = await hub.stream.head()
    await until(lambda: hub.feed.head == head)


@pytest.mark.parametrize("connected", [True, False], ids=["its connection stays", "its connection ends"])
async def test_only_subscribers_past_the_restore_diverge(database_url: str, connected: bool):
    async with running_hub(database_url, stream={"poll_seconds": 0.2}) as hub:
        await written(hub, 10)
        fifth = (await messages(hub))[4].cursor
        async with following(hub) as past, following(hub, fifth) as ahead:
            sixth = await message(ahead)
            await restore(database_url, 6)
            if not connected:
                await terminate(database_url, "xzepr hub feed")
            with pytest.raises(StreamDiverged):
                await message(past)
            assert hub.feed.head.cursor == sixth.cursor
            made = await new_receiver(hub, "afterwards")
            assert (await message(ahead)).receiver_id == made.id, "it has been handed nothing of what is lost"


async def test_foreign_writes_after_a_restore_are_not_continued(database_url: str):
    async with running_hub(database_url, stream={"poll_seconds": 1e9}) as hub, running_hub(database_url) as other:
        await written(hub, 10)
        async with following(hub) as frames:
            await restore(database_url, 6)
            await until(lambda: other.feed.head.position == 6)
            await written(other, 8)  # past the old head: 14
            with pytest.raises(StreamDiverged):
                await asyncio.gather(message(frames), terminate(database_url, "xzepr hub feed"))
            await until(lambda: hub.feed.head.position == 14)


async def test_local_commit_does_not_hide_a_restore(database_url: str):
    async with running_hub(database_url, stream={"poll_seconds": 1e9}) as hub, running_hub(database_url) as other:
        await written(hub, 10)
        async with following(hub) as frames:
            await restore(database_url, 6)
            await until(lambda: other.feed.head.position == 6)
            await written(other, 4)
            await new_receiver(hub, "eleventh")  # follows on the head's position, and not on its message
            assert hub.feed.head.position == 10
            await terminate(database_url, "xzepr hub feed")
            with pytest.raises(StreamDiverged):
                await message(frames)
        await until(lambda: hub.feed.head.position == 11)


async def test_catch_up_subscriber_diverges_after_a_restore(database_url: str):
    async with running_hub(database_url, stream={"ring_size": 2, "poll_seconds": 1e9}) as hub:
        await written(hub, 70)
        seventh = (await messages(hub))[6].cursor
        async with following(hub, seventh) as frames:
            await restore(database_url, 6)
            seen = [7]
            with pytest.raises(StreamDiverged):
                await listen(frames, seen)
            assert seen[-1] <= 50, "no more than was read with the first"


async def test_new_subscriber_sees_nothing_lost_in_a_restore(database_url: str):
    async with running_hub(database_url, stream={"poll_seconds": 1e9}) as hub:
        await written(hub, 10)
        sixth = (await messages(hub))[5].cursor
        await restore(database_url, 6)
        async with following(hub, sixth) as frames:
            made = await new_receiver(hub, "seventh")
            assert (await message(frames)).receiver_id == made.id


async def test_lost_receiver_accepts_no_events(database_url: str):
    async with running_hub(database_url, stream={"poll_seconds": 0.2}) as hub:
        await written(hub, 3)
        build = await new_receiver(hub, "later lost", {"type": "object"})
        await hub.recorder.record(WRITER, new_event(build))
        changed = await hub.receivers.update(WRITER, build.id, ReceiverChange(schema={"type": "string"}))
        assert changed.revision == 2
        await hub.recorder.record(WRITER, new_event(build, payload="text"))
        await restore(database_url, 3)
        await until(lambda: hub.feed.head.position == 3)
        with pytest.raises(NotFound):
            await hub.recorder.record(WRITER, new_event(build))
        assert [one.position for one in await messages(hub)] == [1, 2, 3]
