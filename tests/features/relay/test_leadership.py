"""Competing relays: one steps down with a reason; a transaction that merely timed out is not a competitor."""

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
    new_relay,
    open_stream,
    running,
    until,
    until_relayed,
)
from xzepr.features.relay.loop import Relay
from xzepr.features.relay.model import RelayState
from xzepr.features.relay.route import Route
from xzepr.infra.kafka.cluster import Cluster, CompetingProducerError, FencedError
from xzepr.infra.kafka.producer import Producer, Record
from xzepr.infra.kafka.topics import NewTopicSpec, Topics

pytestmark = pytest.mark.kafka


class _StatusWatch:
    """Collects every status detail that relays report while it runs."""

    def __init__(self, *relays: Relay) -> None:
        self.details: set[str] = set()
        self._relays = relays
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            self.details |= {relay.status.detail for relay in self._relays}
            await asyncio.sleep(0.005)

    def takeover_reported(self) -> bool:
        """Returns whether a relay reported that another one had taken over."""
        return any("another relay with this hub's id has taken over" in detail for detail in self.details)

    def stop(self) -> None:
        """Stops watching."""
        self._task.cancel()


async def test_competing_leaders_deliver_exactly_once(
    kafka: str, database_url: str, postgres_server: Databases
) -> None:
    """The database was copied while the hub kept running: each relay holds the lock in its own copy."""
    settings = kafka_settings(kafka, max_transaction_messages=20)
    async with open_stream(database_url) as stream:
        await append(stream, 2000)
    with psycopg.connect(database_url) as connection:
        name = connection.info.dbname
    with postgres_server.database(name) as copy:
        async with open_stream(database_url) as stream, open_stream(copy) as copied_stream:
            first, second = new_relay(stream, settings), new_relay(copied_stream, settings)
            watch = _StatusWatch(first, second)
            async with running(first), running(second):
                await until_relayed(first, stream)
                await until_relayed(second, copied_stream)
                await until(watch.takeover_reported)
            watch.stop()
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 2000)


async def test_fenced_leader_steps_down_then_leads_again(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka)
    async with open_stream(database_url) as stream, running(new_relay(stream, settings)) as relay:
        await append(stream, 50)
        await until_relayed(relay, stream)
        route = Route(settings, stream.hub_id)
        watch = _StatusWatch(relay)
        competitor = await Producer.open(route.cluster, route.transactional_id, 1_000_000)
        await append(stream, 50)
        await until(watch.takeover_reported)
        await until_relayed(relay, stream)
        await until(lambda: relay.status.state is RelayState.FOLLOWING)
        watch.stop()
        await competitor.close()
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 100)


async def test_transaction_timeout_is_no_competing_relay(kafka: str) -> None:
    cluster = Cluster((kafka,), 4)
    patient_cluster = Cluster((kafka,), 10)
    topic = kafka_settings(kafka).topic
    async with Topics(patient_cluster) as topics:
        await topics.create(NewTopicSpec(topic, 1, 1))
    producer = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await producer.begin()
    await producer.send(Record(topic, b"k", b"v"))
    await producer.flush()
    await _wait_for_transactions(kafka, topic)
    with pytest.raises(FencedError, match="took longer than 8 seconds") as caught:
        await producer.commit()
    assert not isinstance(caught.value, CompetingProducerError)
    await producer.close()


async def _wait_for_transactions(kafka: str, topic: str) -> None:
    """Waits until the topic has no open transaction."""
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=kafka, isolation_level="read_committed")
    await consumer.start()
    try:
        async with asyncio.timeout(40):
            partition = TopicPartition(topic, 0)
            while (await consumer.end_offsets([partition]))[partition] == 0:
                await asyncio.sleep(0.2)
    finally:
        await consumer.stop()
