"""Checks of the topic, from docs/reference/kafka.md alone: each message once, in order, with its key and content."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tests.faults.runner.evidence import Evidence, KafkaRecord, StoredEvent, StoredMessage
from tests.faults.runner.findings import ORDER, OTHER, Finding, exactly_once
from tests.faults.runner.ledger import Json, unit_of

# The name in `data` of the object that a message is about.
_NAMES = {"receiver": "eventReceiver", "group": "eventReceiverGroup", "gate": "gate"}
_LARGE_BYTES = 100_000  # a message of this size or more may be published without its data


@dataclass(frozen=True, slots=True)
class _Expected:
    """A message, the event that it is about, and the input that its client sent."""

    message: StoredMessage
    event: StoredEvent | None
    sent: Json | None

    @property
    def noun(self) -> str:
        return self.message.kind.partition(".")[0]

    @property
    def key(self) -> str:
        """The key of the record: the unit's id, or the id of the receiver or group if there is no event."""
        if self.event is not None:
            return unit_id(self.event.unit)
        return self.message.receiver_id or self.message.group_id or self.message.id

    @property
    def subject(self) -> str:
        if self.noun == "gate":
            return f"{self.message.group_id}/{self.key}"
        return self.message.id if self.noun == "event" else self.key


def kafka_has_every_message(evidence: Evidence) -> Iterator[Finding]:
    """Checks that each message is committed once, in order, in the one partition of its key, with its content."""
    if evidence.kafka_records is None:
        return
    records = evidence.kafka_records
    positions = sorted(record.position for record in records)
    yield from exactly_once("Kafka", positions, range(evidence.first, evidence.head + 1))
    yield from _partitions_are_ordered(records)
    messages = _expected(evidence)
    for record in records:
        if (expected := messages.get(record.position)) is not None:
            yield from _content_matches(record, expected)


def _partitions_are_ordered(records: Sequence[KafkaRecord]) -> Iterator[Finding]:
    last: dict[int, int] = {}
    partitions: dict[bytes, int] = {}
    for record in records:
        if record.position < last.get(record.partition, 0):
            previous = last[record.partition]
            yield ORDER, f"Kafka has {record.position} after {previous} in partition {record.partition}"
        last[record.partition] = record.position
        if partitions.setdefault(record.key, record.partition) != record.partition:
            yield ORDER, f"Kafka has the key {record.key!r} in two partitions"


def _expected(evidence: Evidence) -> Mapping[int, _Expected]:
    events = {event.position: event for event in evidence.events}
    sent = {entry.key: entry.input for entry in evidence.entries}
    expected: dict[int, _Expected] = {}
    for message in evidence.messages:
        event = events.get(message.event_position or 0)
        expected[message.position] = _Expected(message, event, None if event is None else sent.get(event.key))
    return expected


def _content_matches(record: KafkaRecord, expected: _Expected) -> Iterator[Finding]:
    envelope = _envelope(expected)
    actual = {name: record.cloudevent.get(name) for name in envelope}
    actual["time"] = _time(actual["time"])
    actual |= {"key": record.key.decode(errors="replace"), "header id": record.id}
    yield from _differences(record, actual, envelope)
    if (data := _object(record.cloudevent, "data")) is not None:
        yield from _data_matches(record, data, expected)
    elif "dataref" not in record.cloudevent:
        yield OTHER, f"Kafka has {record.position} without data and without a dataref"
    else:
        yield from _data_is_too_large(record, expected)


def _object(parent: Json, name: str) -> Json | None:
    value: Json | None = parent.get(name)
    return value if isinstance(value, dict) else None


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def _envelope(expected: _Expected) -> Json:
    message = expected.message
    return {
        "key": expected.key,
        "header id": message.id,
        "id": message.id,
        "type": f"io.xzepr.{message.kind}",
        "subject": expected.subject,
        "time": message.time,
        "sequence": f"{message.position:020d}",
    }


def _data_is_too_large(record: KafkaRecord, expected: _Expected) -> Iterator[Finding]:
    dataref = record.cloudevent["dataref"]
    if not str(dataref).endswith(f"/{expected.noun}s/{expected.subject}"):
        yield OTHER, f"Kafka has {record.position} without data and with the wrong dataref {dataref}"
    size = len(json.dumps([expected.sent, expected.message.data]))
    if size < _LARGE_BYTES:
        yield OTHER, f"Kafka has {record.position} without its data of only about {size} bytes"


def _data_matches(record: KafkaRecord, data: Json, expected: _Expected) -> Iterator[Finding]:
    message = expected.message
    values: Json = {"kind": message.kind, "position": message.position}
    if message.receiver_id is not None:
        values["eventReceiverId"] = message.receiver_id
    if message.group_id is not None:
        values["eventReceiverGroupId"] = message.group_id
    if expected.noun in _NAMES:
        values[_NAMES[expected.noun]] = message.data
    yield from _differences(record, data, values)
    if expected.event is not None:
        event = _object(data, "event") or {}
        yield from _differences(record, event, _event(expected.event, expected))
        if expected.noun == "gate" and "payload" in event:
            yield OTHER, f"Kafka has the payload in the gate message at {record.position}"


def _event(event: StoredEvent, expected: _Expected) -> Json:
    """Returns the event as its client sent it, with the fields that the hub adds."""
    values: Json = {"id": event.id, "position": event.position, "unitId": unit_id(event.unit)}
    if expected.sent is not None:
        names = ("name", "version", "release", "platformId", "package", "description", "success", "eventReceiverId")
        values |= {name: expected.sent[name] for name in names} | {"unitId": unit_id(unit_of(expected.sent))}
        if expected.noun == "event":
            values["payload"] = expected.sent["payload"]
    return values


def _differences(record: KafkaRecord, actual: Json, expected: Json) -> Iterator[Finding]:
    for name, value in expected.items():
        if name not in actual or actual[name] != value:
            yield OTHER, f"Kafka has {name} {actual.get(name)!r} at {record.position}, expected {value!r}"


def unit_id(unit: Sequence[str]) -> str:
    """Returns the SHA-256 of the five strings as 64 hex digits.

    Each string is preceded by its length in bytes (4 bytes, big-endian).
    """
    parts = [text.encode() for text in unit]
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()
