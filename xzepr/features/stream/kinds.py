"""The table of message kinds, from which GraphQL, Kafka, permissions and the reference page are derived."""

from dataclasses import dataclass
from enum import StrEnum

from xzepr.core.actor import Permission


class Kind(StrEnum):
    """The kind of a message: a noun and what happened to it."""

    EVENT_RECORDED = "event.recorded"
    RECEIVER_CREATED = "receiver.created"
    RECEIVER_UPDATED = "receiver.updated"
    RECEIVER_DELETED = "receiver.deleted"
    GROUP_CREATED = "group.created"
    GROUP_UPDATED = "group.updated"
    GROUP_DELETED = "group.deleted"
    GATE_COMPLETED = "gate.completed"
    GATE_REGRESSED = "gate.regressed"


@dataclass(frozen=True, slots=True)
class KindFacts:
    """The properties of all messages of a kind."""

    permission: Permission
    """The permission to read messages of this kind."""
    graphql_type: str
    meaning: str

    @property
    def cloudevent_type(self) -> str:
        """The CloudEvents `type` attribute."""
        return f"io.xzepr.{_KIND_OF[self.graphql_type]}"


KINDS: dict[Kind, KindFacts] = {
    Kind.EVENT_RECORDED: KindFacts(Permission.EVENT_READ, "EventRecorded", "an event was recorded"),
    Kind.RECEIVER_CREATED: KindFacts(Permission.RECEIVER_READ, "ReceiverCreated", "a receiver was created"),
    Kind.RECEIVER_UPDATED: KindFacts(Permission.RECEIVER_READ, "ReceiverUpdated", "a receiver was changed"),
    Kind.RECEIVER_DELETED: KindFacts(Permission.RECEIVER_READ, "ReceiverDeleted", "a receiver was deleted"),
    Kind.GROUP_CREATED: KindFacts(Permission.GROUP_READ, "GroupCreated", "a group was created"),
    Kind.GROUP_UPDATED: KindFacts(
        Permission.GROUP_READ, "GroupUpdated", "a group's fields or members were changed, or it was enabled or disabled"
    ),
    Kind.GROUP_DELETED: KindFacts(Permission.GROUP_READ, "GroupDeleted", "a group was deleted"),
    Kind.GATE_COMPLETED: KindFacts(
        Permission.EVENT_READ, "GateCompleted", "after a passing event, every member of a group has passed"
    ),
    Kind.GATE_REGRESSED: KindFacts(
        Permission.EVENT_READ, "GateRegressed", "a failing event made a complete gate incomplete"
    ),
}
_KIND_OF = {facts.graphql_type: kind for kind, facts in KINDS.items()}
