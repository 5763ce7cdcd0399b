"""Receivers: kinds of events, each with the JSON Schema that payloads must meet."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final


@dataclass(frozen=True, slots=True)
class Receiver:
    """A kind of event."""

    id: str
    position: int
    """Of the message that announced it: the order of lists."""
    name: str
    type: str
    version: str
    description: str
    schema: bytes
    """JSON Schema as compact JSON text, its keys in the order they were sent in."""
    schema_digest: str
    """SHA-256 of that text, in hex."""
    revision: int
    """Counts the changes of the schema, from 1."""
    fingerprint: str
    """SHA-256 of type, description, name and version, as Event Provenance Registry makes it."""
    enabled: bool
    """A disabled receiver refuses events."""
    owner_id: str
    resource_version: int
    """Counts all changes, from 1."""
    created_at: datetime
    updated_at: datetime


class Unchanged(Enum):
    """Says that a field is left as it is where None would be a value."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True)
class NewReceiver:
    """What it takes to create a receiver; `schema` is a JSON value."""

    name: str
    type: str
    version: str
    description: str
    schema: object
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class ReceiverChange:
    """What is to be changed; None (for the schema: UNCHANGED) leaves it as it is."""

    name: str | None = None
    type: str | None = None
    version: str | None = None
    description: str | None = None
    schema: object = UNCHANGED
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class ReceiverFilter:
    """Which receivers a list shows; every given field must be equal."""

    name: str | None = None
    type: str | None = None
    version: str | None = None
    enabled: bool | None = None
