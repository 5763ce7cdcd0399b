"""A small history in which a hub kept every promise, for tests that doctor it and see the checker find out."""

from datetime import UTC, datetime, timedelta

from tests.faults.runner.evidence import Evidence, GateAnswer, Published, StoredEvent, StoredMessage
from tests.faults.runner.kafka_checks import unit_id
from tests.faults.runner.ledger import EVERYTHING, Attendance, Entry, Json, Repeat, Seen, Wish

UNIT = ("app", "1", "2", "linux", "oci")
START = datetime(2026, 11, 20, tzinfo=UTC)


def at(position: int) -> datetime:
    """When the message at that position was written."""
    return START + timedelta(seconds=position)


def event(position: int, receiver: str, success: bool) -> StoredEvent:
    """An event of the only unit."""
    payload = {"key": f"key-{position}"}
    return StoredEvent(position, f"id-{position}", UNIT, f"number {position}", payload, receiver, success, at(position))


def message(position: int, kind: str, event_position: int | None = None, **data: object) -> StoredMessage:
    """A message about an event, or about the only group, or both."""
    group_id = None if kind == "event.recorded" else "g"
    receiver_id = None if event_position is None else RECEIVERS[event_position]
    return StoredMessage(
        position, f"id-{position}", kind, at(position), receiver_id, group_id, event_position, data or None
    )


def gate(position: int, kind: str, since: int | None, transition: bool = True) -> StoredMessage:
    """What the event at the position before did to the gate."""
    began = None if since is None else at(since).isoformat()
    return message(position, f"gate.{kind}", position - 1, transition=transition, since=began)


RECEIVERS = {2: "a", 3: "b", 5: "a", 7: "a", 9: "b", 12: "a", 14: "b"}
"""Of the event at each position."""
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
    """What its client sent, and was told."""
    names = ("name", "version", "release", "platformId", "package")
    input: Json = dict(zip(names, stored.unit, strict=True)) | {
        "description": stored.description,
        "payload": dict(stored.payload),
        "eventReceiverId": stored.receiver_id,
        "success": stored.success,
    }
    return Entry(stored.key, input, 1.0, 2.0, stored.id, stored.position, 1)


def seen(position: int) -> Seen:
    """The message at that position as a subscriber gets it."""
    kinds = {one.position: one.kind.upper().replace(".", "_") for one in MESSAGES}
    causes = {one.position: one.event_position for one in MESSAGES}
    cause = causes.get(position)
    kind = kinds.get(position, "EVENT_RECORDED")
    return Seen(position, f"id-{position}", kind, None if cause is None else f"id-{cause}")


def attendance(*positions: int, wish: Wish = EVERYTHING) -> Attendance:
    """A subscriber who came after the first message and got these."""
    return Attendance("subscriber", 1, [seen(position) for position in positions], wish=wish)


def cloudevent(position: int) -> Json:
    """The message at that position as Kafka has it."""
    [told] = [one for one in MESSAGES if one.position == position] or [message(position, "group.updated")]
    cause = next((one for one in EVENTS if one.position == told.event_position), None)
    data: Json = {"kind": told.kind, "position": position, "eventReceiverGroupId": told.group_id}
    noun = told.kind.partition(".")[0]
    subject = {"gate": f"g/{unit_id(UNIT)}", "event": told.id, "group": "g"}[noun]
    if noun != "event":
        data[{"gate": "gate", "group": "eventReceiverGroup"}[noun]] = told.data
    if cause is not None:
        sent = {name: value for name, value in entry(cause).input.items() if noun == "event" or name != "payload"}
        data |= {"event": {**sent, "id": cause.id, "position": cause.position, "unitId": unit_id(UNIT)}}
        data |= {"eventReceiverId": cause.receiver_id}
    envelope = {"id": told.id, "type": f"io.xzepr.{told.kind}", "subject": subject, "sequence": f"{position:020d}"}
    return {**envelope, "time": told.time.isoformat(), "data": data}


def published(*positions: int) -> list[Published]:
    """These messages in one partition."""
    key = {True: unit_id(UNIT).encode(), False: b"g"}
    return [
        Published(0, key["event" in told["data"]], position, f"id-{position}", told)
        for position in positions
        for told in [cloudevent(position)]
    ]


def truth() -> Evidence:
    """What a hub leaves that keeps every promise."""
    return Evidence(
        entries=[entry(one) for one in EVENTS],
        events=EVENTS,
        messages=MESSAGES,
        attendances=[attendance(*range(2, HEAD + 1))],
        gates={"hub-1": [GateAnswer("g", UNIT, True, at(7))], "hub-2": [GateAnswer("g", UNIT, True, at(7))]},
        published=published(*range(1, HEAD + 1)),
        repeats=[Repeat("key-9", "id-9", True)],
        groups=[("g", True, ("a", "b"))],
    )
