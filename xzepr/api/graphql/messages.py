"""Messages of the stream in the schema: a type for each kind."""

from collections.abc import Callable
from datetime import datetime

import orjson
import strawberry

from xzepr.api.graphql.events import Event
from xzepr.api.graphql.permissions import Requires, guard, requires
from xzepr.api.graphql.snapshots import EventReceiverGroupSnapshot, EventReceiverSnapshot
from xzepr.core.actor import ActorKind, Permission
from xzepr.features.groups import rules as group_rules
from xzepr.features.receivers import rules as receiver_rules
from xzepr.features.stream import model
from xzepr.features.stream.kinds import KINDS, Kind

strawberry.enum(Kind, name="StreamKind", description="The kind of a message: what happened.")
strawberry.enum(ActorKind, name="ActorKind", description="How an actor was authenticated. SYSTEM is the hub itself.")


@strawberry.type(description="The author of a message: a user, an API key, or the hub itself.")
class Actor:
    """The author of a message."""

    kind: ActorKind = strawberry.field(description="How the author was authenticated.")
    user_id: strawberry.ID = strawberry.field(description="The id of the user, also for an API key.")
    name: str = strawberry.field(description="The name of the user or of the key at that time.")


@strawberry.interface(description="An item that the subscription sends: a message or a checkpoint.")
class StreamFrame:
    """The fields that messages and checkpoints share."""

    cursor: str = strawberry.field(
        description="Store this cursor: with it as `after`, the stream resumes without a gap or a repeat."
    )
    time: datetime


@strawberry.type(
    description="You have received everything up to this cursor. Sent first, and again whenever the stream is idle."
)
class Checkpoint(StreamFrame):
    """A cursor without a message."""


@strawberry.interface(description="A message of the stream.")
class StreamMessage(StreamFrame):
    """The fields that all messages share."""

    id: strawberry.ID
    kind: Kind
    actor: Actor


@strawberry.interface(description="A message about a receiver, with the receiver as it was at that time.")
class ReceiverMessage(StreamMessage):
    """Built from the snapshot in the message."""

    event_receiver_id: strawberry.ID = strawberry.field(description="The id of the receiver.")
    event_receiver: EventReceiverSnapshot | None = strawberry.field(
        description="The receiver as it was after the change, or before it was deleted.",
        directives=requires(Permission.RECEIVER_READ),
        metadata=guard(Permission.RECEIVER_READ),
    )


@strawberry.interface(description="A message about a group, with the group as it was at that time.")
class GroupMessage(StreamMessage):
    """Built from the snapshot in the message."""

    event_receiver_group_id: strawberry.ID = strawberry.field(description="The id of the group.")
    event_receiver_group: EventReceiverGroupSnapshot | None = strawberry.field(
        description="The group as it was after the change, or before it was deleted.",
        directives=requires(Permission.GROUP_READ),
        metadata=guard(Permission.GROUP_READ),
    )


@strawberry.interface(description="An event's effect on a gate, with the group as it was at that time.")
class GateMessage(StreamMessage):
    """Built from the snapshot in the message and its event."""

    event_receiver_group_id: strawberry.ID = strawberry.field(description="The id of the group.")
    event_receiver_group: EventReceiverGroupSnapshot | None = strawberry.field(
        description="The group as it was when the event was recorded.",
        directives=requires(Permission.GROUP_READ),
        metadata=guard(Permission.GROUP_READ),
    )
    event: Event
    transition: bool = strawberry.field(
        description="True if this event made the gate complete or incomplete, or is the first one for the unit since "
        "the group changed."
    )
    since: datetime | None = strawberry.field(description="Since when the gate is complete; null if it is incomplete.")


def _message_type(kind: Kind) -> Callable[[type], type]:
    facts = KINDS[kind]
    directives = [Requires(permission=facts.permission.value)]
    return strawberry.type(
        name=facts.graphql_type, description=f"{kind.value}: {facts.meaning}.", directives=directives
    )


@_message_type(Kind.EVENT_RECORDED)
class EventRecorded(StreamMessage):
    """An event was recorded."""

    event: Event


@_message_type(Kind.RECEIVER_CREATED)
class ReceiverCreated(ReceiverMessage):
    """A receiver was created."""


@_message_type(Kind.RECEIVER_UPDATED)
class ReceiverUpdated(ReceiverMessage):
    """A receiver was changed."""


@_message_type(Kind.RECEIVER_DELETED)
class ReceiverDeleted(ReceiverMessage):
    """A receiver was deleted."""


@_message_type(Kind.GROUP_CREATED)
class GroupCreated(GroupMessage):
    """A group was created."""


@_message_type(Kind.GROUP_UPDATED)
class GroupUpdated(GroupMessage):
    """A group was changed."""


@_message_type(Kind.GROUP_DELETED)
class GroupDeleted(GroupMessage):
    """A group was deleted."""


@_message_type(Kind.GATE_COMPLETED)
class GateCompleted(GateMessage):
    """A gate is complete after a passing event."""


@_message_type(Kind.GATE_REGRESSED)
class GateRegressed(GateMessage):
    """A failing event made a complete gate incomplete."""


MESSAGE_TYPES: dict[Kind, type[StreamMessage]] = {
    Kind.EVENT_RECORDED: EventRecorded,
    Kind.RECEIVER_CREATED: ReceiverCreated,
    Kind.RECEIVER_UPDATED: ReceiverUpdated,
    Kind.RECEIVER_DELETED: ReceiverDeleted,
    Kind.GROUP_CREATED: GroupCreated,
    Kind.GROUP_UPDATED: GroupUpdated,
    Kind.GROUP_DELETED: GroupDeleted,
    Kind.GATE_COMPLETED: GateCompleted,
    Kind.GATE_REGRESSED: GateRegressed,
}


def frame_of(item: model.Message | model.Checkpoint) -> StreamFrame:
    """Returns the frame for a message or a checkpoint."""
    if isinstance(item, model.Checkpoint):
        return Checkpoint(cursor=str(item.cursor), time=item.time)
    return MESSAGE_TYPES[item.kind](
        cursor=str(item.cursor),
        time=item.time,
        id=strawberry.ID(item.id),
        kind=item.kind,
        actor=Actor(kind=item.actor_kind, user_id=strawberry.ID(item.actor_id), name=item.actor_name),
        **_content(item),
    )


def _content(message: model.Message) -> dict[str, object]:
    data = message.data or b"{}"
    if message.kind is Kind.EVENT_RECORDED:
        return {"event": message.event}
    if message.kind in (Kind.GATE_COMPLETED, Kind.GATE_REGRESSED):
        snapshot = orjson.loads(data)
        since = snapshot["since"]
        return {
            "event": message.event,
            "event_receiver_group_id": message.group_id,
            "event_receiver_group": group_rules.from_snapshot(snapshot["eventReceiverGroup"]),
            "transition": snapshot["transition"],
            "since": None if since is None else datetime.fromisoformat(since),
        }
    if message.receiver_id is not None:
        receiver = receiver_rules.from_snapshot(orjson.loads(data))
        return {"event_receiver_id": message.receiver_id, "event_receiver": receiver}
    group = group_rules.from_snapshot(orjson.loads(data))
    return {"event_receiver_group_id": message.group_id, "event_receiver_group": group}
