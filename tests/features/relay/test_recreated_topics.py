"""What a relay does about a Kafka that it has reason to doubt: topics made anew, a state that it cannot read, brokers
too slow for what it sends, instructions that cannot be obeyed."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from confluent_kafka import Producer as OtherProducer

from tests.support.relay import (
    append,
    append_event,
    assert_exactly_once,
    configure_topic,
    consume,
    delete_topics,
    kafka_settings,
    opened,
    relay_of,
    relayed,
    running,
    until,
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


async def _stopped(relay: Relay, *told: str) -> None:
    await until(lambda: relay.status.state is RelayState.STOPPED and all(one in relay.status.detail for one in told))


async def _made_anew(kafka: str, settings: KafkaSettings) -> None:
    """The topic is deleted, and made again as brokers do where topics are created for who asks."""
    await asyncio.to_thread(delete_topics, kafka, settings.topic)
    async with Topics(Cluster((kafka,), 10)) as topics:
        await topics.create(NewTopicSpec(settings.topic, settings.partitions, 1))


async def test_topic_recreated_between_relays_is_detected(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with opened(database_url) as stream:
        async with running(relay_of(stream, settings)) as relay:
            await append(stream, 30)
            await relayed(relay, stream)
        await _made_anew(kafka, settings)
        async with running(relay_of(stream, settings)) as relay:
            await append(stream, 10)
            await _stopped(relay, "made anew", "`xzepr stream resume --republish-from 1`")
            await routes.resume(stream.db, SYSTEM, settings.topic, republish_from=1)
            await relayed(relay, stream)
            await until(lambda: relay.status.state is RelayState.FOLLOWING)
        async with running(relay_of(stream, settings)) as relay:
            await append(stream, 10)
            await relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 50)


async def test_topic_recreated_under_a_relay_is_detected(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka, timeout_seconds=3)
    async with opened(database_url) as stream, running(relay_of(stream, settings)) as relay:
        for _ in range(3):
            await append(stream, 30)
            await relayed(relay, stream)
        await _made_anew(kafka, settings)
        await append(stream, 10)
        await _stopped(relay, "made anew")
        assert relay.status.position is None, "nobody knows how far it is"
        await routes.resume(stream.db, SYSTEM, settings.topic, republish_from=1)
        await relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 100)


async def test_unreadable_state_stops_the_relay_until_resumed(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with opened(database_url) as stream:
        await append(stream, 30)
        async with running(relay_of(stream, settings)) as relay:
            await relayed(relay, stream)
        key = Route(settings, stream.hub_id).state_key
        await asyncio.to_thread(_write, kafka, settings.state_topic, key, b'{"version":2}')
        await append(stream, 10)
        async with running(relay_of(stream, settings)) as relay:
            await _stopped(relay, "cannot be read", "`xzepr stream resume --at 30`")
            await routes.resume(stream.db, SYSTEM, settings.topic, at=30)
            await relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 40)


async def test_deleted_state_does_not_reveal_an_older_one(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with opened(database_url) as stream:
        await append(stream, 30)
        async with running(relay_of(stream, settings)) as relay:
            await relayed(relay, stream)
        key = Route(settings, stream.hub_id).state_key
        await asyncio.to_thread(_write, kafka, settings.state_topic, key, None)
        async with running(relay_of(stream, settings)) as relay:
            await _stopped(relay, "do not know of it")


def _write(kafka: str, topic: str, key: bytes, value: bytes | None) -> None:
    producer: Any = OtherProducer({"bootstrap.servers": kafka})
    producer.produce(topic, key=key, value=value)
    assert producer.flush(10) == 0


async def test_failing_resume_is_retried_with_a_pause(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with Topics(Cluster((kafka,), 10)) as topics:
        await topics.create(NewTopicSpec(settings.state_topic, 1, 1, {"cleanup.policy": "delete"}))
    async with opened(database_url) as stream:
        await append(stream, 5)
        async with running(relay_of(stream, settings)) as relay:
            await _stopped(relay, "cleanup.policy=delete")
            await routes.resume(stream.db, SYSTEM, settings.topic, republish_from=1)
            tries, until_then = set[object](), time.monotonic() + 3
            while time.monotonic() < until_then:
                [status] = await routes.statuses(stream.db, SYSTEM)
                tries.add(status.updated_at)
                await asyncio.sleep(0.01)
    assert len(tries) <= 3, "what was said before, and of one try"


async def test_resume_during_recovery_is_applied_at_once(kafka: str, database_url: str) -> None:
    opens, may_open = list[int](), asyncio.Event()

    async def open_late(cluster: Cluster, transactional_id: str | None, max_bytes: int) -> Producer:
        opens.append(1)
        await may_open.wait()
        return await Producer.open(cluster, transactional_id, max_bytes)

    settings = kafka_settings(kafka)
    async with Topics(Cluster((kafka,), 10)) as topics:
        await topics.create(NewTopicSpec(settings.state_topic, 1, 1, {"cleanup.policy": "delete"}))
    async with opened(database_url) as stream:
        await append(stream, 5)
        async with running(relay_of(stream, settings, open_late)) as relay:
            await _stopped(relay, "cleanup.policy=delete")
            await asyncio.to_thread(configure_topic, kafka, settings.state_topic, "cleanup.policy", "compact")
            await until(lambda: bool(opens))
            await routes.resume(stream.db, SYSTEM, settings.topic, at=3)
            may_open.set()
            await relayed(relay, stream)
            assert len(opens) == 2, "it was open already, and began anew"
    received = await asyncio.to_thread(consume, kafka, settings.topic)
    assert sorted(one.position for one in received) == [4, 5]


class _Slow(Producer):
    """Its brokers take ten messages in the time that a call has, and no more."""

    sizes: ClassVar[list[int]] = []

    async def send(self, record: Record) -> None:
        self._count = getattr(self, "_count", 0) + 1
        await super().send(record)

    async def settle(self) -> None:
        count, self._count = self._count, 0
        self.sizes.append(count)
        if count > 10:
            raise BrokerError("send: no answer within 30 seconds")
        await super().settle()


async def test_slow_brokers_get_smaller_batches(kafka: str, database_url: str) -> None:
    class Slow(_Slow):
        sizes: ClassVar[list[int]] = []

    settings = kafka_settings(kafka)
    async with opened(database_url) as stream:
        await append(stream, 100)
        async with running(relay_of(stream, settings, Slow.open)) as relay:
            await relayed(relay, stream, 60)
    assert max(Slow.sizes) >= 100
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 100)


async def test_large_messages_are_read_in_smaller_batches(kafka: str, database_url: str) -> None:
    class Measured(Producer):
        async def begin(self) -> None:
            transactions.append(0)
            await super().begin()

        async def send(self, record: Record) -> None:
            transactions[-1] += record.size
            await super().send(record)

    transactions: list[int] = []
    settings = kafka_settings(kafka, timeout_seconds=30)
    payload = b'{"x":"%s"}' % (b"x" * 100_000)
    async with opened(database_url) as stream:
        await append(stream, 6000)
        await _many_events(stream, payload, 500)
        async with running(relay_of(stream, settings, Measured.open)) as relay:
            await relayed(relay, stream, 60)
    small = transactions[: next(index for index, size in enumerate(transactions) if size > 10_000_000)]
    assert max(small) > 500_000, "more than one part was sent at once"
    assert max(transactions) < 200 * 102_000, "one part is at most 200 messages"


async def _many_events(stream: Stream, payload: bytes, count: int) -> Sequence[object]:
    return [await append_event(stream, payload) for _ in range(count)]
