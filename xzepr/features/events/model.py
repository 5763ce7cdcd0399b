"""Events as clients report them, and the results of recording them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from xzepr.core.frozen import frozen
from xzepr.features.groups.model import Gate, GateUpdate, Unit
from xzepr.features.groups.rules import gate_of
from xzepr.features.stream.model import Cursor, Event


@frozen
class NewEvent:
    """An event as a client reports it."""

    name: str
    version: str
    release: str
    platform_id: str
    package: str
    description: str
    payload: object
    """JSON as Python values."""
    success: bool
    receiver_id: str
    created_at: datetime | None = None
    """When the event happened. None if at the time of recording."""
    idempotency_key: str | None = None
    """An event with the same actor, key and content is recorded once."""

    @property
    def unit(self) -> Unit:
        """The unit that the event reports on."""
        return Unit(self.name, self.version, self.release, self.platform_id, self.package)


@frozen
class Accepted:
    """A valid new event that has no position in the stream yet."""

    id: str
    new: NewEvent
    unit_parts: tuple[bytes, ...]
    """The five texts of the unit in UTF-8, each `with_length`. The unit's id is the SHA-256 of all of them."""
    unit_id: bytes
    payload: bytes
    """Compact JSON text."""
    digest: bytes | None
    """SHA-256 of the event's content, which a repeated idempotency key must have. None without such a key."""


@frozen
class Recorded:
    """The result of reporting an event, available after COMMIT."""

    event: Event
    updates: Sequence[GateUpdate]
    """The event's effects on gates; empty if it is repeated."""
    repeated: bool
    """Whether an earlier call with the same idempotency key recorded the event."""
    current_gates: Sequence[Gate] = ()
    """The current gates of a repeated event."""

    @property
    def cursor(self) -> Cursor:
        """The cursor of the event's message."""
        return Cursor.of(self.event.position, self.event.id)

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates of the event's receiver for its unit: just after the event, or the current ones for a repeat."""
        return (*self.current_gates, *map(gate_of, self.updates))


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Conditions on the events of a list. All fields that are not None must match."""

    receiver_id: str | None = None
    name: str | None = None
    version: str | None = None
    release: str | None = None
    platform_id: str | None = None
    package: str | None = None
    success: bool | None = None
    unit_id: bytes | None = None
    recorded_from: datetime | None = None
    """Matches events recorded at this time or later."""
    recorded_before: datetime | None = None
    """Matches events recorded before this time."""
