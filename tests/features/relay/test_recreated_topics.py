"""The relay with recreated topics, unreadable state, slow brokers and resume instructions that cannot be applied."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from confluent_kafka import Producer as RawProducer

from tests.support.relay import (
    append,
    append_event,
    assert_exactly_once,
    configure_topic,
    consume,
    delete_topics,
    kafka_settings,
    new_relay,
    open_stream,
    running,
    until,
    until_relayed,
)
from xzepr.core.actor import SYSTEM
from xzepr.features.relay import service as routes
from xzepr.features.relay.loop import Relay
from xzepr.features.relay.model import RelayState
from xzepr.features.relay.route import Route
from xzepr.features.stream.service import Stream
from xzepr.infra.kafka.cluster import BrokerError, Cluster
from xzepr.infra.kafka.producer import Producer, Record
from xzepr.infra.kafka.topics import NewTopicSpec, Topics
from xzepr.settings import KafkaSettings

pytestmark = pytest.mark.kafka


async def _until_stopped(relay: Relay, *details: str) -> None:
    await until(
        lambda: relay.status.state is RelayState.STOPPED and all(detail in relay.status.detail for detail in details)
    )


async def _recreate_topic(kafka: str, settings: KafkaSettings) -> None:
    """Deletes the topic and creates it again, as brokers do that create topics on demand."""
    await asyncio.to_thread(delete_topics, kafka, settings.topic)
    async with Topics(Cluster((kafka,), 10)) as topics:
        await topics.create(NewTopicSpec(settings.topic, settings.partitions, 1))


async def test_topic_recreated_between_relays_is_detected(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        async with running(new_relay(stream, settings)) as relay:
            await append(stream, 30)
            await until_relayed(relay, stream)
        await _recreate_topic(kafka, settings)
        async with running(new_relay(stream, settings)) as relay:
            await append(stream, 10)
            await _until_stopped(relay, "was deleted and recreated", "`xzepr stream resume --republish-from 1`")
            await routes.resume(stream.db, SYSTEM, settings.topic, republish_from=1)
            await until_relayed(relay, stream)
            await until(lambda: relay.status.state is RelayState.FOLLOWING)
        async with running(new_relay(stream, settings)) as relay:
            await append(stream, 10)
            await until_relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 50)


async def test_topic_recreated_under_a_relay_is_detected(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka, timeout_seconds=3)
    async with open_stream(database_url) as stream, running(new_relay(stream, settings)) as relay:
        for _ in range(3):
            await append(stream, 30)
            await until_relayed(relay, stream)
        await _recreate_topic(kafka, settings)
        await append(stream, 10)
        await _until_stopped(relay, "was deleted and recreated")
        assert relay.status.position is None, "the position is unknown"
        await routes.resume(stream.db, SYSTEM, settings.topic, republish_from=1)
        await until_relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 100)


async def test_unreadable_state_stops_the_relay_until_resumed(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 30)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
        key = Route(settings, stream.hub_id).state_key
        await asyncio.to_thread(_write, kafka, settings.state_topic, key, b'{"version":2}')
        await append(stream, 10)
        async with running(new_relay(stream, settings)) as relay:
            await _until_stopped(relay, "cannot be read", "`xzepr stream resume --at 30`")
            await routes.resume(stream.db, SYSTEM, settings.topic, at=30)
            await until_relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 40)


async def test_deleted_state_does_not_reveal_an_older_one(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 30)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
        key = Route(settings, stream.hub_id).state_key
        await asyncio.to_thread(_write, kafka, settings.state_topic, key, None)
        async with running(new_relay(stream, settings)) as relay:
            await _until_stopped(relay, "have no record of it")


def _write(kafka: str, topic: str, key: bytes, value: bytes | None) -> None:
    producer: Any = RawProducer({"bootstrap.servers": kafka})
    producer.produce(topic, key=key, value=value)
    assert producer.flush(10) == 0


async def test_failing_resume_is_retried_with_a_pause(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with Topics(Cluster((kafka,), 10)) as topics:
        await topics.create(NewTopicSpec(settings.state_topic, 1, 1, {"cleanup.policy": "delete"}))
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        async with running(new_relay(stream, settings)) as relay:
            await _until_stopped(relay, "cleanup.policy=delete")
            await routes.resume(stream.db, SYSTEM, settings.topic, republish_from=1)
            attempts, deadline = set[object](), time.monotonic() + 3
            while time.monotonic() < deadline:
                [status] = await routes.statuses(stream.db, SYSTEM)
                attempts.add(status.updated_at)
                await asyncio.sleep(0.01)
    assert len(attempts) <= 3, "the status before the instruction and after one attempt"


async def test_resume_during_recovery_is_applied_at_once(kafka: str, database_url: str) -> None:
    opens, may_open = list[int](), asyncio.Event()

    async def open_when_allowed(cluster: Cluster, transactional_id: str | None, max_bytes: int) -> Producer:
        opens.append(1)
        await may_open.wait()
        return await Producer.open(cluster, transactional_id, max_bytes)

    settings = kafka_settings(kafka)
    async with Topics(Cluster((kafka,), 10)) as topics:
        await topics.create(NewTopicSpec(settings.state_topic, 1, 1, {"cleanup.policy": "delete"}))
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        async with running(new_relay(stream, settings, open_when_allowed)) as relay:
            await _until_stopped(relay, "cleanup.policy=delete")
            await asyncio.to_thread(configure_topic, kafka, settings.state_topic, "cleanup.policy", "compact")
            await until(lambda: bool(opens))
            await routes.resume(stream.db, SYSTEM, settings.topic, at=3)
            may_open.set()
            await until_relayed(relay, stream)
            assert len(opens) == 2, "the open producer was replaced"
    received = await asyncio.to_thread(consume, kafka, settings.topic)
    assert sorted(message.position for message in received) == [4, 5]


class _SlowProducer(Producer):
    """A producer whose brokers accept at most ten messages within the timeout of a call."""

    sizes: ClassVar[list[int]] = []

    async def send(self, record: Record) -> None:
        self._count = getattr(self, "_count", 0) + 1
        await super().send(record)

    async def flush(self) -> None:
        count, self._count = self._count, 0
        self.sizes.append(count)
        if count > 10:
            raise BrokerError("send: no answer within 30 seconds")
        await super().flush()


async def test_slow_brokers_get_smaller_batches(kafka: str, database_url: str) -> None:
    class SlowProducer(_SlowProducer):
        sizes: ClassVar[list[int]] = []

    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream:
        await append(stream, 100)
        async with running(new_relay(stream, settings, SlowProducer.open)) as relay:
            await until_relayed(relay, stream, 60)
    assert max(SlowProducer.sizes) >= 100
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 100)


async def test_large_messages_are_read_in_smaller_batches(kafka: str, database_url: str) -> None:
    class MeasuringProducer(Producer):
        async def begin(self) -> None:
            transactions.append(0)
            await super().begin()

        async def send(self, record: Record) -> None:
            transactions[-1] += record.size
            await super().send(record)

    transactions: list[int] = []
    settings = kafka_settings(kafka, timeout_seconds=30)
    payload = b'{"x":"%s"}' % (b"x" * 100_000)
    async with open_stream(database_url) as stream:
        await append(stream, 6000)
        await _many_events(stream, payload, 500)
        async with running(new_relay(stream, settings, MeasuringProducer.open)) as relay:
            await until_relayed(relay, stream, 60)
    small = transactions[: next(index for index, size in enumerate(transactions) if size > 10_000_000)]
    assert max(small) > 500_000, "one transaction held several batches of small messages"
    assert max(transactions) < 200 * 102_000, "a batch of large messages has at most 200 of them"


async def _many_events(stream: Stream, payload: bytes, count: int) -> Sequence[object]:
    return [await append_event(stream, payload) for _ in range(count)]
