"""What Kafka must hold, from docs/reference/kafka.md alone: each message once, in order, under the right key, and with
what clients sent in it."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tests.faults.runner.evidence import Evidence, Published, StoredEvent, StoredMessage
from tests.faults.runner.findings import ORDER, OTHER, Finding, each_once
from tests.faults.runner.ledger import Json, unit_of

_NAMES = {"receiver": "eventReceiver", "group": "eventReceiverGroup", "gate": "gate"}
"""Under which name the data holds what the message is about."""
_LARGE = 100_000
"""Bytes from which on it may be that a message had to go without its data."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A message, the event that it is about, and what its client sent."""

    message: StoredMessage
    event: StoredEvent | None
    sent: Json | None

    @property
    def noun(self) -> str:
        return self.message.kind.partition(".")[0]

    @property
    def key(self) -> str:
        """Of its record: the unit's id; without an event the receiver's or group's."""
        if self.event is not None:
            return unit_id(self.event.unit)
        return self.message.receiver_id or self.message.group_id or self.message.id

    @property
    def subject(self) -> str:
        if self.noun == "gate":
            return f"{self.message.group_id}/{self.key}"
        return self.message.id if self.noun == "event" else self.key


def kafka_holds_all(evidence: Evidence) -> Iterator[Finding]:
    """Each message is committed once, in one partition for each key, in order there, and says what it must."""
    if evidence.published is None:
        return
    found = evidence.published
    yield from each_once("Kafka", sorted(one.position for one in found), range(evidence.first, evidence.head + 1))
    yield from _in_their_partitions(found)
    truth = _known(evidence)
    for one in found:
        if (known := truth.get(one.position)) is not None:
            yield from _as_it_is(one, known)


def _in_their_partitions(found: Sequence[Published]) -> Iterator[Finding]:
    last: dict[int, int] = {}
    partitions: dict[bytes, int] = {}
    for one in found:
        if one.position < last.get(one.partition, 0):
            yield ORDER, f"Kafka has {one.position} after {last[one.partition]} in partition {one.partition}"
        last[one.partition] = one.position
        if partitions.setdefault(one.key, one.partition) != one.partition:
            yield ORDER, f"Kafka has the key {one.key!r} in two partitions"


def _known(evidence: Evidence) -> Mapping[int, _Known]:
    events = {event.position: event for event in evidence.events}
    sent = {entry.key: entry.input for entry in evidence.entries}
    known: dict[int, _Known] = {}
    for message in evidence.messages:
        event = events.get(message.event_position or 0)
        known[message.position] = _Known(message, event, None if event is None else sent.get(event.key))
    return known


def _as_it_is(one: Published, known: _Known) -> Iterator[Finding]:
    wanted = _envelope(known)
    got = {name: one.told.get(name) for name in wanted}
    got["time"] = _time(got["time"])
    yield from _differing(one, got | {"key": one.key.decode(errors="replace"), "header id": one.id}, wanted)
    if (data := _object(one.told, "data")) is not None:
        yield from _data_as_it_is(one, data, known)
    elif "dataref" not in one.told:
        yield OTHER, f"Kafka has {one.position} without data, and without a word where they are"
    else:
        yield from _had_to_go_without(one, known)


def _object(told: Json, name: str) -> Json | None:
    found: Json | None = told.get(name)
    return found if isinstance(found, dict) else None


def _time(said: object) -> datetime | None:
    return datetime.fromisoformat(said) if isinstance(said, str) else None


def _envelope(known: _Known) -> Json:
    message = known.message
    return {
        "key": known.key,
        "header id": message.id,
        "id": message.id,
        "type": f"io.xzepr.{message.kind}",
        "subject": known.subject,
        "time": message.time,
        "sequence": f"{message.position:020d}",
    }


def _had_to_go_without(one: Published, known: _Known) -> Iterator[Finding]:
    if not str(one.told["dataref"]).endswith(f"/{known.noun}s/{known.subject}"):
        yield OTHER, f"Kafka has {one.position} without data, which are not at {one.told['dataref']}"
    size = len(json.dumps([known.sent, known.message.data]))
    if size < _LARGE:
        yield OTHER, f"Kafka has {one.position} without its data of some {size} bytes"


def _data_as_it_is(one: Published, data: Json, known: _Known) -> Iterator[Finding]:
    message = known.message
    wanted: Json = {"kind": message.kind, "position": message.position}
    if message.receiver_id is not None:
        wanted["eventReceiverId"] = message.receiver_id
    if message.group_id is not None:
        wanted["eventReceiverGroupId"] = message.group_id
    if known.noun in _NAMES:
        wanted[_NAMES[known.noun]] = message.data
    yield from _differing(one, data, wanted)
    if known.event is not None:
        event = _object(data, "event") or {}
        yield from _differing(one, event, _event(known.event, known))
        if known.noun == "gate" and "payload" in event:
            yield OTHER, f"Kafka has the payload in the gate message at {one.position}"


def _event(event: StoredEvent, known: _Known) -> Json:
    """The event as its client sent it, with what the hub adds."""
    told: Json = {"id": event.id, "position": event.position, "unitId": unit_id(event.unit)}
    if known.sent is not None:
        names = ("name", "version", "release", "platformId", "package", "description", "success", "eventReceiverId")
        told |= {name: known.sent[name] for name in names} | {"unitId": unit_id(unit_of(known.sent))}
        if known.noun == "event":
            told["payload"] = known.sent["payload"]
    return told


def _differing(one: Published, got: Json, wanted: Json) -> Iterator[Finding]:
    for name, value in wanted.items():
        if name not in got or got[name] != value:
            yield OTHER, f"Kafka has {name} {got.get(name)!r} at {one.position}, and it is {value!r}"


def unit_id(unit: Sequence[str]) -> str:
    """SHA-256 of the five strings, each with its length in bytes (4 bytes, big-endian) before it, as 64 digits."""
    parts = [text.encode() for text in unit]
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()
