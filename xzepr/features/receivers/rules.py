"""What a receiver must be, what a change makes of it, and how the stream tells it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from xzepr.core import exact_json
from xzepr.core.errors import InvalidInput, Violation
from xzepr.core.text import check_queryable, check_text
from xzepr.features.receivers import schemas
from xzepr.features.receivers.model import UNCHANGED, NewReceiver, Receiver, ReceiverChange, ReceiverFilter
from xzepr.settings import EventSettings

_NAMES = ("name", "type", "version")
_TEXTS = (*_NAMES, "description")


def check(asked: NewReceiver | ReceiverChange, limits: EventSettings) -> bytes | None:
    """The schema as compact text, None if it is not given. Raises InvalidInput with all that is wrong with the given
    fields."""
    violations = list(_text_violations(asked, limits))
    text: bytes | None = None
    if asked.schema is not UNCHANGED:
        try:
            text = schemas.check(asked.schema)
        except InvalidInput as refusal:
            violations += refusal.violations
    if violations:
        raise InvalidInput(violations)
    return text


def _text_violations(asked: NewReceiver | ReceiverChange, limits: EventSettings) -> Iterator[Violation]:
    for field in _TEXTS:
        value: str | None = getattr(asked, field)
        if value is not None:
            longest = limits.max_description_chars if field == "description" else limits.max_name_chars
            yield from check_text(field, value, max_chars=longest)


def check_filter(wanted: ReceiverFilter) -> None:
    """Raises InvalidInput for a text that no receiver can have."""
    check_queryable({field: getattr(wanted, field) for field in _NAMES})


def new_receiver(new: NewReceiver, schema: bytes, *, id: str, position: int, owner_id: str, time: datetime) -> Receiver:
    """The receiver at its beginning; `schema` is the text that `check` gave."""
    return Receiver(
        id=id,
        position=position,
        name=new.name,
        type=new.type,
        version=new.version,
        description=new.description,
        schema=schema,
        schema_digest=schemas.digest(schema),
        revision=1,
        fingerprint=schemas.fingerprint(new.type, new.description, new.name, new.version),
        enabled=new.enabled,
        owner_id=owner_id,
        resource_version=1,
        created_at=time,
        updated_at=time,
    )


def apply_change(receiver: Receiver, change: ReceiverChange, schema: bytes | None, time: datetime) -> Receiver:
    """The receiver after a change. A schema with another text makes a new revision; the same text makes none."""
    given = {field: value for field in (*_TEXTS, "enabled") if (value := getattr(change, field)) is not None}
    after = replace(receiver, **given, resource_version=receiver.resource_version + 1, updated_at=time)
    fingerprint = schemas.fingerprint(after.type, after.description, after.name, after.version)
    after = replace(after, fingerprint=fingerprint)
    if schema is None or schema == receiver.schema:
        return after
    return replace(after, schema=schema, schema_digest=schemas.digest(schema), revision=receiver.revision + 1)


def snapshot(receiver: Receiver) -> bytes:
    """The receiver as the stream tells it: compact JSON, its keys as in GraphQL."""
    return orjson.dumps(
        {
            "id": receiver.id,
            "name": receiver.name,
            "type": receiver.type,
            "version": receiver.version,
            "description": receiver.description,
            "schema": orjson.Fragment(receiver.schema),
            "schemaDigest": receiver.schema_digest,
            "revision": receiver.revision,
            "fingerprint": receiver.fingerprint,
            "enabled": receiver.enabled,
            "ownerId": receiver.owner_id,
            "resourceVersion": receiver.resource_version,
            "position": receiver.position,
            "createdAt": receiver.created_at,
            "updatedAt": receiver.updated_at,
        },
        option=orjson.OPT_UTC_Z,
    )


def from_snapshot(said: Mapping[str, Any]) -> Receiver:
    """The receiver that `snapshot` wrote, once it is read as JSON."""
    return Receiver(
        id=said["id"],
        position=said["position"],
        name=said["name"],
        type=said["type"],
        version=said["version"],
        description=said["description"],
        schema=exact_json.dumps(said["schema"]),
        schema_digest=said["schemaDigest"],
        revision=said["revision"],
        fingerprint=said["fingerprint"],
        enabled=said["enabled"],
        owner_id=said["ownerId"],
        resource_version=said["resourceVersion"],
        created_at=datetime.fromisoformat(said["createdAt"]),
        updated_at=datetime.fromisoformat(said["updatedAt"]),
    )
