"""Subscriptions to the stream: a checkpoint first, then every message once and in order, also for slow subscribers."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise

import pytest

from tests.faults.runner.database import database_server
from tests.support.hub import (
    MANAGER,
    VIEWER,
    actor,
    messages,
    new_event,
    new_group,
    new_receiver,
    running_hub,
    terminate,
    until,
)
from tests.support.postgres import temporary_folder
from xzepr.core.actor import ANONYMOUS, Actor, Permission
from xzepr.core.errors import StreamDiverged, Unauthenticated, Unavailable
from xzepr.features.groups.model import GroupChange
from xzepr.features.receivers.model import Receiver
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Checkpoint, Cursor, Message, StreamFilter
from xzepr.features.subscriptions.service import Subscription, follow
from xzepr.hub import Hub

ALL = StreamFilter()


@asynccontextmanager
async def following(
    hub: Hub,
    after: Cursor | None = None,
    filter: StreamFilter = ALL,
    *,
    actor: Actor = VIEWER,
    checkpoint_seconds: float = 60,
) -> AsyncGenerator[Subscription]:
    """Runs a subscription until the end of the block."""
    frames = follow(hub.stream, hub.feed, actor, after, filter, checkpoint_seconds=checkpoint_seconds)
    async with aclosing(frames):
        yield frames


async def frame(frames: Subscription) -> Message | Checkpoint:
    return await asyncio.wait_for(anext(frames), 20)


async def take(frames: Subscription, count: int) -> list[Message]:
    """Returns the next messages, without the checkpoints between them."""
    received: list[Message] = []
    while len(received) < count:
        if isinstance(next_frame := await frame(frames), Message):
            received.append(next_frame)
    return received


async def checkpoint(frames: Subscription) -> Cursor:
    """Returns the cursor of the next frame, which must be a checkpoint."""
    next_frame = await frame(frames)
    assert isinstance(next_frame, Checkpoint)
    return next_frame.cursor


def beginning(hub: Hub) -> Cursor:
    return Cursor.of(0, hub.stream.hub_id)


async def test_first_frame_is_a_checkpoint_at_the_head(hub: Hub):
    await new_receiver(hub)
    await until(lambda: hub.feed.head.position == 1)
    async with following(hub) as frames:
        first = await frame(frames)
        assert isinstance(first, Checkpoint)
        assert first.cursor == (await hub.stream.head()).cursor
        created = await new_receiver(hub, "later")
        [message] = await take(frames, 1)
        assert message.receiver_id == created.id


async def test_first_cursor_of_an_empty_stream_can_be_resumed(hub: Hub):
    async with following(hub) as frames:
        first = await frame(frames)
    await new_receiver(hub)
    async with following(hub, first.cursor) as frames:
        assert (await frame(frames)).cursor == first.cursor
        assert [message.position for message in await take(frames, 1)] == [1]


async def test_replay_joins_live_messages_without_a_gap(database_url: str):
    async with running_hub(database_url, stream={"ring_size": 50}) as hub:
        build = await new_receiver(hub)
        await new_group(hub, build)
        await hub.recorder.record_all(MANAGER, [new_event(build, name=f"old-{n}") for n in range(300)])
        writers = [asyncio.create_task(_write(hub, build, number)) for number in range(3)]
        starts = [beginning(hub), (await messages(hub))[99].cursor]
        results = await asyncio.gather(*(_all_after(hub, start, 2 + 600 + 3 * 200) for start in starts * 4))
        await asyncio.gather(*writers)
        everything = await messages(hub)
        for start, received in zip(starts * 4, results, strict=True):
            assert received == everything[start.position :]


async def _write(hub: Hub, build: Receiver, number: int) -> None:
    for n in range(100):
        await hub.recorder.record(MANAGER, new_event(build, name=f"new-{number}-{n}"))


async def _all_after(hub: Hub, start: Cursor, last: int) -> list[Message]:
    async with following(hub, start) as frames:
        return await take(frames, last - start.position)


async def test_resuming_after_any_message_gives_the_next(hub: Hub):
    build = await new_receiver(hub)
    await new_group(hub, build)
    await hub.recorder.record_all(MANAGER, [new_event(build, name=f"u{n}") for n in range(20)])
    everything = await messages(hub)
    await until(lambda: hub.feed.head.position == len(everything))
    for message in everything[:-1]:
        async with following(hub, message.cursor) as frames:
            assert await take(frames, 1) == [everything[message.position]]


async def test_checkpoints_advance_while_nothing_matches(hub: Hub):
    build = await new_receiver(hub)
    filter = StreamFilter(kinds=frozenset({Kind.GROUP_CREATED}))
    async with following(hub, beginning(hub), filter, checkpoint_seconds=0.05) as frames:
        cursors = [(await frame(frames)).cursor]
        while cursors[-1].position < 1:
            cursors.append(await checkpoint(frames))
        recorded = await hub.recorder.record(MANAGER, new_event(build))
        while cursors[-1] != recorded.cursor:
            cursors.append(await checkpoint(frames))  # filtered messages only move checkpoints
    assert all(before.position <= after.position for before, after in pairwise(cursors))


async def test_steady_messages_suppress_checkpoints(hub: Hub):
    build = await new_receiver(hub)
    await until(lambda: hub.feed.head.position == 1)
    async with following(hub, checkpoint_seconds=30) as frames:
        await frame(frames)
        for _ in range(20):
            recorded = await hub.recorder.record(MANAGER, new_event(build))
            assert await frame(frames) == (await messages(hub, recorded.event.position - 1))[0]


async def test_unreadable_kinds_are_skipped(hub: Hub):
    build = await new_receiver(hub)
    group = await new_group(hub, build)
    await hub.recorder.record(MANAGER, new_event(build))
    await hub.groups.update(MANAGER, group.id, GroupChange(name="x"))
    last = await new_receiver(hub)
    start = beginning(hub)
    reads = {
        Permission.RECEIVER_READ: [Kind.RECEIVER_CREATED, Kind.RECEIVER_CREATED],
        Permission.GROUP_READ: [Kind.GROUP_CREATED, Kind.GROUP_UPDATED],
        Permission.EVENT_READ: [Kind.EVENT_RECORDED, Kind.GATE_COMPLETED],
    }
    for permission, expected in reads.items():
        async with following(hub, start, actor=actor("one", permission), checkpoint_seconds=0.1) as frames:
            assert [message.kind for message in await take(frames, 2)] == expected
            while (
                not isinstance(next_frame := await frame(frames), Checkpoint)
                or next_frame.cursor.position < last.position
            ):
                assert isinstance(next_frame, Checkpoint)
    filter = StreamFilter(kinds=frozenset({Kind.GROUP_CREATED}))
    async with following(
        hub, start, filter, actor=actor("x", Permission.EVENT_READ), checkpoint_seconds=0.05
    ) as frames:
        assert all([isinstance(await frame(frames), Checkpoint) for _ in range(3)])


async def test_anonymous_subscriber_is_rejected(hub: Hub):
    async with following(hub, actor=ANONYMOUS) as frames:
        with pytest.raises(Unauthenticated):
            await frame(frames)


async def test_filter_selects_matching_messages(hub: Hub):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    group = await new_group(hub, build)
    recordings = [
        await hub.recorder.record(MANAGER, new_event(r, name=name, success=ok))
        for r, name, ok in ((build, "a", True), (scan, "a", True), (build, "b", False), (build, "a", False))
    ]
    everything = await messages(hub)
    for filter in (
        StreamFilter(receiver_ids=frozenset({scan.id})),
        StreamFilter(group_ids=frozenset({group.id})),
        StreamFilter(name="a", success=True),
        StreamFilter(unit_id=recordings[2].event.unit_id),
    ):
        page, _ = await hub.stream.page(VIEWER, None, filter, 100)
        assert 0 < len(page.items) < len(everything)
        async with following(hub, beginning(hub), filter) as frames:
            assert await take(frames, len(page.items)) == page.items


async def test_cursor_of_another_stream_is_rejected_at_once(hub: Hub):
    await new_receiver(hub)
    for cursor in (Cursor(1, "ABCDEFGH"), Cursor(2, "ABCDEFGH"), Cursor(0, "ABCDEFGH")):
        async with following(hub, cursor) as frames:
            with pytest.raises(StreamDiverged):
                await frame(frames)


async def test_subscriber_behind_the_ring_misses_nothing(database_url: str):
    async with running_hub(database_url, stream={"ring_size": 5}) as hub:
        build = await new_receiver(hub)
        await until(lambda: hub.feed.head.position == 1)
        async with following(hub) as slow, following(hub) as fast:
            await frame(slow)
            await frame(fast)
            for n in range(30):
                await hub.recorder.record(MANAGER, new_event(build, name=f"u{n}"))
                await take(fast, 1)
            everything = await messages(hub, 1)
            assert await take(slow, 30) == everything


async def test_subscriber_survives_loss_of_the_feed_connection(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    await until(lambda: hub.feed.head.position == 1)
    async with following(hub) as frames:
        await frame(frames)
        assert await terminate(database_url, "xzepr hub feed") == 1
        await hub.recorder.record(MANAGER, new_event(build))
        assert await take(frames, 1) == await messages(hub, 1)


async def test_subscriber_sees_events_of_another_process(database_url: str):
    async with running_hub(database_url) as first, running_hub(database_url) as second:
        build = await new_receiver(first)
        await asyncio.wait_for(second.feed.wait_beyond(0), 10)
        async with following(second) as frames:
            await frame(frames)
            for n in range(20):
                recorded = await first.recorder.record(MANAGER, new_event(build, name=f"u{n}"))
                [message] = await take(frames, 1)
                assert message.event == recorded.event


async def test_rolled_back_messages_are_never_sent(hub: Hub):
    async with following(hub) as frames:
        await frame(frames)
        with pytest.raises(RuntimeError):
            await _fail(hub)
        created = await new_receiver(hub)
        [message] = await take(frames, 1)
        assert (message.position, message.receiver_id) == (1, created.id)


async def _fail(hub: Hub) -> None:
    async with hub.stream.write(MANAGER) as tx:
        tx.append(Kind.RECEIVER_CREATED)
        raise RuntimeError


async def test_mass_reconnect_uses_no_request_connection(database_url: str):
    async with running_hub(database_url, stream={"ring_size": 100}, database={"max_connections": 2}) as hub:
        build = await new_receiver(hub)
        await hub.recorder.record_all(MANAGER, [new_event(build, name=f"u{n}") for n in range(300)])
        history = await messages(hub)
        await until(lambda: hub.feed.head.position == len(history))
        busy = [asyncio.create_task(_keep_busy(hub)) for _ in range(6)]
        await asyncio.sleep(0.3)
        started_at = time.monotonic()
        cursors = [beginning(hub), *(message.cursor for message in history)]
        first_cursors = await asyncio.gather(*(_first(hub, cursors[n % len(cursors)]) for n in range(3000)))
        assert first_cursors == [cursors[n % len(cursors)] for n in range(3000)]
        assert time.monotonic() - started_at < 10
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)


async def _keep_busy(hub: Hub) -> None:
    async with hub.db.read() as connection:
        await connection.execute("SELECT pg_sleep(30)")


async def _first(hub: Hub, after: Cursor) -> Cursor:
    async with following(hub, after) as frames:
        return await checkpoint(frames)


@pytest.mark.slow
async def test_only_new_subscribers_fail_without_a_database():
    with temporary_folder() as folder:
        async with (
            database_server(folder / "database") as server,
            running_hub(server.url, stream={"ring_size": 2}, database={"connection_timeout_seconds": 1}) as hub,
        ):
            build = await new_receiver(hub)
            await hub.recorder.record_all(MANAGER, [new_event(build, name=f"u{n}") for n in range(120)])
            history = await messages(hub)
            await until(lambda: hub.feed.head.position == len(history))
            async with following(hub, beginning(hub), checkpoint_seconds=0.2) as catching_up:
                received = await take(catching_up, 60)
                await server.stop()
                while True:
                    next_frame = await frame(catching_up)
                    if isinstance(next_frame, Checkpoint):
                        break
                    received.append(next_frame)
                for _ in range(3):
                    assert await checkpoint(catching_up) == received[-1].cursor, (
                        "checkpoints do not pass the last message received"
                    )
                async with following(hub, history[-1].cursor) as new_subscriber:
                    with pytest.raises(Unavailable) as error:
                        await frame(new_subscriber)
                assert error.value.retry_after is not None
                await server.start()
                assert received + await take(catching_up, len(history) - len(received)) == history
