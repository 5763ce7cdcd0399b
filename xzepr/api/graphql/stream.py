"""The stream in the schema: the polling query and the subscription."""

from collections.abc import AsyncIterator, Hashable

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.events import UnitInput
from xzepr.api.graphql.messages import StreamFrame, StreamMessage, frame_of
from xzepr.api.graphql.permissions import SignedIn
from xzepr.api.graphql_server.plans.resolvers import RESOLVE_ITEM
from xzepr.features.stream import model
from xzepr.features.stream.kinds import Kind
from xzepr.features.subscriptions.service import follow


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
