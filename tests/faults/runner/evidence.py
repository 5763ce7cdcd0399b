"""What is really in PostgreSQL, Kafka and the hub's answers, read without a line of the hub's code."""

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

from tests.faults.runner.ledger import Attendance, Entry, Json, Repeat
from tests.faults.runner.plain_http import ask


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
        """The idempotency key, as the payload has it."""
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
class Published:
    """A record of the topic, as a consumer that reads committed gets it."""

    partition: int
    key: bytes
    position: int
    id: str
    """Both from its headers."""
    told: Json
    """Its value, a CloudEvent."""


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """What the hub says of a group for a unit when it is asked."""

    group_id: str
    unit: tuple[str, ...]
    complete: bool
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a checker looks at."""

    entries: Sequence[Entry]
    events: Sequence[StoredEvent]
    messages: Sequence[StoredMessage]
    attendances: Sequence[Attendance]
    gates: Mapping[str, Sequence[GateAnswer]] | None
    """What each hub answers, by its name; None where it is not asked for."""
    published: Sequence[Published] | None
    """None where there is no broker."""
    repeats: Sequence[Repeat] | None
    """What came of sending some of them again; None where that was not tried."""
    groups: Sequence[tuple[str, bool, tuple[str, ...]]] | None
    """Every group as the tables have it now: its id, whether it is enabled, its members; None where nobody looked."""
    first: int = 1
    """Position from which the stream is looked at."""

    @property
    def head(self) -> int:
        """The newest position."""
        return max((message.position for message in self.messages), default=self.first - 1)


def stored_events(url: str) -> list[StoredEvent]:
    """Every event, by position."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            """
            SELECT position, id, ARRAY[name, version, release, platform_id, package], description, payload,
                   receiver_id, success, recorded_at
            FROM events ORDER BY position
            """
        ).fetchall()
    return [StoredEvent(place, id, tuple(unit), *rest) for place, id, unit, *rest in rows]


def stored_messages(url: str) -> list[StoredMessage]:
    """The stream, by position."""
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
    """The groups as they are now, members in their order."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            """
            SELECT g.id, g.enabled, array_agg(m.receiver_id ORDER BY m.ordinal)
            FROM groups AS g JOIN group_members AS m ON m.group_id = g.id GROUP BY g.id ORDER BY g.position
            """
        ).fetchall()
    return [(id, enabled, tuple(members)) for id, enabled, members in rows]


def head_of(url: str) -> int:
    """The newest position; 0 when there is none. Raises psycopg.Error while the database is away."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute("SELECT coalesce(max(position), 0) FROM messages").fetchone()
        assert row is not None
        return int(row[0])


def consumed(bootstrap: str, topic: str, seconds: float = 60) -> list[Published]:
    """Everything in the topic that is committed, partition by partition in order, by librdkafka."""
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
        return _to_the_end(consumer, len(partitions), time.monotonic() + seconds)
    finally:
        consumer.close()


def _to_the_end(consumer: Consumer, partitions: int, end: float) -> list[Published]:
    found: list[Published] = []
    ended: set[int | None] = set()
    while len(ended) < partitions:
        assert time.monotonic() < end, "the consumer did not come to the end of the topic in time"
        message = consumer.poll(0.5)
        if message is None:
            continue
        if error := message.error():
            if error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            continue
        headers: dict[str, Any] = dict(message.headers() or [])
        said = json.loads(message.value() or b"{}")
        place = (message.partition() or 0, bytes(message.key() or b""))
        found.append(Published(*place, int(headers["position"]), headers["id"].decode(), said))
    return found


GATES = """
query ($key: UnitInput!) { unit(key: $key) { gates { complete since group { id } } } }
"""


async def asked_gates(port: int, secret: str, units: Sequence[tuple[str, ...]]) -> list[GateAnswer]:
    """Every gate of these units, as the hub tells it now."""
    names = ("name", "version", "release", "platformId", "package")
    found: list[GateAnswer] = []
    for unit in units:
        data = await ask(port, GATES, {"key": dict(zip(names, unit, strict=True))}, secret)
        for gate in data["unit"]["gates"]:
            since = None if gate["since"] is None else datetime.fromisoformat(gate["since"])
            found.append(GateAnswer(gate["group"]["id"], unit, gate["complete"], since))
    return found
