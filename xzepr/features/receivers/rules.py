"""Rules for receivers, without I/O: limits on fields, changes, revisions, and snapshots."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from xzepr.core import exact_json
from xzepr.core.clock import json_time
from xzepr.core.errors import InvalidInput, Violation
from xzepr.core.text import check_queryable, check_text
from xzepr.features.receivers import schemas
from xzepr.features.receivers.model import UNCHANGED, NewReceiver, Receiver, ReceiverChange, ReceiverFilter
from xzepr.settings import EventSettings

_NAMES = ("name", "type", "version")
_TEXTS = (*_NAMES, "description")


def check(values: NewReceiver | ReceiverChange, limits: EventSettings) -> bytes | None:
    """Checks the given fields and returns the schema as compact text, or None if it is not given.

    Raises InvalidInput with all violations.
    """
    violations = list(_text_violations(values, limits))
    schema_text: bytes | None = None
    if values.schema is not UNCHANGED:
        try:
            schema_text = schemas.check(values.schema)
        except InvalidInput as error:
            violations += error.violations
    if violations:
        raise InvalidInput(violations)
    return schema_text


def _text_violations(values: NewReceiver | ReceiverChange, limits: EventSettings) -> Iterator[Violation]:
    for field in _TEXTS:
        value: str | None = getattr(values, field)
        if value is not None:
            max_chars = limits.max_description_chars if field == "description" else limits.max_name_chars
            yield from check_text(field, value, max_chars=max_chars)


def check_filter(filter: ReceiverFilter) -> None:
    """Raises InvalidInput if the filter has a text that no receiver can have."""
    check_queryable({field: getattr(filter, field) for field in _NAMES})


def new_receiver(new: NewReceiver, schema: bytes, *, id: str, position: int, owner_id: str, time: datetime) -> Receiver:
    """Returns a new receiver with revision 1. `schema` is the text that `check` returned."""
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
    """Returns the changed receiver. The revision increases if the text of the schema changes."""
    new_values = {field: value for field in (*_TEXTS, "enabled") if (value := getattr(change, field)) is not None}
    changed = replace(receiver, **new_values, resource_version=receiver.resource_version + 1, updated_at=time)
    fingerprint = schemas.fingerprint(changed.type, changed.description, changed.name, changed.version)
    changed = replace(changed, fingerprint=fingerprint)
    if schema is None or schema == receiver.schema:
        return changed
    return replace(changed, schema=schema, schema_digest=schemas.digest(schema), revision=receiver.revision + 1)


def snapshot(receiver: Receiver) -> bytes:
    """Returns the receiver as the stream carries it: compact JSON with the keys of GraphQL."""
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
            "createdAt": json_time(receiver.created_at),
            "updatedAt": json_time(receiver.updated_at),
        },
        option=orjson.OPT_UTC_Z,
    )


def from_snapshot(data: Mapping[str, Any]) -> Receiver:
    """Returns the receiver from the JSON object that `snapshot` wrote."""
    return Receiver(
        id=data["id"],
        position=data["position"],
        name=data["name"],
        type=data["type"],
        version=data["version"],
        description=data["description"],
        schema=exact_json.dumps(data["schema"]),
        schema_digest=data["schemaDigest"],
        revision=data["revision"],
        fingerprint=data["fingerprint"],
        enabled=data["enabled"],
        owner_id=data["ownerId"],
        resource_version=data["resourceVersion"],
        created_at=datetime.fromisoformat(data["createdAt"]),
        updated_at=datetime.fromisoformat(data["updatedAt"]),
    )
