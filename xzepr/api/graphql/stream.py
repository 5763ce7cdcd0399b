"""The stream in the schema: an interface for its messages, a type for each kind, and who follows or polls it."""

from collections.abc import AsyncGenerator, Callable, Hashable
from datetime import datetime

import orjson
import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.events import Event, UnitInput
from xzepr.api.graphql.groups import EventReceiverGroup
from xzepr.api.graphql.permissions import Requires, SignedIn
from xzepr.api.graphql.receivers import EventReceiver
from xzepr.api.graphql_server.resolvers import SHAPE
from xzepr.core.actor import ActorKind
from xzepr.features.groups import rules as group_rules
from xzepr.features.receivers import rules as receiver_rules
from xzepr.features.stream import model
from xzepr.features.stream.kinds import KINDS, Kind
from xzepr.features.subscriptions.service import follow

strawberry.enum(Kind, name="StreamKind", description="What a message says happened.")
strawberry.enum(ActorKind, name="ActorKind", description="How an actor came to be known.")


@strawberry.type(description="Who did it.")
class Actor:
    """The author of a message."""

    kind: ActorKind
    id: strawberry.ID
    name: str


@strawberry.interface(description="Whatever a stream sends: messages, and checkpoints between them.")
class StreamFrame:
    """One frame."""

    cursor: str = strawberry.field(description="Keep it: `after` it, the stream goes on without a gap or a repeat.")
    time: datetime


@strawberry.type(description="You have seen everything up to here. Comes first, and in silence.")
class Checkpoint(StreamFrame):
    """A cursor without a message."""


@strawberry.interface(description="One entry of the stream.")
class StreamMessage(StreamFrame):
    """What all messages have."""

    id: strawberry.ID
    kind: Kind
    actor: Actor


@strawberry.interface(description="A message about a receiver, with the receiver as it was then.")
class ReceiverMessage(StreamMessage):
    """Made from the snapshot in the message."""

    event_receiver: EventReceiver


@strawberry.interface(description="A message about a group, with the group as it was then.")
class GroupMessage(StreamMessage):
    """Made from the snapshot in the message."""

    event_receiver_group: EventReceiverGroup


@strawberry.interface(description="What an event did to a gate, with the group as it was then.")
class GateMessage(StreamMessage):
    """Made from the snapshot in the message and its event."""

    event_receiver_group: EventReceiverGroup
    event: Event
    transition: bool = strawberry.field(
        description="The gate was not so just before, or had not been judged for this unit since the group changed."
    )
    since: datetime | None = strawberry.field(description="Since when it is complete.")


def _kind(kind: Kind) -> Callable[[type], type]:
    facts = KINDS[kind]
    directives = [Requires(permission=facts.permission.value)]
    return strawberry.type(
        name=facts.graphql_type, description=f"{kind.value}: {facts.meaning}.", directives=directives
    )


@_kind(Kind.EVENT_RECORDED)
class EventRecorded(StreamMessage):
    """An event was recorded."""

    event: Event


@_kind(Kind.RECEIVER_CREATED)
class ReceiverCreated(ReceiverMessage):
    """A receiver was created."""


@_kind(Kind.RECEIVER_UPDATED)
class ReceiverUpdated(ReceiverMessage):
    """A receiver was changed."""


@_kind(Kind.RECEIVER_DELETED)
class ReceiverDeleted(ReceiverMessage):
    """A receiver was deleted."""


@_kind(Kind.GROUP_CREATED)
class GroupCreated(GroupMessage):
    """A group was created."""


@_kind(Kind.GROUP_UPDATED)
class GroupUpdated(GroupMessage):
    """A group was changed."""


@_kind(Kind.GROUP_DELETED)
class GroupDeleted(GroupMessage):
    """A group was deleted."""


@_kind(Kind.GATE_COMPLETED)
class GateCompleted(GateMessage):
    """A gate is complete."""


@_kind(Kind.GATE_REGRESSED)
class GateRegressed(GateMessage):
    """A gate is complete no longer."""


TYPES: dict[Kind, type[StreamMessage]] = {
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


def frame_of(said: model.Message | model.Checkpoint) -> StreamFrame:
    """The frame that tells a message or a checkpoint."""
    if isinstance(said, model.Checkpoint):
        return Checkpoint(cursor=str(said.cursor), time=said.time)
    return TYPES[said.kind](
        cursor=str(said.cursor),
        time=said.time,
        id=strawberry.ID(said.id),
        kind=said.kind,
        actor=Actor(kind=said.actor_kind, id=strawberry.ID(said.actor_id), name=said.actor_name),
        **_content(said),
    )


def _content(message: model.Message) -> dict[str, object]:
    data = message.data or b"{}"
    if message.kind is Kind.EVENT_RECORDED:
        return {"event": message.event}
    if message.kind in (Kind.GATE_COMPLETED, Kind.GATE_REGRESSED):
        said = orjson.loads(data)
        since = said["since"]
        return {
            "event": message.event,
            "event_receiver_group": group_rules.from_snapshot(said["eventReceiverGroup"]),
            "transition": said["transition"],
            "since": None if since is None else datetime.fromisoformat(since),
        }
    if message.receiver_id is not None:
        return {"event_receiver": receiver_rules.from_snapshot(orjson.loads(data))}
    return {"event_receiver_group": group_rules.from_snapshot(orjson.loads(data))}


@strawberry.input(description="Every given field must match; null asks for nothing.")
class StreamFilterInput:
    """Which messages somebody wants. Fields of the unit, and success, are those of the message's event."""

    event_receiver_ids: list[strawberry.ID] | None = None
    event_receiver_group_ids: list[strawberry.ID] | None = None
    unit: UnitInput | None = None
    name: str | None = None
    version: str | None = None
    release: str | None = None
    platform_id: str | None = None
    package: str | None = None
    success: bool | None = None


def _wanted(kinds: list[Kind] | None, filter: StreamFilterInput | None) -> model.StreamFilter:
    asked = frozenset(Kind) if kinds is None else frozenset(kinds)
    if filter is None:
        return model.StreamFilter(kinds=asked)
    return model.StreamFilter(
        kinds=asked,
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
    """For those who poll."""

    messages: list[StreamMessage]
    cursor: str = strawberry.field(description="Ask with it next; it has also seen what the filter left out.")
    has_next: bool


@strawberry.type
class StreamQueries:
    """Root fields that read the stream."""

    @strawberry.field(
        description="Messages after a cursor (null: from the oldest there is), oldest first. Kinds that the caller may "
        "not read are left out.",
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
        page, seen = await info.context.hub.stream.page(info.context.actor, cursor, _wanted(kinds, filter), first)
        messages = [frame for message in page.items if isinstance(frame := frame_of(message), StreamMessage)]
        return StreamPage(messages=messages, cursor=str(seen), has_next=page.has_next)


def shared_key(event: object) -> Hashable | None:
    """Returns the key of the response that all subscribers of a message share; None for a checkpoint."""
    return event.cursor if isinstance(event, model.Message) else None


@strawberry.type
class StreamSubscription:
    """The one subscription."""

    @strawberry.subscription(
        graphql_type=StreamFrame,
        metadata={SHAPE: frame_of},
        description="Every message after a cursor, then live, without a gap or a repeat. No cursor means from now: the "
        "first frame, a Checkpoint, says where that is. Kinds that the caller may not read are left out.",
        directives=[SignedIn()],
    )
    @staticmethod
    async def stream(
        info: Info,
        after: str | None = None,
        kinds: list[Kind] | None = None,
        filter: StreamFilterInput | None = None,
    ) -> AsyncGenerator[model.Message | model.Checkpoint, None]:
        context = info.context
        resume = context.last_event_id or after
        cursor = None if resume is None else model.Cursor.parse(resume)
        hub = context.hub
        async for said in follow(
            hub.stream,
            hub.feed,
            context.actor,
            cursor,
            _wanted(kinds, filter),
            checkpoint_seconds=hub.settings.stream.checkpoint_seconds,
        ):
            yield said
