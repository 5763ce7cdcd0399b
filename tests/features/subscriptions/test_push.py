"""Messages that are pushed to waiting subscribers without their tasks: the same ones, in the same order."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from tests.support.hub import MANAGER, VIEWER, messages, new_event, new_receiver, running_hub, until
from xzepr.features.receivers.model import Receiver
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Checkpoint, Message, StreamFilter
from xzepr.features.subscriptions.service import Subscription, follow
from xzepr.hub import Hub

MANY = 60  # more than wake at once


class Consumer:
    """A subscriber's task and what it received, by way of arrival."""

    def __init__(self, subscription: Subscription, accepts: Callable[[Message], bool]) -> None:
        self.received: list[Message] = []
        self.pushed: list[Message] = []
        self.checkpoints: list[Checkpoint] = []
        self._accepts = accepts
        self._subscription = subscription
        subscription.deliver = self._deliver
        self.task = asyncio.create_task(self._iterate())

    def _deliver(self, event: object) -> bool:
        assert isinstance(event, Message)
        if not self._accepts(event):
            return False
        self.pushed.append(event)
        self.received.append(event)
        return True

    async def _iterate(self) -> None:
        async for item in self._subscription:
            if isinstance(item, Checkpoint):
                self.checkpoints.append(item)
            else:
                self.received.append(item)


@asynccontextmanager
async def consuming(
    hub: Hub,
    accepts: Callable[[Message], bool] = lambda _: True,
    filter: StreamFilter | None = None,
    *,
    checkpoint_seconds: float = 60,
) -> AsyncGenerator[Consumer]:
    """Runs a subscriber that waits at the head of the stream when the block begins."""
    subscription = follow(
        hub.stream, hub.feed, VIEWER, None, filter or StreamFilter(), checkpoint_seconds=checkpoint_seconds
    )
    async with aclosing(subscription):
        consumer = Consumer(subscription, accepts)
        await until(lambda: bool(consumer.checkpoints))
        await asyncio.sleep(0)
        try:
            yield consumer
        finally:
            consumer.task.cancel()
            await asyncio.wait([consumer.task])


async def record(hub: Hub, receiver: Receiver, count: int) -> None:
    for n in range(count):
        await hub.recorder.record(MANAGER, new_event(receiver, name=f"u{n}"))


async def test_waiting_subscriber_gets_messages_by_push(hub: Hub):
    build = await new_receiver(hub)
    await until(lambda: hub.feed.head.position == 1)
    async with consuming(hub) as consumer:
        await record(hub, build, 5)
        await until(lambda: len(consumer.received) == 5)
        assert consumer.received == consumer.pushed == await messages(hub, 1)


async def test_refused_pushes_are_iterated_in_order(hub: Hub):
    build = await new_receiver(hub)
    await until(lambda: hub.feed.head.position == 1)
    async with consuming(hub, lambda message: message.position % 3 > 0) as consumer:
        await record(hub, build, 10)
        await until(lambda: len(consumer.received) == 10)
        assert consumer.received == await messages(hub, 1)
        assert 0 < len(consumer.pushed) < 10


async def test_failing_push_is_left_to_the_iteration(hub: Hub):
    def fail(_: Message) -> bool:
        raise RuntimeError

    build = await new_receiver(hub)
    await until(lambda: hub.feed.head.position == 1)
    async with consuming(hub, fail) as consumer:
        await record(hub, build, 3)
        await until(lambda: len(consumer.received) == 3)
        assert consumer.received == await messages(hub, 1)
        assert not consumer.pushed


async def test_pushes_respect_the_filter(hub: Hub):
    build = await new_receiver(hub)
    await until(lambda: hub.feed.head.position == 1)
    filter = StreamFilter(kinds=frozenset({Kind.EVENT_RECORDED}), name="u2")
    async with consuming(hub, filter=filter) as consumer:
        await record(hub, build, 4)
        await new_receiver(hub, "other")
        await until(lambda: hub.feed.subscribers.slowest == 6)
        assert [message.event.name for message in consumer.pushed if message.event] == ["u2"]
        assert consumer.received == consumer.pushed


async def test_cancelled_subscriber_gets_no_push(hub: Hub):
    build = await new_receiver(hub)
    await until(lambda: hub.feed.head.position == 1)
    async with consuming(hub) as consumer, consuming(hub) as other:
        consumer.task.cancel()
        await record(hub, build, 1)
        await until(lambda: len(other.received) == 1)
        assert not consumer.received


async def test_checkpoint_follows_the_last_push(hub: Hub):
    build = await new_receiver(hub)
    await until(lambda: hub.feed.head.position == 1)
    async with consuming(hub, checkpoint_seconds=0.2) as consumer:
        await record(hub, build, 3)
        last = (await messages(hub))[-1].cursor
        await until(lambda: consumer.checkpoints[-1].cursor == last)
        assert consumer.received == await messages(hub, 1)


@pytest.mark.parametrize("accepts_all", [True, False])
async def test_many_subscribers_get_every_message_once(database_url: str, accepts_all: bool):
    async with running_hub(database_url, stream={"ring_size": 20}) as hub:
        build = await new_receiver(hub)
        await until(lambda: hub.feed.head.position == 1)
        consumers: list[Consumer] = []

        async def consume(number: int, done: asyncio.Event) -> None:
            async with consuming(hub, lambda m: accepts_all or (m.position + number) % 4 > 0) as consumer:
                consumers.append(consumer)
                await done.wait()

        done = asyncio.Event()
        tasks = [asyncio.create_task(consume(number, done)) for number in range(MANY)]
        await until(lambda: len(consumers) == MANY)
        for _ in range(4):
            await hub.recorder.record_all(MANAGER, [new_event(build, name=f"u{n}") for n in range(30)])
            await record(hub, build, 5)
        await until(lambda: all(len(consumer.received) == 140 for consumer in consumers))
        everything = await messages(hub, 1)
        assert all(consumer.received == everything for consumer in consumers)
        assert any(consumer.pushed for consumer in consumers)
        done.set()
        await asyncio.gather(*tasks)
