"""Transactions that their coordinator has ended while partitions lack their markers: the relay ends them by itself."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.support.kafka import Broker
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
from xzepr.features.relay.model import Published, RelayState
from xzepr.features.relay.route import Route
from xzepr.features.stream.model import Message
from xzepr.features.stream.service import Stream
from xzepr.infra.kafka.latest import blocked_partitions
from xzepr.infra.kafka.producer import Producer, Record
from xzepr.settings import KafkaSettings

pytestmark = pytest.mark.kafka

ROUNDS = 12  # kills of a broker


@pytest.fixture
def trusting_broker(own_broker: Broker) -> Broker:
    """A broker that accepts records for partitions that the coordinator does not know, so that they stay open."""
    own_broker.properties += "transaction.partition.verification.enable=false\n"
    own_broker.start()
    return own_broker


async def _leave_hanging(
    stream: Stream, settings: KafkaSettings, messages: Sequence[Message], hidden: Sequence[str], *, commit: bool
) -> None:
    """Publishes messages as the relay does, and ends the transaction everywhere but in the `hidden` topics."""
    route = Route(settings, stream.hub_id)
    topics = route.topics(settings.partitions)
    producer = await Producer.open(route.cluster, route.transactional_id, 1_000_000)
    await producer.begin()
    client: Any = vars(producer)["_client"]
    client._txn_manager._txn_partitions.update(at for at in topics.all_partitions if at.topic in hidden)
    for message in messages:
        await producer.send(route.record(message, 1_000_000))
    await producer.send(route.state_record(Published(messages[-1].position, messages[-1].id)))
    await producer.flush()
    if len(set(hidden)) == 1:
        await (client.commit_transaction() if commit else client.abort_transaction())
    await producer.close()
    blocked = await blocked_partitions(route.cluster, topics.all_partitions)
    assert {at.topic for at in blocked} == set(hidden)


async def test_hanging_transaction_is_ended_with_its_outcome(trusting_broker: Broker, database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 20)
        for hides_topic, hides_state, commit in (
            (True, True, False),  # no partition has a marker
            (False, True, True),
            (True, False, True),
            (False, True, False),
        ):
            settings = kafka_settings(trusting_broker.bootstrap)
            hidden = [settings.topic] * hides_topic + [settings.state_topic] * hides_state
            async with running(new_relay(stream, settings)) as relay:
                await until_relayed(relay, stream)
            await _leave_hanging(stream, settings, await append(stream, 30), hidden, commit=commit)
            async with running(new_relay(stream, settings)) as relay:
                await until_relayed(relay, stream)
                await append(stream, 10)
                await until_relayed(relay, stream)
            head = (await stream.head()).position
            committed = await asyncio.to_thread(consume, trusting_broker.bootstrap, settings.topic)
            assert_exactly_once(committed, head)
            written = await asyncio.to_thread(consume, trusting_broker.bootstrap, settings.topic, "read_uncommitted")
            assert len(written) - len(committed) == (0 if commit else 30), "an outcome was changed"


async def test_open_transaction_of_other_hub_is_named(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka, timeout_seconds=3)
    async with open_stream(database_url) as stream:
        await append(stream, 10)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
        cluster = Route(settings, stream.hub_id).cluster
        other = await Producer.open(cluster, "other-hub", 1_000_000)
        await other.begin()
        await other.send(Record(settings.state_topic, b"other", b"open"))
        await other.flush()
        [offset] = (await blocked_partitions(cluster, [TopicPartition(settings.state_topic, 0)])).values()
        async with running(new_relay(stream, settings)) as relay:
            await until(lambda: f"a transaction is open at offset {offset}" in relay.status.detail)
            assert relay.status.state is RelayState.WAITING_FOR_BROKERS
            await other.commit()
            await append(stream, 10)
            await until_relayed(relay, stream)
            assert relay.status.published_messages == 10
        await other.close()
    assert_exactly_once(await asyncio.to_thread(consume, kafka, settings.topic), 20)


@pytest.mark.slow
async def test_relay_continues_after_broker_is_killed_in_commit(own_broker: Broker, database_url: str) -> None:
    """A single broker that is killed before it has written the markers of a commit never writes them (Kafka 4.3.1)."""

    class DyingProducer(Producer):
        """Kills the broker a few milliseconds after the start of a commit, and fails without waiting for it."""

        async def commit(self) -> None:
            if not armed.is_set():
                return await super().commit()
            armed.clear()
            asyncio.get_running_loop().call_later(random.uniform(0, 0.006), own_broker.kill)
            try:
                async with asyncio.timeout(1):
                    await super().commit()
            finally:
                down.set()

    armed, down = asyncio.Event(), asyncio.Event()
    settings = kafka_settings(own_broker.bootstrap)
    await asyncio.to_thread(own_broker.start)
    hanging, seconds = 0, list[float]()
    async with open_stream(database_url) as stream:
        async with running(new_relay(stream, settings, DyingProducer.open)) as relay:
            for _ in range(ROUNDS):
                await append(stream, 10)
                await until_relayed(relay, stream, 60)
                down.clear()
                armed.set()
                await append(stream, 30)
                await asyncio.wait_for(down.wait(), 30)
                await asyncio.to_thread(own_broker.start)
                returned = time.monotonic()
                await _until_following(relay, stream)
                seconds.append(time.monotonic() - returned)
                log = (own_broker.folder / "broker.log").read_text()
                hanging += "likely deleted already and hence can be skipped" in log
        head = (await stream.head()).position
    assert hanging, "no marker was skipped: the kills missed every commit"
    assert max(seconds) < 60, seconds
    assert_exactly_once(await asyncio.to_thread(consume, own_broker.bootstrap, settings.topic), head)


async def _until_following(relay: Relay, stream: Stream) -> None:
    await append(stream, 1)
    await until_relayed(relay, stream, 90)
