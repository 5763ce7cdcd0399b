"""The contents of PostgreSQL and Kafka and the gates that hubs return, read without any code of the hub."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from confluent_kafka import Consumer, KafkaError, TopicPartition
from psycopg.rows import class_row

from tests.faults.runner.ledger import Entry, Json, Repeat, SubscriberRecord
from tests.faults.runner.plain_http import graphql


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A row of `events`."""

    position: int
    id: str
    unit: tuple[str, ...]
    description: str
    payload: Json
    receiver_id: str
    success: bool
    recorded_at: datetime

    @property
    def key(self) -> str:
        """The idempotency key, taken from the payload."""
        return str(self.payload.get("key"))


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A row of `messages`."""

    position: int
    id: str
    kind: str
    time: datetime
    receiver_id: str | None
    group_id: str | None
    event_position: int | None
    data: Json | None


@dataclass(frozen=True, slots=True)
class KafkaRecord:
    """A record of the topic, as a `read_committed` consumer gets it."""

    partition: int
    key: bytes
    position: int
    """From the headers."""
    id: str
    """From the headers."""
    cloudevent: Json
    """The value of the record."""


@dataclass(frozen=True, slots=True)
class GateState:
    """The gate of a group for a unit, as the hub returns it."""

    group_id: str
    unit: tuple[str, ...]
    complete: bool
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the checker examines."""

    entries: Sequence[Entry]
    events: Sequence[StoredEvent]
    messages: Sequence[StoredMessage]
    subscriber_records: Sequence[SubscriberRecord]
    gates: Mapping[str, Sequence[GateState]] | None
    """The gates that each hub returns, by its name; None if no hub was queried."""
    kafka_records: Sequence[KafkaRecord] | None
    """None if there is no broker."""
    repeats: Sequence[Repeat] | None
    """Responses to events that were sent again; None if that was not tried."""
    groups: Sequence[tuple[str, bool, tuple[str, ...]]] | None
    """Id, enabled flag and members of every group in the tables; None if they were not read."""
    first: int = 1
    """The position at which the checks of the stream begin."""

    @property
    def head(self) -> int:
        """The newest position."""
        return max((message.position for message in self.messages), default=self.first - 1)


def stored_events(url: str) -> list[StoredEvent]:
    """Returns every event, by position."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            """
            SELECT position, id, ARRAY[name, version, release, platform_id, package], description, payload,
                   receiver_id, success, recorded_at
            FROM events ORDER BY position
            """
        ).fetchall()
    return [StoredEvent(position, id, tuple(unit), *rest) for position, id, unit, *rest in rows]


def stored_messages(url: str) -> list[StoredMessage]:
    """Returns the stream, by position."""
    with psycopg.connect(url) as connection:
        return (
            connection.cursor(row_factory=class_row(StoredMessage))
            .execute(
                """
                SELECT position, id, kind, time, receiver_id, group_id, event_position, data
                FROM messages ORDER BY position
                """
            )
            .fetchall()
        )


def stored_groups(url: str) -> list[tuple[str, bool, tuple[str, ...]]]:
    """Returns the id, enabled flag and members of each group, as the tables have them now."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            """
            SELECT g.id, g.enabled, array_agg(m.receiver_id ORDER BY m.ordinal)
            FROM groups AS g JOIN group_members AS m ON m.group_id = g.id GROUP BY g.id ORDER BY g.position
            """
        ).fetchall()
    return [(id, enabled, tuple(members)) for id, enabled, members in rows]


def head_of(url: str) -> int:
    """Returns the newest position, 0 if there is none. Raises psycopg.Error while the database is down."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute("SELECT coalesce(max(position), 0) FROM messages").fetchone()
        assert row is not None
        return int(row[0])


def consume_topic(bootstrap: str, topic: str, seconds: float = 60) -> list[KafkaRecord]:
    """Returns every committed record of the topic, in order within each partition. Uses librdkafka."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"faults-{uuid.uuid4().hex}",
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        return _read_to_end(consumer, len(partitions), time.monotonic() + seconds)
    finally:
        consumer.close()


def _read_to_end(consumer: Consumer, partitions: int, end: float) -> list[KafkaRecord]:
    records: list[KafkaRecord] = []
    ended: set[int | None] = set()
    while len(ended) < partitions:
        assert time.monotonic() < end, "the consumer did not reach the end of the topic in time"
        message = consumer.poll(0.5)
        if message is None:
            continue
        if error := message.error():
            if error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            continue
        headers: dict[str, Any] = dict(message.headers() or [])
        cloudevent = json.loads(message.value() or b"{}")
        partition, key = message.partition() or 0, bytes(message.key() or b"")
        records.append(KafkaRecord(partition, key, int(headers["position"]), headers["id"].decode(), cloudevent))
    return records


GATES = """
query ($key: UnitInput!) { unit(key: $key) { gates { complete since group { id } } } }
"""


async def gate_states(port: int, secret: str, units: Sequence[tuple[str, ...]]) -> list[GateState]:
    """Queries a hub for every gate of these units."""
    names = ("name", "version", "release", "platformId", "package")
    gates: list[GateState] = []
    for unit in units:
        data = await graphql(port, GATES, {"key": dict(zip(names, unit, strict=True))}, secret)
        for gate in data["unit"]["gates"]:
            since = None if gate["since"] is None else datetime.fromisoformat(gate["since"])
            gates.append(GateState(gate["group"]["id"], unit, gate["complete"], since))
    return gates
