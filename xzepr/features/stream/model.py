"""The stream's model: messages with their events, cursors and filters."""

import re
from dataclasses import dataclass, field
from datetime import datetime

from xzepr.core.actor import ActorKind, Permission
from xzepr.core.errors import InvalidInput
from xzepr.core.frozen import frozen
from xzepr.features.stream.kinds import KINDS, Kind

_CURSOR = re.compile(r"(0|[1-9][0-9]{0,17})-([0-9A-Z]{8})", re.ASCII)


@frozen
class Event:
    """A recorded event. Events are never changed or deleted."""

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
    """Compact JSON, with the keys in the order in which they were sent."""
    success: bool
    receiver_id: str
    receiver_revision: int
    owner_id: str
    created_at: datetime
    recorded_at: datetime


@frozen
class Cursor:
    """A position in a stream and the end of the id of the message there. Opaque to consumers."""

    position: int
    id_suffix: str

    def __str__(self) -> str:
        return f"{self.position}-{self.id_suffix}"

    @classmethod
    def of(cls, position: int, id: str) -> "Cursor":
        """Returns the cursor of a message; for position 0, of the hub with that id."""
        return cls(position, id[-8:])

    @classmethod
    def parse(cls, text: str, *, field: str = "after") -> "Cursor":
        """Parses a cursor such as `1042-7XQ2P9KD`. Raises InvalidInput."""
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
        """The cursor after which there is nothing yet."""
        return Cursor.of(self.position, self.id)


@dataclass(frozen=True, slots=True)
class Origin:
    """The entry before the oldest message: position 0 and the hub's id, or the last message that retention removed."""

    position: int
    id: str

    @property
    def cursor(self) -> Cursor:
        """The oldest cursor from which a consumer can resume."""
        return Cursor.of(self.position, self.id)


@frozen
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
    """The event that is the message's object or its cause."""
    data: bytes | None
    """Compact JSON: a snapshot of the message's object, if that is not the event."""

    @property
    def cursor(self) -> Cursor:
        """The cursor from which a consumer resumes after this message."""
        return Cursor.of(self.position, self.id)

    @property
    def size(self) -> int:
        """Size in memory, in bytes, approximately."""
        return 1024 + len(self.data or b"") + (0 if self.event is None else len(self.event.payload))

    @property
    def permission(self) -> Permission:
        """The permission that an actor needs to read the message."""
        return KINDS[self.kind].permission


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A marker in a subscription: every message up to the cursor was sent."""

    cursor: Cursor
    time: datetime


@dataclass(frozen=True, slots=True)
class StreamFilter:
    """Conditions on messages, all of which must hold; None sets no condition.

    A message without an event meets no condition on the unit or on `success`.
    """

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
