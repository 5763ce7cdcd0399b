"""A message of the stream as a CloudEvent 1.0 in structured JSON, for Kafka (see docs/reference/kafka.md)."""

from typing import Any

import orjson

from xzepr.features.stream.kinds import KINDS, Kind
from xzepr.features.stream.model import Event, Message

CONTENT_TYPE = b"application/cloudevents+json"


def encode(message: Message, source: str) -> bytes:
    """The CloudEvent with its data; `source` is the URI reference that names this hub."""
    envelope = _envelope(message, source)
    envelope["datacontenttype"] = "application/json"
    envelope["data"] = _data(message)
    return orjson.dumps(envelope, option=orjson.OPT_UTC_Z)


def encode_without_data(message: Message, source: str) -> bytes:
    """The CloudEvent of a message too large to send: `dataref` (the extension of that name) says what it would hold."""
    envelope = _envelope(message, source)
    envelope["dataref"] = f"{source.rstrip('/')}/{_path(message)}"
    return orjson.dumps(envelope, option=orjson.OPT_UTC_Z)


def key(message: Message) -> bytes:
    """What messages have in common that must stay in order for a consumer of one partition: the unit, else the receiver
    or group."""
    if message.event is not None:
        return message.event.unit_id.hex().encode()
    return (message.receiver_id or message.group_id or message.id).encode()


def headers(message: Message) -> list[tuple[str, bytes]]:
    """Kafka headers: the content type of the structured mode, and what to deduplicate and resume by without parsing."""
    return [
        ("content-type", CONTENT_TYPE),
        ("position", str(message.position).encode()),
        ("id", message.id.encode()),
    ]


def _envelope(message: Message, source: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": message.id,
        "source": source,
        "type": KINDS[message.kind].cloudevent_type,
        "subject": _subject(message),
        "time": message.time,
        # The sequence extension: compared as text, so every position has the same length.
        "sequence": f"{message.position:020d}",
    }


_NAMES = {"receiver": "eventReceiver", "group": "eventReceiverGroup"}
"""What GraphQL calls them."""


def _noun(kind: Kind) -> str:
    return kind.value.partition(".")[0]


def _subject(message: Message) -> str:
    """The id of what the message is about; of a gate, that is a group and a unit."""
    noun = _noun(message.kind)
    if noun == "gate" and message.event is not None:
        return f"{message.group_id}/{message.event.unit_id.hex()}"
    if noun == "event" and message.event is not None:
        return message.event.id
    return (message.receiver_id if noun == "receiver" else message.group_id) or message.id


def _path(message: Message) -> str:
    return f"{_noun(message.kind)}s/{_subject(message)}"


def _data(message: Message) -> dict[str, Any]:
    data: dict[str, Any] = {
        "kind": message.kind.value,
        "position": message.position,
        "cursor": str(message.cursor),
        "actor": {"kind": message.actor_kind.value, "id": message.actor_id, "name": message.actor_name},
    }
    if message.event is not None:
        data["event"] = _event(message.event, whole=message.kind is Kind.EVENT_RECORDED)
    if message.receiver_id is not None:
        data["eventReceiverId"] = message.receiver_id
    if message.group_id is not None:
        data["eventReceiverGroupId"] = message.group_id
    if message.data is not None:
        noun = _noun(message.kind)
        data[_NAMES.get(noun, noun)] = orjson.Fragment(message.data)
    return data


def _event(event: Event, *, whole: bool) -> dict[str, Any]:
    """The event; its payload only where the event is what the message announces."""
    fields: dict[str, Any] = {
        "id": event.id,
        "position": event.position,
        "unitId": event.unit_id.hex(),
        "name": event.name,
        "version": event.version,
        "release": event.release,
        "platformId": event.platform_id,
        "package": event.package,
        "description": event.description,
        "success": event.success,
        "eventReceiverId": event.receiver_id,
        "receiverRevision": event.receiver_revision,
        "ownerId": event.owner_id,
        "createdAt": event.created_at,
        "recordedAt": event.recorded_at,
    }
    if whole:
        fields["payload"] = orjson.Fragment(event.payload)
    return fields
