"""The CloudEvents of messages, checked against the schema that consumers rely on."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest

from xzepr.core.actor import ActorKind
from xzepr.core.ids import new_id, unit_id
from xzepr.features.stream import cloudevents
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Event, Message

_SCHEMA = Path(__file__).parents[3] / "docs" / "reference" / "cloudevent-data.schema.json"
_TIME = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
_UNIT = ("app", "1.0", "1", "linux", "rpm")

_RECEIVER: dict[str, Any] = {
    "id": "R", "name": "build", "type": "t", "version": "1", "description": "", "schema": True, "schemaDigest": "d",
    "revision": 1, "fingerprint": "f", "enabled": True, "ownerId": "U", "resourceVersion": 1, "position": 1,
    "createdAt": "2026-03-04T05:06:07Z", "updatedAt": "2026-03-04T05:06:07Z",
}  # fmt: skip
_GROUP: dict[str, Any] = {
    "id": "G", "name": "release", "type": "t", "version": "1", "description": "", "enabled": True,
    "eventReceiverIds": ["R"], "ownerId": "U", "resourceVersion": 1, "position": 2, "changedPosition": 2,
    "createdAt": "2026-03-04T05:06:07Z", "updatedAt": "2026-03-04T05:06:07Z",
}  # fmt: skip
_DATA: dict[str, Any] = {
    "receiver": _RECEIVER,
    "group": _GROUP,
    "gate": {"eventReceiverGroup": _GROUP, "transition": True, "since": "2026-03-04T05:06:07Z"},
}


def _message(kind: Kind, payload: bytes = b'{"ok":true}') -> Message:
    noun = kind.value.partition(".")[0]
    has_event = noun in ("event", "gate")
    id = new_id()
    event = Event(41, id, unit_id(*_UNIT), *_UNIT, "", payload, True, "R", 1, "U", _TIME, _TIME)
    return Message(
        position=42,
        id=id,
        kind=kind,
        time=_TIME,
        actor_kind=ActorKind.USER,
        actor_id="U",
        actor_name="ann",
        receiver_id="R" if noun != "group" else None,
        group_id="G" if noun in ("group", "gate") else None,
        event=event if has_event else None,
        data=orjson.dumps(_DATA[noun]) if noun in _DATA else None,
    )


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_matches_the_published_schema(kind: Kind) -> None:
    schema = orjson.loads(_SCHEMA.read_bytes())
    cloudevent = orjson.loads(cloudevents.encode(_message(kind), "/xzepr"))
    errors = [
        f"{list(error.instance_path)}: {error.message}" for error in _validator(schema).iter_errors(cloudevent["data"])
    ]
    assert errors == []
    assert cloudevent["type"] == f"io.xzepr.{kind.value}"


def _validator(schema: Any) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True, offline=True)


def test_schema_rejects_a_missing_event() -> None:
    schema = orjson.loads(_SCHEMA.read_bytes())
    data = orjson.loads(cloudevents.encode(_message(Kind.EVENT_RECORDED), "/xzepr"))["data"]
    del data["event"]["payload"]
    assert not _validator(schema).is_valid(data)
    del data["event"]
    assert not _validator(schema).is_valid(data)


# Fields that consumers may rely on. Add fields; never remove one.
PROMISED = {
    "": "kind position cursor actor eventReceiverId eventReceiverGroupId event eventReceiver eventReceiverGroup gate",
    "actor": "kind id name",
    "event": "id position unitId name version release platformId package description success eventReceiverId "
    "receiverRevision ownerId createdAt recordedAt payload",
    "eventReceiver": "id name type version description schema schemaDigest revision fingerprint enabled ownerId "
    "resourceVersion position createdAt updatedAt",
    "eventReceiverGroup": "id name type version description enabled eventReceiverIds ownerId resourceVersion "
    "position changedPosition createdAt updatedAt",
    "gate": "eventReceiverGroup transition since",
}


def test_schema_keeps_every_promised_field() -> None:
    schema = orjson.loads(_SCHEMA.read_bytes())
    for path, fields in PROMISED.items():
        definition = schema["$defs"].get(path) or (schema["properties"][path] if path else schema)
        assert set(fields.split()) <= set(definition["properties"]), path
        assert "additionalProperties" not in definition, "consumers accept new fields"


def test_attributes_follow_cloudevents_1_0() -> None:
    message = _message(Kind.EVENT_RECORDED)
    cloudevent = orjson.loads(cloudevents.encode(message, "https://hub.example.org"))
    del cloudevent["data"]
    assert cloudevent == {
        "specversion": "1.0",
        "id": message.id,
        "source": "https://hub.example.org",
        "type": "io.xzepr.event.recorded",
        "subject": message.id,
        "time": "2026-03-04T05:06:07.000089Z",
        "sequence": "00000000000000000042",
        "datacontenttype": "application/json",
    }


def test_payload_bytes_are_unchanged() -> None:
    payload = b'{"b":1.10,"a":[18446744073709551615,1e300],"c":"\xe2\x82\xac"}'
    assert b'"payload":' + payload in cloudevents.encode(_message(Kind.EVENT_RECORDED, payload), "/xzepr")


def test_gate_names_its_event_without_the_payload() -> None:
    cloudevent = orjson.loads(cloudevents.encode(_message(Kind.GATE_COMPLETED), "/xzepr"))
    assert cloudevent["subject"] == f"G/{unit_id(*_UNIT).hex()}"
    assert "payload" not in cloudevent["data"]["event"]


def test_messages_of_one_unit_share_a_key() -> None:
    unit = unit_id(*_UNIT).hex().encode()
    assert cloudevents.key(_message(Kind.EVENT_RECORDED)) == cloudevents.key(_message(Kind.GATE_REGRESSED)) == unit
    assert cloudevents.key(_message(Kind.RECEIVER_DELETED)) == b"R"
    assert cloudevents.key(_message(Kind.GROUP_UPDATED)) == b"G"


def test_cloudevent_without_data_links_to_the_data() -> None:
    message = _message(Kind.GROUP_UPDATED)
    cloudevent = orjson.loads(cloudevents.encode_without_data(message, "https://hub.example.org/"))
    assert cloudevent["dataref"] == "https://hub.example.org/groups/G"
    assert not {"data", "datacontenttype"} & set(cloudevent)
