"""Relays that meet: one steps down and says why; a transaction that only took too long is nobody's rival."""

import asyncio
from typing import Any

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.support.postgres import Databases
from tests.support.relay import (
    append,
    assert_exactly_once,
    consume,
    kafka_settings,
    opened,
    relay_of,
    relayed,
    running,
    until,
)
from xzepr.features.relay.loop import Relay
from xzepr.features.relay.model import RelayState
from xzepr.features.relay.route import Route
from xzepr.infra.kafka.cluster import Cluster, FencedError, RivalError
from xzepr.infra.kafka.producer import Producer, Record
from xzepr.infra.kafka.topics import NewTopicSpec, Topics

pytestmark = pytest.mark.kafka


class _Told:
    """Everything that a relay says of itself while it is watched."""

    def __init__(self, *relays: Relay) -> None:
        self.details: set[str] = set()
        self._relays = relays
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            self.details |= {relay.status.detail for relay in self._relays}
            await asyncio.sleep(0.005)

    def rival(self) -> bool:
        """Whether one said that another had taken over."""
        return any("another relay with this hub's id has taken over" in detail for detail in self.details)

    def stop(self) -> None:
        """Stops watching."""
        self._task.cancel()


async def test_competing_leaders_deliver_exactly_once(
    kafka: str, database_url: str, postgres_server: Databases
) -> None:
    """A database that was copied while the hub went on: each relay holds the lock of its own copy."""
    settings = kafka_settings(kafka, max_transaction_messages=20)
    async with opened(database_url) as stream:
        await append(stream, 2000)
    with psycopg.connect(database_url) as connection:
        name = connection.info.dbname
    with postgres_server.database(name) as copy:
        async with opened(database_url) as stream, opened(copy) as copied:
            one, other = relay_of(stream, settings), relay_of(copied, settings)
            told = _Told(one, other)
            async with running(one), running(other):
                await relayed(one, stream)
                await relayed(other, copied)
                await until(told.rival)
            told.stop()
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 2000)


async def test_fenced_leader_steps_down_then_leads_again(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with opened(database_url) as stream, running(relay_of(stream, settings)) as relay:
        await append(stream, 50)
        await relayed(relay, stream)
        route = Route(settings, stream.hub_id)
        told = _Told(relay)
        rival = await Producer.open(route.cluster, route.transactional_id, 1_000_000)
        await append(stream, 50)
        await until(told.rival)
        await relayed(relay, stream)
        await until(lambda: relay.status.state is RelayState.FOLLOWING)
        told.stop()
        await rival.close()
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 100)


async def test_transaction_timeout_is_no_competing_relay(kafka: str) -> None:
    cluster = Cluster((kafka,), 4)
    patient = Cluster((kafka,), 10)
    topic = kafka_settings(kafka).topic
    async with Topics(patient) as topics:
        await topics.create(NewTopicSpec(topic, 1, 1))
    producer = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await producer.begin()
    await producer.send(Record(topic, b"k", b"v"))
    await producer.settle()
    await _decided(kafka, topic)
    with pytest.raises(FencedError, match="took longer than 8 seconds") as refused:
        await producer.commit()
    assert not isinstance(refused.value, RivalError)
    await producer.close()


async def _decided(kafka: str, topic: str) -> None:
    """Returns when no transaction is open in the topic any more."""
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=kafka, isolation_level="read_committed")
    await consumer.start()
    try:
        async with asyncio.timeout(40):
            partition = TopicPartition(topic, 0)
            while (await consumer.end_offsets([partition]))[partition] == 0:
                await asyncio.sleep(0.2)
    finally:
        await consumer.stop()
