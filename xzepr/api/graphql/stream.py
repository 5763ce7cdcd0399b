"""The stream in the schema: a type for each kind of message, the polling query, and the subscription."""

from collections.abc import AsyncIterator, Callable, Hashable
from datetime import datetime

import orjson
import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.events import Event, UnitInput
from xzepr.api.graphql.groups import EventReceiverGroup
from xzepr.api.graphql.permissions import Requires, SignedIn
from xzepr.api.graphql.receivers import EventReceiver
from xzepr.api.graphql_server.plans.resolvers import RESOLVE_ITEM
from xzepr.core.actor import ActorKind
from xzepr.features.groups import rules as group_rules
from xzepr.features.receivers import rules as receiver_rules
from xzepr.features.stream import model
from xzepr.features.stream.kinds import KINDS, Kind
from xzepr.features.subscriptions.service import follow

strawberry.enum(Kind, name="StreamKind", description="The kind of a message: what happened.")
strawberry.enum(ActorKind, name="ActorKind", description="How an actor was authenticated. SYSTEM is the hub itself.")


@strawberry.type(description="The author of a message: a user, an API key, or the hub itself.")
class Actor:
    """The author of a message."""

    kind: ActorKind
    id: strawberry.ID = strawberry.field(description="The id of the user, also for an API key.")
    name: str


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

    event_receiver: EventReceiver


@strawberry.interface(description="A message about a group, with the group as it was at that time.")
class GroupMessage(StreamMessage):
    """Built from the snapshot in the message."""

    event_receiver_group: EventReceiverGroup


@strawberry.interface(description="An event's effect on a gate, with the group as it was at that time.")
class GateMessage(StreamMessage):
    """Built from the snapshot in the message and its event."""

    event_receiver_group: EventReceiverGroup
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
        actor=Actor(kind=item.actor_kind, id=strawberry.ID(item.actor_id), name=item.actor_name),
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
            "event_receiver_group": group_rules.from_snapshot(snapshot["eventReceiverGroup"]),
            "transition": snapshot["transition"],
            "since": None if since is None else datetime.fromisoformat(since),
        }
    if message.receiver_id is not None:
        return {"event_receiver": receiver_rules.from_snapshot(orjson.loads(data))}
    return {"event_receiver_group": group_rules.from_snapshot(orjson.loads(data))}


@strawberry.input(description="Every field that is set must match; null matches anything.")
class StreamFilterInput:
    """The filter of messages. The fields of the unit and `success` are compared with the message's event."""

    event_receiver_ids: list[strawberry.ID] | None = None
    event_receiver_group_ids: list[strawberry.ID] | None = None
    unit: UnitInput | None = None
    name: str | None = None
    version: str | None = None
    release: str | None = None
    platform_id: str | None = None
    package: str | None = None
    success: bool | None = None


def _stream_filter(kinds: list[Kind] | None, filter: StreamFilterInput | None) -> model.StreamFilter:
    selected = frozenset(Kind) if kinds is None else frozenset(kinds)
    if filter is None:
        return model.StreamFilter(kinds=selected)
    return model.StreamFilter(
        kinds=selected,
        receiver_ids=None if filter.event_receiver_ids is None else frozenset(filter.event_receiver_ids),
        group_ids=None if filter.event_receiver_group_ids is None else frozenset(filter.event_receiver_group_ids),
        unit_id=None if filter.unit is None else filter.unit.unit().id,
        name=filter.name,
        version=filter.version,
        release=filter.release,
        platform_id=filter.platform_id,
        package=filter.package,
        success=filter.success,
    )


@strawberry.type(description="A page of the stream, oldest first.")
class StreamPage:
    """A page for clients that poll."""

    messages: list[StreamMessage]
    cursor: str = strawberry.field(
        description="Pass it as `after` to get the next page. It is also past messages that the filter left out."
    )
    has_next: bool = strawberry.field(
        description="Whether more messages may follow. A page examines at most 20,000 messages, so it may be empty."
    )


@strawberry.type
class StreamQueries:
    """Queries of the stream."""

    @strawberry.field(
        description="Messages after a cursor, oldest first; null starts with the oldest message. Kinds that the caller "
        "may not read are left out.",
        directives=[SignedIn()],
    )
    @staticmethod
    async def stream(
        info: Info,
        after: str | None = None,
        kinds: list[Kind] | None = None,
        filter: StreamFilterInput | None = None,
        first: int = 50,
    ) -> StreamPage | None:
        cursor = None if after is None else model.Cursor.parse(after)
        page, next_cursor = await info.context.hub.stream.page(
            info.context.actor, cursor, _stream_filter(kinds, filter), first
        )
        messages = [frame for message in page.items if isinstance(frame := frame_of(message), StreamMessage)]
        return StreamPage(messages=messages, cursor=str(next_cursor), has_next=page.has_next)


def shared_key(item: object) -> Hashable | None:
    """Returns the key of the response that all subscribers of a message share; None for a checkpoint."""
    return item.cursor if isinstance(item, model.Message) else None


@strawberry.type
class StreamSubscription:
    """The subscription to the stream."""

    @strawberry.subscription(
        graphql_type=StreamFrame,
        metadata={RESOLVE_ITEM: frame_of},
        description="Sends every message after a cursor, then new messages as they are committed, without a gap or a "
        "repeat. Without a cursor it starts now: the first frame is a Checkpoint with the current cursor. Kinds that "
        "the caller may not read are left out.",
        directives=[SignedIn()],
    )
    @staticmethod
    def stream(
        info: Info,
        after: str | None = None,
        kinds: list[Kind] | None = None,
        filter: StreamFilterInput | None = None,
    ) -> AsyncIterator[model.Message | model.Checkpoint]:
        context = info.context
        resume_after = context.last_event_id or after
        cursor = None if resume_after is None else model.Cursor.parse(resume_after)
        hub = context.hub
        return follow(
            hub.stream,
            hub.feed,
            context.actor,
            cursor,
            _stream_filter(kinds, filter),
            checkpoint_seconds=hub.settings.stream.checkpoint_seconds,
        )
