"""A small, correct history. Tests of the checker alter it and expect a finding."""

from datetime import UTC, datetime, timedelta

from tests.faults.runner.evidence import Evidence, GateState, KafkaRecord, StoredEvent, StoredMessage
from tests.faults.runner.kafka_checks import unit_id
from tests.faults.runner.ledger import EVERYTHING, Entry, Json, ReceivedMessage, Repeat, StreamFilter, SubscriberRecord

UNIT = ("app", "1", "2", "linux", "oci")
START = datetime(2026, 11, 20, tzinfo=UTC)


def at(position: int) -> datetime:
    """Returns the time of the message at a position."""
    return START + timedelta(seconds=position)


def event(position: int, receiver: str, success: bool) -> StoredEvent:
    """Returns an event of the only unit."""
    payload = {"key": f"key-{position}"}
    return StoredEvent(position, f"id-{position}", UNIT, f"number {position}", payload, receiver, success, at(position))


def message(position: int, kind: str, event_position: int | None = None, **data: object) -> StoredMessage:
    """Returns a message about an event, about the only group, or about both."""
    group_id = None if kind == "event.recorded" else "g"
    receiver_id = None if event_position is None else RECEIVERS[event_position]
    return StoredMessage(
        position, f"id-{position}", kind, at(position), receiver_id, group_id, event_position, data or None
    )


def gate(position: int, kind: str, since: int | None, transition: bool = True) -> StoredMessage:
    """Returns the gate message for the event at the previous position."""
    began = None if since is None else at(since).isoformat()
    return message(position, f"gate.{kind}", position - 1, transition=transition, since=began)


RECEIVERS = {2: "a", 3: "b", 5: "a", 7: "a", 9: "b", 12: "a", 14: "b"}  # by position of the event
EVENTS = tuple(event(position, RECEIVERS[position], position != 5) for position in (2, 3, 5, 7, 9))
MESSAGES = (
    message(1, "group.created", enabled=True, eventReceiverIds=["a", "b"]),
    message(2, "event.recorded", 2),
    message(3, "event.recorded", 3),
    gate(4, "completed", 3),
    message(5, "event.recorded", 5),
    gate(6, "regressed", None),
    message(7, "event.recorded", 7),
    gate(8, "completed", 7),
    message(9, "event.recorded", 9),
    gate(10, "completed", 7, transition=False),
)
HEAD = 10


def entry(stored: StoredEvent) -> Entry:
    """Returns the ledger entry of the client that sent a stored event."""
    names = ("name", "version", "release", "platformId", "package")
    input: Json = dict(zip(names, stored.unit, strict=True)) | {
        "description": stored.description,
        "payload": dict(stored.payload),
        "eventReceiverId": stored.receiver_id,
        "success": stored.success,
    }
    return Entry(stored.key, input, 1.0, 2.0, stored.id, stored.position, 1)


def received_message(position: int) -> ReceivedMessage:
    """Returns the message at a position as a subscriber receives it."""
    kinds = {stored.position: stored.kind.upper().replace(".", "_") for stored in MESSAGES}
    causes = {stored.position: stored.event_position for stored in MESSAGES}
    cause = causes.get(position)
    kind = kinds.get(position, "EVENT_RECORDED")
    return ReceivedMessage(position, f"id-{position}", kind, None if cause is None else f"id-{cause}")


def subscriber_record(*positions: int, filter: StreamFilter = EVERYTHING) -> SubscriberRecord:
    """Returns the record of a subscriber that started after the first message and received these."""
    return SubscriberRecord("subscriber", 1, [received_message(position) for position in positions], filter=filter)


def cloudevent(position: int) -> Json:
    """Returns the message at a position as it is in Kafka."""
    by_position = {stored.position: stored for stored in MESSAGES}
    stored = by_position.get(position) or message(position, "group.updated")
    cause = next((event for event in EVENTS if event.position == stored.event_position), None)
    data: Json = {"kind": stored.kind, "position": position, "eventReceiverGroupId": stored.group_id}
    noun = stored.kind.partition(".")[0]
    subject = {"gate": f"g/{unit_id(UNIT)}", "event": stored.id, "group": "g"}[noun]
    if noun != "event":
        data[{"gate": "gate", "group": "eventReceiverGroup"}[noun]] = stored.data
    if cause is not None:
        sent = {name: value for name, value in entry(cause).input.items() if noun == "event" or name != "payload"}
        data |= {"event": {**sent, "id": cause.id, "position": cause.position, "unitId": unit_id(UNIT)}}
        data |= {"eventReceiverId": cause.receiver_id}
    envelope = {"id": stored.id, "type": f"io.xzepr.{stored.kind}", "subject": subject, "sequence": f"{position:020d}"}
    return {**envelope, "time": stored.time.isoformat(), "data": data}


def kafka_records(*positions: int) -> list[KafkaRecord]:
    """Returns the records of these messages, all in one partition."""
    key = {True: unit_id(UNIT).encode(), False: b"g"}
    return [
        KafkaRecord(0, key["event" in value["data"]], position, f"id-{position}", value)
        for position in positions
        for value in [cloudevent(position)]
    ]


def correct_evidence() -> Evidence:
    """Returns the evidence of a hub that kept every promise."""
    return Evidence(
        entries=[entry(event) for event in EVENTS],
        events=EVENTS,
        messages=MESSAGES,
        subscriber_records=[subscriber_record(*range(2, HEAD + 1))],
        gates={"hub-1": [GateState("g", UNIT, True, at(7))], "hub-2": [GateState("g", UNIT, True, at(7))]},
        kafka_records=kafka_records(*range(1, HEAD + 1)),
        repeats=[Repeat("key-9", "id-9", True)],
        groups=[("g", True, ("a", "b"))],
    )
