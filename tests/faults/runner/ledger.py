"""What clients know of their events, and subscribers of the stream: evidence, kept without a line of the hub's code."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Json = dict[str, Any]


@dataclass(slots=True)
class Entry:
    """One event that a client wants recorded. Times are monotonic seconds."""

    key: str
    """Its idempotency key; also in its payload, so that an event tells whose it is without the hub's own table."""
    input: Json
    first_try: float = 0.0
    acknowledged_at: float = 0.0
    """0 while it is not."""
    id: str = ""
    position: int = 0
    tries: int = 0
    refusal: str = ""
    """An answer after which a client does not try again: never to be seen."""

    @property
    def waited(self) -> float:
        """Seconds from the first try to the acknowledgement."""
        return self.acknowledged_at - self.first_try if self.acknowledged_at else 0.0


@dataclass(slots=True)
class Ledger:
    """Everything that the clients of one run wanted, and what they were told."""

    entries: list[Entry] = field(default_factory=list[Entry])
    troubles: dict[str, int] = field(default_factory=dict[str, int])
    """How often each reason to try again was met."""

    @property
    def acknowledged(self) -> list[Entry]:
        """Those that the hub said are recorded."""
        return [entry for entry in self.entries if entry.acknowledged_at]

    @property
    def retries(self) -> int:
        """Tries after the first ones."""
        return sum(entry.tries - 1 for entry in self.entries if entry.tries)

    @property
    def longest_outage(self) -> float:
        """The most seconds that a client went from its first try of an event to the acknowledgement."""
        return max((entry.waited for entry in self.entries), default=0.0)

    @property
    def longest_silence(self) -> float:
        """The most seconds in which no client got an acknowledgement."""
        return max(self._silences(), default=0.0)

    @property
    def seconds_of_silence(self) -> float:
        """All the time in which no client got an acknowledgement for a second or more: the outages."""
        return sum(silence for silence in self._silences() if silence >= 1)

    def _silences(self) -> list[float]:
        times = sorted(entry.acknowledged_at for entry in self.acknowledged)
        return [after - before for before, after in pairwise(times)]

    def trouble(self, reason: str) -> None:
        """Counts a reason to try again."""
        self.troubles[reason] = self.troubles.get(reason, 0) + 1


@dataclass(frozen=True, slots=True)
class Repeat:
    """What a client was told that sent an acknowledged event once more, with its key."""

    key: str
    id: str
    repeated: bool
    """Whether the hub said that it had it already."""


def unit_of(input: Json) -> tuple[str, ...]:
    """The five strings that name what an event is about."""
    return tuple(input[name] for name in ("name", "version", "release", "platformId", "package"))


@dataclass(frozen=True, slots=True)
class Seen:
    """One message as a subscriber or a consumer got it."""

    position: int
    id: str
    kind: str
    event_id: str | None = None
    """Of the event that the message is about."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which messages a subscriber asks for: every given field must match."""

    kinds: tuple[str, ...] | None = None
    """As the stream names them."""
    success: bool | None = None

    def takes(self, kind: str, success: bool | None) -> bool:
        """Whether a message of that kind is wished for; `success` is its event's, None where it has none."""
        return (self.kinds is None or kind in self.kinds) and self.success in (None, success)

    @property
    def variables(self) -> Json:
        """For the document that subscribers send."""
        kinds = None if self.kinds is None else [kind.upper().replace(".", "_") for kind in self.kinds]
        given = {"kinds": kinds, "filter": None if self.success is None else {"success": self.success}}
        return {name: value for name, value in given.items() if value is not None}


EVERYTHING = Wish()


@dataclass(slots=True)
class Attendance:
    """All that one subscriber got, in the order it came, over all its connections."""

    name: str
    after: int
    """It asked for everything after this position."""
    seen: list[Seen] = field(default_factory=list[Seen])
    attached: int = 0
    """How many connections it had."""
    wish: Wish = EVERYTHING
    checkpoints: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """How many messages it had when each checkpoint came, and its cursor."""
    from_checkpoints: int = 0
    """How often it came back with the cursor of a checkpoint that was further than its last message."""
    troubles: dict[str, int] = field(default_factory=dict[str, int])
    refusal: str = ""
    """An answer after which a subscriber does not come back: never to be seen, unless the test is about it."""

    @property
    def last(self) -> int:
        """The position of its last message; where it began, while it has none."""
        return self.seen[-1].position if self.seen else self.after

    def trouble(self, reason: str) -> None:
        """Counts a reason to attach again."""
        self.troubles[reason] = self.troubles.get(reason, 0) + 1


def position_of(cursor: str) -> int:
    """The position in a cursor: consumers need not know that it is there, a checker may."""
    return int(cursor.partition("-")[0])
