"""The records of clients about their events and of subscribers about the stream. Shares no code with the hub."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Json = dict[str, Any]


@dataclass(slots=True)
class Entry:
    """An event that a client has to record. Times are monotonic seconds."""

    key: str
    """The idempotency key. The payload repeats it, so that the owner is known without the hub's own table of keys."""
    input: Json
    first_attempt_at: float = 0.0
    acknowledged_at: float = 0.0
    """0 until it is acknowledged."""
    id: str = ""
    position: int = 0
    attempts: int = 0
    fatal_error: str = ""
    """An error after which a client does not retry. No run may have one."""

    @property
    def waited(self) -> float:
        """Seconds from the first attempt to the acknowledgement."""
        return self.acknowledged_at - self.first_attempt_at if self.acknowledged_at else 0.0


@dataclass(slots=True)
class Ledger:
    """The events of all clients of one run, with the responses that the clients received."""

    entries: list[Entry] = field(default_factory=list[Entry])
    retry_reasons: dict[str, int] = field(default_factory=dict[str, int])
    """How often each reason to retry occurred."""

    @property
    def acknowledged(self) -> list[Entry]:
        """The events that the hub acknowledged."""
        return [entry for entry in self.entries if entry.acknowledged_at]

    @property
    def retries(self) -> int:
        """The number of attempts after the first of each event."""
        return sum(entry.attempts - 1 for entry in self.entries if entry.attempts)

    @property
    def longest_outage(self) -> float:
        """The longest time of an event from its first attempt to its acknowledgement, in seconds."""
        return max((entry.waited for entry in self.entries), default=0.0)

    @property
    def longest_silence(self) -> float:
        """The longest time without an acknowledgement for any client, in seconds."""
        return max(self._silences(), default=0.0)

    @property
    def seconds_of_silence(self) -> float:
        """The sum of all times of at least a second without an acknowledgement: the outages."""
        return sum(silence for silence in self._silences() if silence >= 1)

    def _silences(self) -> list[float]:
        times = sorted(entry.acknowledged_at for entry in self.acknowledged)
        return [after - before for before, after in pairwise(times)]

    def count_retry(self, reason: str) -> None:
        """Counts one occurrence of a reason to retry."""
        self.retry_reasons[reason] = self.retry_reasons.get(reason, 0) + 1


@dataclass(frozen=True, slots=True)
class Repeat:
    """The response to an acknowledged event that was sent again with the same key."""

    key: str
    id: str
    repeated: bool
    """Whether the hub reported that the event was already recorded."""


def unit_of(input: Json) -> tuple[str, ...]:
    """Returns the five strings that name the unit of an event."""
    return tuple(input[name] for name in ("name", "version", "release", "platformId", "package"))


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message as a subscriber received it."""

    position: int
    id: str
    kind: str
    event_id: str | None = None
    """The event that the message is about; None if it is about no event."""


@dataclass(frozen=True, slots=True)
class StreamFilter:
    """The messages that a subscriber requests. Every field that is not None must match."""

    kinds: tuple[str, ...] | None = None
    """Kinds as the stream names them."""
    success: bool | None = None

    def matches(self, kind: str, success: bool | None) -> bool:
        """Returns whether a message matches. `success` is that of its event, None if it has no event."""
        return (self.kinds is None or kind in self.kinds) and self.success in (None, success)

    @property
    def variables(self) -> Json:
        """The variables of the subscription that apply this filter."""
        kinds = None if self.kinds is None else [kind.upper().replace(".", "_") for kind in self.kinds]
        values = {"kinds": kinds, "filter": None if self.success is None else {"success": self.success}}
        return {name: value for name, value in values.items() if value is not None}


EVERYTHING = StreamFilter()


@dataclass(slots=True)
class SubscriberRecord:
    """Everything that one subscriber received, in order of arrival, over all its connections."""

    name: str
    after: int
    """The position after which the subscription began."""
    received: list[ReceivedMessage] = field(default_factory=list[ReceivedMessage])
    connections: int = 0
    """The number of connections so far."""
    filter: StreamFilter = EVERYTHING
    checkpoints: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """For each checkpoint, the number of messages received before it, and its cursor."""
    resumed_from_checkpoint: int = 0
    """How often it resumed from the cursor of a checkpoint that was newer than its last message."""
    retry_reasons: dict[str, int] = field(default_factory=dict[str, int])
    fatal_error: str = ""
    """An error after which a subscriber does not reconnect. Only a restore may cause one."""

    @property
    def last(self) -> int:
        """The position of the last message received; the initial position if there is none."""
        return self.received[-1].position if self.received else self.after

    def count_retry(self, reason: str) -> None:
        """Counts one occurrence of a reason to reconnect."""
        self.retry_reasons[reason] = self.retry_reasons.get(reason, 0) + 1


def position_of(cursor: str) -> int:
    """Returns the position in a cursor. Clients must not rely on its format, but the checker may."""
    return int(cursor.partition("-")[0])
