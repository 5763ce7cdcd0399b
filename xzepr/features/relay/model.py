"""The relay's model: its states, the published position of a route as it is stored in Kafka, and reasons to stop."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import orjson

from xzepr.features.stream.model import Cursor

LEADER_SILENT_SECONDS = 10.0  # a process that has not reported for longer counts as ended
AT_LEAST_ONCE = "kafka.transactions is off: delivery is at least once, and a crash may duplicate messages"


class RelayState(StrEnum):
    """The state of a relay."""

    WAITING_FOR_BROKERS = "waiting_for_brokers"
    """No brokers are configured, or none responds; the relay retries by itself."""
    FOLLOWING = "following"
    """This process relays."""
    STANDBY = "standby"
    """Another process relays, this process is not allowed to (kafka.enabled is off), or the database is down."""
    STOPPED = "stopped"
    """An operator has to fix the cause or choose where to resume."""


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """The status of this process's relay."""

    route: str
    state: RelayState
    detail: str
    """The reason for the state, for an operator; empty while following with transactions."""
    since: datetime
    position: int | None
    """Everything up to this position is in Kafka or a dead letter. None before this process has read it from Kafka."""
    leads: bool = False
    """Whether this process is the route's leader, even while brokers or a cause to stop keep it from relaying."""
    published_messages: int = 0
    """Number of messages that this process has published, retried dead letters included."""


@dataclass(frozen=True, slots=True)
class Published:
    """A route's state: everything up to the message with this position and id is in Kafka or a dead letter.

    Before the first message of the stream, position is 0 and id is the hub's id.
    """

    position: int
    id: str
    resume_id: str | None = None
    """Id of the last resume instruction that was applied, so that none is applied twice."""
    retry_id: str | None = None
    """Id of the last retry of a dead letter that reached Kafka, so that none is sent twice."""
    offsets: Mapping[int, int] = field(default_factory=dict[int, int])
    """For each partition of the topic, the offset of a message that exists: the newest one that was acknowledged
    before this state was written. A partition that ends before this offset has lost messages."""

    @property
    def cursor(self) -> Cursor:
        """The cursor of the last published message."""
        return Cursor.of(self.position, self.id)

    def encode(self) -> bytes:
        """Returns the value of a record in the state topic (JSON)."""
        state = {
            "position": self.position,
            "id": self.id,
            "resume": self.resume_id,
            "retry": self.retry_id,
            "reached": {str(partition): offset for partition, offset in sorted(self.offsets.items())},
        }
        return orjson.dumps(state)

    @classmethod
    def decode(cls, value: bytes) -> "Published":
        """Parses the value of a record in the state topic. Raises ValueError if it is not a relay's state."""
        state = orjson.loads(value)
        try:
            offsets = {int(partition): int(offset) for partition, offset in state.get("reached", {}).items()}
            return cls(
                int(state["position"]),
                str(state["id"]),
                resume_id=state.get("resume"),
                retry_id=state.get("retry"),
                offsets=offsets,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the state of a relay: {value[:200]!r}") from error


class RelayStopped(Exception):
    """The relay has to stop; the message gives the reason."""

    def __init__(self, message: str, *, at: int | None = None) -> None:
        """`at` is the last position that may count as published; None if there is nothing to choose."""
        super().__init__(message)
        self._at = at

    def with_choices(self, oldest_position: int) -> str:
        """Returns the message with the commands that resume the route.

        `oldest_position` is the oldest position in the stream.
        """
        if self._at is None:
            return str(self)
        at = max(self._at, oldest_position - 1)
        return (
            f"{self} Choose: `xzepr stream resume --at {at}` treats everything up to {at} as published and continues "
            f"after it; `xzepr stream resume --republish-from {oldest_position}` publishes everything again from "
            f"position {oldest_position} (or from any later one)"
        )


def everything_rejected(route: str, count: int, reason: str) -> RelayStopped:
    """Returns the error for `count` rejected messages in a row: the topic is at fault, not the messages."""
    return RelayStopped(
        f"{route}: the brokers rejected {count} messages in a row, the last because {reason}: fix the topic's "
        "configuration, and the relay resumes by itself; then `xzepr stream retry --all` sends the dead letters"
    )


def split_brain(route: str) -> str:
    """Returns the status of a relay that another one has fenced."""
    return (
        f"{route}: another relay with this hub's id has taken over: either this one was cut off from the database "
        "without noticing, or two databases contain the same hub. This relay steps down and tries to lead again"
    )


def position_lost(route: str, recorded_position: int) -> RelayStopped:
    """Returns the error for a route that was published, but has no state in Kafka."""
    return RelayStopped(
        f"{route} was published up to position {recorded_position}, but these brokers have no record of it: their data "
        "was lost, or kafka.brokers names other brokers than before, or they no longer let the relay see its topics.",
        at=recorded_position,
    )


def partition_truncated(route: str, position: int, partition: int, offset: int) -> RelayStopped:
    """Returns the error for a partition that ends before an offset at which the route had published a message."""
    return RelayStopped(
        f"{route} was published up to position {position}, but partition {partition} of the topic ends before offset "
        f"{offset}, which it had reached: the topic was deleted and recreated, or brokers lost its newest messages.",
        at=position,
    )


def state_unreadable(route: str, recorded_position: int, cause: str) -> RelayStopped:
    """Returns the error for a value under the route's key in the state topic that is not a relay's state."""
    return RelayStopped(
        f"{route} was published up to position {recorded_position} or further, but its state in the state topic cannot "
        f"be read ({cause}): it was written by something else, or by a newer version of XZepr.",
        at=recorded_position,
    )


def stream_diverged(
    route: str, published: Published, head: int, stream_id: str | None, recorded_position: int
) -> RelayStopped:
    """Returns the error for messages of this hub that are in Kafka, but not in its database.

    `stream_id` is the id in the database at the published position; None if there is no message. `recorded_position`
    is the published position that the database recorded. It was restored with the messages, so Kafka and the database
    agree up to there.
    """
    if stream_id is None:
        difference = f"Kafka has messages up to position {published.position}, and the database ends at {head}"
    else:
        difference = f"message {published.position} is {published.id} in Kafka and {stream_id} in the database"
    return RelayStopped(
        f"{route}: {difference}: the database was restored or replaced, and what it lost is still in Kafka. Messages "
        "published in the last second before the backup may be duplicated.",
        at=min(head, recorded_position),
    )


def messages_removed(route: str, position: int) -> RelayStopped:
    """Returns the error for a stream that no longer has the message with which the relay has to continue."""
    return RelayStopped(
        f"{route}: the relay has to continue with position {position}, and the database no longer has it: the old end "
        "of the stream was removed.",
        at=position,
    )
