"""Receivers: kinds of events, each with a JSON Schema for its payloads."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final


@dataclass(frozen=True, slots=True)
class Receiver:
    """A kind of event, with the JSON Schema that its payloads must match."""

    id: str
    position: int
    """The position of its `receiver.created` message. Lists are sorted by it."""
    name: str
    type: str
    version: str
    description: str
    schema: bytes
    """The JSON Schema as compact JSON text, with the keys in the order in which they were sent."""
    schema_digest: str
    """SHA-256 of the schema's text, in hex."""
    revision: int
    """Counts the changes of the schema, from 1."""
    fingerprint: str
    """SHA-256 of type, description, name and version, in hex, as Event Provenance Registry computes it."""
    enabled: bool
    """A disabled receiver rejects events."""
    owner_id: str
    resource_version: int
    """Counts all changes, from 1."""
    created_at: datetime
    updated_at: datetime

    @property
    def size(self) -> int:
        """Size in memory, in bytes, approximately."""
        texts = (self.name, self.type, self.version, self.description)
        return 1024 + len(self.schema) + sum(text.__sizeof__() for text in texts)


@dataclass(frozen=True, slots=True)
class ReceiverState:
    """The state of a receiver that the recorder reads under the writer lock."""

    id: str
    enabled: bool
    revision: int


class Unchanged(Enum):
    """The value of a field that stays unchanged, where None is a valid value."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True)
class NewReceiver:
    """A receiver to be created. `schema` is a JSON value."""

    name: str
    type: str
    version: str
    description: str
    schema: object
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class ReceiverChange:
    """Changes to a receiver. A field that is None (for the schema: UNCHANGED) stays unchanged."""

    name: str | None = None
    type: str | None = None
    version: str | None = None
    description: str | None = None
    schema: object = UNCHANGED
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class ReceiverFilter:
    """Conditions on the receivers of a list. All fields that are not None must be equal."""

    name: str | None = None
    type: str | None = None
    version: str | None = None
    enabled: bool | None = None
