"""Helpers of the relay tests: messages to relay, a librdkafka consumer, and a relay that kills itself."""

import asyncio
import os
import random
import signal
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from confluent_kafka import Consumer, IsolationLevel, TopicPartition, admin

from xzepr.core.actor import SYSTEM
from xzepr.core.ids import new_id, unit_id
from xzepr.features.relay.loop import Relay
from xzepr.features.relay.route import OpenProducer
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Event, Message
from xzepr.features.stream.service import Stream
from xzepr.infra.db import Database
from xzepr.infra.kafka.cluster import Cluster
from xzepr.infra.kafka.producer import Producer, Record
from xzepr.infra.kafka.topics import NewTopicSpec, Topics
from xzepr.settings import DatabaseSettings, KafkaSettings


def kafka_settings(bootstrap: str, **overrides: Any) -> KafkaSettings:
    """Returns settings with topics that only this test uses."""
    name = uuid.uuid4().hex[:12]
    values: dict[str, Any] = {"topic": f"events-{name}", "state_topic": f"relay-{name}", "timeout_seconds": 10}
    return KafkaSettings.model_validate({"brokers": (bootstrap,), "partitions": 3, **values, **overrides})


@asynccontextmanager
async def open_stream(database_url: str, **overrides: Any) -> AsyncGenerator[Stream]:
    """Opens the stream of a test's database, with `overrides` of the database settings."""
    settings = DatabaseSettings.model_validate({"min_connections": 1, "max_connections": 4, **overrides})
    db = Database(database_url, settings, name="test")
    await db.open()
    try:
        yield await Stream.open(db)
    finally:
        await db.close()


async def append(stream: Stream, count: int, keys: int = 7) -> list[Message]:
    """Appends `count` changes of `keys` receivers in one transaction."""
    async with stream.write(SYSTEM) as tx:
        for _ in range(count):
            receiver = f"receiver-{tx.next_position % keys}"
            tx.append(Kind.RECEIVER_UPDATED, receiver_id=receiver, data=b'{"name":"build"}')
        return list(tx.messages)


async def append_oversized(stream: Stream) -> Message:
    """Appends a message that exceeds 5000 bytes in Kafka even without its data."""
    async with stream.write(SYSTEM) as tx:
        return tx.append(Kind.RECEIVER_UPDATED, receiver_id="r" * 2500, data=b'{"name":"build"}')


async def create_small_topic(settings: KafkaSettings, **config: str) -> None:
    """Creates the route's topic; it accepts messages of at most 5000 bytes."""
    topic_config = {"max.message.bytes": "5000"} | {key.replace("_", "."): value for key, value in config.items()}
    async with Topics(Cluster(settings.brokers, 10)) as topics:
        await topics.create(NewTopicSpec(settings.topic, settings.partitions, 1, topic_config))


def configure_topic(bootstrap: str, topic: str, name: str, value: str) -> None:
    """Changes one setting of a topic and waits until the brokers report the new value."""
    kafka: Any = admin  # its exports are untyped
    client = kafka.AdminClient({"bootstrap.servers": bootstrap})
    entry = kafka.ConfigEntry(name, value, incremental_operation=kafka.AlterConfigOpType.SET)
    resource = kafka.ConfigResource(kafka.ResourceType.TOPIC, topic, incremental_configs=[entry])
    client.incremental_alter_configs([resource])[resource].result(10)
    while client.describe_configs([resource])[resource].result(10)[name].value != value:
        time.sleep(0.05)


async def append_event(stream: Stream, payload: bytes) -> Message:
    """Appends an event with this payload (compact JSON)."""
    async with stream.write(SYSTEM) as tx:
        unit = ("app", "1.0", "1", "linux", "rpm")
        times = (tx.time, tx.time)
        event = Event(
            tx.next_position, new_id(), unit_id(*unit), *unit, "", payload, True, "receiver-1", 1, "u", *times
        )
        await tx.connection.execute(
            """
            INSERT INTO events (position, id, unit_id, name, version, release, platform_id, package, description,
                                payload, success, receiver_id, receiver_revision, owner_id, created_at, recorded_at)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            (event.position, event.id, event.unit_id, *unit, "", payload.decode(), True, "receiver-1", 1, "u", *times),
        )
        return tx.append(Kind.EVENT_RECORDED, id=event.id, receiver_id="receiver-1", event=event)


async def _wait_briefly(_: int) -> None:
    await asyncio.sleep(0.02)


def new_relay(
    stream: Stream, settings: KafkaSettings, open_producer: OpenProducer = Producer.open, *, max_rejected: int = 100
) -> Relay:
    """Returns a relay that looks for messages fifty times a second."""
    return Relay(
        stream,
        settings,
        wait_beyond=_wait_briefly,
        poll_seconds=0.1,
        max_rejected=max_rejected,
        open_producer=open_producer,
    )


@asynccontextmanager
async def running(relay: Relay) -> AsyncGenerator[Relay]:
    """Runs the relay during the block."""
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


async def until_relayed(relay: Relay, stream: Stream, seconds: float = 30) -> None:
    """Waits until the relay has published all messages that exist now."""
    head = (await stream.head()).position
    await until(lambda: relay.status.position is not None and relay.status.position >= head, seconds)


@dataclass(frozen=True, slots=True)
class Received:
    """A Kafka message as a consumer received it."""

    partition: int
    key: bytes
    headers: dict[str, bytes]
    value: bytes

    @property
    def position(self) -> int:
        """The message's position in the stream, from its header."""
        return int(self.headers["position"])

    @property
    def cloudevent(self) -> dict[str, Any]:
        """The message body."""
        return orjson.loads(self.value)


def consume(
    bootstrap: str,
    topic: str,
    isolation: str = "read_committed",
    seconds: float = 30,
    *,
    wait_for_transactions: bool = True,
) -> list[Received]:
    """Returns the messages in a topic that a librdkafka consumer of this isolation level sees now.

    A commit is accepted before it becomes visible: `wait_for_transactions` first waits until the topic has no open
    transaction."""
    deadline = time.monotonic() + seconds
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"test-{uuid.uuid4().hex}",
            "isolation.level": isolation,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.message.max.bytes": 10_000_000,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        if wait_for_transactions:
            _wait_for_open_transactions(bootstrap, topic, len(partitions), deadline)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        return _read_to_end(consumer, len(partitions), deadline)
    finally:
        consumer.close()


def _wait_for_open_transactions(bootstrap: str, topic: str, partitions: int, deadline: float) -> None:
    """Waits until committed reads reach as far as uncommitted reads."""
    kafka: Any = admin  # its exports are untyped
    client = kafka.AdminClient({"bootstrap.servers": bootstrap})
    latest = {TopicPartition(topic, number): kafka.OffsetSpec.latest() for number in range(partitions)}

    def ends(isolation: IsolationLevel) -> list[int]:
        offsets = client.list_offsets(latest, isolation_level=isolation, request_timeout=10)
        return [offsets[partition].result(10).offset for partition in latest]

    while ends(IsolationLevel.READ_COMMITTED) != ends(IsolationLevel.READ_UNCOMMITTED):
        assert time.monotonic() < deadline, "a transaction is still open"
        time.sleep(0.02)


def _read_to_end(consumer: Consumer, partitions: int, deadline: float) -> list[Received]:
    received: list[Received] = []
    ended: set[int | None] = set()
    while len(ended) < partitions:
        assert time.monotonic() < deadline, "the consumer did not reach the end"
        message = consumer.poll(0.5)
        if message is None:
            continue
        if message.error():
            ended.add(message.partition())
            continue
        headers = {name: bytes(value) for name, value in message.headers() or [] if isinstance(value, bytes)}
        received.append(
            Received(message.partition() or 0, bytes(message.key() or b""), headers, bytes(message.value() or b""))
        )
    return received


def delete_topics(bootstrap: str, *topics: str) -> None:
    """Deletes topics, as if the cluster had lost its data, and waits until the brokers no longer list them."""
    client: Any = admin.AdminClient({"bootstrap.servers": bootstrap})
    for future in client.delete_topics(list(topics)).values():
        future.result(10)
    while set(topics) & set(client.list_topics(timeout=10).topics):
        time.sleep(0.05)


def assert_exactly_once(received: Sequence[Received], head: int) -> None:
    """Asserts that every message arrived once, in order within its partition, with one partition for each key."""
    positions = [message.position for message in received]
    assert sorted(positions) == list(range(1, head + 1))
    for partition in {message.partition for message in received}:
        positions_in_partition = [message.position for message in received if message.partition == partition]
        assert positions_in_partition == sorted(positions_in_partition)
    key_partitions = {(message.key, message.partition) for message in received}
    assert len(key_partitions) == len({key for key, _ in key_partitions}), "a key is in two partitions"


STAGES = (
    "begin",
    "first send",
    "between sends",
    "before state",
    "before flush",
    "before commit",
    "during commit",
    "after",
)


class DyingProducer(Producer):
    """A producer that kills its process (SIGKILL) at a stage of its n-th transaction."""

    stage = ""
    transactions_left = 0
    sends = 0
    state_topic = ""

    def _die_at(self, *stages: str) -> None:
        if self.stage in stages and self.transactions_left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async def begin(self) -> None:
        """Begins a transaction and counts it."""
        self.transactions_left, self.sends = self.transactions_left - 1, 0
        await super().begin()
        self._die_at("begin")

    async def send(self, record: Record) -> None:
        """Sends a record."""
        if record.topic == self.state_topic:
            self._die_at("before state")
        self.sends += 1
        await super().send(record)
        if self.sends == 1:
            self._die_at("first send")
        if self.sends == 5:
            await asyncio.sleep(0.02)  # part of the transaction reaches the broker
            self._die_at("between sends")

    async def flush(self) -> None:
        """Waits until the brokers have acknowledged every record."""
        self._die_at("before flush")
        await super().flush()
        self._die_at("before commit")

    async def commit(self) -> None:
        """Commits, or dies during the commit."""
        if self.stage == "during commit" and self.transactions_left <= 0:
            committing = asyncio.create_task(super().commit())
            await asyncio.sleep(random.uniform(0, 0.01))
            self._die_at("during commit")
            await committing
        await super().commit()
        self._die_at("after")


def dying_producer_opener(
    stage: str, transaction: int, settings: KafkaSettings
) -> Callable[[Cluster, str | None, int], Awaitable[Producer]]:
    """Returns a function that opens producers which die at this stage of this transaction."""

    async def open_producer(cluster: Cluster, transactional_id: str | None, max_bytes: int) -> Producer:
        producer = await DyingProducer.open(cluster, transactional_id, max_bytes)
        producer.stage, producer.transactions_left, producer.state_topic = stage, transaction, settings.state_topic
        return producer

    return open_producer


def run_dying_relay(database_url: str, settings_json: str, stage: str, transaction: int) -> None:
    """The main function of a relay process that kills itself."""
    settings = KafkaSettings.model_validate_json(settings_json)

    async def relay() -> None:
        async with open_stream(database_url) as stream:
            await new_relay(stream, settings, dying_producer_opener(stage, transaction, settings)).run()

    asyncio.run(relay())
