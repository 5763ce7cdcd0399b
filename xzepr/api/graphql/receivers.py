"""Event receivers in the schema."""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from xzepr.api.graphql.context import Info
from xzepr.api.graphql.events import Event
from xzepr.api.graphql.paging import Connection, Listed, page_request, to_connection
from xzepr.api.graphql.permissions import requires
from xzepr.api.graphql.scalars import JSON
from xzepr.core.actor import Permission
from xzepr.core.paging import NOTHING
from xzepr.features.groups.model import Group
from xzepr.features.receivers.model import NewReceiver, Receiver, ReceiverChange, ReceiverFilter
from xzepr.features.stream import model as stream

if TYPE_CHECKING:
    from xzepr.api.graphql.groups import EventReceiverGroup

EventReceiverGroupType = Annotated["EventReceiverGroup", strawberry.lazy("xzepr.api.graphql.groups")]


@strawberry.type(description="A kind of event, with the JSON Schema that its payloads must meet.")
class EventReceiver:
    """Resolved from `receivers.model.Receiver`."""

    id: strawberry.ID
    name: str
    type: str
    version: str
    description: str
    schema: JSON = strawberry.field(description="JSON Schema; draft 2020-12 unless it names another.")
    schema_digest: str = strawberry.field(description="SHA-256 of the schema's compact text.")
    revision: int = strawberry.field(description="Counts the changes of the schema.")
    fingerprint: str = strawberry.field(description="SHA-256 of type, description, name and version.")
    enabled: bool = strawberry.field(description="A disabled receiver refuses events.")
    owner_id: strawberry.ID
    resource_version: int = strawberry.field(description="Counts all changes; what expectedVersion guards.")
    created_at: datetime
    updated_at: datetime

    @strawberry.field(
        graphql_type=list[EventReceiverGroupType] | None,
        description="The groups that it is a member of, enabled or not.",
        directives=requires(Permission.GROUP_READ),
    )
    @staticmethod
    async def groups(root: strawberry.Parent[Receiver], info: Info) -> list[Group]:
        return await info.context.loaders.groups_of_receiver.load(root.id) or []

    @strawberry.field(
        graphql_type=Connection[Event] | None,
        description="Its events, newest first.",
        directives=requires(Permission.EVENT_READ),
    )
    @staticmethod
    async def events(
        root: strawberry.Parent[Receiver], info: Info, first: int = 50, after: str | None = None
    ) -> Listed[stream.Event]:
        request = page_request(first, after)
        page = await info.context.loaders.events_of_receiver.load((root.id, request))
        return to_connection(page or NOTHING, lambda event: event.position, request)


@strawberry.input(description="Every given field must be equal; null asks for nothing.")
class EventReceiverFilterInput:
    """Which receivers a list shows."""

    name: str | None = None
    type: str | None = None
    version: str | None = None


@strawberry.input
class CreateEventReceiverInput:
    """A new receiver."""

    name: str
    type: str
    version: str
    description: str
    schema: JSON
    enabled: bool = True


@strawberry.input
class UpdateEventReceiverInput:
    """What is to be changed; what is left out stays as it is."""

    id: strawberry.ID
    name: str | None = None
    type: str | None = None
    version: str | None = None
    description: str | None = None
    schema: JSON | None = strawberry.UNSET
    enabled: bool | None = None
    expected_version: int | None = strawberry.field(
        default=None, description="Refuse with CONFLICT unless the receiver's resourceVersion is this."
    )


@strawberry.input
class DeleteEventReceiverInput:
    """A receiver to be deleted: only one that no event and no group refers to."""

    id: strawberry.ID
    expected_version: int | None = None


@strawberry.type
class EventReceiverPayload:
    """The receiver as it is after the mutation; after a deletion, as it was before."""

    event_receiver: EventReceiver


@strawberry.type
class ReceiverQueries:
    """Root fields about receivers."""

    @strawberry.field(graphql_type=EventReceiver | None, directives=requires(Permission.RECEIVER_READ))
    @staticmethod
    async def event_receiver(info: Info, id: strawberry.ID) -> Receiver:
        return await info.context.hub.receivers.get(info.context.actor, id)

    @strawberry.field(graphql_type=Connection[EventReceiver] | None, directives=requires(Permission.RECEIVER_READ))
    @staticmethod
    async def event_receivers(
        info: Info, filter: EventReceiverFilterInput | None = None, first: int = 50, after: str | None = None
    ) -> Listed[Receiver]:
        wanted = ReceiverFilter() if filter is None else ReceiverFilter(filter.name, filter.type, filter.version)
        request = page_request(first, after)
        page = await info.context.hub.receivers.page(info.context.actor, wanted, request)
        return to_connection(page, lambda receiver: receiver.position, request)


@strawberry.type
class ReceiverMutations:
    """Root fields that change receivers."""

    @strawberry.mutation(directives=requires(Permission.RECEIVER_CREATE))
    @staticmethod
    async def create_event_receiver(info: Info, input: CreateEventReceiverInput) -> EventReceiverPayload | None:
        new = NewReceiver(
            name=input.name,
            type=input.type,
            version=input.version,
            description=input.description,
            schema=input.schema,
            enabled=input.enabled,
        )
        return _payload(await info.context.hub.receivers.create(info.context.actor, new))

    @strawberry.mutation(directives=requires(Permission.RECEIVER_UPDATE))
    @staticmethod
    async def update_event_receiver(info: Info, input: UpdateEventReceiverInput) -> EventReceiverPayload | None:
        change = ReceiverChange(
            name=input.name,
            type=input.type,
            version=input.version,
            description=input.description,
            enabled=input.enabled,
        )
        if input.schema is not strawberry.UNSET:
            change = replace(change, schema=input.schema)
        receivers = info.context.hub.receivers
        return _payload(await receivers.update(info.context.actor, input.id, change, input.expected_version))

    @strawberry.mutation(directives=requires(Permission.RECEIVER_DELETE))
    @staticmethod
    async def delete_event_receiver(info: Info, input: DeleteEventReceiverInput) -> EventReceiverPayload | None:
        receivers = info.context.hub.receivers
        return _payload(await receivers.delete(info.context.actor, input.id, input.expected_version))


def _payload(receiver: Receiver) -> EventReceiverPayload:
    return EventReceiverPayload(event_receiver=receiver)  # pyright: ignore[reportArgumentType] resolved from Receiver
