"""The nouns of the stream: messages with their events, cursors, and filters."""

import re
from dataclasses import dataclass, field
from datetime import datetime

from xzepr.core.actor import ActorKind, Permission
from xzepr.core.errors import InvalidInput
from xzepr.features.stream.kinds import KINDS, Kind

_CURSOR = re.compile(r"(0|[1-9][0-9]{0,17})-([0-9A-Z]{8})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that finished, as it was recorded. Never changed, never deleted."""

    position: int
    id: str
    unit_id: bytes
    name: str
    version: str
    release: str
    platform_id: str
    package: str
    description: str
    payload: bytes
    """Compact JSON text, its keys in the order they were sent in."""
    success: bool
    receiver_id: str
    receiver_revision: int
    owner_id: str
    created_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in one stream: a position and the end of the id of the message there. Opaque to consumers."""

    position: int
    id_suffix: str

    def __str__(self) -> str:
        return f"{self.position}-{self.id_suffix}"

    @classmethod
    def of(cls, position: int, id: str) -> "Cursor":
        """The cursor of the message with that position and id; for position 0, of the hub with that id."""
        return cls(position, id[-8:])

    @classmethod
    def parse(cls, text: str, *, field: str = "after") -> "Cursor":
        """Reads `1042-7XQ2P9KD`; raises InvalidInput."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InvalidInput.one(
                field, f"{text[:40]!r} is not a cursor of this stream (they look like 1042-7XQ2P9KD)"
            )
        return cls(int(match[1]), match[2])


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry of the stream; position 0 and the hub's id while it is empty."""

    position: int
    id: str

    @property
    def cursor(self) -> Cursor:
        """The cursor that has seen everything."""
        return Cursor.of(self.position, self.id)


@dataclass(frozen=True, slots=True)
class Origin:
    """What the stream follows on: position 0 and the hub's id, or the last message that retention took."""

    position: int
    id: str

    @property
    def cursor(self) -> Cursor:
        """The oldest cursor to go on from: everything after it is there."""
        return Cursor.of(self.position, self.id)


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the stream."""

    position: int
    id: str
    kind: Kind
    time: datetime
    actor_kind: ActorKind
    actor_id: str
    actor_name: str
    receiver_id: str | None
    group_id: str | None
    event: Event | None
    """The event that the message is about, or that caused it."""
    data: bytes | None
    """Compact JSON: what it says beyond the event, as things were when it was said."""

    @property
    def cursor(self) -> Cursor:
        """What a consumer keeps to go on after this message."""
        return Cursor.of(self.position, self.id)

    @property
    def size(self) -> int:
        """Bytes that it holds in memory, about."""
        return 1024 + len(self.data or b"") + (0 if self.event is None else len(self.event.payload))

    @property
    def permission(self) -> Permission:
        """What an actor needs to read it."""
        return KINDS[self.kind].permission


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """You have seen everything up to here."""

    cursor: Cursor
    time: datetime


@dataclass(frozen=True, slots=True)
class StreamFilter:
    """Which messages somebody wants: every given field must match; None asks for nothing. A message
    without an event matches no field of the unit and no `success`."""

    kinds: frozenset[Kind] = field(default_factory=lambda: frozenset(Kind))
    receiver_ids: frozenset[str] | None = None
    group_ids: frozenset[str] | None = None
    unit_id: bytes | None = None
    name: str | None = None
    version: str | None = None
    release: str | None = None
    platform_id: str | None = None
    package: str | None = None
    success: bool | None = None
