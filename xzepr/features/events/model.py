"""What it takes to record an event, and what comes back."""

from dataclasses import dataclass
from datetime import datetime

from xzepr.features.groups.model import Gate, Unit
from xzepr.features.stream.model import Cursor, Event


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event as somebody reports it."""

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
    """When it happened; None means now."""
    idempotency_key: str | None = None
    """The same actor's same key, with the same content, is the same event."""

    @property
    def unit(self) -> Unit:
        """What it is about."""
        return Unit(self.name, self.version, self.release, self.platform_id, self.package)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A new event that its receiver admits, before it has its place in the stream."""

    id: str
    new: NewEvent
    unit_id: bytes
    payload: bytes
    """Compact JSON text."""
    digest: bytes
    """SHA-256 of everything that makes it this event and no other; for idempotency."""
    receiver_revision: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """The answer to a new event, given after COMMIT."""

    event: Event
    cursor: Cursor
    gates: tuple[Gate, ...]
    """The gates of its receiver for its unit, as the event left them; for a repeat, as they are now."""
    repeated: bool
    """The idempotency key had been used for this very event before."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a list shows; every given field must match."""

    receiver_id: str | None = None
    name: str | None = None
    version: str | None = None
    release: str | None = None
    platform_id: str | None = None
    package: str | None = None
    success: bool | None = None
    unit_id: bytes | None = None
    recorded_from: datetime | None = None
    """Recorded at this time or later."""
    recorded_before: datetime | None = None
    """Recorded before this time."""
