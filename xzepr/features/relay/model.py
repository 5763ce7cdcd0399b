"""How far a route has published: the record of it in Kafka, what its relay does, and why one stops."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import orjson

from xzepr.features.stream.model import Cursor

LEADER_SILENT_SECONDS = 10.0  # a process without a report for longer is treated as gone


class RelayState(StrEnum):
    """What a relay is doing."""

    WAITING_FOR_BROKERS = "waiting_for_brokers"
    """None are configured, or none answer: it tries again by itself."""
    FOLLOWING = "following"
    STANDBY = "standby"
    """Another process relays, or the database is away."""
    STOPPED = "stopped"
    """Only somebody who knows what happened can say how to go on."""


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """What this process's relay is doing."""

    route: str
    state: RelayState
    detail: str
    """Why, in words for an operator; empty while it follows."""
    since: datetime
    position: int | None
    """Everything up to here is in Kafka, or a dead letter; None before this process has read it there."""
    leads: bool = False
    """Whether this process is the one that relays, or would if brokers let it."""


@dataclass(frozen=True, slots=True)
class Published:
    """Everything up to the message with this position and id is in Kafka; position 0 with the hub's id: nothing is."""

    position: int
    id: str
    resume_id: str | None = None
    """The last instruction to resume that was obeyed, so that none is obeyed twice."""
    retry_id: str | None = None
    """The last instruction to send a dead letter again that was obeyed; none is begun before the last one is over."""
    offsets: Mapping[int, int] = field(default_factory=dict[int, int])
    """For partitions of the topic, an offset that there is: of the newest message but those that were under way when
    this was written. A partition that ends before it has lost some."""

    @property
    def cursor(self) -> Cursor:
        """The cursor of that message."""
        return Cursor.of(self.position, self.id)

    def encode(self) -> bytes:
        """As it is written to the state topic."""
        found = {
            "position": self.position,
            "id": self.id,
            "resume": self.resume_id,
            "retry": self.retry_id,
            "reached": {str(partition): offset for partition, offset in sorted(self.offsets.items())},
        }
        return orjson.dumps(found)

    @classmethod
    def decode(cls, value: bytes) -> "Published":
        """Reads it; raises ValueError."""
        found = orjson.loads(value)
        try:
            reached = {int(partition): int(offset) for partition, offset in found.get("reached", {}).items()}
            return cls(int(found["position"]), str(found["id"]), found.get("resume"), found.get("retry"), reached)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no state of a relay: {value[:200]!r}") from error


class RelayStopped(Exception):
    """The relay cannot know what was published; the message says what was found."""

    def __init__(self, message: str, *, at: int | None = None) -> None:
        """`at`: everything up to this position may count as published; None where there is nothing to choose."""
        super().__init__(message)
        self._at = at

    def with_choices(self, first: int) -> str:
        """The message with the ways on; `first` is the oldest position that the stream has."""
        if self._at is None:
            return str(self)
        at = max(self._at, first - 1)
        return (
            f"{self} Choose: `xzepr stream resume --at {at}` treats everything up to {at} as published and goes on "
            f"after it; `xzepr stream resume --republish-from {first}` publishes everything again from position "
            f"{first} (or from any later one)"
        )


def everything_rejected(route: str, count: int, reason: str) -> RelayStopped:
    """So many messages in a row were refused that it cannot be for what they are."""
    return RelayStopped(
        f"{route}: the brokers refused {count} messages in a row, the last because {reason}: mend the topic's "
        "configuration, and the relay goes on by itself; then `xzepr stream retry --all` sends what was left out"
    )


AT_LEAST_ONCE = "kafka.transactions is off: at least once, so that some messages come twice after a crash"


def split_brain(route: str) -> str:
    """Two relays write to one route, and this one was the earlier."""
    return (
        f"{route}: another relay with this hub's id has taken over: this one was cut off from the database without "
        "noticing, or two databases hold the same hub. It steps down, and asks for the lead again"
    )


def position_lost(route: str, remembered: int) -> RelayStopped:
    """Kafka holds nothing of a route that was published."""
    return RelayStopped(
        f"{route} was published up to position {remembered}, but these brokers do not know of it: their data was lost, "
        "or kafka.brokers names other brokers than before, or they no longer let the relay see its topics.",
        at=remembered,
    )


def partition_truncated(route: str, published: int, partition: int, reached: int) -> RelayStopped:
    """A partition of the topic does not go so far as messages of this route once did."""
    return RelayStopped(
        f"{route} was published up to position {published}, but partition {partition} of the topic ends before offset "
        f"{reached}, which it had reached: the topic was deleted and made anew, or brokers lost its newest messages.",
        at=published,
    )


def state_unreadable(route: str, remembered: int, why: str) -> RelayStopped:
    """The relay's state in Kafka is somebody else's writing."""
    return RelayStopped(
        f"{route} was published up to position {remembered} or further, but what the state topic holds of it cannot be "
        f"read ({why}): something else wrote there, or a newer version of XZepr did.",
        at=remembered,
    )


def stream_diverged(route: str, published: Published, head: int, found: str | None, noted: int) -> RelayStopped:
    """Kafka holds messages of this hub that its database does not. `noted` is up to where the database itself knows of
    having published: it was restored together with that note, so up to there the two agree."""
    if found is None:
        what = f"Kafka has messages up to position {published.position}, and the database ends at {head}"
    else:
        what = f"message {published.position} is {published.id} in Kafka and {found} in the database"
    return RelayStopped(
        f"{route}: {what}: the database was restored or replaced, and what it lost is still in Kafka. What was "
        "published in the second before the backup may come twice.",
        at=min(head, noted),
    )


def messages_removed(route: str, position: int) -> RelayStopped:
    """The stream begins after the position where the relay has to go on."""
    return RelayStopped(
        f"{route}: the relay has to go on with position {position}, and the database no longer has it: the old end of "
        "the stream was removed.",
        at=position,
    )
