"""Messages of the stream as CloudEvents 1.0 in structured JSON, for Kafka (see docs/reference/kafka.md)."""

from typing import Any

import orjson

from xzepr.core.clock import json_time
from xzepr.features.stream.kinds import KINDS, Kind
from xzepr.features.stream.model import Event, Message

CONTENT_TYPE = b"application/cloudevents+json"


def encode(message: Message, source: str) -> bytes:
    """Returns the CloudEvent of a message. `source` is the URI reference of this hub."""
    envelope = _envelope(message, source)
    envelope["datacontenttype"] = "application/json"
    envelope["data"] = _data(message)
    return orjson.dumps(envelope, option=orjson.OPT_UTC_Z)


def encode_without_data(message: Message, source: str) -> bytes:
    """Returns the CloudEvent of a message that is too large to send, with `dataref` (an extension) in place of data."""
    envelope = _envelope(message, source)
    envelope["dataref"] = f"{source.rstrip('/')}/{_path(message)}"
    return orjson.dumps(envelope, option=orjson.OPT_UTC_Z)


def key(message: Message) -> bytes:
    """Returns the partition key, which keeps messages in order: the unit, or else the receiver or group."""
    if message.event is not None:
        return message.event.unit_id.hex().encode()
    return (message.receiver_id or message.group_id or message.id).encode()


def headers(message: Message) -> list[tuple[str, bytes]]:
    """Returns the Kafka headers: the content type, and position and id, so that consumers need not parse the body."""
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
        "time": json_time(message.time),
        # The sequence extension is compared as text, so all positions have the same length.
        "sequence": f"{message.position:020d}",
    }


_GRAPHQL_NAMES = {"receiver": "eventReceiver", "group": "eventReceiverGroup"}


def _noun(kind: Kind) -> str:
    return kind.value.partition(".")[0]


def _subject(message: Message) -> str:
    """Returns the id of the message's object; for a gate, the ids of its group and unit."""
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
        data["event"] = _event(message.event, with_payload=message.kind is Kind.EVENT_RECORDED)
    if message.receiver_id is not None:
        data["eventReceiverId"] = message.receiver_id
    if message.group_id is not None:
        data["eventReceiverGroupId"] = message.group_id
    if message.data is not None:
        noun = _noun(message.kind)
        data[_GRAPHQL_NAMES.get(noun, noun)] = orjson.Fragment(message.data)
    return data


def _event(event: Event, *, with_payload: bool) -> dict[str, Any]:
    """Returns the fields of an event. Only `event.recorded` has the payload."""
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
        "createdAt": json_time(event.created_at),
        "recordedAt": json_time(event.recorded_at),
    }
    if with_payload:
        fields["payload"] = orjson.Fragment(event.payload)
    return fields
