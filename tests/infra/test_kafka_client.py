"""Our interface to Kafka on a real broker: every trap of the client library that it is there to close."""

import asyncio
import os
import time
import uuid
from typing import Any

import pytest

from tests.support.kafka import Broker
from tests.support.relay import consume, until
from xzepr.infra.kafka.cluster import BrokerError, Cluster, FencedError, RefusedError, TopicError, call
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
    await producer.settle()
    await producer.commit()


async def test_latest_value_is_found_far_back_in_topic(kafka: str) -> None:
    cluster = Cluster((kafka,), 10)
    topic = await _topic(cluster, cleanup_policy="compact")
    assert await latest_value(cluster, topic, b"ours") is None
    producer = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await _write(producer, Record(topic, b"ours", b"1"), Record(topic, b"ours", b"2"))
    for _ in range(3):
        await _write(producer, *(Record(topic, b"other", b"x") for _ in range(1000)))
    assert await latest_value(cluster, topic, b"ours") == b"2"
    await _write(producer, Record(topic, b"ours", b"3"))
    assert await latest_value(cluster, topic, b"ours") == b"3"
    await producer.close()


async def test_latest_value_waits_for_open_transaction(kafka: str) -> None:
    """A committed reader stops before the first open transaction, and our newest value may be behind it."""
    cluster = Cluster((kafka,), 10)
    topic = await _topic(cluster, cleanup_policy="compact")
    ours = await Producer.open(cluster, f"ours-{topic}", 1_000_000)
    await _write(ours, Record(topic, b"ours", b"old"))
    theirs = await Producer.open(cluster, f"theirs-{topic}", 1_000_000)
    await theirs.begin()
    await theirs.send(Record(topic, b"theirs", b"open"))
    await theirs.settle()
    await _write(ours, Record(topic, b"ours", b"new"))
    reading = asyncio.create_task(latest_value(cluster, topic, b"ours"))
    done, _ = await asyncio.wait([reading], timeout=1)
    assert not done, "it waits for the other transaction"
    await theirs.commit()
    assert await reading == b"new"
    await ours.close()
    await theirs.close()


async def test_uncommitted_records_are_not_read(kafka: str) -> None:
    cluster = Cluster((kafka,), 10)
    topic = await _topic(cluster, cleanup_policy="compact")
    first = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await _write(first, Record(topic, b"k", b"committed"))
    await first.begin()
    await first.send(Record(topic, b"k", b"open"))
    await first.settle()
    await first.close()
    second = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    assert await latest_value(cluster, topic, b"k") == b"committed"
    await second.close()


async def test_failed_send_fails_transaction(kafka: str) -> None:
    cluster = Cluster((kafka,), 10)
    topic = await _topic(cluster, max_message_bytes="2000")
    producer = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await producer.begin()
    await producer.send(Record(topic, b"k", b"small"))
    await producer.send(Record(topic, b"k", os.urandom(10_000)))
    with pytest.raises(BrokerError):
        await producer.commit()  # refuses: arrival was not awaited
    with pytest.raises(RefusedError, match="larger than the topic takes"):
        await producer.settle()
    await producer.close()
    successor = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    assert await asyncio.to_thread(consume, kafka, topic) == []
    await successor.close()


async def test_invalid_record_is_reported_as_rejected(kafka: str) -> None:
    cluster = Cluster((kafka,), 10)
    topic = await _topic(cluster, cleanup_policy="compact")
    keyless: Any = None
    producer = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await producer.begin()
    await producer.send(Record(topic, keyless, b"compacted topics need keys"))
    with pytest.raises(RefusedError, match="INVALID_RECORD"):
        await producer.settle()
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


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_calls_end_within_their_time_limit(own_broker: Broker, how: str) -> None:
    await asyncio.to_thread(own_broker.start)
    patient = Cluster((own_broker.bootstrap,), 30)
    topic = await _topic(patient)
    # The first producer makes the broker prepare for transactions.
    await (await Producer.open(patient, f"tx-{topic}", 1_000_000)).close()
    cluster = Cluster((own_broker.bootstrap,), 2)
    producer = await Producer.open(cluster, f"tx-{topic}", 1_000_000)
    await _write(producer, Record(topic, b"k", b"v"))
    await producer.begin()
    await producer.send(Record(topic, b"k", b"pending"))
    if how == "killed":
        await asyncio.to_thread(own_broker.kill)
    else:
        own_broker.freeze()
    began = time.monotonic()
    with pytest.raises(BrokerError):
        await producer.settle()
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
    for wrong in (AssertionError(), ValueError("x"), OSError("y")):
        with pytest.raises(BrokerError, match="try it"):
            async with call(Cluster((), 1), "try it"):
                raise wrong
    with pytest.raises(BrokerError, match=r"within 0\.01 seconds"):
        async with call(Cluster((), 0.01), "wait"):
            await asyncio.sleep(5)
