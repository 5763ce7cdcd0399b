"""The hub's Kafka interface on a real broker, with the traps of the client library that it avoids."""

import asyncio
import os
import time
import uuid
from typing import Any

import pytest
from aiokafka.client import ConnectionGroup

from tests.support.kafka import Broker
from tests.support.relay import consume, until
from xzepr.infra.kafka.cluster import BrokerError, Cluster, FencedError, RejectedError, TopicError, call
from xzepr.infra.kafka.latest import latest_value
from xzepr.infra.kafka.producer import Producer, Record
from xzepr.infra.kafka.topics import NewTopicSpec, Topics

pytestmark = pytest.mark.kafka


async def _topic(cluster: Cluster, **config: str) -> str:
    name = f"t-{uuid.uuid4().hex[:12]}"
    async with Topics(cluster) as topics:
        await topics.create(NewTopicSpec(name, 1, 1, {key.replace("_", "."): value for key, value in config.items()}))
    return name


async def _write(producer: Producer, *records: Record) -> None:
    await producer.begin()
    for record in records:
        await producer.send(record)
    await producer.flush()
    await producer.commit()


async def test_latest_value_is_found_far_back_in_topic(kafka: str) -> None:
    cluster = Cluster((kafka,), 10)
    topic = await _topic(cluster, cleanup_policy="compact")
    assert await latest_value(cluster, topic, b"hub") is None
    producer = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await _write(producer, Record(topic, b"hub", b"1"), Record(topic, b"hub", b"2"))
    for _ in range(3):
        await _write(producer, *(Record(topic, b"other", b"x") for _ in range(1000)))
    assert await latest_value(cluster, topic, b"hub") == b"2"
    await _write(producer, Record(topic, b"hub", b"3"))
    assert await latest_value(cluster, topic, b"hub") == b"3"
    await producer.close()


async def test_latest_value_waits_for_open_transaction(kafka: str) -> None:
    """A read-committed consumer stops before the first open transaction, and the hub's newest value may follow it."""
    cluster = Cluster((kafka,), 10)
    topic = await _topic(cluster, cleanup_policy="compact")
    producer = await Producer.open(cluster, f"producer-{topic}", 1_000_000)
    await _write(producer, Record(topic, b"hub", b"old"))
    other_producer = await Producer.open(cluster, f"other-{topic}", 1_000_000)
    await other_producer.begin()
    await other_producer.send(Record(topic, b"other", b"open"))
    await other_producer.flush()
    await _write(producer, Record(topic, b"hub", b"new"))
    reading = asyncio.create_task(latest_value(cluster, topic, b"hub"))
    done, _ = await asyncio.wait([reading], timeout=1)
    assert not done, "the reader waits for the other transaction"
    await other_producer.commit()
    assert await reading == b"new"
    await producer.close()
    await other_producer.close()


async def test_uncommitted_records_are_not_read(kafka: str) -> None:
    cluster = Cluster((kafka,), 10)
    topic = await _topic(cluster, cleanup_policy="compact")
    first = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await _write(first, Record(topic, b"k", b"committed"))
    await first.begin()
    await first.send(Record(topic, b"k", b"open"))
    await first.flush()
    await first.close()
    second = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    assert await latest_value(cluster, topic, b"k") == b"committed"
    await second.close()


async def test_lost_coordinator_ends_the_producer(kafka: str) -> None:
    """The coordinator may have skipped markers of the last transaction, and another one could change its outcome."""
    cluster = Cluster((kafka,), 10)
    topic = await _topic(cluster, cleanup_policy="compact")
    producer = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await _write(producer, Record(topic, b"k", b"1"))
    connections: dict[Any, Any] = vars(producer)["_client"].client._conns
    for (_, group), connection in list(connections.items()):
        if group == ConnectionGroup.COORDINATION:
            connection.close()
    with pytest.raises(BrokerError, match="begin a transaction: the connection to the transaction's coordinator"):
        await producer.begin()
    await producer.close()


async def test_failed_send_fails_transaction(kafka: str) -> None:
    cluster = Cluster((kafka,), 10)
    topic = await _topic(cluster, max_message_bytes="2000")
    producer = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await producer.begin()
    await producer.send(Record(topic, b"k", b"small"))
    await producer.send(Record(topic, b"k", os.urandom(10_000)))
    with pytest.raises(BrokerError):
        await producer.commit()  # fails: delivery was not awaited
    with pytest.raises(RejectedError, match="larger than the topic allows"):
        await producer.flush()
    await producer.close()
    successor = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    assert await asyncio.to_thread(consume, kafka, topic) == []
    await successor.close()


async def test_invalid_record_is_reported_as_rejected(kafka: str) -> None:
    cluster = Cluster((kafka,), 10)
    topic = await _topic(cluster, cleanup_policy="compact")
    no_key: Any = None
    producer = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await producer.begin()
    await producer.send(Record(topic, no_key, b"compacted topics need keys"))
    with pytest.raises(RejectedError, match="INVALID_RECORD"):
        await producer.flush()
    await producer.close()


async def test_fenced_producer_raises_fenced_error(kafka: str) -> None:
    cluster = Cluster((kafka,), 10)
    topic = await _topic(cluster)
    first = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    second = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    with pytest.raises(FencedError):
        await _write(first, Record(topic, b"k", b"v"))
    await _write(second, Record(topic, b"k", b"w"))
    await first.close()
    await second.close()
    assert [message.value for message in await asyncio.to_thread(consume, kafka, topic)] == [b"w"]


@pytest.mark.parametrize("failure", ["killed", "frozen"])
async def test_calls_end_within_their_time_limit(own_broker: Broker, failure: str) -> None:
    await asyncio.to_thread(own_broker.start)
    patient_cluster = Cluster((own_broker.bootstrap,), 30)
    topic = await _topic(patient_cluster)
    # The first transactional producer makes the broker create its transaction log.
    await (await Producer.open(patient_cluster, f"tx-{topic}", 1_000_000)).close()
    cluster = Cluster((own_broker.bootstrap,), 2)
    producer = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await _write(producer, Record(topic, b"k", b"v"))
    await producer.begin()
    await producer.send(Record(topic, b"k", b"pending"))
    if failure == "killed":
        await asyncio.to_thread(own_broker.kill)
    else:
        own_broker.freeze()
    began = time.monotonic()
    with pytest.raises(BrokerError):
        await producer.flush()
    await producer.close()
    with pytest.raises(BrokerError):
        await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    with pytest.raises(BrokerError):
        await latest_value(cluster, topic, b"k")
    with pytest.raises(BrokerError):
        async with Topics(cluster) as topics:
            await topics.find([topic])
    assert time.monotonic() - began < 45
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, 5)


async def test_failed_topic_creation_raises_topic_error(kafka: str) -> None:
    async with Topics(Cluster((kafka,), 10)) as topics:
        with pytest.raises(TopicError, match="replication factor"):
            await topics.create(NewTopicSpec(f"t-{uuid.uuid4().hex}", 1, 5))


async def test_any_failed_call_raises_broker_error() -> None:
    for error in (AssertionError(), ValueError("x"), OSError("y")):
        with pytest.raises(BrokerError, match="try it"):
            async with call(Cluster((), 1), "try it"):
                raise error
    with pytest.raises(BrokerError, match=r"within 0\.01 seconds"):
        async with call(Cluster((), 0.01), "wait"):
            await asyncio.sleep(5)
